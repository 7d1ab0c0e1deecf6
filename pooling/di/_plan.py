"""
What a call of a provider comes to, found out once: its plan; and other questions to a graph of providers.

Calling a `providers.Factory` makes dictionaries and looks for futures at each level, which costs more than the objects
that come of it. Where every part of a graph is known to be synchronous, a plan makes the same objects in the same order
with one small function for each part, such as `lambda ctx: Repo(user(ctx))`.

A plan holds until something changes. Our own providers tell their plans (`_scopes.Watched`); whether one of the
library's is overridden is looked up at every call.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from dependency_injector import providers

from ..binding import is_provider
from ._scopes import PerContainer, PerRequest, Watched

if TYPE_CHECKING:
    from ..context import RequestContext

    Step = Callable[[RequestContext], Any]

__all__ = ["FACTORIES", "PENDING", "Plan", "effective", "everything", "path_to_pooled", "reachable"]

#: What an async function has awaited before it is called, as the library's own wiring does.
PENDING = (asyncio.Future, CoroutineType)

#: Classes of factories whose call does nothing but make an object; a subclass may do more.
FACTORIES: set[type] = {providers.Factory}


class Plan:
    """
    What a call of one provider comes to: the pooled values it needs, and how to make it.

    Overrides are followed: only what answers is looked at. Behind a `Selector` only the
    selected branch is, which makes the answer good for one call alone.

    Args:
        root: The provider.
        plainly: Its call, where that is not what leads here.

    Attributes:
        resolve: `resolve(ctx)` is what `root()` gives in that request, which is the current one.
    """

    __slots__ = ("__weakref__", "_changes", "_holds", "_plainly", "_pooled", "_root", "_unwatched", "resolve")

    resolve: Step

    def __init__(self, root: Any, plainly: Callable[[], Any] | None = None) -> None:
        self._root = root
        self._plainly = plainly or root
        self._pooled: tuple[PerRequest[Any], ...] = ()
        self._unwatched: tuple[Any, ...] = ()  # providers that do not tell of an override
        self._holds = False  # while nothing overrides those
        self._changes = 0
        self._look()

    def pooled(self) -> tuple[PerRequest[Any], ...]:
        """The pooled providers whose values are needed now, dependencies first."""
        if not self._holds or (self._unwatched and _any_overridden(self._unwatched)):
            self._look()
        return self._pooled

    def take(self, ctx: RequestContext) -> Awaitable[None] | None:
        """Have a request take the pooled values needed now; what is to be awaited, or `None` if nothing is."""
        needed = self.pooled()
        for provider in needed:
            taking = provider.begin(ctx)
            if taking is not None:
                return _take_rest(taking, needed, ctx)
        return None

    async def aresolve(self, ctx: RequestContext) -> Any:
        """As `resolve`, awaiting the pooled values first."""
        taking = self.take(ctx)
        if taking is not None:
            await taking
        value = self.resolve(ctx)
        return await value if isinstance(value, PENDING) else value

    def forget(self) -> None:
        """Look again at the next call: something has changed."""
        self._changes += 1
        self._holds, self.resolve = False, self._look_again

    def _look(self) -> None:
        before = self._changes
        walk = _Walk(self)
        walk.visit(self._root)
        self._pooled = tuple(walk.pooled)
        if walk.is_overridden:  # tests override, and may look each time
            self.forget()
        elif walk.varies:
            self._holds, self.resolve = False, self._call_plainly
        else:
            self._unwatched = tuple(walk.unwatched)
            self.resolve = _unless_overridden(self._unwatched, self._steps(), self._look_again)
            self._holds = True
            if self._changes != before:  # by another thread, under way
                self.forget()

    def _steps(self) -> Step:
        if isinstance(self._root, providers.Factory) and type(self._root) not in FACTORIES:
            return self._call_plainly  # its class may have a call of its own
        try:
            return _step(self._root)
        except (_NotKnownError, RecursionError):
            return self._call_plainly

    def _look_again(self, ctx: RequestContext) -> Any:
        self._look()
        return self._plainly()

    def _call_plainly(self, ctx: RequestContext) -> Any:
        return self._plainly()


async def _take_rest(taking: Awaitable[Any], needed: Iterable[PerRequest[Any]], ctx: RequestContext) -> None:
    await taking
    for provider in needed:  # those taken already have nothing to begin
        begun = provider.begin(ctx)
        if begun is not None:
            await begun


class _Walk:
    """One look at what a call reaches."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.pooled: list[PerRequest[Any]] = []
        self.unwatched: list[Any] = []
        self.is_overridden = False
        self.varies = False
        self._seen: set[Any] = set()

    def visit(self, provider: Any) -> None:
        if provider in self._seen:
            return
        self._seen.add(provider)
        watched = isinstance(provider, Watched)
        if watched:
            provider.part_of(self.plan)  # before it is looked at: what changes from now on is told
        else:
            self.unwatched.append(provider)
        if provider.last_overriding is not None:
            self.is_overridden = True
            self.visit(provider.last_overriding)
        elif isinstance(provider, PerRequest):
            self.pooled.append(provider)
        elif isinstance(provider, providers.Selector):
            self._visit_selected(provider)
        elif not isinstance(provider, providers.Configuration | providers.Object | PerContainer):
            # None of the latter depends on a request.
            for child in dependencies(provider):
                self.visit(child)

    def _visit_selected(self, provider: providers.Selector[Any]) -> None:
        self.varies = True
        selector: Any = provider.selector
        if is_provider(selector):
            self.visit(selector)
        branch = provider.providers.get(selector())
        if branch is not None:
            self.visit(branch)


# --- steps: functions of a request that give what a provider gives ---------------------------------------------------


class _NotKnownError(Exception):
    """Whether this part is synchronous cannot be told without calling it."""


def _unless_overridden(unwatched: tuple[Any, ...], step: Step, look_again: Step) -> Step:
    match unwatched:
        case ():
            return step
        case (one,):
            return lambda ctx: step(ctx) if one.last_overriding is None else look_again(ctx)
        case (one, two):
            return lambda ctx: step(ctx) if one.last_overriding is two.last_overriding is None else look_again(ctx)

    def resolve(ctx: RequestContext) -> Any:
        for provider in unwatched:
            if provider.last_overriding is not None:
                return look_again(ctx)
        return step(ctx)

    return resolve


def _any_overridden(unwatched: tuple[Any, ...]) -> bool:
    return any(provider.last_overriding is not None for provider in unwatched)


def _step(provider: Any) -> Step:
    if isinstance(provider, PerRequest):
        return _value_step(provider)
    if type(provider) in FACTORIES:
        return _object_step(provider)
    if not _is_synchronous(provider):
        raise _NotKnownError
    return lambda _: provider()


def _value_step(provider: PerRequest[Any]) -> Step:
    first = provider.first

    def value(ctx: RequestContext) -> Any:
        resolved = ctx.resolved
        return resolved[provider] if provider in resolved else first(ctx)

    return value


def _object_step(factory: Any) -> Step:
    if not _makes_objects(factory) or factory.attributes:
        raise _NotKnownError
    kind = factory.provides
    by_place = [_argument_step(given) for given in factory.args]
    by_name: dict[str, Step] = {}
    places = _places(kind)
    for name, given in factory.kwargs.items():
        # By place, where that means the same, a class is called in two thirds of the time.
        if not by_name and len(by_place) < len(places) and name == places[len(by_place)]:
            by_place.append(_argument_step(given))
        else:
            by_name[name] = _argument_step(given)
    if by_place and by_name:
        return lambda ctx: kind(
            *[step(ctx) for step in by_place], **{name: step(ctx) for name, step in by_name.items()}
        )
    return _by_name_step(kind, by_name) if by_name else _by_place_step(kind, by_place)


# Written out for few arguments, a call takes half of the time.


def _by_place_step(kind: Any, steps: list[Step]) -> Step:
    match steps:
        case []:
            return lambda _: kind()
        case [one]:
            return lambda ctx: kind(one(ctx))
        case [one, two]:
            return lambda ctx: kind(one(ctx), two(ctx))
        case [one, two, three]:
            return lambda ctx: kind(one(ctx), two(ctx), three(ctx))
    return lambda ctx: kind(*[step(ctx) for step in steps])


def _by_name_step(kind: Any, steps: dict[str, Step]) -> Step:
    match list(steps.items()):
        case [(a, one)]:
            return lambda ctx: kind(**{a: one(ctx)})
        case [(a, one), (b, two)]:
            return lambda ctx: kind(**{a: one(ctx), b: two(ctx)})
        case [(a, one), (b, two), (c, three)]:
            return lambda ctx: kind(**{a: one(ctx), b: two(ctx), c: three(ctx)})
    return lambda ctx: kind(**{name: step(ctx) for name, step in steps.items()})


def _argument_step(given: Any) -> Step:
    if not is_provider(given) or providers.is_delegated(given):
        return lambda _: given
    return _step(given)


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


def _is_synchronous(provider: Any) -> bool:
    """Whether it is sure to give no future and no coroutine."""
    if provider.last_overriding is not None:
        return False
    if isinstance(
        provider,
        PerRequest | PerContainer | providers.Delegate | providers.Configuration | providers.ConfigurationOption,
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


# --- questions to a graph --------------------------------------------------------------------------------------------


def effective(provider: Any) -> Any:
    """The provider that answers for this one: itself, or the last that overrides it."""
    while provider.last_overriding is not None:
        provider = provider.last_overriding
    return provider


def dependencies(provider: Any) -> Iterator[Any]:
    """What a provider that is not overridden asks when it is called, as far as can be told without calling it."""
    if isinstance(provider, providers.Delegate):
        return  # it gives the provider itself, for its receiver to call
    for part in provider.related:
        if not _is_handed_on(part):
            yield part


def _is_handed_on(part: Any) -> bool:
    """Whether a part of a graph is given to its receiver as it is, for that to call."""
    return providers.is_delegated(part) or isinstance(part, providers.Container | providers.Self)


def path_to_pooled(provider: Any) -> list[Any] | None:
    """The providers from this one to a pooled value it depends on, or `None`."""
    trail: list[Any] = []
    seen: set[Any] = set()

    def visit(node: Any) -> bool:
        if node in seen:
            return False
        seen.add(node)
        trail.append(node)
        answering = effective(node)
        if isinstance(answering, PerRequest) or any(visit(child) for child in dependencies(answering)):
            return True
        trail.pop()
        return False

    return trail if visit(provider) else None


def reachable(roots: Iterable[Any]) -> Iterator[Any]:
    """All providers that may answer a call, each after those it depends on."""
    return _in_order(roots, follows_overrides=True)


def everything(roots: Iterable[Any]) -> Iterator[Any]:
    """All providers there are, each after those it depends on, whether or not something overrides them."""
    return _in_order(roots, follows_overrides=False)


def _in_order(roots: Iterable[Any], *, follows_overrides: bool) -> Iterator[Any]:
    seen: set[Any] = set()

    def visit(node: Any) -> Iterator[Any]:
        if node in seen:
            return
        seen.add(node)
        if follows_overrides and node.last_overriding is not None:
            yield from visit(node.last_overriding)
            return
        for child in node.related:
            yield from visit(child)
        yield node

    for root in roots:
        yield from visit(root)
