"""The processes of an app: each has pools, some may die and be replaced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .._engine.budget import Budget
    from ._events import Events
    from ._leases import SimulatedStore
    from ._pools import Places, SimulatedPools
    from .shared import Kill

MakePools = Callable[["Budget | None"], "SimulatedPools"]


class Processes:
    """
    The pools of all processes.

    Args:
        events: The clock.
        count: How many processes there are.
        make_pools: Makes the pools of one, with this budget or one of their own.
        places: Counts the places of all.
        store: Where they share one limit; `None` if each has one for itself.
        kills: Which end, and when.
    """

    def __init__(
        self,
        events: Events,
        count: int,
        make_pools: MakePools,
        *,
        places: Places,
        store: SimulatedStore | None = None,
        kills: Sequence[Kill] = (),
    ) -> None:
        self.events = events
        self.store = store
        self.every: list[SimulatedPools] = []  # also those that have died
        self._make_pools = make_pools
        self._places = places
        self._kills = kills
        self._ends: dict[SimulatedPools, Callable[[], None]] = {}
        self._starts: dict[int, float] = {}  # when the successor of a process that has died begins
        self._by_number = {number: self._start() for number in range(count)}
        self.live = list(self._by_number.values())

    def begin(self, lose: Callable[[Any], None]) -> None:
        """Have those killed that are to die; `lose` is called with each of their borrowers that waits."""
        for kill in self._kills:
            self.events.at(kill.at, lambda kill: self._kill(kill, lose), kill)

    @property
    def peak_at_once(self) -> int:
        """Most places of all processes at one instant."""
        return self._places.peak

    @property
    def claims(self) -> int:
        """How often processes have asked the store."""
        return self.store.claims if self.store is not None else 0

    @property
    def recoveries(self) -> tuple[float, ...]:
        """Seconds from the end of each process until its places were free."""
        return tuple(self.store.recoveries) if self.store is not None else ()

    @property
    def next_start(self) -> float:
        """When the next process begins; there is one if none lives."""
        return min(self._starts.values())

    def _start(self) -> SimulatedPools:
        if self.store is None:
            pools = self._make_pools(None)
        else:
            process = self.store.join()
            pools = process.pools = self._make_pools(process.budget)
            self._ends[pools] = process.die
        self.every.append(pools)
        return pools

    def _kill(self, kill: Kill, lose: Callable[[Any], None]) -> None:
        pools = self._by_number.pop(kill.process, None)
        if pools is None:
            return  # it is dead
        self._ends.pop(pools, _nothing)()
        self._starts[kill.process] = self.events.now + kill.restart_after
        self.events.at(self._starts[kill.process], self._restart, kill.process)
        self.live = list(self._by_number.values())
        for borrower in pools.die():
            lose(borrower)

    def _restart(self, number: int) -> None:
        del self._starts[number]
        self._by_number[number] = self._start()
        self._by_number = dict(sorted(self._by_number.items()))
        self.live = list(self._by_number.values())


def _nothing() -> None:
    pass
