"""
The callbacks of a timer, for both backends.

`Alarms` is pure: the time comes in as `now`. It protects the timer from an alarm that is due again as soon as it has
rung, for any reason: such an alarm is put off, for longer each time, and reported if that goes on. The alarms of other
pools ring on time meanwhile.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import time
import weakref
from collections.abc import Callable
from math import inf
from typing import Protocol

from .._engine.ledger import SHORTEST_ALARM

log = logging.getLogger("pooling")

PAUSE = 0.01  # seconds by which an alarm that would ring again at once is put off; doubled each time
LONGEST_PAUSE = 1.0
REPORTED_AFTER = 3  # times in a row
AT_ONCE = SHORTEST_ALARM / 2  # seconds after the beginning of a round; ledgers set alarms later than that


class Rings(Protocol):
    """Something with an alarm."""

    def _ring(self, when: float) -> None: ...


class Ring:
    """A callback for a timer, which does not keep its owner alive. Two of the same owner are equal."""

    __slots__ = ("_owner", "_when")

    def __init__(self, owner: Rings, when: float) -> None:
        self._owner = weakref.ref(owner)
        self._when = when

    def __call__(self) -> None:
        owner = self._owner()
        if owner is not None:
            owner._ring(self._when)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ring) and self._owner is other._owner

    def __hash__(self) -> int:
        return id(self._owner)  # all weak references to an owner are the same object

    def __repr__(self) -> str:
        return repr(self._owner())


class Alarms:
    """
    Callbacks, and when they are due.

    They are rung in rounds: a round rings all alarms that are due at its beginning. An alarm that was rung and then,
    before the next round, asks for an instant that is hardly later than its own round would ring again at once,
    perhaps endlessly.
    """

    __slots__ = ("_entries", "_round_at", "_rung", "_serials")

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Callable[[], None], int]] = []
        self._serials = itertools.count()
        self._round_at = -inf
        #: The alarms of the last round, and how many times in a row each was put off.
        self._rung: dict[Callable[[], None], int] = {}

    def next_at(self) -> float:
        """When the earliest is due; `inf` if there is none."""
        return self._entries[0][0] if self._entries else inf

    def add(self, when: float, callback: Callable[[], None], now: float) -> bool:
        """
        Ring `callback` at `when`. Returns whether to report it as an alarm that rings again at once.

        Equal callbacks are the same alarm.
        """
        times = 0
        if when < self._round_at + AT_ONCE and callback in self._rung:
            times = self._rung[callback] + 1
            when = now + min(PAUSE * 2.0 ** min(times - 1, 30), LONGEST_PAUSE)
        heapq.heappush(self._entries, (when, next(self._serials), callback, times))
        return times == REPORTED_AFTER

    def pop(self, now: float) -> Callable[[], None] | None:
        """Remove and return the next callback to ring now; `None` if none is due."""
        when = self.next_at()
        if when > now:
            return None
        if when > self._round_at:
            self._round_at = now
            self._rung = {}
        _, _, callback, times = heapq.heappop(self._entries)
        self._rung[callback] = times
        return callback


def report(callback: Callable[[], None]) -> None:
    """Log that this alarm rings again at once and was put off. A timer calls it without holding its lock."""
    log.warning(
        "%r: its alarm was due again at once, %d times in a row, and is put off from now on, by up to %g s each time. "
        "The pool works, but its alarms are late. If it has a custom `clock`, check that it advances; otherwise this "
        "is a bug in this library: please report it.",
        callback,
        REPORTED_AFTER,
        LONGEST_PAUSE,
    )


def by_the_machines_clock(when: float, now: Callable[[], float]) -> float:
    """Convert an instant of a pool's clock to one of `time.monotonic`."""
    return when if now is time.monotonic else time.monotonic() + (when - now())
