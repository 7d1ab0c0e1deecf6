"""
The pools of one process under a virtual clock: the real ledgers and the real budget, without threads, hooks or I/O.

Does what a keyed service and its operations do: it makes a ledger at the first use of a key, takes the fast path where
the ledger allows it, carries out the work that the ledgers order, rings their alarms and gives up at deadlines.
A create or a destroy is an event that comes later.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from .._engine.budget import Budget
from .._engine.ledger import RUNNING, Ledger
from .._engine.slots import CLOSING, LATE, OPENING, Check, Close, Open, Slot, Waiter, Wake
from .._engine.standing import Average

if TYPE_CHECKING:
    from ..options import PoolingServiceOptions
    from ._events import Events

#: Most keys without a resource whose ledgers are kept. A service keeps each until it was unused for `max_key_idle`; a
#: million of them would take more than a gigabyte.
MOST_EMPTY = 50_000


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
    """A ledger without audits: nothing interrupts a simulated operation, so nothing is ever lost."""

    __slots__ = ()

    def audit(self, now: float) -> None:
        """Find nothing."""


class SimulatedPool:
    """The pool of one key."""

    __slots__ = ("armed_at", "key", "ledger", "touched")

    def __init__(self, key: Any) -> None:
        self.key = key
        self.ledger: SimulatedLedger
        self.touched = 0.0
        self.armed_at = inf  # when the next event for its alarm comes


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
        max_key_idle: Seconds after which an unused key is forgotten.
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
        max_key_idle: float = 600.0,
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
        self.pools: dict[Any, SimulatedPool] = {}
        self.created = 0
        self.evicted = 0
        self.waiting = 0
        self.peak_used = 0
        self._places = places or Places()
        self._max_key_idle = max_key_idle
        self._create_time = create_time
        self._average_create_time = Average()  # as in a keyed service, of all its pools
        self._destroy_time = destroy_time
        self._jitter = jitter
        self._empty: OrderedDict[Any, None] = OrderedDict()  # keys without resources and borrowers, in that order
        self._forgotten: list[SimulatedPool] = []  # by the work under way
        self._deadlines: deque[tuple[float, Waiter]] = deque()  # in order, since all borrowers have the same timeout
        self._watches_deadlines = False  # whether an event for the first of them is to come
        self._used = 0  # places that were taken since `_used_since`
        self._used_since = events.now
        self._used_seconds = 0.0

    # -- borrowers -------------------------------------------------------------

    def acquire(self, key: Any, borrower: Borrower) -> None:
        """Ask for a resource of this key."""
        now = self.events.now
        pool = self.pools.get(key) or self._add(key)
        pool.touched = now
        ledger = pool.ledger
        if ledger.fast and ledger.idle:  # the fast path of a service
            self._lend(ledger, ledger.pop(), borrower)
            return
        slot = ledger.take(now, UNDER_WAY)
        if slot is not None:
            self._lend(ledger, slot, borrower)
        else:
            self._queue(pool, borrower)
        self.dispatch(pool)

    def release(self, borrower: Borrower) -> None:
        """Give back what the borrower has got."""
        slot, borrower.slot = borrower.slot, None
        assert slot is not None
        ledger: Ledger = slot.home
        if ledger.fast:  # the fast path of a service
            del ledger.out[id(slot.value)]
            ledger.put(slot)
            return
        ledger.reclaim(slot.value, UNDER_WAY)
        if slot.uses >= self.options.max_uses:
            ledger.condemn(slot, "max_uses", self.events.now)
        else:
            ledger.give_back(slot, self.events.now)
        self.dispatch(ledger.owner)

    def _lend(self, ledger: Ledger, slot: Slot, borrower: Borrower) -> None:
        ledger.lend(slot, self.events.now)
        slot.operation = None
        borrower.slot = slot
        borrower.served()

    def _queue(self, pool: SimulatedPool, borrower: Borrower) -> None:
        now = self.events.now
        waiter = borrower.waiter = Waiter((pool, borrower), operation=UNDER_WAY)
        self.waiting += 1
        pool.ledger.enqueue(waiter, now)
        if self.options.timeout < inf:
            self._deadlines.append((now + self.options.timeout, waiter))
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

    def _withdraw(self, pool: SimulatedPool, borrower: Borrower) -> None:
        waiter, borrower.waiter = borrower.waiter, None
        assert waiter is not None
        waiter.latch = None
        self.waiting -= 1
        pool.ledger.withdraw(waiter, self.events.now)
        self.dispatch(pool)
        borrower.timed_out()

    def die(self) -> list[Borrower]:
        """End the process: all its resources are gone; returns the borrowers that wait, and never get one."""
        waiting = [waiter.latch[1] for pool in self.pools.values() for waiter in pool.ledger.waiters()]
        self.is_dead = True
        self.waiting = 0
        self.pools.clear()
        self._deadlines.clear()
        self._count_places(0)
        return waiting

    # -- keys --------------------------------------------------------------------

    def _add(self, key: Any) -> SimulatedPool:
        pool = SimulatedPool(key)
        options = self.options
        plain = options.max_uses == inf and options.leak_timeout is None and not options.use_times
        pool.ledger = SimulatedLedger(
            options,
            self._jitter,
            plain=plain,
            watches=False,
            budget=self.budget,
            owner=pool,
            create_time=self._average_create_time,
        )
        pool.ledger.state = RUNNING  # as `start` does; an empty ledger has nothing to settle
        self.pools[key] = pool
        return pool

    def _note_empty(self, pool: SimulatedPool) -> None:
        """Forget the keys that have been unused for longest, once this one has no resource."""
        empty = self._empty
        empty[pool.key] = None
        empty.move_to_end(pool.key)
        unused_since = self.events.now - self._max_key_idle
        while empty:
            oldest = self.pools[next(iter(empty))]
            is_in_use = oldest.ledger.slots or oldest.ledger.waiting
            if not is_in_use and len(empty) <= MOST_EMPTY and oldest.touched > unused_since:
                break
            del empty[oldest.key]
            if not is_in_use:
                del self.pools[oldest.key]
                self._forgotten.append(oldest)

    # -- work ----------------------------------------------------------------------

    def dispatch(self, pool: SimulatedPool | None = None) -> None:
        """Carry out what the ledgers have ordered, and see to the alarms of those that changed."""
        outbox = self.budget.outbox
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
        if pool is not None and pool.ledger.alarm < pool.armed_at:
            self._arm(pool)
        changed = self.budget.changed
        while changed:
            self._arm(changed.pop().owner)
        while self._forgotten:
            self._forgotten.pop().ledger.owner = None  # else the two would keep each other
        if self.budget.used != self._used:
            self._count_places(self.budget.used)

    def _wake(self, waiter: Waiter) -> None:
        if not _waits(waiter):
            return  # its deadline passed at the same instant
        pool, borrower = waiter.latch
        slot = pool.ledger.claim(waiter)
        if slot is not None:
            self.waiting -= 1
            borrower.waiter = waiter.latch = None
            self._lend(pool.ledger, slot, borrower)

    def _open(self, slot: Slot) -> None:
        if slot.home.begin_work(slot, UNDER_WAY, OPENING, LATE):
            self.events.at(self.events.now + self._create_time(), self._opened, slot)

    def _opened(self, slot: Slot) -> None:
        if self.is_dead:
            return
        self.created += 1
        ledger: Ledger = slot.home
        ledger.opened(slot, object(), None, self.events.now)
        self.dispatch(ledger.owner)

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
        pool = slot.home.owner
        self._end_close(slot)
        self.dispatch(pool)

    def _end_close(self, slot: Slot) -> None:
        ledger: Ledger = slot.home
        ledger.closed(slot, self.events.now)
        slot.value = None
        if not ledger.slots and not ledger.waiting:
            self._note_empty(ledger.owner)

    # -- time --------------------------------------------------------------------------

    def _arm(self, pool: SimulatedPool) -> None:
        """Have the ledger sweep when its alarm says so."""
        when = pool.ledger.alarm
        if when < pool.armed_at:
            pool.armed_at = when
            self.events.at(when, self._ring, pool.key)

    def _ring(self, key: Any) -> None:
        now = self.events.now
        pool = self.pools.get(key)
        if pool is None or pool.armed_at > now:  # forgotten, also by a process that died, or its alarm comes later
            return
        pool.armed_at = inf
        ledger = pool.ledger
        if not ledger.slots and not ledger.waiting:
            ledger.alarm = inf  # as `sweep` does for an empty ledger
            return
        if ledger.alarm <= now:
            ledger.sweep(now)
        self.dispatch(pool)

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
