"""Errors of a request: those for a value that cannot be taken, and those raised at its end."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Self

from ..errors import RequestContextError

if TYPE_CHECKING:
    from types import TracebackType

logger = logging.getLogger("pooling")


def ended_error(ctx: Any) -> RequestContextError:
    """The error for a use of a request that has ended."""
    return RequestContextError(
        f"{ctx} has ended, and its pooled values were given back. Open a separate request around work that outlives "
        "this one."
    )


def must_await_error(pool: Any, *, is_async: bool) -> RequestContextError:
    """The error for a value that must be awaited: its pool is an asyncio pool, or an event loop runs here."""
    if is_async:
        return RequestContextError(
            f"the value of {_name(pool)} has not been taken in this request yet, and taking it must be awaited: "
            "use pooling.di.inject on an async function, or `await provider.aget()` or `await ctx.aacquire(pool)` "
            "before synchronous code uses it"
        )
    return RequestContextError(
        f"the value of {_name(pool)}, a pool for threads, has not been taken in this request yet, and taking it "
        "here would block the event loop: use pooling.di.inject on an async function, `await provider.aget()` or "
        "`await ctx.aacquire(pool)`, which take it on a worker thread; or use an asyncio pool"
    )


def raise_errors(errors: list[BaseException], ctx: Any, exc: BaseException | None) -> None:
    """
    Raise the errors from the end of a request, interrupts first.

    An interrupt that ended the request is not replaced by an error: the code that sent it has to see it.
    """
    interrupts = [error for error in errors if not isinstance(error, Exception)]
    failures = [error for error in errors if isinstance(error, Exception)]
    if exc is not None and not isinstance(exc, Exception):
        interrupts.append(exc)
    if interrupts:
        for failure in failures:
            logger.error(
                "%s: an error at its end is only logged, because an interrupt is raised", ctx, exc_info=failure
            )
        if interrupts[0] is not exc:
            raise interrupts[0]
        return
    if len(failures) == 1:
        raise failures[0]
    raise ExceptionGroup(f"{ctx}: {len(failures)} errors at its end", failures)


class CollectedErrors(list[BaseException]):
    """
    The errors of several blocks, each of which runs whatever happened in the others.

    `with errors:` around a block keeps what it raises, an interrupt too, for `raise_errors`.
    """

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> bool:
        if exc is not None:
            self.append(exc)
        return True


def _name(pool: Any) -> str:
    name = getattr(pool, "name", None)
    return f"pool {name!r}" if isinstance(name, str) else f"a {type(pool).__qualname__}"
