"""
Plans: what calling a provider will do, worked out once.

Calling a `providers.Factory` makes dictionaries and looks for futures at each level, which costs more than making the
objects. If every part of a graph is known to be synchronous, a plan makes the same objects in the same order with one
small function for each part, such as `lambda ctx: Repo(user(ctx))`.

A plan holds until a provider changes. The providers of this package tell their plans (`_scopes.Watched`); those of the
library do not, so a plan checks at every call whether one of them is overridden.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from dependency_injector import providers

from .._request.answer import keep_until
from .._request.current import get_current
from ..binding import is_provider
from ._graph import dependencies
from ._lookup import counterpart
from ._request_values import RequestValue, begin_taking, maker_of, take_first
from ._scopes import PerContainer, Watched, report_changes

if TYPE_CHECKING:
    from .._request.answer import Release
    from ..context import RequestContext

    Step = Callable[[RequestContext], Any]

__all__ = ["FACTORIES", "PENDING", "Plan", "plan_for"]

#: Providers whose value an async function awaits before it runs, as with the library's own wiring.
PENDING = (asyncio.Future, CoroutineType)

#: Classes of factories whose call only makes an object; a subclass may do more.
FACTORIES: set[type] = {providers.Factory}


class Plan:
    """
    What calling one provider will do: the pooled values it needs, and how to make its object.

    Overrides are followed: only the overriding provider is examined. Of a `Selector` only the
    selected branch is, so that such a plan holds for one call only; if the choice needs pooled values, it is made when
    the request has them.

    Args:
        root: The provider.
        plainly: Calls the provider without this plan, if its `__call__` uses the plan.

    Attributes:
        resolve: `resolve(ctx)` returns what `root()` returns in this request, which must be the current one.
    """

    __slots__ = (
        "__weakref__",
        "_changes",
        "_holds",
        "_is_undecided",
        "_plainly",
        "_pooled",
        "_root",
        "_unwatched",
        "resolve",
    )

    resolve: Step

    def __init__(self, root: Any, plainly: Callable[[], Any] | None = None) -> None:
        self._root = root
        self._plainly = plainly or root
        self._pooled: tuple[RequestValue[Any], ...] = ()
        self._unwatched: tuple[Any, ...] = ()  # providers that do not report overrides
        self._is_undecided = False  # whether a choice waits for the values of `_pooled`
        self._holds = False  # whether the plan is valid as long as none of those is overridden
        self._changes = 0
        self._look()

    def pooled(self) -> tuple[RequestValue[Any], ...]:
        """The pooled providers whose values a call needs now, dependencies first."""
        if not self._holds or (self._unwatched and _any_overridden(self._unwatched)):
            self._look()
        return self._pooled

    def take(self, ctx: RequestContext) -> Awaitable[None] | None:
        """Have a request take the pooled values needed now; returns what to await, or `None`."""
        needed, is_undecided = self.pooled(), self._is_undecided
        for provider in needed:
            taking = begin_taking(provider, ctx)
            if taking is not None:
                return self._take_rest(taking, needed, ctx)
        return self.take(ctx) if is_undecided else None

    async def _take_rest(
        self, taking: Awaitable[Any], needed: Iterable[RequestValue[Any]], ctx: RequestContext
    ) -> None:
        await taking
        for provider in needed:  # nothing is done for those already taken
            begun = begin_taking(provider, ctx)
            if begun is not None:
                await begun
        if not self._holds:  # a choice that waited for these values may need others
            rest = self.take(ctx)
            if rest is not None:
                await rest

    async def aresolve(self, ctx: RequestContext) -> Any:
        """As `resolve`, awaiting the pooled values first."""
        taking = self.take(ctx)
        if taking is not None:
            await taking
        value = self.resolve(ctx)
        return await value if isinstance(value, PENDING) else value

    def note_release(self, ctx: RequestContext, release: Release | None) -> None:
        """Note when a request may give back the pooled values of a call that was just made; see `keep_until`."""
        resolved = ctx.resolved
        for provider in self.pooled():
            if provider in resolved:  # else it is overridden
                keep_until(ctx, resolved[provider], release)

    def forget(self) -> None:
        """Make the plan again at the next call, after a change."""
        self._changes += 1
        self._holds, self.resolve = False, self._look_again

    def _look(self) -> None:
        before = self._changes
        walk = _Walk(self)
        walk.visit(self._root)
        self._pooled, self._is_undecided = tuple(walk.pooled), walk.is_undecided
        if walk.is_overridden:  # overrides are for tests, where speed does not matter: look at each call
            self.forget()
        elif walk.varies:
            self._holds, self.resolve = False, self._call_plainly
        else:
            self._unwatched = tuple(walk.unwatched)
            self.resolve = _unless_overridden(self._unwatched, self._steps(), self._look_again)
            self._holds = True
            if self._changes != before:  # another thread changed a provider meanwhile
                self.forget()

    def _steps(self) -> Step:
        if isinstance(self._root, providers.Factory) and type(self._root) not in FACTORIES:
            return self._call_plainly  # its class may override `__call__`
        try:
            return _step(self._root)
        except (_NotKnownError, RecursionError):
            return self._call_plainly

    def _look_again(self, ctx: RequestContext) -> Any:
        self._look()
        return self._plainly()

    def _call_plainly(self, ctx: RequestContext) -> Any:
        return self._plainly()


def plan_for(container: Any, target: Any) -> Plan:
    """The plan for a key of a container, or for the container's copy of a provider that its class declares."""
    is_key = isinstance(target, str)
    provider = container.find(target) if is_key else target
    plans: dict[Any, Any] = container.injection_plans
    known: Plan | None = plans.get(provider)
    if known is None:
        known = plans[provider] = Plan(provider if is_key else counterpart(container, provider))
    if is_key and target in container.providers:  # a nested container's provider may be replaced without notice
        plans[target] = known
    return known


class _Walk:
    """One walk over the providers that a call reaches."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.pooled: list[RequestValue[Any]] = []
        self.unwatched: list[Any] = []
        self.is_overridden = False
        self.is_undecided = False
        self.varies = False
        self._seen: set[Any] = set()

    def pooled_of(self, provider: Any) -> list[RequestValue[Any]]:
        self.visit(provider)
        return self.pooled

    def visit(self, provider: Any) -> None:
        if provider in self._seen:
            return
        self._seen.add(provider)
        watched = isinstance(provider, Watched)
        if watched:
            report_changes(provider, self.plan)  # before it is examined, so that no later change is missed
        else:
            self.unwatched.append(provider)
        if provider.last_overriding is not None:
            self.is_overridden = True
            self.visit(provider.last_overriding)
        elif isinstance(provider, RequestValue):
            maker = maker_of(provider)
            if maker is not None:
                self.visit(maker)
            self.pooled.append(provider)
        elif isinstance(provider, providers.Selector):
            self._visit_selected(provider)
        elif not isinstance(provider, providers.Configuration | providers.Object | PerContainer):
            # The three kinds above do not depend on a request; what others depend on may.
            for child in dependencies(provider):
                self.visit(child)

    def _visit_selected(self, provider: providers.Selector[Any]) -> None:
        self.varies = True
        selector: Any = provider.selector
        if is_provider(selector):
            self.visit(selector)
            resolved = get_current().resolved
            if any(pooled not in resolved for pooled in _Walk(self.plan).pooled_of(selector)):
                self.is_undecided = True
                return
        branch = provider.providers.get(selector())
        if branch is not None:
            self.visit(branch)


# --- steps: functions of a request that return what a provider returns ------------------------------------------------


class _NotKnownError(Exception):
    """It is not known, without calling it, whether this part is synchronous."""


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
    if isinstance(provider, RequestValue):
        return _value_step(provider)
    if type(provider) in FACTORIES:
        return _object_step(provider)
    if not _is_synchronous(provider):
        raise _NotKnownError
    return lambda _: provider()


def _value_step(provider: RequestValue[Any]) -> Step:
    def value(ctx: RequestContext) -> Any:
        resolved = ctx.resolved
        return resolved[provider] if provider in resolved else take_first(provider, ctx)

    return value


def _object_step(factory: Any) -> Step:
    if not _makes_objects(factory) or factory.attributes:
        raise _NotKnownError
    kind = factory.provides
    by_place = [_argument_step(given) for given in factory.args]
    by_name: dict[str, Step] = {}
    places = _places(kind)
    for name, given in factory.kwargs.items():
        # Passing arguments by position, if that is equivalent, takes two thirds of the time.
        if not by_name and len(by_place) < len(places) and name == places[len(by_place)]:
            by_place.append(_argument_step(given))
        else:
            by_name[name] = _argument_step(given)
    if by_place and by_name:
        return _mixed_step(kind, by_place, by_name)
    if by_name:
        return _by_name_step(kind, by_name)
    given, named = by_place[: len(factory.args)], by_place[len(factory.args) :]
    as_declared = _mixed_step(kind, given, dict(zip(factory.kwargs, named, strict=True)))
    return _by_place_step(kind, by_place, as_declared)


def _mixed_step(kind: Any, by_place: list[Step], by_name: dict[str, Step]) -> Step:
    return lambda ctx: kind(*[step(ctx) for step in by_place], **{name: step(ctx) for name, step in by_name.items()})


# Written out for few arguments, since that halves the time of a call.


def _by_place_step(kind: Any, steps: list[Step], as_declared: Step) -> Step:
    """By position, as long as the class has the constructor whose positions these are: a test may replace it."""
    init = kind.__init__
    match steps:
        case []:
            return lambda _: kind()
        case [one]:
            return lambda ctx: kind(one(ctx)) if kind.__init__ is init else as_declared(ctx)
        case [one, two]:
            return lambda ctx: kind(one(ctx), two(ctx)) if kind.__init__ is init else as_declared(ctx)
        case [one, two, three]:
            return lambda ctx: kind(one(ctx), two(ctx), three(ctx)) if kind.__init__ is init else as_declared(ctx)
    return lambda ctx: kind(*[step(ctx) for step in steps]) if kind.__init__ is init else as_declared(ctx)


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
    """The names of a class's positional arguments, if calling the class only calls its `__init__`; else none."""
    init, make = kind.__init__, type(kind).__call__
    if make is not type.__call__ or kind.__new__ is not object.__new__ or not inspect.isfunction(init):
        return ()
    code = init.__code__
    if code.co_posonlyargcount > 1:  # besides `self`: another argument may have the same name
        return ()
    names: tuple[str, ...] = code.co_varnames
    return names[1 : code.co_argcount]


def _is_synchronous(provider: Any) -> bool:
    """Whether it certainly returns neither a future nor a coroutine."""
    if provider.last_overriding is not None:
        return False
    if isinstance(
        provider,
        RequestValue | PerContainer | providers.Delegate | providers.Configuration | providers.ConfigurationOption,
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
    """Whether it calls a class, other than a future's."""
    kind = provider.provides
    return isinstance(kind, type) and not hasattr(kind, "__await__") and not provider.is_async_mode_enabled()
