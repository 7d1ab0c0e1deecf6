"""
How operations wait, wake and run hooks in threads.

A wait blocks the calling thread, so an operation never suspends and runs to its end in one
step. All pools of the process share one timer and one group of workers. The group grows with the
amount of work and shrinks when idle, so a hook that never returns costs one
thread and delays no other hook. No thread starts before there is work for it.
"""

from __future__ import annotations

import contextvars
import itertools
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf
from types import CoroutineType
from typing import Any, TypeVar

from ..locks import make_lock
from .alarms import Alarms, by_the_machines_clock, report
from .base import Runnable, StepTimeoutError
from .fork import call_in_child

R = TypeVar("R")

log = logging.getLogger("pooling")

IDLE_WORKER_STAYS = 2.0  # seconds after which a worker or the timer ends, if it has no work
LONGEST_WAIT = threading.TIMEOUT_MAX


def finish(work: Runnable[R]) -> R:
    """Run work whose backend never suspends; returns its result."""
    coroutine = work.begin()
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError("a hook suspended in a pool for threads; an awaitable cannot be awaited there")


class Latch:
    """Lets one thread wait until another opens it."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:  # it was open already
            pass

    def wait(self, seconds: float) -> bool:
        """Whether it was opened in time."""
        return self._lock.acquire(timeout=min(max(seconds, 0.0), LONGEST_WAIT))


class Job:
    """A piece of background work and its result or error."""

    __slots__ = ("_done", "_error", "_result", "_work")

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work: Callable[[], Any] | None = work
        self._done = Latch()
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        work, self._work = self._work, None
        try:
            assert work is not None
            self._result = work()
        except BaseException as error:
            self._error = error
        finally:
            del work
            self._done.open()

    def wait(self, seconds: float) -> bool:
        """Whether it ended in time."""
        if not self._done.wait(seconds):
            return False
        self._done.open()  # for the next waiter
        return True

    def result(self) -> Any:
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # else its traceback would keep this frame, and so this job, alive
        return self._result


def starts(thread: threading.Thread) -> bool:
    """Start a thread; whether that was possible. While the interpreter shuts down it raises, or before 3.12 hangs."""
    if sys.is_finalizing():
        return False
    try:
        thread.start()
    except RuntimeError:
        return False
    return True


class Workers:
    """
    Threads for background work: as many as there are jobs at the same time, and none without jobs.

    Args:
        stays: Seconds after which a worker without a job ends.
    """

    def __init__(self, stays: float = IDLE_WORKER_STAYS) -> None:
        self._stays = stays
        self._lock = make_lock()
        self._jobs: deque[Job] = deque()
        self._idle: deque[Latch] = deque()
        self._names = itertools.count(1)

    def submit(self, work: Callable[[], Any]) -> Job:
        """
        Run `work` soon, on a worker; never waits for other work to end.

        If no thread can be started, as while the interpreter shuts down, `work` runs in the calling thread.
        """
        job = Job(work)
        if sys.is_finalizing():  # an idle worker would not wake up any more
            job.run()
            return job
        with self._lock:
            self._jobs.append(job)
            # Each latch wakes one idle worker for one job, so a job never queues behind a busy worker.
            latch = self._idle.pop() if self._idle else None
        if latch is not None:
            latch.open()
            return job
        if not starts(threading.Thread(target=self._work, name=f"pooling-worker-{next(self._names)}", daemon=True)):
            with self._lock:
                is_taken = job not in self._jobs  # by a worker that had just finished
                if not is_taken:
                    self._jobs.remove(job)
            if not is_taken:
                job.run()
        return job

    def _work(self) -> None:
        while True:
            latch = Latch()  # new each time: an earlier one may be opened late, after this worker has found the job
            with self._lock:
                job = self._jobs.popleft() if self._jobs else None
                if job is None:
                    self._idle.append(latch)
            if job is not None:
                job.run()
                del job
            elif not latch.wait(self._stays):
                with self._lock:
                    if latch in self._idle:
                        self._idle.remove(latch)
                        return
                # This worker was assigned a job, unless an interrupt took the job away.


class Timer:
    """Calls back at given instants, for all pools of the process, from one thread that ends if nothing is due."""

    def __init__(self) -> None:
        self._lock = make_lock()
        self._alarms = Alarms()
        self._wake = Latch()
        self._thread: threading.Thread | None = None

    def at(self, when: float, callback: Callable[[], None]) -> None:
        """Call `callback` at this monotonic time; it must be quick and must not raise."""
        with self._lock:
            first = self._alarms.next_at()
            is_to_be_reported = self._alarms.add(when, callback, time.monotonic())
            # Also if it is as early as another one: an interrupt may have kept that one from waking the timer.
            is_first = self._alarms.next_at() <= first
            thread = self._thread
            if thread is None or not thread.is_alive():
                # Made here, since gevent may have replaced `threading`'s locks meanwhile, also after a fork.
                self._wake = Latch()
                thread = self._thread = threading.Thread(target=self._run, name="pooling-timer", daemon=True)
                if not starts(thread):  # nothing is done in time then, but no borrower waits longer than it said
                    self._thread = None
            elif is_first:
                self._wake.open()
        if is_to_be_reported:
            report(callback)

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._thread is not threading.current_thread():  # an interrupted start was followed by another
                    return
                now = time.monotonic()
                callback = self._alarms.pop(now)
                first = self._alarms.next_at()
            if callback is not None:
                try:
                    callback()
                except BaseException:  # an observer may raise anything, and all pools share the timer
                    log.exception("a callback of the pools' timer failed; the others go on")
            elif not self._wake.wait(first - now if first < inf else IDLE_WORKER_STAYS):
                with self._lock:
                    if self._alarms.next_at() == inf:
                        self._thread = None
                        return


class Shared:
    """What all pools for threads of this process share; made anew in a forked child."""

    def __init__(self) -> None:
        self.workers = Workers()
        self.timer = Timer()


shared = Shared()
call_in_child(shared.__init__)  # type: ignore[misc]


class ThreadBackend:
    """
    The backend of one pool for threads.

    Args:
        now: The clock of the pool.
        is_inline: Whether hooks with a deadline run in the borrower's thread.
        lock: A lock that several pools share, or `None` to make one for this pool.
    """

    __slots__ = ("_is_inline", "lock", "now")

    can_interrupt = False  # a running hook cannot be interrupted

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        *,
        is_inline: bool = False,
        lock: threading.Lock | None = None,
    ) -> None:
        self.lock = lock or make_lock()
        self.now: Callable[[], float] = now
        self._is_inline = is_inline

    def latch(self) -> Latch:
        return Latch()

    def wake(self, latch: Latch) -> None:
        latch.open()

    async def wait(self, latch: Latch, deadline: float) -> bool:
        """Block until the latch is opened or the deadline has passed. Returns whether it was opened."""
        return latch.wait(deadline - self.now())

    async def call(
        self,
        hook: Callable[..., Any],
        args: tuple[Any, ...],
        deadline: float,
        *,
        stays: bool = False,
    ) -> Any:
        """
        Run a hook; returns its result.

        With a deadline it runs on a worker while the caller waits, in a copy of the
        caller's context. A hook that does not return in time goes on there without the caller.

        Raises:
            StepTimeoutError: The deadline passed first.
            TypeError: The hook returned a coroutine, which cannot be awaited here.
        """
        if deadline == inf or self._is_inline:
            result = hook(*args)
        else:
            job = shared.workers.submit(partial(contextvars.copy_context().run, hook, *args))
            if not job.wait(deadline - self.now()):
                raise StepTimeoutError
            result = job.result()
        if isinstance(result, CoroutineType):
            result.close()
            raise TypeError(
                "a hook returned a coroutine, and a pool for threads has no loop to run it: "
                "use AsyncPoolingService, or a plain function"
            )
        return result

    def spawn(self, work: Runnable[Any], name: str) -> None:
        """Run work in the background."""
        shared.workers.submit(partial(finish, work))

    def at(self, when: float, callback: Callable[[], None]) -> None:
        """Call `callback` at this instant, in the timer thread of the process."""
        shared.timer.at(by_the_machines_clock(when, self.now), callback)

    def visit(self, callback: Callable[[], None]) -> bool:
        """Call `callback` now."""
        callback()
        return True
