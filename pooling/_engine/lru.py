"""
Which key was used least recently, without a note in order on each use.

A use writes one instant on the entry. The heap has the instants of before: what it shows first is looked at again, and
goes back with its present instant if it was used since.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from math import inf
from typing import Any, Generic, TypeVar

S = TypeVar("S")

SLACK = 64  # entries that have gone, beyond as many as there are, until they are swept out


class Entry(Generic[S]):
    """A key's pool, and when it was asked for last."""

    __slots__ = ("key", "service", "touched")

    def __init__(self, key: Any, service: S, touched: float) -> None:
        self.key = key
        self.service = service
        self.touched = touched


class LeastRecentlyUsed(Generic[S]):
    """
    The entries of a map, quietest first.

    Args:
        entries: The map, by key. An entry that it no longer has is forgotten here as well.
    """

    __slots__ = ("_entries", "_heap", "_serials")

    def __init__(self, entries: dict[Any, Entry[S]]) -> None:
        self._entries = entries
        self._heap: list[tuple[float, int, Entry[S]]] = []
        self._serials = itertools.count()

    def add(self, entry: Entry[S]) -> None:
        """One more entry, or one that was taken."""
        if len(self._heap) > 2 * len(self._entries) + SLACK:
            self._heap = [item for item in self._heap if self._is_current(item[2])]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (entry.touched, next(self._serials), entry))

    def take(self, is_wanted: Callable[[Entry[S]], bool], *, before: float = inf, most: float = inf) -> list[Entry[S]]:
        """
        Take off the quietest entries that are wanted; the others stay.

        Args:
            is_wanted: Asked of each, quietest first.
            before: Only those touched at this instant at the latest.
            most: So many.
        """
        taken: list[Entry[S]] = []
        others: list[Entry[S]] = []
        while self._heap and len(taken) < most:
            noted, _, entry = self._heap[0]
            if not self._is_current(entry):
                heapq.heappop(self._heap)
            elif entry.touched > noted:
                heapq.heapreplace(self._heap, (entry.touched, next(self._serials), entry))
            elif noted > before:
                break
            else:
                heapq.heappop(self._heap)
                (taken if is_wanted(entry) else others).append(entry)
        for entry in others:
            self.add(entry)
        return taken

    def first(self) -> float:
        """An instant at which no entry was touched earlier; `inf` if there are none."""
        return self._heap[0][0] if self._heap else inf

    def clear(self) -> None:
        """Forget all."""
        self._heap.clear()

    def _is_current(self, entry: Entry[S]) -> bool:
        return self._entries.get(entry.key) is entry

    def __len__(self) -> int:
        return len(self._heap)
