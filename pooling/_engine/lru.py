"""
The least recently used keys (LRU), found without moving an entry at each use.

A use writes the current instant to the entry and leaves the heap alone, so the heap may order an entry by an earlier
use. When such an entry comes first, it is put back with the instant of its last use.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from math import inf
from typing import Any, Generic, TypeVar

S = TypeVar("S")

SLACK = 64  # how many more removed entries than present ones the heap may hold before it is rebuilt


class Entry(Generic[S]):
    """A key's pool, what its user attached to it, and when it was asked for last."""

    __slots__ = ("data", "key", "service", "touched")

    def __init__(self, key: Any, service: S, data: Any, touched: float) -> None:
        self.key = key
        self.service = service
        self.data = data
        self.touched = touched


class LeastRecentlyUsed(Generic[S]):
    """
    The entries of a map, least recently used first.

    Args:
        entries: The map, by key. An entry that was removed from it is forgotten here, too.
    """

    __slots__ = ("_entries", "_heap", "_serials")

    def __init__(self, entries: dict[Any, Entry[S]]) -> None:
        self._entries = entries
        self._heap: list[tuple[float, int, Entry[S]]] = []
        self._serials = itertools.count()

    def add(self, entry: Entry[S]) -> None:
        """Add an entry, or put one back that was taken."""
        if len(self._heap) > 2 * len(self._entries) + SLACK:
            self._heap = [item for item in self._heap if self._is_current(item[2])]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (entry.touched, next(self._serials), entry))

    def take(self, is_wanted: Callable[[Entry[S]], bool], *, before: float = inf, most: float = inf) -> list[Entry[S]]:
        """
        Remove and return the least recently used entries that are wanted; the others stay.

        Args:
            is_wanted: Called with each entry, least recently used first.
            before: Only entries last used at this instant or earlier.
            most: Return at most this many.
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

    def has(self, is_wanted: Callable[[Entry[S]], bool]) -> bool:
        """Whether an entry is wanted; all stay. Calls `is_wanted` with each entry until one is."""
        return any(is_wanted(entry) for _, _, entry in list(self._heap) if self._is_current(entry))

    def first(self) -> float:
        """An instant before which no entry was used last; `inf` if there are no entries."""
        return self._heap[0][0] if self._heap else inf

    def clear(self) -> None:
        """Remove all entries."""
        self._heap.clear()

    def _is_current(self, entry: Entry[S]) -> bool:
        return self._entries.get(entry.key) is entry

    def __len__(self) -> int:
        return len(self._heap)
