"""A virtual clock, and what is to happen when."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from math import inf
from typing import Any


class Events:
    """
    Calls to be made at instants of a virtual clock.

    Nothing waits: `step` sets the clock to the instant of the next call. Calls of the same instant are made in the
    order in which they were added.
    """

    __slots__ = ("_heap", "_serials", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._serials = itertools.count()

    def at(self, when: float, call: Callable[[Any], None], argument: Any) -> None:
        """Make a call at an instant; at once if that has passed."""
        heapq.heappush(self._heap, (when, next(self._serials), call, argument))

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
