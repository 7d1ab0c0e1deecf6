"""
How the flows wait, wake and run hooks in an event loop.

A wait is one Future; a deadline is an exception set on nothing and a cancellation of nobody:
a timer resolves the Future. All pools of a loop share one timer handle. No task runs while a pool is idle.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import time
import types
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator
from math import inf
from typing import TYPE_CHECKING, Any

from .alarms import Alarms, by_the_machines_clock, report
from .base import StepTimeoutError

if TYPE_CHECKING:
    from types import TracebackType


log = logging.getLogger("pooling")

CLEANING_UP = 0.05  # seconds that a cancelled hook has to end, before it is left behind


class NoLock:
    """Everything happens in one thread, and nothing suspends where a lock would be held."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass


NO_LOCK = NoLock()


class LoopTimer:
    """Calls back at given instants, for all pools of one loop, through one timer handle."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._alarms = Alarms()
        self._handle: asyncio.TimerHandle | None = None
        self._handle_at = inf

    def at(self, when: float, callback: Callable[[], None]) -> None:
        """Have `callback` called at this monotonic time; it must be quick and must not raise."""
        if self._alarms.add(when, callback, time.monotonic()):
            report(callback)
        self._arm()

    def _arm(self) -> None:
        loop, when = self._loop(), self._alarms.next_at()
        if loop is None or when >= self._handle_at:
            return
        handle = loop.call_later(max(when - time.monotonic(), 0.0), self._ring, context=contextvars.Context())
        if self._handle is not None:
            self._handle.cancel()
        self._handle, self._handle_at = handle, when

    def _ring(self) -> None:
        self._handle, self._handle_at = None, inf
        now = time.monotonic()
        try:
            while (callback := self._alarms.pop(now)) is not None:
                callback()
        finally:
            self._arm()


_timers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopTimer] = weakref.WeakKeyDictionary()


class AsyncioBackend:
    """The environment of one asyncio pool, bound to the first loop it is used in."""

    __slots__ = ("has_warned", "lock", "loop", "now", "tasks")

    can_interrupt = True  # a hook under way is stopped by cancelling it

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.lock = NO_LOCK
        self.has_warned = False
        self.now: Callable[[], float] = now
        self.loop: asyncio.AbstractEventLoop | None = None
        self.tasks: set[asyncio.Task[Any]] | None = None  # the loop itself keeps only weak references

    def latch(self) -> asyncio.Future[bool]:
        assert self.loop is not None
        return self.loop.create_future()

    def wake(self, latch: asyncio.Future[bool]) -> None:
        if not latch.done():
            latch.set_result(True)

    async def wait(self, latch: asyncio.Future[bool], deadline: float) -> bool:
        """Suspend until the latch is opened or the deadline has passed; whether it was opened."""
        if latch.done():
            return latch.result()
        if deadline == inf:
            return await latch
        assert self.loop is not None
        delay = max(deadline - self.now(), 0.0)
        timer = self.loop.call_later(delay, _give_up, latch)
        try:
            return await latch
        finally:
            timer.cancel()

    async def call(
        self, hook: Callable[..., Any], args: tuple[Any, ...], deadline: float, *, stays: bool = False
    ) -> Any:
        """
        Run a hook, awaiting what it returns; its result.

        At the deadline the hook is cancelled. One that goes on all the same is left behind in a task of its own.

        Args:
            hook: May return an awaitable.
            args: For the hook.
            deadline: When to cancel it.
            stays: Whether to wait for a hook that goes on all the same, for what it may still give.

        Raises:
            StepTimeoutError: The deadline passed first.
        """
        result = hook(*args)
        if not inspect.isawaitable(result):
            return result
        if deadline == inf:
            return await result
        if stays:
            scope = asyncio.timeout(max(deadline - self.now(), 0.0))
            try:
                async with scope:
                    return await result
            except TimeoutError:
                if scope.expired():
                    raise StepTimeoutError from None
                raise
        assert self.loop is not None
        stepped = Stepped(self.loop, result, max(deadline - self.now(), 0.0))
        try:
            return await stepped
        except StepTimeoutError:
            if not stepped.is_late:  # the hook's own
                raise
        return await self._leave_behind(stepped, hook)

    async def _leave_behind(self, stepped: Stepped, hook: Callable[..., Any]) -> Any:
        """Cancel a hook that is over its time, and wait for a moment only."""
        assert self.loop is not None
        if self.tasks is None:
            self.tasks = set()
        rest = self.loop.create_task(stepped.rest(), name="pooling-hook-left-behind")
        self.tasks.add(rest)
        rest.add_done_callback(self.tasks.discard)
        rest.add_done_callback(_look_at)
        if stepped.is_cancelled():
            raise asyncio.CancelledError
        await asyncio.wait({rest}, timeout=CLEANING_UP)
        if not rest.done():
            if not self.has_warned:
                self.has_warned = True
                log.warning(
                    "%s went on after it was cancelled because its time was up; it is left behind in a task of its "
                    "own (further ones of this pool are not reported)",
                    getattr(hook, "__qualname__", "a hook"),
                )
            raise StepTimeoutError
        if rest.cancelled() or rest.exception() is not None:
            raise StepTimeoutError
        return rest.result()

    def spawn(self, flow: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run a flow in the background, in an empty context: no request's values leak into a shared resource."""
        try:
            if self.loop is None:
                raise RuntimeError("the pool is in no event loop yet")
            task = self.loop.create_task(flow, name=name, context=contextvars.Context())
        except BaseException:
            flow.close()
            raise
        if self.tasks is None:
            self.tasks = set()
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def join(self, job: asyncio.Task[Any] | None, deadline: float) -> None:
        """Wait for background work, until the deadline; cancelling the wait does not cancel the work."""
        if job is not None and not job.done():
            await asyncio.wait({job}, timeout=None if deadline == inf else max(deadline - self.now(), 0.0))

    def at(self, when: float, callback: Callable[[], None]) -> None:
        """Have `callback` called at this instant, from the loop's timer."""
        if self.loop is None or self.loop.is_closed():
            return
        timer = _timers.get(self.loop)
        if timer is None:
            timer = _timers[self.loop] = LoopTimer(self.loop)
        timer.at(by_the_machines_clock(when, self.now), callback)

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Belong to this loop from now on."""
        self.loop = loop
        self.tasks = None


class Stepped:
    """
    Awaits a hook, for so many seconds, in the task that awaits this: the hook sees the borrower's task and context.

    A task that is cancelled throws that into the hook, which may keep it to itself. So the hook is stepped by hand, and
    what the timer brings about is seen here first.

    Args:
        loop: The running loop.
        work: What the hook returned.
        seconds: Until it is late.

    Raises:
        StepTimeoutError: It is late; `rest` is to follow.
    """

    __slots__ = ("_awaited", "_cancels", "_latch", "_loop", "_seconds", "_work", "is_late")

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Awaitable[Any], seconds: float) -> None:
        self._loop = loop
        self._work = work.__await__() if inspect.iscoroutine(work) else _awaiting(work).__await__()
        self._seconds = seconds
        self._awaited: Any = None
        self._latch: asyncio.Future[None] | None = None
        self._cancels = _cancels()
        self.is_late = False

    def is_cancelled(self) -> bool:
        """Whether somebody has cancelled the task meanwhile, and the hook has kept that to itself."""
        return _cancels() > self._cancels

    def __await__(self) -> Generator[Any, Any, Any]:
        timer: asyncio.TimerHandle | None = None
        error: BaseException | None = None
        try:
            while True:
                try:
                    awaited = self._work.send(None) if error is None else self._work.throw(error)
                except StopIteration as stop:
                    return stop.value
                error = None
                if timer is None:
                    timer = self._loop.call_later(self._seconds, self._ring)
                self._awaited = awaited
                try:
                    if (
                        type(awaited) is asyncio.Future
                        or not _is_future(awaited)
                        or awaited.get_loop() is not self._loop
                    ):
                        yield awaited
                    else:
                        yield from self._wait(awaited)
                except GeneratorExit:
                    self._work.close()
                    raise
                except BaseException as raised:  # noqa: BLE001 - it is the hook's
                    error = raised
                if self.is_late:
                    raise StepTimeoutError
        finally:
            if timer is not None:
                timer.cancel()

    def _wait(self, awaited: asyncio.Future[Any]) -> Generator[Any, Any, None]:
        """Wait for a task, say, which may go on although it was cancelled; a plain Future ends with its cancelling."""
        awaited._asyncio_future_blocking = False
        awaited.add_done_callback(self._wake)
        while not (awaited.done() or self.is_late):
            self._latch = self._loop.create_future()
            try:
                yield from self._latch.__await__()
            except asyncio.CancelledError:
                if not awaited.cancel():
                    raise

    def _ring(self) -> None:
        self.is_late = True
        if type(self._awaited) is asyncio.Future:
            self._awaited.cancel()
        self._wake()

    def _wake(self, _: object = None) -> None:
        if self._latch is not None and not self._latch.done():
            self._latch.set_result(None)

    async def rest(self) -> Any:
        """What there is left of the hook, which is cancelled first; in a task of its own."""
        return await self._cancelled()

    @types.coroutine
    def _cancelled(self) -> Generator[Any, Any, Any]:
        awaited: Any = self._awaited
        error: BaseException | None = None
        if _is_future(awaited) and awaited.cancel():
            awaited._asyncio_future_blocking = True
        else:
            awaited, error = None, asyncio.CancelledError()
        while True:
            if error is None:
                try:
                    yield awaited
                except GeneratorExit:
                    self._work.close()
                    raise
                except BaseException as raised:  # noqa: BLE001 - it is the hook's
                    error = raised
            try:
                awaited, error = self._work.send(None) if error is None else self._work.throw(error), None
            except StopIteration as stop:
                return stop.value


async def _awaiting(work: Awaitable[Any]) -> Any:
    return await work


def _is_future(awaited: Any) -> bool:
    return getattr(awaited, "_asyncio_future_blocking", None) is not None


def _cancels() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _look_at(task: asyncio.Task[Any]) -> None:
    """Nobody else may, and asyncio would complain."""
    if not task.cancelled():
        task.exception()


def _give_up(latch: asyncio.Future[bool]) -> None:
    if not latch.done():
        latch.set_result(False)
