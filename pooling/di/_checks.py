"""The checks of a container before it starts."""

from __future__ import annotations

import inspect
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

from dependency_injector import errors, providers

from ..binding import refuse_single
from ..errors import ConfigurationError
from ._plan import effective, path_to_pooled, reachable
from ._scopes import PerContainer, PerRequest
from ._sources import PoolProvider
from .inject import Spec, specs

__all__ = ["check"]


def check(container: Any, injected: Iterable[Any]) -> None:
    """See `Container.check`."""
    findings = [
        *_captive(container),
        *_members(container),
        *_undefined(container),
        *_markers(container, injected),
    ]
    if findings:
        name = getattr(container.declarative_parent, "__name__", "the container")
        raise ConfigurationError(f"{name} cannot work:\n" + "\n".join(f"- {finding}" for finding in findings))


def _captive(container: Any) -> Iterator[str]:
    """An object that outlives requests must not hold a pooled value."""
    names = _names(container)
    for provider in reachable(container.providers.values()):
        if not isinstance(provider, providers.BaseSingleton | providers.Resource | PerContainer):
            continue
        path = path_to_pooled(provider)
        if path:
            route = " -> ".join(_called(step, names) for step in path)
            yield (
                f"{_called(provider, names)} lives longer than a request and would keep a value that is given back at "
                f"its end: {route}. Make it a providers.Factory, or give it the pooled provider itself "
                f"({_called(path[-1], names)}.provider) to ask when it needs the value."
            )


def _members(container: Any) -> Iterator[str]:
    """The resources of a pool come from a binding that exists and returns a new object each time."""
    for provider in reachable(container.providers.values()):
        if not isinstance(provider, PoolProvider):
            continue
        try:
            members = provider.members()
            if members is not None:
                refuse_single(members, f"of the members of pool {provider.label!r}")
        except ConfigurationError as error:
            yield str(error)


def _undefined(container: Any) -> Iterator[str]:
    try:
        container.check_dependencies()
    except errors.Error as error:
        yield str(error)


def _markers(container: Any, injected: Iterable[Any]) -> Iterator[str]:
    config = container.wiring_config
    modules = {_module(given) for given in (*config.modules, *_inside(config.packages))}
    modules |= {given.__name__ for given in injected if isinstance(given, ModuleType)}
    functions = [given.__injected__ for given in injected if hasattr(given, "__injected__")]
    kind = container.declarative_parent
    for spec in dict.fromkeys((*functions, *list(specs))):
        for name, (_, marker) in spec.markers.items():
            is_ours = marker.owner is not None and isinstance(marker.owner, type) and issubclass(kind, marker.owner)
            if not (is_ours or spec in functions or spec.function.__module__ in modules):
                continue
            if isinstance(marker.target, str) and not container.answers(marker.target, marker.owner):
                yield f"{_place(spec)}: nothing is bound under the key {marker.target!r} that {name} asks for"


def _place(spec: Spec) -> str:
    function = inspect.unwrap(spec.function)
    return f"{function.__module__}.{function.__qualname__}"


def _module(given: Any) -> str:
    return given if isinstance(given, str) else str(given.__name__)


def _inside(packages: Iterable[Any]) -> Iterator[str]:
    for package in packages:
        module = import_module(package) if isinstance(package, str) else package
        yield module.__name__
        for found in pkgutil.walk_packages(getattr(module, "__path__", ()), module.__name__ + "."):
            if found.name in sys.modules:
                yield found.name


def _names(container: Any) -> dict[Any, str]:
    names: dict[Any, str] = {}
    for name, provider in container.providers.items():
        names.setdefault(provider, name)
        names.setdefault(effective(provider), name)
    return names


def _called(provider: Any, names: dict[Any, str]) -> str:
    name = names.get(provider) or names.get(effective(provider))
    kind = type(effective(provider)).__name__
    if isinstance(effective(provider), PerRequest):
        kind = "Pooled"
    return f"{name} ({kind})" if name else kind
