"""Random schedules of borrowers in several processes under one limit, whose store and processes fail."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from random import Random

from pooling import PoolingServiceOptions
from pooling._engine.slots import Slot, Waiter
from pooling.simulation import Kill, Sharing
from pooling.simulation._events import Events
from pooling.simulation._leases import SimulatedStore
from pooling.simulation._pools import Places, SimulatedPools
from pooling.simulation._processes import Processes
from tests.core.model import promise

TIMES = (0.0, 0.001, 0.005, 0.02, 0.05, 0.3)  # seconds of a use, a create, a latency


@dataclass(eq=False)
class Borrower:
    """Asks one process for a resource of a key, uses it for a while and gives it back."""

    schedule: SharedSchedule
    key: int
    use_time: float
    pools: SimulatedPools | None = None
    waiter: Waiter | None = None
    slot: Slot | None = None
    has_ended: bool = False

    def served(self) -> None:
        self.schedule.events.at(self.schedule.events.now + self.use_time, self.give_back, None)

    def give_back(self, _: object) -> None:
        assert self.pools is not None
        self.has_ended = True
        if not self.pools.is_dead:
            self.pools.release(self)

    def timed_out(self) -> None:
        raise AssertionError("there is no deadline")

    def lost(self) -> None:
        self.has_ended = True


class SharedSchedule:
    """
    A random sequence of borrowers, of failures of the store, and of kills.

    Args:
        seed: Decides everything.
        store_type: The rules of the store.
    """

    def __init__(self, seed: int, store_type: type[SimulatedStore] = SimulatedStore) -> None:
        random = self.random = Random(seed)
        self.events = Events()
        self.limit = random.choice((1, 2, 3, 6, 20))
        sees_death = random.random() < 0.4
        self.sharing = Sharing(
            away=[(random.random() * 3, random.choice((0.05, 1.0, 4.0))) for _ in range(random.choice((0, 0, 1, 2)))],
            sees_death=sees_death,
            can_hear=sees_death or random.random() < 0.6,  # else a store that needs no renewals would tell nobody
            lease_ttl=random.choice((1.0, 2.0)),
            block=random.choice((None, 1, 3)),
            idle_after=random.choice((0.0, 0.1, 5.0)),
        )
        count = random.choice((1, 2, 3, 5))
        kills = [
            Kill(random.random() * 3, random.randrange(count), random.choice((0.0, 0.5)))
            for _ in range(random.choice((0, 0, 1, 3)))
        ]
        self.store = store_type(
            self.events, self.sharing, self.limit, lambda: random.choice((0.0001, 0.002, 0.02, 0.1))
        )
        self.places = Places()
        create_times = random.choice((TIMES[:1], TIMES))
        options = PoolingServiceOptions(max_size=random.choice((1, 2, 4)), max_creating=2, timeout=inf, max_idle=600.0)
        self.processes = Processes(
            self.events,
            count,
            lambda budget: SimulatedPools(
                self.events,
                options,
                create_time=lambda: random.choice(create_times),
                jitter=random.random,
                budget=budget,
                places=self.places,
            ),
            places=self.places,
            store=self.store,
            kills=kills,
        )
        keys = random.choice((1, 3, 8))
        self.borrowers = [Borrower(self, random.randrange(keys), random.choice(TIMES)) for _ in range(40)]
        self.began = 0
        self.pause = random.choice((0.0, 0.002, 0.05, 0.2))

    def run(self) -> None:
        """Let all borrowers come and go, and check the promises after each event."""
        self.processes.begin(Borrower.lost)
        self._arrive(None)
        for _ in range(60_000):
            if all(borrower.has_ended for borrower in self.borrowers):
                return
            promise(self.events.step(), "a borrower that waits is served", self._waiting())
            self.check()
        promise(False, "all borrowers come to an end", self._waiting(), self.events.now)

    def _arrive(self, _: object) -> None:
        live = self.processes.live
        if not live:
            self.events.at(self.processes.next_start, self._arrive, None)
            return
        borrower = self.borrowers[self.began]
        borrower.pools = self.random.choice(live)
        self.began += 1
        if self.began < len(self.borrowers):
            self.events.at(self.events.now + self.pause * self.random.random() * 2, self._arrive, None)
        borrower.pools.acquire(borrower.key, borrower)

    def _waiting(self) -> list[int]:
        """The keys of borrowers that wait."""
        return [borrower.key for borrower in self.borrowers[: self.began] if borrower.waiter is not None]

    def check(self) -> None:
        used = [pools.budget.used for pools in self.processes.live]
        promise(sum(used) == self.places.used, "the places of all processes are counted", used, self.places.used)
        promise(sum(used) <= self.limit, "never above the limit that they share", used)
        promise(self.store.book.taken <= self.limit, "the store never gives more than the limit", self.store.book.taken)
