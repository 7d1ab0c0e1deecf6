"""
What the workspace was asked, and its answers: one request for all that wait, kept until there is a reason for doubt.

A request runs on its own thread: a caller that gives up, or whose event loop ends, does not disturb the others.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Generic, NoReturn, TypeVar

from pooling import SingleFlight
from pooling.locks import make_lock

from ._secrets import forget_locals
from ._workers import run_alone
from .errors import ConfigurationError, CredentialError

__all__ = ["Lookups"]

A = TypeVar("A")

#: Seconds that a caller waits for an answer; the clients of the workspace give up earlier.
TIMEOUT = 60.0
#: Seconds in which an answer is not doubted: in an outage, connects fail many times a second.
YOUNG = 5.0
_MOST = 1024

_all: weakref.WeakSet[Lookups[Any]] = weakref.WeakSet()


class Lookups(Generic[A]):
    """
    Answers by key.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = make_lock()  # held while answers are changed
        self._answers: dict[Hashable, tuple[A, float]] = {}
        self._flights: dict[Hashable, SingleFlight[A]] = {}
        _all.add(self)

    def known(self, key: Hashable) -> A | None:
        """The answer, if there is one. Never blocks."""
        answer = self._answers.get(key)
        return None if answer is None else answer[0]

    def get(self, key: Hashable, ask: Callable[[], A]) -> A:
        """
        The answer, which `ask` fetches if there is none. Blocks meanwhile.

        Raises:
            CredentialError: There was none.
            ConfigurationError: As `ask` raised it.
        """
        while True:
            if (answer := self.known(key)) is not None:
                return answer
            flight, leads = self._join(key, ask)
            flight.wait(TIMEOUT)
            if leads or not _is_anothers(flight):
                return _outcome(flight)

    async def aget(self, key: Hashable, ask: Callable[[], A]) -> A:
        """As `get`, suspending."""
        import asyncio

        while True:
            if (answer := self.known(key)) is not None:
                return answer
            flight, leads = self._join(key, ask)
            try:
                async with asyncio.timeout(TIMEOUT):
                    await flight.wait_async()
            except TimeoutError:
                pass  # told below
            if leads or not _is_anothers(flight):
                return _outcome(flight)

    def doubt(self, key: Hashable, *, at_once: bool = False) -> None:
        """Ask again next time; an answer that has just come is believed, unless it is to go `at_once`."""
        with self._lock:
            answer = self._answers.get(key)
            if answer is not None and (at_once or self._clock() - answer[1] >= YOUNG):
                del self._answers[key]

    def after_fork(self) -> None:
        """In the child of a fork, where the threads of the parent's requests do not exist."""
        self._lock = make_lock()
        self._flights = {}

    def _join(self, key: Hashable, ask: Callable[[], A]) -> tuple[SingleFlight[A], bool]:
        own: SingleFlight[A] = SingleFlight()
        flight = self._flights.setdefault(key, own)  # atomic
        if flight is own:
            try:
                run_alone(partial(self._fly, key, own, ask))
            except BaseException as error:
                self._flights.pop(key, None)
                own.give_up(error)
                raise
        return flight, flight is own

    def _fly(self, key: Hashable, flight: SingleFlight[A], ask: Callable[[], A]) -> None:
        answer = self.known(key)  # of a request that has ended meanwhile
        try:
            answer = ask() if answer is None else answer
        except BaseException as error:  # noqa: BLE001 - it is the waiting callers'
            forget_locals(error)
            self._flights.pop(key, None)
            flight.fail(error)
            return
        with self._lock:
            while len(self._answers) >= _MOST:
                del self._answers[next(iter(self._answers))]
            self._answers[key] = answer, self._clock()
        self._flights.pop(key, None)
        flight.succeed(answer)


def _is_anothers(flight: SingleFlight[Any]) -> bool:
    """Whether it was refused to who asked, or not made at all: this caller's own request may be better."""
    error = flight.error
    if error is None:
        return flight.is_over and not hasattr(flight, "result")
    return not (isinstance(error, CredentialError) and error.is_transient)


def _outcome(flight: SingleFlight[A]) -> A:
    if not flight.is_over:
        raise CredentialError(f"the workspace did not answer within {TIMEOUT:g} s", is_transient=True, step="creating")
    if flight.error is not None:
        _raise_own(flight.error)
    return flight.result


def _raise_own(error: BaseException) -> NoReturn:
    """Raise an error that was met for several callers: each has its own traceback."""
    if isinstance(error, CredentialError):
        own: Exception = error.again()
    elif isinstance(error, ConfigurationError):
        own = ConfigurationError(str(error), field=error.field)
    else:
        own = CredentialError(f"the workspace could not be asked: {type(error).__name__}", step="creating")
        raise own from error
    raise own from error.__cause__


def _after_fork() -> None:
    for lookups in list(_all):
        lookups.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
