"""
One value a request holds: being taken, out, or given back.

Whoever asks first takes it, the others wait for that one attempt. How to take depends on the
lender; `_lenders` has a small class for each kind. Nothing here takes a
lock except to decide, once, who gives back a value that arrived after its request had ended.

Rules of the file:

- `value` is set before `done`, and `done` before the waiters are looked at; a waiter puts itself in the
  list before it looks at `done`. So either side sees the other.
- A failed attempt reaches all who waited for it, and is forgotten: the next to ask tries again. An
  *interrupted* attempt belongs to one caller alone, and another of the waiters takes over.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ._offload import in_worker, through
from .errors import RequestContextError

if TYPE_CHECKING:
    from .context import RequestContext

_claims = threading.Lock()


class Retry(Exception):  # noqa: N818 - it says what to do, and never leaves this package
    """The attempt waited for was interrupted; ask anew."""


class Held:
    """An attempt at a value, and what came of it."""

    __slots__ = ("_claimed", "abandoned", "done", "error", "key", "lender", "task", "value", "waiters")

    is_async = False
    #: Whether `lender.acquire(ctx)` and `lender.release(value)` are all there is to a use without options or error, so
    #: that a request may call them without a detour.
    is_direct = False

    def __init__(self, lender: Any, key: Any) -> None:
        self.lender = lender
        self.key = key
        self.value: Any = None
        self.done = False
        self.error: BaseException | None = None
        self.abandoned = False
        self.waiters: list[Callable[[], None]] | None = None
        self.task: asyncio.Task[None] | None = None
        self._claimed = False

    # --- how this kind of lender is used -------------------------------------------------------------------------

    def take(self, ctx: RequestContext, options: dict[str, Any]) -> Any:
        """Take a value; an awaitable if `is_async`."""
        raise NotImplementedError

    def give(self, exc: BaseException | None) -> Any:
        """Give it back; an awaitable if `is_async`."""
        raise NotImplementedError

    def at_hand(self) -> bool:
        """Whether taking would most likely not wait."""
        return False

    # --- in threads ----------------------------------------------------------------------------------------------

    def follow(self) -> Any:
        """Block until the attempt of another thread or task is over."""
        latch = threading.Lock()
        latch.acquire()
        self._wait_with(latch.release)
        if not (self.done or self.error):
            latch.acquire()
        return self.outcome()

    # --- in an event loop ----------------------------------------------------------------------------------------

    def begin(self, ctx: RequestContext, options: dict[str, Any]) -> None:
        """
        Take the value in a task, for all who wait for it.

        So the first of several callers may go away without harm to the others; the last to go cancels it.
        """
        self.task = asyncio.get_running_loop().create_task(self._run(ctx, options))

    async def _run(self, ctx: RequestContext, options: dict[str, Any]) -> None:
        try:
            value = await (self.take(ctx, options) if self.is_async else self._take_elsewhere(ctx, options))
        except BaseException as error:  # noqa: BLE001 - it belongs to those who wait
            self.fail(error, ctx)
            return
        if not self.arrive(value) and self.claim():
            await self.agive(None)

    async def afollow(self, ctx: RequestContext) -> Any:
        """Wait until the attempt is over. Going away early harms nobody else; the last to go ends the attempt."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        waiter = partial(_wake, loop, future)
        waiters = self._wait_with(waiter)
        if not (self.done or self.error):
            try:
                await future
            except asyncio.CancelledError:
                if waiter in waiters:
                    waiters.remove(waiter)
                if not waiters and not self.done and self.task is not None:
                    ctx.forget(self)
                    self.abandon(None)
                    self.task.cancel()
                raise
        return self.outcome()

    def agive(self, exc: BaseException | None) -> Awaitable[None]:
        """Give the value back without blocking the loop."""
        if self.is_async:
            return self.give(exc)  # type: ignore[no-any-return]
        return through(in_worker(partial(self.give, exc)))

    async def _take_elsewhere(self, ctx: RequestContext, options: dict[str, Any]) -> Any:
        """Take from a lender for threads while the loop goes on; if nobody wants it any more, it goes straight back."""

        def give_late(value: Any) -> None:
            self.value = value
            self.give(None)

        return await in_worker(partial(self.take, ctx, options), unwanted=give_late)

    # --- outcome -------------------------------------------------------------------------------------------------

    def arrive(self, value: Any) -> bool:
        """Record the value and wake all; whether the request still wants it."""
        self.value = value
        self.done = True
        if self.waiters:
            self._wake_all()
        return not self.abandoned

    def fail(self, error: BaseException, ctx: RequestContext | None = None) -> None:
        """Record the failure and wake all; the next to ask this request tries anew."""
        if ctx is not None:
            ctx.forget(self)
        if self.error is None:
            self.error = error
        self._wake_all()

    def abandon(self, error: BaseException | None) -> bool:
        """
        The request wants it no more; whether there is a value for the caller to give back.

        Args:
            error: What those still waiting get.
        """
        self.abandoned = True
        if self.done:
            return self.claim()
        if error is not None:
            self.fail(error)
        return False

    def claim(self) -> bool:
        """Whether the caller, and no other, is to give the value back."""
        with _claims:
            mine, self._claimed = not self._claimed, True
        return mine

    def outcome(self) -> Any:
        if self.error is not None:
            if isinstance(self.error, Exception) or self.task is not None:
                raise self.error
            raise Retry  # an interrupt was meant for the one who led, and for nobody else
        return self.value

    def _wait_with(self, waker: Callable[[], None]) -> list[Callable[[], None]]:
        with _claims:
            waiters = self.waiters
            if waiters is None:
                waiters = self.waiters = []
        waiters.append(waker)
        return waiters

    def _wake_all(self) -> None:
        while self.waiters:
            try:
                self.waiters.pop()()
            except IndexError:  # another thread woke the last
                return


class Callback:
    """A callback for the end of a request, in the shape of a value that was taken."""

    __slots__ = ("_call", "is_async")

    done = True
    is_direct = False

    def __init__(self, call: Callable[[BaseException | None], Any]) -> None:
        self._call = call
        self.is_async = inspect.iscoroutinefunction(call)

    def give(self, exc: BaseException | None) -> None:
        result = self._call(exc)
        if result is not None and inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            raise RequestContextError(
                f"the callback {getattr(self._call, '__qualname__', self._call)} returned an awaitable, and the "
                "request was "
                "closed without `await`: end it with `await ctx.aclose()`, or open it with `async with`"
            )

    async def agive(self, exc: BaseException | None) -> None:
        result = self._call(exc)
        if result is not None and inspect.isawaitable(result):
            await through(result)


def ended(ctx: RequestContext) -> RequestContextError:
    return RequestContextError(
        f"{ctx} has ended, and with it the use of its pooled values. Work that outlives a request needs a request of "
        "its "
        "own: open one around it."
    )


def _wake(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    if _get_running_loop() is loop:
        if not future.done():
            future.set_result(None)
        return
    try:
        loop.call_soon_threadsafe(_wake, loop, future)
    except RuntimeError:  # that loop is closed, and with it the waiter
        pass
