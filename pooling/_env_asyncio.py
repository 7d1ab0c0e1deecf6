"""
How the flows wait, wake and run hooks in an event loop.

A wait is one Future; a deadline is an exception set on nothing and a cancellation of nobody:
a timer resolves the Future. All pools of a loop share one timer handle. No task runs while a pool is idle.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import inspect
import itertools
import time
import weakref
from collections.abc import Callable, Coroutine
from math import inf
from typing import TYPE_CHECKING, Any

from ._env import StepTimeoutError

if TYPE_CHECKING:
    from types import TracebackType


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
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._serials = itertools.count()
        self._handle: asyncio.TimerHandle | None = None
        self._handle_at = inf

    def at(self, when: float, callback: Callable[[], None]) -> None:
        """Have `callback` called at this monotonic time; it must be quick and must not raise."""
        heapq.heappush(self._heap, (when, next(self._serials), callback))
        self._arm()

    def _arm(self) -> None:
        loop = self._loop()
        if loop is None or not self._heap or self._heap[0][0] >= self._handle_at:
            return
        if self._handle is not None:
            self._handle.cancel()
        self._handle_at = self._heap[0][0]
        delay = max(self._handle_at - time.monotonic(), 0.0)
        self._handle = loop.call_later(delay, self._ring, context=contextvars.Context())

    def _ring(self) -> None:
        self._handle, self._handle_at = None, inf
        now = time.monotonic()
        while self._heap and self._heap[0][0] <= now:
            heapq.heappop(self._heap)[2]()
        self._arm()


_timers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopTimer] = weakref.WeakKeyDictionary()


class AsyncioEnv:
    """The environment of one asyncio pool, bound to the first loop it is used in."""

    __slots__ = ("lock", "loop", "now", "tasks")

    can_interrupt = True  # a hook under way is stopped by cancelling it

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.lock = NO_LOCK
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

    async def call(self, hook: Callable[..., Any], args: tuple[Any, ...], deadline: float) -> Any:
        """
        Run a hook, awaiting what it returns; its result.

        Raises:
            StepTimeoutError: The deadline passed first; the hook was cancelled.
        """
        result = hook(*args)
        if not inspect.isawaitable(result):
            return result
        if deadline == inf:
            return await result
        scope = asyncio.timeout(max(deadline - self.now(), 0.0))
        try:
            async with scope:
                return await result
        except TimeoutError:
            if scope.expired():
                raise StepTimeoutError from None
            raise

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
        if self.now is not time.monotonic:
            when += time.monotonic() - self.now()
        timer.at(when, callback)

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Belong to this loop from now on."""
        self.loop = loop
        self.tasks = None


def _give_up(latch: asyncio.Future[bool]) -> None:
    if not latch.done():
        latch.set_result(False)
