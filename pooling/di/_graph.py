"""Looking at a graph of providers: what a call can reach, in which order things depend on each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from dependency_injector import providers

from ..binding import is_provider
from ._compiled import compiled
from ._kept import Kept
from ._slots import Pooled

if TYPE_CHECKING:
    from ..context import RequestContext


def effective(provider: Any) -> Any:
    """The provider that answers for this one: itself, or the last that overrides it."""
    while provider.last_overriding is not None:
        provider = provider.last_overriding
    return provider


def dependencies(provider: Any) -> Iterator[Any]:
    """What a provider that is not overridden asks when it is called, as far as can be told without calling it."""
    if isinstance(provider, providers.Delegate):
        return  # it gives the provider itself, for its receiver to call
    yield from provider.related


class Reach:
    """
    What a call of one provider comes to: the pooled values it needs, and how to make it.

    Overrides are followed: only what answers is looked at. Behind a `Selector` only the
    selected branch is, which makes the answer good for one call alone.

    Attributes:
        call: `call(ctx)` is what `root()` gives in that request, which is the current one, once `slots` was asked.
        resolve: The same, of itself.
    """

    __slots__ = ("_is_as_seen", "_root", "_slots", "call", "resolve")

    def __init__(self, root: Any) -> None:
        self._root = root
        self._look()

    def slots(self) -> tuple[Pooled[Any], ...]:
        """The pooled values needed now, dependencies first."""
        if not self._is_as_seen():
            self._look()
        return self._slots

    def _look(self) -> None:
        root = self._root
        nodes: list[Any] = []  # what is asked itself; once overridden, the answer is another
        found: list[Pooled[Any]] = []
        is_settled = self._visit(root, nodes, found, set())
        self._slots = tuple(found)
        if is_settled:
            self._is_as_seen, self.call, self.resolve = compiled(root, nodes, self._look_again)
        else:
            self._is_as_seen, self.call, self.resolve = _never, self._look_again, self._look_again

    def _look_again(self, ctx: RequestContext) -> Any:
        self._look()
        return self._root()

    def _visit(self, provider: Any, nodes: list[Any], found: list[Pooled[Any]], seen: set[Any]) -> bool:
        """Whether what is found holds until something is overridden."""
        if provider in seen:
            return True
        seen.add(provider)
        if provider.last_overriding is not None:
            self._visit(provider.last_overriding, nodes, found, seen)
            return False  # tests override, and may look each time
        nodes.append(provider)
        if isinstance(provider, providers.Configuration | providers.Object | Kept):
            return True  # none of them depends on a request
        if isinstance(provider, Pooled):
            found.append(provider)
            return True
        if isinstance(provider, providers.Selector):
            selector: Any = provider.selector
            if is_provider(selector):
                self._visit(selector, nodes, found, seen)
            branch = provider.providers.get(selector())
            if branch is not None:
                self._visit(branch, nodes, found, seen)
            return False
        is_settled = True
        for child in dependencies(provider):
            is_settled &= self._visit(child, nodes, found, seen)
        return is_settled


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
