"""
The least recently used keys (LRU), found without moving an entry at each use.

A use writes the current instant to the entry and leaves the heap alone, so the heap may order an entry by an earlier
use. When such an entry comes first, it is put back with the instant of its last use. The heap has keys and serial
numbers and no entries, so it keeps no pool of a removed key alive.
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

    __slots__ = ("data", "key", "serial", "service", "touched")

    def __init__(self, key: Any, service: S, data: Any, touched: float) -> None:
        self.key = key
        self.service = service
        self.data = data
        self.touched = touched
        self.serial = -1  # of its place in the heap


class LeastRecentlyUsed(Generic[S]):
    """
    The entries of a map, least recently used first.

    Args:
        entries: The map, by key. An entry that was removed from it is forgotten here, too.
    """

    __slots__ = ("_entries", "_heap", "_serials")

    def __init__(self, entries: dict[Any, Entry[S]]) -> None:
        self._entries = entries
        self._heap: list[tuple[float, int, Any]] = []  # by last use as noted; a serial number, which decides; the key
        self._serials = itertools.count()

    def add(self, entry: Entry[S]) -> None:
        """Add an entry, or put one back that was taken."""
        if len(self._heap) > 2 * len(self._entries) + SLACK:
            self._heap = [item for item in self._heap if self._find(item) is not None]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, self._item(entry))

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
            noted = self._heap[0][0]
            entry = self._find(self._heap[0])
            if entry is None:
                heapq.heappop(self._heap)
            elif entry.touched > noted:
                heapq.heapreplace(self._heap, self._item(entry))
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
        found = map(self._find, list(self._heap))
        return any(is_wanted(entry) for entry in found if entry is not None)

    def first(self) -> float:
        """An instant before which no entry was used last; `inf` if there are no entries."""
        return self._heap[0][0] if self._heap else inf

    def clear(self) -> None:
        """Remove all entries."""
        self._heap.clear()

    def _item(self, entry: Entry[S]) -> tuple[float, int, Any]:
        entry.serial = next(self._serials)
        return entry.touched, entry.serial, entry.key

    def _find(self, item: tuple[float, int, Any]) -> Entry[S] | None:
        """The entry of an item; `None` if it was removed."""
        entry = self._entries.get(item[2])
        return entry if entry is not None and entry.serial == item[1] else None

    def __len__(self) -> int:
        return len(self._heap)
