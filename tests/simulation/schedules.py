"""Random schedules of borrowers on simulated pools, and the promises that are checked after each event."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from random import Random

from pooling import PoolingServiceOptions
from pooling._engine.budget import Budget
from pooling._engine.slots import Slot, Waiter
from pooling.simulation._events import Events
from pooling.simulation._pools import SimulatedPools
from tests.core.model import promise

TIMES = (0.0, 0.001, 0.005, 0.02, 0.05, 0.3)  # seconds of a use, a create, a destroy, a pause


@dataclass
class Borrower:
    """Asks for a resource of a key, uses it for a while and gives it back."""

    schedule: Schedule
    key: int
    use_time: float
    waiter: Waiter | None = None
    slot: Slot | None = None
    has_ended: bool = False

    def served(self) -> None:
        schedule = self.schedule
        promise(self.slot is not None and self.slot not in schedule.lent, "a resource has one borrower", self.slot)
        schedule.lent[self.slot] = self
        schedule.events.at(schedule.events.now + self.use_time, self.give_back, None)

    def give_back(self, _: object) -> None:
        assert self.slot is not None
        del self.schedule.lent[self.slot]
        self.has_ended = True
        self.schedule.pools.release(self)

    def timed_out(self) -> None:
        self.has_ended = True


@dataclass
class Schedule:
    """
    A random sequence of borrowers.

    Args:
        seed: Decides everything.
        budget_type: The rules to test.
    """

    seed: int
    budget_type: type[Budget] = Budget
    lent: dict[Slot, Borrower] = field(default_factory=dict)

    def __post_init__(self) -> None:
        random = self.random = Random(self.seed)
        self.events = Events()
        self.max_total = random.choice((1, 2, 3, 6))
        options = PoolingServiceOptions(
            max_size=random.choice((1, 2, 4)),
            max_creating=random.choice((1, 2)),
            lifo=random.random() < 0.5,
            timeout=random.choice((0.01, 0.2, 30.0, inf)),
            max_idle=random.choice((0.02, 1.0, 600.0)),
            max_uses=random.choice((inf, inf, 1, 5)),
            max_lifetime=random.choice((inf, inf, 0.1)),
        )
        self.pools = SimulatedPools(
            self.events,
            options,
            max_total=self.max_total,
            create_time=lambda: random.choice(TIMES),
            destroy_time=random.choice((float, lambda: random.choice(TIMES))),
            jitter=random.random,
            budget_type=self.budget_type,
        )
        keys = random.choice((1, 2, 5, 12))
        self.borrowers = [Borrower(self, random.randrange(keys), random.choice(TIMES)) for _ in range(30)]
        self.began = 0
        self.pause = random.choice((0.0, 0.002, 0.02, 0.2))

    def run(self) -> None:
        """Let all borrowers come and go, and check the promises after each event."""
        self._arrive(None)
        for _ in range(20_000):
            if all(borrower.has_ended for borrower in self.borrowers):
                return
            promise(self.events.step(), "a borrower that waits is served or times out", self.waiting)
            self.check()
        promise(False, "all borrowers come to an end", self.waiting)

    def _arrive(self, _: object) -> None:
        borrower = self.borrowers[self.began]
        self.began += 1
        if self.began < len(self.borrowers):
            self.events.at(self.events.now + self.pause * self.random.random() * 2, self._arrive, None)
        self.pools.acquire(borrower.key, borrower)

    @property
    def waiting(self) -> list[Borrower]:
        return [borrower for borrower in self.borrowers[: self.began] if borrower.waiter is not None]

    def check(self) -> None:
        budget, by_key, options = self.pools.budget, self.pools.ledgers, self.pools.options
        ledgers = list(by_key.values())
        sizes = [len(ledger.slots) for ledger in ledgers]
        promise(sum(sizes) == budget.used, "no key with a place is forgotten", sizes, budget.used)
        promise(budget.used <= self.max_total, "never above max_total", budget.used)
        promise(max(sizes, default=0) <= options.max_size, "never above max_size", sizes)
        promise(set(self.lent) == {slot for ledger in ledgers for slot in ledger.out.values()}, "what is out is lent")
        waiting = self.waiting
        promise(self.pools.waiting == len(waiting) == sum(ledger.waiting for ledger in ledgers), "waiters are counted")
        promise(all(ledger.slots or ledger.waiting for ledger in ledgers), "keys without anything are forgotten")
        for borrower in waiting:
            ledger = by_key[borrower.key]
            promise(not ledger.idle, "no borrower waits while a resource of its key is idle", borrower.key)
        is_moving = any(ledger.opening or ledger.closing for ledger in ledgers)
        promise(not waiting or is_moving or bool(self.lent), "while a borrower waits, something is under way", waiting)
