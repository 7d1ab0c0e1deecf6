"""
How operations wait, wake and run hooks in an event loop.

A wait is one Future, which a timer resolves at the deadline. A hook is cancelled at its deadline; one that suppresses
the cancellation delays its borrower. All pools of a loop share one timer handle. No task runs while a pool is idle.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import time
import weakref
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

from .alarms import Alarms, by_the_machines_clock, report
from .base import Runnable, StepTimeoutError

if TYPE_CHECKING:
    from types import TracebackType


LATE = 1.0  # seconds after which a timer handle that has not called counts as lost to an interrupt


class NoLock:
    """No lock is needed: all pools of a loop run in one thread, and nothing suspends where a lock would be held."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass


NO_LOCK = NoLock()


class Latch:
    """Lets one task wait until another opens it."""

    __slots__ = ("future", "is_open")

    def __init__(self) -> None:
        self.is_open = False
        self.future: asyncio.Future[None] | None = None  # while a task waits


class LoopTimer:
    """Calls back at given instants, for all pools of one loop, through one timer handle."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._alarms = Alarms()
        self._handle: asyncio.TimerHandle | None = None
        self._handle_at = inf

    def at(self, when: float, callback: Callable[[], None]) -> None:
        """Call `callback` at this monotonic time; it must be quick and must not raise."""
        if self._alarms.add(when, callback, time.monotonic()):
            report(callback)
        self._arm()

    def _arm(self) -> None:
        loop, when, now = self._loop(), self._alarms.next_at(), time.monotonic()
        if loop is None or when == inf or (when >= self._handle_at and self._handle_at >= now - LATE):
            return
        handle = loop.call_later(max(when - now, 0.0), self._ring, context=contextvars.Context())
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
    """The backend of one asyncio pool, bound to the first loop it is used in."""

    __slots__ = ("lock", "loop", "now", "tasks")

    can_interrupt = True  # a running hook is cancelled

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.lock = NO_LOCK
        self.now: Callable[[], float] = now
        self.loop: asyncio.AbstractEventLoop | None = None
        self.tasks: set[asyncio.Task[Any]] | None = None  # the loop itself keeps only weak references

    def latch(self) -> Latch:
        return Latch()

    def wake(self, latch: Latch) -> None:
        latch.is_open = True
        if latch.future is not None and not latch.future.done():
            latch.future.set_result(None)

    async def wait(self, latch: Latch, deadline: float) -> bool:
        """Suspend until the latch is opened or the deadline has passed; whether it was opened."""
        if latch.is_open:
            return True
        assert self.loop is not None
        latch.future = future = self.loop.create_future()
        timer = None
        if deadline != inf:
            timer = self.loop.call_later(max(deadline - self.now(), 0.0), _give_up, future)
        try:
            await future
        finally:
            if timer is not None:
                timer.cancel()
        return latch.is_open

    async def call(
        self, hook: Callable[..., Any], args: tuple[Any, ...], deadline: float, *, stays: bool = False
    ) -> Any:
        """
        Run a hook, awaiting what it returns; returns its result.

        At the deadline the hook is cancelled. One that suppresses the cancellation is waited for.

        Args:
            hook: May return an awaitable.
            args: For the hook.
            deadline: When to cancel it.
            stays: Whether to take a result that comes after the deadline.

        Raises:
            StepTimeoutError: The deadline passed first.
        """
        result = hook(*args)
        if not inspect.isawaitable(result):
            return result
        if deadline == inf:
            return await result
        scope = asyncio.timeout(max(deadline - self.now(), 0.0))
        try:
            async with scope:
                result = await result
        except TimeoutError:
            if scope.expired():
                raise StepTimeoutError from None
            raise
        if scope.expired() and not stays:
            raise StepTimeoutError
        return result

    def spawn(self, work: Runnable[Any], name: str) -> None:
        """Run work in the background, in an empty context: no request's values leak into a shared resource."""
        if self.loop is None:
            raise RuntimeError("the pool is not bound to an event loop yet")
        coroutine = work.begin()
        try:
            task = self.loop.create_task(coroutine, name=name, context=contextvars.Context())
        except Exception:
            coroutine.close()
            raise
        if self.tasks is None:
            self.tasks = set()
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def at(self, when: float, callback: Callable[[], None]) -> None:
        """Call `callback` at this instant, from the loop's timer."""
        if self.loop is None or self.loop.is_closed():
            return
        timer = _timers.get(self.loop)
        if timer is None:
            timer = _timers[self.loop] = LoopTimer(self.loop)
        timer.at(by_the_machines_clock(when, self.now), callback)

    def visit(self, callback: Callable[[], None]) -> bool:
        """Call `callback` soon, in the loop; `False` if there is none any more."""
        try:
            if self.loop is None:
                return False
            self.loop.call_soon_threadsafe(callback, context=contextvars.Context())
        except RuntimeError:  # it is closed
            return False
        return True

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Bind the backend to this loop."""
        self.loop = loop
        self.tasks = None


def _give_up(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
