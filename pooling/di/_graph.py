"""Looking at a graph of providers: what a call can reach, in which order things depend on each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from dependency_injector import providers

from ._kept import Kept
from ._slots import Pooled


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
    The pooled values a call of one provider needs, and how to know that this still holds.

    Overrides are followed: only what answers is looked at. Behind a `Selector` only the
    selected branch is, which makes the answer good for one call alone.
    """

    __slots__ = ("_free", "_is_settled", "_root", "_slots")

    def __init__(self, root: Any) -> None:
        self._root = root
        self._look()

    def slots(self) -> tuple[Pooled[Any], ...]:
        """The pooled values needed now, dependencies first."""
        if not self._is_settled:
            self._look()
            return self._slots
        for provider in self._free:
            if provider.last_overriding is not None:
                self._look()
                break
        return self._slots

    def _look(self) -> None:
        self._free: list[Any] = []  # what was asked itself; once overridden, the answer is another
        self._is_settled = True
        found: list[Pooled[Any]] = []
        self._visit(self._root, found, set())
        self._slots = tuple(found)

    def _visit(self, provider: Any, found: list[Pooled[Any]], seen: set[Any]) -> None:
        if provider in seen:
            return
        seen.add(provider)
        if provider.last_overriding is not None:
            self._is_settled = False  # tests override, and may look each time
            self._visit(provider.last_overriding, found, seen)
            return
        self._free.append(provider)
        if isinstance(provider, providers.Configuration | providers.Object | Kept):
            return  # none of them depends on a request
        if isinstance(provider, Pooled):
            found.append(provider)
            return
        if isinstance(provider, providers.Selector):
            self._is_settled = False
            self._visit(provider.selector, found, seen)
            branch = provider.providers.get(provider.selector())  # type: ignore[misc]
            if branch is not None:
                self._visit(branch, found, seen)
            return
        for child in dependencies(provider):
            self._visit(child, found, seen)


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
