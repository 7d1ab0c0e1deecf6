"""
When to look at which pool again: what the timers of both environments keep their callbacks in.

`Alarms` is pure: the time comes in as `now`. It guards its timer against alarms that ring again at once, whatever
the reason: such an alarm is put off, for longer each time, and one that goes on is reported. Other pools'
alarms ring meanwhile as they are due.
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

PAUSE = 0.01  # seconds that an alarm is put off that would ring again at once; doubled each time
LONGEST_PAUSE = 1.0
REPORTED_AFTER = 3  # times in a row
AT_ONCE = SHORTEST_ALARM / 2  # seconds after the beginning of a round; no ledger sets an alarm as soon as that


class Rings(Protocol):
    """Something that wants to be rung at an instant."""

    def ring(self, when: float) -> None: ...


class Ring:
    """A callback for a timer; it does not keep its owner alive. Two of one owner are equal."""

    __slots__ = ("_owner", "_when")

    def __init__(self, owner: Rings, when: float) -> None:
        self._owner = weakref.ref(owner)
        self._when = when

    def __call__(self) -> None:
        owner = self._owner()
        if owner is not None:
            owner.ring(self._when)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ring) and self._owner is other._owner

    def __hash__(self) -> int:
        return id(self._owner)  # all references to one owner are one object

    def __repr__(self) -> str:
        return repr(self._owner())


class Alarms:
    """
    Callbacks and the instants they are due at.

    They are rung in rounds: a round begins when the earliest is later than the last round was, and rings all
    that were due at its beginning. An alarm that was rung and asks, before the next round, for an instant
    that is hardly later than its own round would ring again at once, and perhaps for ever.
    """

    __slots__ = ("_entries", "_round_at", "_rung", "_serials")

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Callable[[], None], int]] = []
        self._serials = itertools.count()
        self._round_at = -inf
        #: What was rung in the last round, and how many times in a row it had been put off.
        self._rung: dict[Callable[[], None], int] = {}

    def next_at(self) -> float:
        """When the earliest is due; `inf` if there is none."""
        return self._entries[0][0] if self._entries else inf

    def add(self, when: float, callback: Callable[[], None], now: float) -> bool:
        """
        Have `callback` rung at `when`; whether it is to be reported as one that rings again at once.

        Callbacks that are equal count as the same alarm.
        """
        times = 0
        if when < self._round_at + AT_ONCE and callback in self._rung:
            times = self._rung[callback] + 1
            when = now + min(PAUSE * 2.0 ** min(times - 1, 30), LONGEST_PAUSE)
        heapq.heappush(self._entries, (when, next(self._serials), callback, times))
        return times == REPORTED_AFTER

    def pop(self, now: float) -> Callable[[], None] | None:
        """The next to ring now; `None` if nothing is due."""
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
    """Say that this alarm rings again at once and has been put off; for a timer, outside its lock."""
    log.warning(
        "%r: its alarm was due again at once, %d times in a row, and is put off from now on, by up to %g s each time. "
        "That costs no more than punctuality. Unless the pool's `clock` is one of your own that stands still, it is a "
        "mistake in this library: please report it.",
        callback,
        REPORTED_AFTER,
        LONGEST_PAUSE,
    )


def by_the_machines_clock(when: float, now: Callable[[], float]) -> float:
    """An instant of a pool's clock, as one of `time.monotonic`."""
    return when if now is time.monotonic else time.monotonic() + (when - now())
