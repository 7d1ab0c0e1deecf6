"""
Graphs of factories as plain functions.

Calling a `providers.Factory` makes dictionaries and looks for futures at each level, which costs more than the objects
that come of it. A graph whose every part is known to be synchronous is written out as one expression instead, such as
`Service(repo=Repo(user=user()))`, which makes the same objects in the same order.
"""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from dependency_injector import providers

from ..binding import is_provider
from ._factory import Factory
from ._kept import Kept
from ._slots import Pooled

if TYPE_CHECKING:
    from ..context import RequestContext

    Resolve = Callable[[RequestContext], Any]

__all__ = ["compiled"]


def compiled(
    root: Any, nodes: Sequence[Any], look_again: Resolve, plainly: Callable[[], Any]
) -> tuple[Callable[[], bool], Resolve]:
    """
    What `root()` does while nothing overrides any part of it; faster, if it can be.

    The factories' arguments are those of now.

    Args:
        root: A provider.
        nodes: All that take part in the call.
        look_again: What to do instead where something overrides one of the nodes.
        plainly: The call of the root, for where it cannot be faster.

    Returns:
        Whether nothing overrides a node; and what `root()` gives in a request, which is current.
    """
    names: dict[str, Any] = {"look_again": look_again}
    overriding = [f"{_named(node, names)}.last_overriding" for node in nodes]
    as_seen = " is ".join([*overriding, "None"])

    def guarded(code: str) -> Resolve:
        return _made(f"lambda ctx: {code} if {as_seen} else look_again(ctx)", names)  # type: ignore[no-any-return]

    try:
        if isinstance(root, Factory) and type(root) is not Factory:
            raise _Unknown  # a class of the user's, with a call of its own
        resolve = guarded(_expression(root, names))
    except (_Unknown, SyntaxError, RecursionError, MemoryError):  # the latter where it is nested too deep for Python
        resolve = guarded(f"{_named(plainly, names)}()")
    return _made(f"lambda: {as_seen}", names), resolve


class _Unknown(Exception):  # noqa: N818 - it says that the library's own way is to be taken
    """Whether this part is synchronous cannot be told without calling it."""


def _expression(provider: Any, names: dict[str, Any]) -> str:
    """Code that gives what the provider gives; `names` is what it refers to."""
    if isinstance(provider, Pooled):
        name = _named(provider, names)
        return f"(ctx.resolved[{name}] if {name} in ctx.resolved else {name}.first(ctx))"
    if type(provider) not in (Factory, providers.Factory):
        if not _is_synchronous(provider):
            raise _Unknown
        return f"{_named(provider, names)}()"
    if not _makes_objects(provider) or provider.attributes:
        raise _Unknown
    parts = [_argument(given, names) for given in provider.args]
    places = _places(provider.provides)
    for name, given in provider.kwargs.items():
        if not name.isidentifier() or keyword.iskeyword(name):
            raise _Unknown
        # By place, where that means the same, a class is called at two thirds of the time.
        by_place = len(parts) < len(places) and name == places[len(parts)]
        parts.append(_argument(given, names) if by_place else f"{name}={_argument(given, names)}")
        if not by_place:
            places = ()
    return f"{_named(provider.provides, names)}({', '.join(parts)})"


def _places(kind: Any) -> tuple[str, ...]:
    """The names of the arguments a class takes by place, where calling it is nothing but calling its own `__init__`."""
    init, make = kind.__init__, type(kind).__call__
    if make is not type.__call__ or kind.__new__ is not object.__new__ or not inspect.isfunction(init):
        return ()
    code = init.__code__
    if code.co_posonlyargcount > 1:  # beside `self`: such a name may be that of another argument, too
        return ()
    names: tuple[str, ...] = code.co_varnames
    return names[1 : code.co_argcount]


def _argument(given: Any, names: dict[str, Any]) -> str:
    if not is_provider(given) or providers.is_delegated(given):
        return _named(given, names)
    return _expression(given, names)


def _named(thing: Any, names: dict[str, Any]) -> str:
    name = f"x{len(names)}"
    names[name] = thing
    return name


def _is_synchronous(provider: Any) -> bool:
    """Whether it is sure to give no future and no coroutine."""
    if provider.last_overriding is not None:
        return False
    if isinstance(
        provider, Pooled | Kept | providers.Delegate | providers.Configuration | providers.ConfigurationOption
    ):
        return True
    if isinstance(provider, providers.Object):
        return not inspect.isawaitable(provider.provides)
    if isinstance(provider, providers.Factory | providers.BaseSingleton):
        return _makes_objects(provider) and all(map(_is_synchronous, provider.related))
    if isinstance(provider, providers.Resource):
        return inspect.isgeneratorfunction(provider.provides) and all(map(_is_synchronous, provider.related))
    return False


def _makes_objects(provider: Any) -> bool:
    """Whether it calls a class, and not that of a future."""
    kind = provider.provides
    return isinstance(kind, type) and not hasattr(kind, "__await__") and not provider.is_async_mode_enabled()


def _made(code: str, names: dict[str, Any]) -> Any:
    return eval(compile(code, "<pooling.di>", "eval"), {"__builtins__": {}, **names})  # noqa: S307 - of our own making
