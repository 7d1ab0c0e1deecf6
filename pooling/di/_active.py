"""Which containers are running in this process, and which of them answers a call."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

from ..binding import is_provider
from ..context import RequestContext
from ..errors import ConfigurationError

__all__ = ["container_for", "containers_of_call", "declaring_class", "enlist", "the_running", "withdraw"]

_running: list[weakref.ref[Any]] = []


def enlist(container: Any) -> None:
    """Count a container as running."""
    _running.append(weakref.ref(container))


def withdraw(container: Any) -> None:
    """Count it as running no more."""
    _running[:] = [ref for ref in _running if ref() is not None and ref() is not container]


def running() -> list[Any]:
    """The containers that run, oldest first."""
    return [container for ref in _running if (container := ref()) is not None]


def containers_of_call() -> Iterator[Any]:
    """Containers of the current request and those around it, innermost first."""
    ctx = RequestContext.current()
    last = None
    while ctx is not None:
        if ctx.container is not None and ctx.container is not last:
            last = ctx.container
            yield last
        ctx = ctx.parent


def container_for(target: Any, owner: Any, where: str) -> Any:
    """
    The container whose provider is meant, or `None` for a provider that belongs to no container class.

    Raises:
        ConfigurationError: No container that could answer is in use here, or several are.
    """
    for container in containers_of_call():
        if container.answers(target, owner):
            return container
    found = [container for container in running() if container.answers(target, owner)]
    if len(found) == 1:
        return found[0]
    name = repr(target) if isinstance(target, str) else _name_of(target)
    if found:
        raise ConfigurationError(
            f"{where}: {len(found)} running containers have {name}; open a request on the one that is meant: "
            "with app.request(): ...",
            field="container",
        )
    if is_provider(target) and declaring_class(target) is None:
        return None
    raise ConfigurationError(
        f"{where}: no container that has {name} is in use here; start one (app.start(), `with app.running():`) or "
        "open a "
        "request on it (`with app.request():`)",
        field="container",
    )


def the_running(kind: Any = None) -> Any:
    """
    The one container that runs, of this class if one is given.

    Raises:
        ConfigurationError: None does, or several do.
    """
    found = [c for c in running() if kind is None or issubclass(c.declarative_parent or object, kind)]
    if len(found) == 1:
        return found[0]
    wanted = "container" if kind is None else f"container {kind.__name__}"
    raise ConfigurationError(
        f"{len(found) or 'no'} {wanted}{'s are' if len(found) > 1 else ' is'} running; "
        + ("say which is meant" if found else "start it first, with app.start() or `with app.running():`"),
        field="container",
    )


def declaring_class(provider: Any) -> type | None:
    """The container class a provider was declared in, or `None`."""
    from .container import Container  # it needs this module

    def search(kind: Any) -> type | None:
        if kind.knows(provider):
            return kind  # type: ignore[no-any-return]
        return next((found for sub in kind.__subclasses__() if (found := search(sub)) is not None), None)

    return search(Container)


def _name_of(provider: Any) -> str:
    kind: Any = declaring_class(provider)
    if kind is not None:
        for name, own in kind.providers.items():
            if own is provider:
                return f"{kind.__name__}.{name}"
    return f"{type(provider).__name__} at {id(provider):#x}"
