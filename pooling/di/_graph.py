"""Looking at a graph of providers: what a call can reach, in which order things depend on each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from dependency_injector import providers

from ..binding import is_provider
from ._compiled import compiled
from ._factory import Factory
from ._kept import Kept
from ._slots import Pooled

if TYPE_CHECKING:
    from ..context import RequestContext


#: What an async function has awaited before it is called, as the library's own wiring does.
PENDING = (asyncio.Future, CoroutineType)


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
        if not is_handed_on(part):
            yield part


def is_handed_on(part: Any) -> bool:
    """Whether a part of a graph is given to its receiver as it is, for that to call."""
    return providers.is_delegated(part) or isinstance(part, providers.Container | providers.Self)


class Reach:
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

    __slots__ = ("__weakref__", "_changes", "_is_as_seen", "_plainly", "_root", "_slots", "resolve")

    _is_as_seen: Callable[[], bool]
    resolve: Callable[[RequestContext], Any]

    def __init__(self, root: Any, plainly: Callable[[], Any] | None = None) -> None:
        self._root = root
        self._plainly = plainly or root
        self._changes = 0
        self._look()

    def slots(self) -> tuple[Pooled[Any], ...]:
        """The pooled values needed now, dependencies first."""
        if not self._is_as_seen():
            self._look()
        return self._slots

    async def take(self, ctx: RequestContext) -> None:
        """Have a request take the pooled values needed now."""
        for slot in self.slots():
            taking = slot.begin(ctx)
            if taking is not None:
                await taking

    async def aresolve(self, ctx: RequestContext) -> Any:
        """As `resolve`, awaiting the pooled values first."""
        for slot in self.slots():  # `take`, without a coroutine of its own
            taking = slot.begin(ctx)
            if taking is not None:
                await taking
        value = self.resolve(ctx)
        return await value if isinstance(value, PENDING) else value

    def forget(self) -> None:
        """Look again at the next call: something has changed that cannot be seen at each."""
        self._changes += 1
        self._is_as_seen, self.resolve = _never, self._look_again

    def _look(self) -> None:
        before = self._changes
        walk = _Walk(self)
        walk.visit(self._root)
        self._slots = tuple(walk.slots)
        if walk.is_overridden:  # tests override, and may look each time
            self.forget()
        elif walk.varies:
            self._is_as_seen, self.resolve = _never, self._call_plainly
        else:
            self._is_as_seen, self.resolve = compiled(self._root, walk.nodes, self._look_again, self._plainly)
            if self._changes != before:  # by another thread, under way
                self.forget()

    def _look_again(self, ctx: RequestContext) -> Any:
        self._look()
        return self._plainly()

    def _call_plainly(self, ctx: RequestContext) -> Any:
        return self._plainly()


class _Walk:
    """Through all that a call asks, each thing once, after what it depends on."""

    def __init__(self, reach: Reach) -> None:
        self.reach = reach
        self.nodes: list[Any] = []  # what is asked itself; once overridden, the answer is another
        self.slots: list[Pooled[Any]] = []
        self.is_overridden = False
        self.varies = False  # from call to call
        self._seen: set[Any] = set()

    def visit(self, provider: Any) -> None:
        if provider in self._seen:
            return
        self._seen.add(provider)
        if provider.last_overriding is not None:
            self.is_overridden = True
            self.visit(provider.last_overriding)
            return
        self.nodes.append(provider)
        if isinstance(provider, providers.Configuration | providers.Object | Kept):
            return  # none of them depends on a request
        if isinstance(provider, Pooled):
            self.slots.append(provider)
        elif isinstance(provider, providers.Selector):
            self.varies = True
            selector: Any = provider.selector
            if is_provider(selector):
                self.visit(selector)
            branch = provider.providers.get(selector())
            if branch is not None:
                self.visit(branch)
        else:
            if isinstance(provider, Factory):
                provider.part_of(self.reach)
            for child in dependencies(provider):
                self.visit(child)


def _never() -> bool:
    return False


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
        if isinstance(answering, Pooled) or any(visit(child) for child in dependencies(answering)):
            return True
        trail.pop()
        return False

    return trail if visit(provider) else None


def reachable(roots: Iterable[Any]) -> Iterator[Any]:
    """All providers that may answer a call, each after those it depends on."""
    seen: set[Any] = set()

    def visit(node: Any) -> Iterator[Any]:
        if node in seen:
            return
        seen.add(node)
        if node.last_overriding is not None:
            yield from visit(node.last_overriding)
            return
        for child in node.related:
            yield from visit(child)
        yield node

    for root in roots:
        yield from visit(root)


def everything(roots: Iterable[Any]) -> Iterator[Any]:
    """All providers there are, each after those it depends on, whether or not something overrides them."""
    seen: set[Any] = set()

    def visit(node: Any) -> Iterator[Any]:
        if node in seen:
            return
        seen.add(node)
        for child in node.related:
            yield from visit(child)
        yield node

    for root in roots:
        yield from visit(root)
