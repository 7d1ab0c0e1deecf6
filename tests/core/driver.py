"""A ledger with a manual clock, and its outbox sorted by kind."""

from __future__ import annotations

from typing import Any

from pooling._engine.ledger import Ledger
from pooling._engine.slots import CLOSING, LATE, OPENING, Close, Open, Slot, Waiter, Wake
from pooling.options import PoolingServiceOptions


class Resource:
    """Something to pool."""

    made = 0

    def __init__(self) -> None:
        Resource.made += 1
        self.number = Resource.made

    def __repr__(self) -> str:
        return f"<resource {self.number}>"


class Work:
    """An operation that lasts until `is_under_way` is cleared."""

    def __init__(self) -> None:
        self.is_under_way = True


class Driver:
    """
    A ledger with a clock and its work, for examples.

    Args:
        start: Whether the pool serves from the beginning.
        jitter: What the ledger's source of randomness gives, from 0 to 1; ½ leaves pauses as they are.
        **options: As in `PoolingServiceOptions`.
    """

    def __init__(
        self, *, start: bool = True, plain: bool = True, watches: bool = True, jitter: float = 0.5, **options: Any
    ) -> None:
        self.now = 100.0
        self.jitter = jitter
        self.ledger = Ledger(PoolingServiceOptions(**options), lambda: self.jitter, plain=plain, watches=watches)
        if start:
            self.ledger.start(self.now)

    # -- what the ledger asks for ------------------------------------------

    def orders(self, kind: type) -> list[Any]:
        """Take all items of this kind out of the outbox."""
        found = [item for item in self.ledger.outbox if isinstance(item, kind)]
        self.ledger.outbox[:] = [item for item in self.ledger.outbox if not isinstance(item, kind)]
        return found

    def opens(self) -> list[Slot]:
        """Take the slots to open; their creates have begun."""
        return [item.slot for item in self.orders(Open) if self.ledger.begin_work(item.slot, Work(), OPENING, LATE)]

    def closes(self) -> list[Slot]:
        """Take the slots to close; their destroys have begun."""
        return [item.slot for item in self.orders(Close) if self.ledger.begin_work(item.slot, Work(), CLOSING)]

    def woken(self) -> list[Waiter]:
        return [item.waiter for item in self.orders(Wake)]

    # -- steps of a borrower -------------------------------------------------

    def queue(self, priority: int = 0, *, first: bool = False, operation: Work | None = None) -> Waiter:
        waiter = Waiter(object(), priority, operation)
        self.ledger.enqueue(waiter, self.now, first=first)
        return waiter

    def borrow(self, waiter: Waiter | None = None) -> Slot:
        """Take an idle slot, or what this waiter was assigned, and lend it."""
        slot = self.ledger.take(self.now) if waiter is None else self.ledger.claim(waiter)
        assert slot is not None
        self.ledger.lend(slot, self.now)
        return slot

    def reclaim(self, slot: Slot) -> None:
        """Begin to give back: the slot is held by an operation."""
        assert self.ledger.reclaim(slot.value) is slot
        slot.operation = Work()

    def give_back(self, slot: Slot) -> None:
        self.reclaim(slot)
        self.ledger.give_back(slot, self.now)

    # -- steps of the background -----------------------------------------------

    def open(self, slot: Slot) -> Slot:
        self.ledger.opened(slot, Resource(), None, self.now)
        return slot

    def fail(self, slot: Slot, error: BaseException | None = None, *, final: bool = False) -> None:
        self.ledger.open_failed(slot, error or OSError("refused"), self.now, final=final)

    def close_all(self) -> list[Slot]:
        """Carry out all destroys that are due."""
        slots = self.closes()
        for slot in slots:
            self.ledger.closed(slot, self.now)
        return slots

    def turn(self, seconds: float) -> None:
        """Let time pass; sweeps happen when the ledger's alarm is due."""
        until = self.now + seconds
        for _ in range(100_000):
            if self.ledger.alarm > until:
                break
            self.now = max(self.now, self.ledger.alarm)
            self.ledger.sweep(self.now)
        else:
            raise AssertionError("alarms without end")
        self.now = until


def filled(count: int, *, idle: int = 0, **options: Any) -> tuple[Driver, list[Slot]]:
    """Driver of a running pool with `count` resources out, and `idle` further ones idle."""
    driver = Driver(**{"max_creating": 100, **options})
    waiters = [driver.queue() for _ in range(count + idle)]
    for slot in driver.opens():
        driver.open(slot)
    slots = [driver.borrow(waiter) for waiter in waiters]
    for slot in slots[count:]:
        driver.give_back(slot)
    driver.orders(Wake)
    return driver, slots[:count]
