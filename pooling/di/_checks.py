"""The checks of a container before it starts."""

from __future__ import annotations

import inspect
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

from dependency_injector import errors

from ..binding import refuse_single
from ..errors import ConfigurationError
from ._captives import captives
from ._graph import reachable
from ._lookup import answers
from ._sources import PoolProvider
from .inject import Spec, specs

__all__ = ["check"]


def check(container: Any, injected: Iterable[Any]) -> None:
    """See `Container.check`."""
    findings = [
        *captives(container.providers),
        *_members(container),
        *_undefined(container),
        *_markers(container, injected),
    ]
    if findings:
        name = getattr(container.declarative_parent, "__name__", "the container")
        raise ConfigurationError(f"{name} cannot work:\n" + "\n".join(f"- {finding}" for finding in findings))


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
            if isinstance(marker.target, str) and not answers(container, marker.target, marker.owner):
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
