"""Who is told of a pool's events: its own observer, and those of all pools of the process."""

from __future__ import annotations

from ..events import EVENTS, PoolObserver


def overrides(observer: PoolObserver) -> frozenset[str]:
    """Names of the events that this observer overrides."""
    return frozenset(name for name in EVENTS if getattr(type(observer), name, None) is not getattr(PoolObserver, name))


class Everywhere:
    """
    The observers of all pools of the process.

    Attributes:
        wanted: Names of the events that one of them overrides.
    """

    __slots__ = ("_observers", "wanted")

    def __init__(self) -> None:
        self._observers: tuple[tuple[PoolObserver, frozenset[str]], ...] = ()
        self.wanted: frozenset[str] = frozenset()

    def add(self, observer: PoolObserver) -> None:
        """Tell this observer, too; once, however often it is added."""
        self.remove(observer)
        self._change((*self._observers, (observer, overrides(observer))))

    def remove(self, observer: PoolObserver) -> None:
        """Tell this observer no more."""
        self._change(tuple(pair for pair in self._observers if pair[0] is not observer))

    def _change(self, observers: tuple[tuple[PoolObserver, frozenset[str]], ...]) -> None:
        self._observers = observers
        self.wanted = frozenset().union(*(wanted for _, wanted in observers))

    def who_want(self, event: str) -> list[PoolObserver]:
        """Those that override this event."""
        return [observer for observer, wanted in self._observers if event in wanted]


EVERYWHERE = Everywhere()
