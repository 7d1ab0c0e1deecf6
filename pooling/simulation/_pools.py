"""
The pools of one process under a virtual clock: the real ledgers and the real budget, without threads, hooks or I/O.

Does what a keyed service and its operations do: it makes a ledger at the first use of a key, takes the fast path where
the ledger allows it, carries out the work that the ledgers order, rings their alarms and gives up at deadlines.
A create or a destroy is an event that comes later.

A ledger is forgotten with its last resource, so that a million keys need little memory. A service keeps it for a while,
to save its making; what the pools do does not depend on it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from .._engine.audit import AUDIT_EVERY
from .._engine.budget import Budget
from .._engine.ledger import RUNNING, Ledger
from .._engine.slots import CLOSING, LATE, OPENING, Check, Close, Open, Slot, Waiter, Wake
from .._engine.standing import Average

if TYPE_CHECKING:
    from ..options import PoolingServiceOptions
    from ._events import Events


class _UnderWay:
    """Stands for each operation: nothing interrupts a simulated one."""

    is_under_way = True


UNDER_WAY = _UnderWay()


class Borrower(Protocol):
    """What asks for a resource. It is told the outcome, in `acquire` or later."""

    waiter: Waiter | None
    slot: Slot | None

    def served(self) -> None:
        """It got `slot`. Must not acquire or release before it returns."""

    def timed_out(self) -> None:
        """Its deadline has passed."""


def _waits(waiter: Waiter) -> bool:
    return waiter.latch is not None  # it is taken from those that were served or have given up


class SimulatedLedger(Ledger):
    """
    The pool of one key: a ledger without audits, for nothing interrupts a simulated operation, so nothing is ever lost.

    Args:
        key: Whose pool it is.
        pools: Where it is.
    """

    __slots__ = ("armed_at", "key")

    def __init__(self, key: Any, pools: SimulatedPools) -> None:
        super().__init__(
            pools.options,
            pools.jitter,
            plain=pools.is_plain,
            watches=False,
            budget=pools.budget,
            create_time=pools.average_create_time,
        )
        self.key = key
        self.armed_at = inf  # when the next event for its alarm comes
        self.state = RUNNING  # as `start` does; an empty ledger has nothing to settle

    def audit(self, now: float) -> None:
        """Find nothing."""


class Places:
    """How many places all processes together take, and took at most."""

    __slots__ = ("peak", "used")

    def __init__(self) -> None:
        self.used = self.peak = 0

    def add(self, places: int) -> None:
        """Count so many more; fewer if the number is negative."""
        self.used += places
        self.peak = max(self.peak, self.used)


class SimulatedPools:
    """
    A pool for each key, under one budget.

    Args:
        events: The clock.
        options: Settings of each pool. Hooks other than create and destroy take no time.
        max_total: Most resources of all pools together.
        budget: The budget, if that is not one of `budget_type` with `max_total`.
        places: Counts those of several processes.
        create_time: Gives the duration of the next create.
        destroy_time: Gives the duration of the next destroy.
        jitter: Gives a number from 0 to 1.
        budget_type: The rules of the budget.
    """

    def __init__(
        self,
        events: Events,
        options: PoolingServiceOptions,
        *,
        max_total: float = inf,
        create_time: Callable[[], float],
        destroy_time: Callable[[], float] = float,
        jitter: Callable[[], float],
        budget_type: type[Budget] = Budget,
        budget: Budget | None = None,
        places: Places | None = None,
    ) -> None:
        self.events = events
        self.options = options
        self.budget = budget_type(max_total) if budget is None else budget
        self.is_dead = False
        self.budget.audited_at = inf  # as no ledger has to be audited, the budget never does
        self.ledgers: dict[Any, SimulatedLedger] = {}  # of the keys that have resources or borrowers
        self.jitter = jitter
        self.is_plain = options.max_uses == inf and options.leak_timeout is None and not options.use_times
        self.average_create_time = Average()  # as in a keyed service, of all its pools
        self.created = 0
        self.evicted = 0
        self.waiting = 0
        self.peak_used = 0
        self._places = places or Places()
        self._create_time = create_time
        self._destroy_time = destroy_time
        self._deadlines: deque[tuple[float, Waiter]] = deque()  # in order, since all borrowers have the same timeout
        self._watches_deadlines = False  # whether an event for the first of them is to come
        self._used = 0  # places that were taken since `_used_since`
        self._used_since = events.now
        self._used_seconds = 0.0

    # -- borrowers -------------------------------------------------------------

    def acquire(self, key: Any, borrower: Borrower) -> None:
        """Ask for a resource of this key."""
        ledger = self.ledgers.get(key)
        if ledger is None:
            ledger = self.ledgers[key] = SimulatedLedger(key, self)
        elif ledger.idle:
            if ledger.fast:  # the fast path of a service
                self._lend(ledger, ledger.pop(), borrower)
                return
            slot = ledger.take(self.events.now, UNDER_WAY)
            if slot is not None:
                self._lend(ledger, slot, borrower)
                self.dispatch(ledger)
                return
        self._queue(ledger, borrower)
        self.dispatch(ledger)

    def release(self, borrower: Borrower) -> None:
        """Give back what the borrower has got."""
        slot, borrower.slot = borrower.slot, None
        assert slot is not None
        ledger: SimulatedLedger = slot.home
        if ledger.fast:  # the fast path of a service
            del ledger.out[id(slot.value)]
            ledger.put(slot)
            return
        ledger.reclaim(slot.value, UNDER_WAY)
        if slot.uses >= self.options.max_uses:
            ledger.condemn(slot, "max_uses", self.events.now)
        else:
            ledger.give_back(slot, self.events.now)
        self.dispatch(ledger)

    def _lend(self, ledger: Ledger, slot: Slot, borrower: Borrower) -> None:
        ledger.lend(slot, self.events.now)
        slot.operation = None
        borrower.slot = slot
        borrower.served()

    def _queue(self, ledger: SimulatedLedger, borrower: Borrower) -> None:
        now = self.events.now
        waiter = borrower.waiter = Waiter((ledger, borrower), operation=UNDER_WAY)
        self.waiting += 1
        ledger.enqueue(waiter, now)
        if self.options.timeout < inf:
            self._deadlines.append((now + self.options.timeout, waiter))
            if not self._watches_deadlines or not _waits(self._deadlines[0][1]):
                self._watch_deadlines()

    def _watch_deadlines(self) -> None:
        """Look again at the deadline of the first borrower that still waits."""
        deadlines = self._deadlines
        while deadlines and not _waits(deadlines[0][1]):
            deadlines.popleft()
        if deadlines and not self._watches_deadlines:
            self._watches_deadlines = True
            self.events.at(deadlines[0][0], self._pass_deadlines, None)

    def _pass_deadlines(self, _: object) -> None:
        """Let those give up whose deadline has passed."""
        self._watches_deadlines = False
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= self.events.now:
            _, waiter = deadlines.popleft()
            if _waits(waiter):
                self._withdraw(*waiter.latch)
        self._watch_deadlines()

    def _withdraw(self, ledger: SimulatedLedger, borrower: Borrower) -> None:
        waiter, borrower.waiter = borrower.waiter, None
        assert waiter is not None
        waiter.latch = None
        self.waiting -= 1
        ledger.withdraw(waiter, self.events.now)
        self.dispatch(ledger)
        self._forget_if_empty(ledger)
        borrower.timed_out()

    def die(self) -> list[Borrower]:
        """End the process: all its resources are gone; returns the borrowers that wait, and never get one."""
        waiting = [waiter.latch[1] for ledger in self.ledgers.values() for waiter in ledger.waiters()]
        self.is_dead = True
        self.waiting = 0
        self.ledgers.clear()
        self._deadlines.clear()
        self._count_places(0)
        return waiting

    # -- work ----------------------------------------------------------------------

    def dispatch(self, ledger: SimulatedLedger | None = None) -> None:
        """Carry out what the ledgers have ordered, and see to the alarms of those that changed."""
        budget = self.budget
        outbox, changed = budget.outbox, budget.changed
        while outbox:
            item = outbox.pop(0)
            if type(item) is Wake:
                self._wake(item.waiter)
            elif type(item) is Open:
                self._open(item.slot)
            elif type(item) is Close:
                self._close(item.slot)
            elif type(item) is Check:
                item.slot.home.give_back(item.slot, self.events.now, cold=True)
        if ledger is not None and ledger.alarm < ledger.armed_at:
            self._arm(ledger)
        while changed:
            other: Any = changed.pop()
            if other.alarm < other.armed_at:
                self._arm(other)
        if budget.used != self._used:
            self._count_places(budget.used)

    def _wake(self, waiter: Waiter) -> None:
        if not _waits(waiter):
            return  # its deadline passed at the same instant
        ledger, borrower = waiter.latch
        slot = ledger.claim(waiter)
        if slot is not None:
            self.waiting -= 1
            borrower.waiter = waiter.latch = None
            self._lend(ledger, slot, borrower)

    def _open(self, slot: Slot) -> None:
        if slot.home.begin_work(slot, UNDER_WAY, OPENING, LATE):
            self.events.at(self.events.now + self._create_time(), self._opened, slot)

    def _opened(self, slot: Slot) -> None:
        if self.is_dead:
            return
        self.created += 1
        ledger: SimulatedLedger = slot.home
        ledger.opened(slot, object(), None, self.events.now)
        self.dispatch(ledger)

    def _close(self, slot: Slot) -> None:
        if not slot.home.begin_work(slot, UNDER_WAY, CLOSING):
            return
        self.evicted += slot.reason == "evicted"
        seconds = self._destroy_time()
        if seconds > 0:
            self.events.at(self.events.now + seconds, self._closed, slot)
        else:
            self._end_close(slot)

    def _closed(self, slot: Slot) -> None:
        if self.is_dead:
            return
        self._end_close(slot)
        self.dispatch(slot.home)

    def _end_close(self, slot: Slot) -> None:
        ledger: SimulatedLedger = slot.home
        ledger.closed(slot, self.events.now)
        slot.value = None
        self._forget_if_empty(ledger)

    def _forget_if_empty(self, ledger: SimulatedLedger) -> None:
        if not ledger.slots and not any(ledger.queues) and self.ledgers.get(ledger.key) is ledger:
            del self.ledgers[ledger.key]

    # -- time --------------------------------------------------------------------------

    def _arm(self, ledger: SimulatedLedger) -> None:
        """Have the ledger sweep when its alarm says so."""
        when = ledger.armed_at = ledger.alarm
        if when - self.events.now < AUDIT_EVERY / 2:
            self.events.at(when, self._ring, ledger.key)
        else:  # most of these come when there is nothing to do any more
            self.events.about(when, self._ring, ledger.key)

    def _ring(self, key: Any) -> None:
        now = self.events.now
        ledger = self.ledgers.get(key)
        if ledger is None or ledger.armed_at > now:  # forgotten, also by a process that died, or its alarm comes later
            return
        ledger.armed_at = inf
        if ledger.alarm <= now:
            ledger.sweep(now)
        self.dispatch(ledger)

    # -- counts ------------------------------------------------------------------------

    def _count_places(self, used: int) -> None:
        now = self.events.now
        self._used_seconds += self._used * (now - self._used_since)
        self._places.add(used - self._used)
        self._used, self._used_since = used, now
        self.peak_used = max(self.peak_used, used)

    def used_seconds(self) -> float:
        """How long places have been taken, the seconds of all places added up."""
        return self._used_seconds + self._used * (self.events.now - self._used_since)
