"""The latest events of all pools, summed up where many happen at once."""

from __future__ import annotations

import itertools
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ...events import PoolObserver

if TYPE_CHECKING:
    from ...events import PoolEvent

__all__ = ["NAMED", "Event", "EventLog"]

#: Events kept for pages that are opened later.
KEPT = 200
#: Events that may happen between two samples; the oldest of more are forgotten.
MOST_NEW = 5000
#: Keys of a pool that are named if the same happened to all of them; of more, the number is.
NAMED = 6


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, or what happened many times between two samples."""

    id: int
    at: float
    kind: str
    pool: str
    what: str
    keys: tuple[Any, ...]
    times: int


class _Note(NamedTuple):
    at: float
    kind: str
    pool: str
    what: str
    key: Any


class EventLog(PoolObserver):
    """
    Observes all pools.

    Its methods append to a queue, which takes no lock and under a microsecond. `read` sums up.
    """

    def __init__(self) -> None:
        self._new: deque[_Note] = deque(maxlen=MOST_NEW)
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._numbers = itertools.count(1)

    def note(self, kind: str, pool: str, what: str, key: Any = None) -> None:
        """Add an event."""
        self._new.append(_Note(time.time(), kind, pool, what, key))

    def on_created(self, event: PoolEvent) -> None:
        """As in `PoolObserver`."""
        self.note("created", event.pool, "created", event.key)

    def on_create_failed(self, event: PoolEvent) -> None:
        """As in `PoolObserver`. An error's words may hold what a page must not show, so only its class is told."""
        self.note("failed", event.pool, f"create failed: {type(event.error).__name__}", event.key)

    def on_destroyed(self, event: PoolEvent) -> None:
        """As in `PoolObserver`."""
        self.note("destroyed", event.pool, f"destroyed ({event.reason})", event.key)

    def on_timeout(self, event: PoolEvent) -> None:
        """As in `PoolObserver`."""
        self.note("timeout", event.pool, f"a borrower timed out ({event.reason})", event.key)

    def on_leaked(self, event: PoolEvent) -> None:
        """As in `PoolObserver`."""
        self.note("timeout", event.pool, "out for longer than leak_timeout", event.key)

    def read(self) -> list[Event]:
        """The latest events, oldest first. Not for several threads at once."""
        groups: dict[tuple[str, str, str], list[_Note]] = {}
        while self._new:
            note = self._new.popleft()
            groups.setdefault((note.kind, note.pool, note.what), []).append(note)
        for notes in sorted(groups.values(), key=lambda notes: notes[-1].at):
            last, keys = notes[-1], Counter(note.key for note in notes)
            named = () if None in keys else tuple(keys)
            self._events.append(Event(next(self._numbers), last.at, last.kind, last.pool, last.what, named, len(notes)))
        return list(self._events)
