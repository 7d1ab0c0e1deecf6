"""The latest sample of all pools, taken once for all who look."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...locks import make_lock
from .events import NAMED, Event, EventLog
from .reading import Reading, read

if TYPE_CHECKING:
    from .masking import Masking

__all__ = ["Feed", "Sample"]

#: The share of a core that samples may take: if one takes 20 ms, the next is at least 0.4 s later,
_SHARE = 0.05
#: but at most this many seconds.
_LONGEST = 5.0


@dataclass(frozen=True, slots=True)
class Sample:
    """The numbers of all pools at one instant, and what of them is the same for all who look."""

    taken: float
    reading: Reading
    overview: dict[str, Any]


class Feed:
    """
    Takes samples when asked, at most one in `interval` seconds.

    Args:
        masking: Gives the labels.
        events: What has happened.
        interval: Seconds for which a sample is the latest.
    """

    def __init__(self, masking: Masking, events: EventLog, interval: float) -> None:
        self._masking = masking
        self._events = events
        self._interval = interval
        self._pause = 0.0
        self._latest: Sample | None = None
        self._acquired: dict[str, tuple[float, int]] = {}
        self._renew()

    def _renew(self) -> None:
        """Begin anew, as in a forked child."""
        self._lock = make_lock()
        self._pid = os.getpid()
        self._latest = None
        #: Tells one process from another that later has the same number.
        self.process = secrets.token_hex(4)

    def sample(self, clock: Callable[[], float] = time.monotonic) -> Sample:
        """The latest sample."""
        if self._pid != os.getpid():
            self._renew()
        with self._lock:
            now, latest = clock(), self._latest
            if latest is not None and now - latest.taken < max(self._interval * 0.9, self._pause):
                return latest
            began = time.thread_time()  # what other threads do meanwhile is not its cost
            reading = read(self._masking)
            overview = self._overview(reading, now)
            self._pause = min((time.thread_time() - began) / _SHARE, _LONGEST)
            self._latest = Sample(now, reading, overview)
            return self._latest

    def _overview(self, reading: Reading, now: float) -> dict[str, Any]:
        for pool in reading.pools:
            pool["rate"] = self._rate(pool["id"], pool["acquired"], now)
        return {
            "version": 1,
            "at": round(time.time(), 3),
            "process": {"pid": self._pid, "id": self.process},
            "budgets": reading.budgets,
            "pools": reading.pools,
            "holders": reading.holders,
            "holding": sum(pool["used"] for pool in reading.pools),
            "waiters": reading.waiters,
            "waiting": sum(pool["waiting"] for pool in reading.pools),
            "events": [self._event(event) for event in self._events.read()],
        }

    def _rate(self, pool: str, acquired: int, now: float) -> float:
        """Acquisitions a second since the sample before."""
        then, before = self._acquired.get(pool, (now, acquired))
        self._acquired[pool] = now, acquired
        return round(max(acquired - before, 0) / (now - then), 1) if now > then else 0.0

    def _event(self, event: Event) -> dict[str, Any]:
        times = f" × {event.times}" if event.times > 1 else ""
        keys = "" if not event.keys else f": {len(event.keys)} keys"
        if 0 < len(event.keys) <= NAMED:
            keys = f": {', '.join(map(self._masking.label, event.keys))}"
        return {
            "id": f"{self.process}-{event.id}",  # a page outlives this process
            "at": round(event.at, 3),
            "kind": event.kind,
            "pool": event.pool,
            "text": f"{event.pool}: {event.what}{times}{keys}",
        }
