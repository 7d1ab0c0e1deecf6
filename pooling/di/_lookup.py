"""Finds the container for a call, and its provider: by key, or for a provider that its class declares."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dependency_injector import providers

from ..binding import is_provider
from ..context import RequestContext
from ..errors import ConfigurationError

__all__ = [
    "answers",
    "container_for",
    "counterpart",
    "declare",
    "enlist",
    "name_of",
    "provider_under",
    "the_running",
    "withdraw",
]

# --- containers of this process --------------------------------------------------------------------------------------

_running: list[weakref.ref[Any]] = []
_classes: weakref.WeakKeyDictionary[type, None] = weakref.WeakKeyDictionary()  # in the order of their definition


def enlist(container: Any) -> None:
    """Add a container to the running ones."""
    _running.append(weakref.ref(container))


def withdraw(container: Any) -> None:
    """Remove a container from the running ones."""
    _running[:] = [ref for ref in _running if ref() is not None and ref() is not container]


def declare(kind: type) -> None:
    """Record a container class."""
    _classes[kind] = None


def name_of(container: Any) -> str:
    """The name of a container in messages."""
    kind = container.declarative_parent
    return kind.__name__ if kind is not None else type(container).__name__


def the_running(kind: Any = None) -> Any:
    """
    The one running container, of this class if one is given.

    Raises:
        ConfigurationError: No such container is running, or several are.
    """
    found = [c for c in _all_running() if kind is None or issubclass(c.declarative_parent or object, kind)]
    if len(found) == 1:
        return found[0]
    wanted = "container" if kind is None else f"container {kind.__name__}"
    raise ConfigurationError(
        f"{len(found) or 'no'} {wanted}{'s are' if len(found) > 1 else ' is'} running; "
        + ("say which is meant" if found else "start it first, with app.start() or `with app.running():`"),
        field="container",
    )


def container_for(target: Any, owner: Any, where: str) -> Any:
    """
    The container that `target` refers to, or `None` for a provider that belongs to no container class.

    Raises:
        ConfigurationError: No container that has the target is in use here, or several are.
    """
    for container in _containers_of_call():
        if answers(container, target, owner):
            return container
    found = [container for container in _all_running() if answers(container, target, owner)]
    if len(found) == 1:
        return found[0]
    name = repr(target) if isinstance(target, str) else _declared_name(target)
    if found:
        raise ConfigurationError(
            f"{where}: {len(found)} running containers have {name}; open a request on the one that is meant: "
            "with app.request(): ...",
            field="container",
        )
    if is_provider(target) and _declaring_class(target) is None:
        return None
    earlier = _earlier_definition(target)
    if earlier is not None:
        raise ConfigurationError(
            f"{where}: {name} is of a class that was defined again after {name_of(earlier)} was started, as Streamlit "
            "and notebooks do when they run the code again. Define the class in a module that is imported, or keep "
            "class and container over the runs (st.cache_resource).",
            field="container",
        )
    raise ConfigurationError(
        f"{where}: no container that has {name} is in use here; start one (app.start(), `with app.running():`) or "
        "open a request on it (`with app.request():`). A web app is given its container by the `install` or the "
        "middleware of pooling.web, such as pooling.web.fastapi.install(app, container).",
        field="container",
    )


def answers(container: Any, target: Any, owner: Any = None) -> bool:
    """Whether a marker for this provider or key refers to this container."""
    kind = container.declarative_parent
    if owner is not None and not (owner is container or (isinstance(owner, type) and issubclass(kind, owner))):
        return False
    if isinstance(target, str):
        return provider_under(container, target) is not None
    return any(_comes_from(target, getattr(base, "providers", None)) for base in kind.__mro__)


def _all_running() -> list[Any]:
    """The running containers, oldest first."""
    return [container for ref in _running if (container := ref()) is not None]


def _containers_of_call() -> Iterator[Any]:
    """Containers of the current request and those around it, innermost first."""
    ctx = RequestContext.current()
    last = None
    while ctx is not None:
        if ctx.container is not None and ctx.container is not last:
            last = ctx.container
            yield last
        ctx = ctx.parent


def _declaring_class(provider: Any) -> Any:
    """The container class a provider was declared in, or `None`."""
    return next((kind for kind in list(_classes) if _comes_from(provider, getattr(kind, "cls_providers", None))), None)


def _earlier_definition(target: Any) -> Any:
    """The running container whose class was defined in the place of the target's, or `None`."""
    kind = _declaring_class(target) if is_provider(target) else None
    if kind is None:
        return None
    place = (kind.__module__, kind.__qualname__)
    found = ((getattr(c.declarative_parent, "__module__", ""), name_of(c), c) for c in _all_running())
    return next((c for module, name, c in found if (module, name) == (place[0], place[1].rpartition(".")[2])), None)


def _declared_name(provider: Any) -> str:
    kind = _declaring_class(provider)
    if kind is not None:
        for name, own in kind.providers.items():
            if own is provider:
                return f"{kind.__name__}.{name}"
    return f"{type(provider).__name__} at {id(provider):#x}"


# --- providers of a container ----------------------------------------------------------------------------------------


def provider_under(container: Any, key: str) -> Any:
    """The provider under a dotted key, or `None`."""
    found = container.providers.get(key)
    if found is not None:
        return found
    # The longest bound key that this one begins with, then the rest inside it: a nested container's, an option's.
    head, _, rest = key.rpartition(".")
    tails = [rest]
    while head:
        found = container.providers.get(head)
        if found is not None:
            for name in reversed(tails):
                found = _inside(found, name)
                if found is None:
                    return None
            return found
        head, _, rest = head.rpartition(".")
        tails.append(rest)
    return None


def counterpart(container: Any, target: Any) -> Any:
    """The container's copy of a provider of its class, or of an expression of such."""
    copies: dict[int, Any] = {}  # by the id of the declared provider
    for kind in container.declarative_parent.__mro__:
        for declared, own in _pairs(getattr(kind, "providers", None) or {}, container.providers):
            copies.setdefault(id(declared), own)
    found = copies.get(id(target))
    # An expression of declared providers, such as App.repo.provided.name, is copied with their copies in place.
    return providers.deepcopy(target, copies) if found is None else found


def _comes_from(provider: Any, declared: Mapping[str, Any] | None) -> bool:
    """Whether it is one of these providers, is derived from one, or is an option of a configuration among them."""
    parts = {provider, *provider.traverse()}
    return any(
        p in parts or (isinstance(p, providers.Configuration) and not parts.isdisjoint(p.traverse()))
        for p, _ in _pairs(declared or {}, {})
    )


def _pairs(declared: Mapping[str, Any], own: Mapping[str, Any]) -> Iterable[tuple[Any, Any]]:
    """Providers of the same name, through nested containers."""
    for name, provider in declared.items():
        copy = own.get(name)
        yield provider, copy
        if isinstance(provider, providers.Container | providers.DependenciesContainer):
            yield from _pairs(_providers_of(provider), _providers_of(copy))


def _inside(provider: Any, name: str) -> Any:
    if isinstance(provider, providers.Configuration | providers.ConfigurationOption):
        return getattr(provider, name)
    return _providers_of(provider).get(name)


def _providers_of(nested: Any) -> Mapping[str, Any]:
    found = getattr(nested, "providers", None)
    return found if isinstance(found, Mapping) else {}
