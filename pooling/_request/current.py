"""
The current request: the one that the running code belongs to.

It is found through one context variable, so each task and thread that starts with a copy of the context has it too.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from .._engine import call_site

if TYPE_CHECKING:
    from types import TracebackType

C = TypeVar("C")

#: The `resolved` of a request that has ended, and of no request. It stays empty.
NOTHING_RESOLVED: Final[dict[Any, Any]] = {}


class NoRequest:
    """Value of the context variable outside of any request: it has no resolved values and no container."""

    __slots__ = ()

    resolved = NOTHING_RESOLVED
    container = None
    name = None


NO_REQUEST: Final[Any] = NoRequest()

#: The current `RequestContext`, or `NO_REQUEST`, which saves a check for `None` at each use of a value.
current_var: ContextVar[Any] = ContextVar("pooling.request", default=NO_REQUEST)
# Bound once, for speed.
get_current, set_current, reset_current = current_var.get, current_var.set, current_var.reset


class Active(Generic[C]):
    """Makes a request current for a block of code."""

    __slots__ = ("_ctx", "_token")

    def __init__(self, ctx: C) -> None:
        self._ctx = ctx

    def __enter__(self) -> C:
        self._token = set_current(self._ctx)
        return self._ctx

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        leave(self._token)


def leave(token: Token[Any] | None) -> None:
    """Restore the request that was current before."""
    try:
        reset_current(token)  # type: ignore[arg-type]
    except ValueError:  # left in another task or thread than it was entered in: nothing to restore
        pass


def _named_request() -> str | None:
    return get_current().name  # type: ignore[no-any-return]


call_site.named_request = _named_request
