"""
How operations wait, wake and run hooks in threads.

A wait blocks the calling thread, so an operation never suspends and runs to its end in one
step. All pools of the process share one timer and one group of workers that grows with the
work at hand and shrinks when idle: a hook that never returns costs one
thread, and delays no other. No thread starts before there is work for it.
"""

from __future__ import annotations

import contextvars
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf
from types import CoroutineType
from typing import Any, TypeVar

from .alarms import Alarms, by_the_machines_clock, report
from .base import Runnable, StepTimeoutError
from .fork import call_in_child

R = TypeVar("R")

log = logging.getLogger("pooling")

IDLE_WORKER_STAYS = 2.0  # seconds until a worker, or the timer, without work ends
LONGEST_WAIT = threading.TIMEOUT_MAX


def finish(work: Runnable[R]) -> R:
    """Run work whose backend never suspends; its result."""
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
        except RuntimeError:  # it was open
            pass

    def wait(self, seconds: float) -> bool:
        """Whether it was opened in time."""
        return self._lock.acquire(timeout=min(max(seconds, 0.0), LONGEST_WAIT))


class Job:
    """A piece of background work and what came of it."""

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
        self._done.open()  # for the next who waits
        return True

    def result(self) -> Any:
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # the traceback would keep this frame, and so this job
        return self._result


class Workers:
    """Threads for background work: as many as there is work at once, none when there is none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: deque[Job] = deque()
        self._idle: deque[Latch] = deque()
        self._names = itertools.count(1)

    def submit(self, work: Callable[[], Any]) -> Job:
        """
        Have `work` run soon; never waits for other work to end.

        Where no thread is to be had, as while the interpreter shuts down, it runs here and now.
        """
        job = Job(work)
        with self._lock:
            self._jobs.append(job)
            # One latch is one worker on its way to one job: a job never queues behind a busy worker.
            latch = self._idle.pop() if self._idle else None
        if latch is not None:
            latch.open()
            return job
        try:
            name = f"pooling-worker-{next(self._names)}"
            threading.Thread(target=self._work, name=name, daemon=True).start()
        except RuntimeError:
            with self._lock:
                is_taken = job not in self._jobs  # by a worker that had just finished
                if not is_taken:
                    self._jobs.remove(job)
            if not is_taken:
                job.run()
        return job

    def _work(self) -> None:
        latch = Latch()
        while True:
            with self._lock:
                job = self._jobs.popleft() if self._jobs else None
                if job is None:
                    self._idle.append(latch)
            if job is None:
                if not latch.wait(IDLE_WORKER_STAYS):
                    with self._lock:
                        if latch in self._idle:
                            self._idle.remove(latch)
                            return
                    # A job is meant for this worker; unless an interrupt took it away again, the latch opens.
                continue
            job.run()
            del job


class Timer:
    """Calls back at given instants, for all pools of the process, from one thread that ends when nothing is due."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._alarms = Alarms()
        self._wake = Latch()
        self._thread: threading.Thread | None = None

    def at(self, when: float, callback: Callable[[], None]) -> None:
        """Have `callback` called at this monotonic time; it must be quick and must not raise."""
        with self._lock:
            first = self._alarms.next_at()
            is_to_be_reported = self._alarms.add(when, callback, time.monotonic())
            # Also where it is as early as another, which an interrupt may have kept from waking the timer.
            is_first = self._alarms.next_at() <= first
            thread = self._thread
            if thread is None or not thread.is_alive():
                # Of the kind that locks are now: gevent puts others in their place, also after a fork.
                self._wake = Latch()
                thread = self._thread = threading.Thread(target=self._run, name="pooling-timer", daemon=True)
                thread.start()
            elif is_first:
                self._wake.open()
        if is_to_be_reported:
            report(callback)

    def _run(self) -> None:
        while True:
            with self._lock:
                now = time.monotonic()
                callback = self._alarms.pop(now)
                first = self._alarms.next_at()
            if callback is not None:
                try:
                    callback()
                except BaseException:  # an observer may raise anything, and the timer is everybody's
                    log.exception("a callback of the pools' timer failed; the others go on")
            elif not self._wake.wait(first - now if first < inf else IDLE_WORKER_STAYS):
                with self._lock:
                    if self._alarms.next_at() == inf:
                        self._thread = None
                        return


class Shared:
    """What all pools for threads of this process have in common; made anew in a forked child."""

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
        is_inline: Whether hooks with a deadline run in the borrower's own thread.
        lock: One that several pools share, or `None` for one of its own.
    """

    __slots__ = ("_is_inline", "lock", "now")

    can_interrupt = False  # a hook under way cannot be stopped from outside

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        *,
        is_inline: bool = False,
        lock: threading.Lock | None = None,
    ) -> None:
        self.lock = lock or threading.Lock()
        self.now: Callable[[], float] = now
        self._is_inline = is_inline

    def latch(self) -> Latch:
        return Latch()

    def wake(self, latch: Latch) -> None:
        latch.open()

    async def wait(self, latch: Latch, deadline: float) -> bool:
        """Block until the latch is opened or the deadline has passed; whether it was opened."""
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
        Run a hook; its result.

        With a deadline it runs on a worker while the caller waits, in a copy of the
        caller's context; one that does not return in time is left behind there.

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
        """Have `callback` called at this instant, from the process' timer thread."""
        shared.timer.at(by_the_machines_clock(when, self.now), callback)
