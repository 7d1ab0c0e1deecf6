"""
One value a request holds: being taken, out, or given back.

Whoever asks first takes it, the others wait for that one attempt. A lender is
anything to take from; a small class for each kind says how. Nothing here takes a
lock except to decide, once, who gives back a value that arrived after its request had ended.

Rules of the file:

- `value` is set before `done`, and `done` before the waiters are looked at; a waiter puts itself in the
  list before it looks at `done`. So either side sees the other.
- A failed attempt reaches all who waited for it, and is forgotten: the next to ask tries again. An
  *interrupted* attempt belongs to one caller alone, and another of the waiters takes over.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ._env_threads import shared
from .errors import ConfigurationError, ReleaseError, RequestContextError
from .lease import AsyncPooledValue, PooledValue
from .service import AsyncPoolingService, PoolingService

if TYPE_CHECKING:
    from types import TracebackType

    from .context import RequestContext

logger = logging.getLogger("pooling")

R = TypeVar("R")

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


# --- the kinds of lender ---------------------------------------------------------------------------------------------


class FromService(Held):
    """From a pool for threads: `acquire(ctx)`, `release(value, exc=...)`."""

    __slots__ = ()

    is_direct = True

    def take(self, ctx: RequestContext, options: dict[str, Any]) -> Any:
        return self.lender.acquire(ctx, **options) if options else self.lender.acquire(ctx)

    def give(self, exc: BaseException | None) -> Any:
        lender = self.lender
        if exc is None:
            return lender.release(self.value)
        try:
            if isinstance(lender, PoolingService):  # what an error means for the value is the pool's to say
                return PooledValue(lender, self.value).__exit__(type(exc), exc, exc.__traceback__)
            return lender.release(self.value, exc=exc)  # type: ignore[unreachable,unused-ignore]
        except ReleaseError as failure:  # the request's own error is the one to be seen
            logger.warning("%s", failure)


class FromAsyncService(FromService):
    """The same, where both are coroutine functions."""

    __slots__ = ()

    is_async = True

    def at_hand(self) -> bool:
        return getattr(self.lender, "available", 0) > 0

    def give(self, exc: BaseException | None) -> Any:
        lender = self.lender
        if exc is None:
            return lender.release(self.value)
        return self._give(exc)

    async def _give(self, exc: BaseException) -> None:
        lender = self.lender
        try:
            if isinstance(lender, AsyncPoolingService):
                await AsyncPooledValue(lender, self.value).__aexit__(type(exc), exc, exc.__traceback__)
            else:
                await lender.release(self.value, exc=exc)
        except ReleaseError as failure:
            logger.warning("%s", failure)

    agive = give


class FromContextManager(Held):
    """The lender, or what its `connection()` gives, is a context manager around one use."""

    __slots__ = ("_manager",)

    def _open(self, options: dict[str, Any]) -> Any:
        lender = self.lender
        self._manager = lender.connection(**options) if callable(getattr(lender, "connection", None)) else lender
        return self._manager

    def take(self, ctx: RequestContext, options: dict[str, Any]) -> Any:
        return self._open(options).__enter__()

    def give(self, exc: BaseException | None) -> Any:
        try:
            self._manager.__exit__(*_details(exc))
        except BaseException as error:
            if error is not exc:
                raise


class FromAsyncContextManager(FromContextManager):
    """The same with `async with`."""

    __slots__ = ()

    is_async = True

    async def take(self, ctx: RequestContext, options: dict[str, Any]) -> Any:
        return await self._open(options).__aenter__()

    def give(self, exc: BaseException | None) -> Any:
        return through(self._give(exc))

    async def _give(self, exc: BaseException | None) -> None:
        try:
            await self._manager.__aexit__(*_details(exc))
        except BaseException as error:
            if error is not exc:
                raise


class FromGetPut(Held):
    """`getconn()` and `putconn(value)`, for pools that have no `connection()`."""

    __slots__ = ()

    def take(self, ctx: RequestContext, options: dict[str, Any]) -> Any:
        return self.lender.getconn(**options)

    def give(self, exc: BaseException | None) -> Any:
        return self.lender.putconn(self.value)


class FromAsyncGetPut(FromGetPut):
    """The same, where both are coroutine functions."""

    __slots__ = ()

    is_async = True

    def give(self, exc: BaseException | None) -> Any:
        return through(self.lender.putconn(self.value))


#: The kind for each type seen so far; only types whose every instance is of one kind are in here.
service_kinds: dict[type, type[Held]] = {}


def kind_of(lender: Any) -> type[Held]:
    """
    How to take from this lender.

    Raises:
        ConfigurationError: It has none of the known shapes.
    """
    found = service_kinds.get(type(lender))
    if found is not None:
        return found
    if callable(getattr(lender, "pool", None)) and callable(getattr(lender, "keys", None)):
        raise ConfigurationError(
            f"{type(lender).__qualname__} has a pool for each key: take from the pool of one, `keyed.pool(key)`; in a "
            "container, di.Pooled(keyed, key=...)",
            field="key",
        )
    if callable(getattr(lender, "acquire", None)) and callable(getattr(lender, "release", None)):
        kind: type[Held] = FromAsyncService if inspect.iscoroutinefunction(lender.acquire) else FromService
        service_kinds[type(lender)] = kind
        return kind
    if callable(getattr(lender, "connection", None)):
        return FromAsyncContextManager if _connects_asynchronously(lender) else FromContextManager
    if callable(getattr(lender, "getconn", None)) and callable(getattr(lender, "putconn", None)):
        return FromAsyncGetPut if inspect.iscoroutinefunction(lender.getconn) else FromGetPut
    if hasattr(lender, "__aenter__"):
        return FromAsyncContextManager
    if hasattr(lender, "__enter__"):
        return FromContextManager
    raise ConfigurationError(
        f"a pooled value cannot be taken from {type(lender).__qualname__}: expected a PoolingService, an "
        "AsyncPoolingService, an object with acquire(request_ctx) and release(value, exc=...), one with connection() "
        "or "
        "getconn() and putconn(), or a context manager",
        field="source",
    )


def _connects_asynchronously(lender: Any) -> bool:
    """Whether its `connection()` is for `async with`, told from the company it keeps: calling it might do something."""
    if inspect.isasyncgenfunction(inspect.unwrap(lender.connection)):
        return True
    if hasattr(lender, "__aenter__") and not hasattr(lender, "__enter__"):
        return True
    return any(inspect.iscoroutinefunction(getattr(lender, name, None)) for name in ("getconn", "putconn", "close"))


def is_single_use(lender: Any) -> bool:
    """Whether this is a context manager around one use, rather than a pool to take from."""
    return not any(callable(getattr(lender, name, None)) for name in ("acquire", "connection", "getconn"))


# --- small parts -----------------------------------------------------------------------------------------------------


def ended(ctx: RequestContext) -> RequestContextError:
    return RequestContextError(
        f"{ctx} has ended, and with it the use of its pooled values. Work that outlives a request needs a request of "
        "its "
        "own: open one around it."
    )


def in_loop() -> bool:
    """Whether this thread is running an event loop right now, and so must not block."""
    return _get_running_loop() is not None


async def in_worker(work: Callable[[], R], unwanted: Callable[[R], None] | None = None) -> R:
    """
    Run blocking work on a worker thread, in a copy of this context.

    Cancelling the wait does not stop the work; its result then goes to `unwanted`, on the worker.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[R] = loop.create_future()
    run = contextvars.copy_context().run

    def job() -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = run(work)
        except BaseException as caught:  # noqa: BLE001 - it belongs to whoever waits
            error = caught
        try:
            loop.call_soon_threadsafe(deliver, result, error)
        except RuntimeError:  # the loop is closed, and nobody waits any more
            drop(result, error)

    def deliver(result: Any, error: BaseException | None) -> None:
        if future.cancelled():
            shared.workers.submit(partial(drop, result, error))
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def drop(result: Any, error: BaseException | None = None) -> None:
        if unwanted is not None and error is None:
            try:
                unwanted(result)
            except Exception:
                logger.exception("giving back a value that came too late failed")

    shared.workers.submit(job)
    try:
        return await future
    except asyncio.CancelledError:
        if future.done() and not future.cancelled() and future.exception() is None:
            shared.workers.submit(partial(drop, future.result()))
        raise


async def through(awaitable: Awaitable[R]) -> R:
    """Await something that must not be cut short: a cancellation is held back to its end, a second one cuts it."""
    task = asyncio.ensure_future(_coroutine(awaitable))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if task.done():
            raise
        try:
            await task
        except asyncio.CancelledError:
            pass
        raise


async def _coroutine(awaitable: Awaitable[R]) -> R:
    return await awaitable


def _details(
    exc: BaseException | None,
) -> tuple[type[BaseException] | None, BaseException | None, TracebackType | None]:
    return (None, None, None) if exc is None else (type(exc), exc, exc.__traceback__)


def _wake(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    if _get_running_loop() is loop:
        if not future.done():
            future.set_result(None)
        return
    try:
        loop.call_soon_threadsafe(_wake, loop, future)
    except RuntimeError:  # that loop is closed, and with it the waiter
        pass
