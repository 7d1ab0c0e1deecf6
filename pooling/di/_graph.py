"""Questions about a graph of providers: what a call reaches, and whether that is a request's value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from dependency_injector import providers

from ._scopes import RequestScoped

__all__ = ["dependencies", "effective", "everything", "path_to_pooled", "reachable"]


def effective(provider: Any) -> Any:
    """The provider that is called in place of this one: itself, or the last that overrides it."""
    while provider.last_overriding is not None:
        provider = provider.last_overriding
    return provider


def dependencies(provider: Any) -> Iterator[Any]:
    """The providers that this one calls if it is called and not overridden, as far as is known without a call."""
    if isinstance(provider, providers.Delegate):
        return  # it returns the provider itself, which its receiver calls
    for part in provider.related:
        if not _is_handed_on(part):
            yield part


def _is_handed_on(part: Any) -> bool:
    """Whether this provider is passed to its receiver uncalled."""
    return providers.is_delegated(part) or isinstance(part, providers.Container | providers.Self)


def path_to_pooled(provider: Any) -> list[Any] | None:
    """The providers from this one to a pooled provider it depends on, or `None`."""
    trail: list[Any] = []
    seen: set[Any] = set()

    def visit(node: Any) -> bool:
        if node in seen:
            return False
        seen.add(node)
        trail.append(node)
        answering = effective(node)
        if isinstance(answering, RequestScoped) or any(visit(child) for child in dependencies(answering)):
            return True
        trail.pop()
        return False

    return trail if visit(provider) else None


def reachable(roots: Iterable[Any]) -> Iterator[Any]:
    """All providers that a call may reach, each after those it depends on."""
    return _in_order(roots, follows_overrides=True)


def everything(roots: Iterable[Any]) -> Iterator[Any]:
    """All providers, overridden ones included, each after those it depends on."""
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
