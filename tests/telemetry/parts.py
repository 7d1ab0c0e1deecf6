"""What the tests of telemetry share: observers, recorders, and a service of one name."""

from __future__ import annotations

import contextlib
import itertools
import threading

from pooling import PoolObserver, telemetry

_numbers = itertools.count(1)


def fresh_name(base: str) -> str:
    """A name that no other service of this process has."""
    return f"{base}-{next(_numbers)}"


def snapshot_of(service, **options):
    """The one entry of a service."""
    [found] = [one for one in telemetry.snapshot(**options) if one.service is service]
    return found


class Notes(PoolObserver):
    """Notes the events of one pool."""

    def __init__(self, pool: str) -> None:
        self.pool = pool
        self.seen: list[tuple[str, object]] = []
        self._changed = threading.Condition()

    def _note(self, what, event):
        if event.pool == self.pool:
            with self._changed:
                self.seen.append((what, event.key))
                self._changed.notify_all()

    def wait_for(self, what, key=None):
        """Block until an event was told: it is after the step that it tells of."""
        with self._changed:
            assert self._changed.wait_for(lambda: (what, key) in self.seen, 60), self.seen

    def on_created(self, event):
        self._note("created", event)

    def on_acquired(self, event):
        self._note("acquired", event)

    def on_destroyed(self, event):
        self._note(f"destroyed by {event.reason}", event)

    def on_timeout(self, event):
        self._note("timeout", event)


@contextlib.contextmanager
def observing(observer):
    telemetry.observe(observer)
    try:
        yield observer
    finally:
        telemetry.unobserve(observer)
