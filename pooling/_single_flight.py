"""
Single flight: many callers need the same result at the same time, and one attempt gets it for all of them.

The callers share a place where a flight is found, such as a dictionary. The caller that puts a flight there, by one
atomic step such as `dict.setdefault`, *leads*: it makes the attempt, removes the flight from its place, and then ends
it in one of three ways:

    succeed(result)   The attempt worked.
    fail(error)       It failed, for all who waited. The next caller to ask makes another attempt.
    hand_on()         The leader was interrupted, which does not concern the waiters. They look again; one leads.

`give_up(error)` is one of the last two, by the kind of the error.

The other callers wait, in threads or in event loops. When they are woken, the flight is no longer in its place: a
caller that looks again finds the result, another flight, or leads one.

There is no lock. A waiter adds itself to a list and looks at the state afterwards; the leader sets the state and then
wakes those in the list. So one of them sees the other.
"""

from __future__ import annotations

import asyncio
import threading
from asyncio import _get_running_loop
from collections.abc import Callable, Coroutine
from enum import Enum
from functools import partial
from typing import Any, Final, Generic, TypeVar

__all__ = ["FlightState", "SingleFlight", "TaskFlight"]

T = TypeVar("T")


class FlightState(Enum):
    """How an attempt stands."""

    UNDER_WAY = "under way"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    HANDED_ON = "handed on"


# Bound once, since looking up a member of an enumeration is slow.
UNDER_WAY: Final = FlightState.UNDER_WAY
SUCCEEDED: Final = FlightState.SUCCEEDED


class SingleFlight(Generic[T]):
    """
    One attempt: the leader makes it, the other callers wait for it.

    Any number of threads and event loops may share it. Construction is cheap, since most flights have no waiter:
    attributes are those of the class until they are set, and the first waiter makes the list.

    Attributes:
        state: A `FlightState`. It changes once: of two calls that end a flight, the first one counts.
        result: The result of the attempt. Set only when it has succeeded.
        error: The error it failed with, else `None`.
    """

    state: FlightState = UNDER_WAY
    result: T
    error: BaseException | None = None
    _waiters: list[Callable[[], object]] | None = None  # one function for each waiter, which wakes it

    @property
    def is_over(self) -> bool:
        """Whether the attempt has ended."""
        return self.state is not UNDER_WAY

    @property
    def waiting(self) -> int:
        """How many callers wait for it."""
        return len(self._waiters or ())

    # --- for the leader ------------------------------------------------------------------------------------------

    def succeed(self, result: T) -> None:
        """End the flight with the result of the attempt."""
        if self.state is UNDER_WAY:
            self.result = result
            self.state = SUCCEEDED
            if self._waiters:
                self._wake()

    def fail(self, error: BaseException) -> None:
        """End the flight with an error for all waiters."""
        if self.state is UNDER_WAY:
            self.error = error
            self.state = FlightState.FAILED
            self._wake()

    def hand_on(self) -> None:
        """End the flight without an outcome, so that one of the waiters leads the next."""
        if self.state is UNDER_WAY:
            self.state = FlightState.HANDED_ON
            self._wake()

    def give_up(self, error: BaseException) -> None:
        """End the flight after the attempt raised `error`: an `Exception` fails it, an interrupt hands it on."""
        if isinstance(error, Exception):
            self.fail(error)
        else:
            self.hand_on()

    def _wake(self) -> None:
        waiters = self._waiters
        while waiters:
            try:
                wake = waiters.pop()
            except IndexError:  # the last waiter has just left
                return
            wake()

    # --- for waiters ---------------------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> None:
        """
        Block until the flight has ended.

        Args:
            timeout: Seconds after which to return in any case; `is_over` then tells whether the flight has ended.
        """
        latch = threading.Lock()
        latch.acquire()
        self._join(latch.release)
        try:
            if self.state is UNDER_WAY:
                latch.acquire(timeout=-1 if timeout is None else max(timeout, 0.0))
        finally:
            self._leave(latch.release)

    async def wait_async(self) -> None:
        """As `wait`, suspending. Cancelling one waiter does not affect the others."""
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        wake = partial(_call_in, loop, partial(_set, woken))
        self._join(wake)
        try:
            if self.state is UNDER_WAY:
                await woken
        finally:
            self._leave(wake)

    def _join(self, wake: Callable[[], object]) -> None:
        waiters: list[Callable[[], object]] = vars(self).setdefault("_waiters", [])  # atomic: one list for all
        waiters.append(wake)

    def _leave(self, wake: Callable[[], object]) -> None:
        try:
            self._waiters.remove(wake)  # type: ignore[union-attr]
        except ValueError:  # it was woken
            pass


class TaskFlight(SingleFlight[T]):
    """
    A flight that is led by a task, so that cancelling one caller does not cancel the attempt for the others.

    The result or error of the task ends the flight. If the last waiter leaves before that, the flight is
    removed from its place and the task is cancelled.

    Args:
        remove: Removes the flight from the place where it is found.
        outlives_waiters: Whether the attempt goes on when all waiters have left.
    """

    def __init__(self, remove: Callable[[], object], *, outlives_waiters: bool = False) -> None:
        self._remove = remove
        self._outlives_waiters = outlives_waiters
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[T] | None = None

    def begin(self, attempt: Coroutine[Any, Any, T]) -> None:
        """Start a task of the running loop that makes the attempt. Call it once, when the flight is in its place."""
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(attempt)
        self._task.add_done_callback(self._land)

    def cancel(self, error: BaseException) -> asyncio.Task[T] | None:
        """Fail the flight and cancel its task; returns the task if it is of the running loop and can be awaited."""
        self.fail(error)
        self._cancel_task()
        return self._task if self._loop is _get_running_loop() else None

    def _land(self, task: asyncio.Task[T]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if self.is_over:  # no caller waits for it any more
            return
        self._remove()
        if error is None:
            self.succeed(task.result())
        else:
            self.fail(error)

    def _leave(self, wake: Callable[[], object]) -> None:
        super()._leave(wake)
        if self._outlives_waiters or self._waiters or self.is_over:
            return
        self._remove()
        self.hand_on()
        self._cancel_task()

    def _cancel_task(self) -> None:
        if self._loop is not None and self._task is not None:
            _call_in(self._loop, self._task.cancel)


def _set(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


def _call_in(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Call it now if this is the thread that runs the loop, else soon in the loop's thread."""
    if _get_running_loop() is loop:
        callback()
        return
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:  # the loop is closed, so nothing in it waits
        pass
