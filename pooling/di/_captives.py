"""Finds providers that would keep a request's value beyond its request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dependency_injector import containers, providers

from ..errors import ConfigurationError
from ._graph import effective, path_to_pooled, reachable
from ._scopes import PerContainer

__all__ = ["captives", "refuse_captors"]


def captives(members: Mapping[str, Any], pooled: Any = None) -> Iterator[str]:
    """
    What is wrong with the providers that outlive requests and depend on a pooled value.

    Args:
        members: The providers of a container, by name.
        pooled: Only those that depend on this one, if it is not `None`.
    """
    names = _names(members)
    for provider in reachable(members.values()):
        if not isinstance(provider, providers.BaseSingleton | providers.Resource | PerContainer):
            continue
        path = path_to_pooled(provider)
        if path and (pooled is None or path[-1] is pooled):
            route = " -> ".join(_called(step, names) for step in path)
            yield (
                f"{_called(provider, names)} lives longer than a request and would keep a value that is given back at "
                f"its end: {route}. Make it a providers.Factory, or give it the pooled provider itself "
                f"({_called(path[-1], names)}.provider) to ask when it needs the value."
            )


def refuse_captors(pooled: Any) -> None:
    """
    Check the container classes of dependency-injector that declare a pooled provider; they have no start that does.

    Raises:
        ConfigurationError: A provider in one of them would keep the value.
    """
    for kind in _classes(containers.DeclarativeContainer):
        for finding in captives(kind.providers, pooled) if _is_plain(kind) else ():
            raise ConfigurationError(f"{kind.__name__} cannot work: {finding}")


def _is_plain(kind: Any) -> bool:
    """Whether its containers are those of the library, not of this package, which check themselves at start."""
    return not hasattr(kind.instance_type, "running")


def _classes(kind: Any) -> Iterator[Any]:
    for derived in kind.__subclasses__():
        yield derived
        yield from _classes(derived)


def _names(members: Mapping[str, Any]) -> dict[Any, str]:
    names: dict[Any, str] = {}
    for name, provider in members.items():
        names.setdefault(provider, name)
        names.setdefault(effective(provider), name)
    return names


def _called(provider: Any, names: dict[Any, str]) -> str:
    name = names.get(provider) or names.get(effective(provider))
    kind = type(effective(provider)).__name__
    return f"{name} ({kind})" if name else kind
