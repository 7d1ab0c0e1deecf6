"""What a request says when it cannot give a value, and how it raises what went wrong at its end."""

from __future__ import annotations

import logging
from typing import Any

from ..errors import RequestContextError

logger = logging.getLogger("pooling")


def ended_error(ctx: Any) -> RequestContextError:
    """The error for a use of a request that has ended."""
    return RequestContextError(
        f"{ctx} has ended, and with it the use of its pooled values. Work that outlives a request needs a request of "
        "its own: open one around it."
    )


def must_await_error(pool: Any, *, is_async: bool) -> RequestContextError:
    """The error for a value that must be awaited: its pool is one for asyncio, or an event loop runs here."""
    if is_async:
        return RequestContextError(
            f"the value of {_name(pool)} has not been taken in this request yet, and taking it must be awaited: "
            "use pooling.di.inject on an async function, `await slot.aget()` or `await ctx.aacquire(pool)` before "
            "synchronous code uses it"
        )
    return RequestContextError(
        f"the value of {_name(pool)}, a pool for threads, has not been taken in this request yet, and taking it "
        "here would block the event loop: use pooling.di.inject on an async function, `await slot.aget()` or `await "
        "ctx.aacquire(pool)`, which ask it from a worker thread; or make the pool an asyncio one"
    )


def raise_errors(errors: list[BaseException], ctx: Any, exc: BaseException | None) -> None:
    """
    Raise what went wrong at the end of a request, interrupts first.

    An interrupt that ended the request goes on as it is: an error that replaced it would hide it from its sender.
    """
    interrupts = [error for error in errors if not isinstance(error, Exception)]
    failures = [error for error in errors if isinstance(error, Exception)]
    if exc is not None and not isinstance(exc, Exception):
        interrupts.append(exc)
    if interrupts:
        for failure in failures:
            logger.error("%s: an error at its end gave way to an interrupt", ctx, exc_info=failure)
        if interrupts[0] is not exc:
            raise interrupts[0]
        return
    if len(failures) == 1:
        raise failures[0]
    raise ExceptionGroup(f"{ctx}: {len(failures)} errors at its end", failures)


def _name(pool: Any) -> str:
    name = getattr(pool, "name", None)
    return f"pool {name!r}" if isinstance(name, str) else f"a {type(pool).__qualname__}"
