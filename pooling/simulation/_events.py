"""A virtual clock, and what is to happen when."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from math import inf
from typing import Any

TOGETHER = 0.01  # seconds within which calls that need no exact instant are made at once


class Events:
    """
    Calls to be made at instants of a virtual clock.

    Nothing waits: `step` sets the clock to the instant of the next call. Calls of the same instant are made in the
    order in which they were added.
    """

    __slots__ = ("_heap", "_is_stopped", "_serials", "_together", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._is_stopped = False
        self._together: dict[int, list[tuple[Callable[[Any], None], Any]]] = {}
        self._heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._serials = itertools.count()

    def at(self, when: float, call: Callable[[Any], None], argument: Any) -> None:
        """Make a call at an instant; at once if that has passed."""
        heapq.heappush(self._heap, (when, next(self._serials), call, argument))

    def about(self, when: float, call: Callable[[Any], None], argument: Any) -> None:
        """Make a call at an instant or up to `TOGETHER` later, in one event with others of that time."""
        number = int(when / TOGETHER) + 1
        calls = self._together.get(number)
        if calls is None:
            calls = self._together[number] = []
            self.at(number * TOGETHER, self._make_together, number)
        calls.append((call, argument))

    def _make_together(self, number: int) -> None:
        for call, argument in self._together.pop(number):
            call(argument)

    def run(self) -> None:
        """Make calls until one of them calls `stop`, or there are no more."""
        while not self._is_stopped and self.step():
            pass

    def stop(self) -> None:
        """End `run` after the present call."""
        self._is_stopped = True

    def step(self) -> bool:
        """Make the next call; `False` if there is none."""
        if not self._heap:
            return False
        when, _, call, argument = heapq.heappop(self._heap)
        self.now = max(self.now, when)
        call(argument)
        return True

    @property
    def next_at(self) -> float:
        """The instant of the next call; `inf` if there is none."""
        return self._heap[0][0] if self._heap else inf
