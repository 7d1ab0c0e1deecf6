"""
The state of one pool: its slots and who holds them, its waiters, and which resources to create or destroy.

Pure and synchronous. Time comes in as `now`; the answer is work in `outbox`, which the caller carries out
afterwards, in order. Takes no lock, calls no hook, logs nothing. One rule for the caller: every method runs under the
pool's lock, except what is marked *lock-free*. `slots.py` has the table of a slot's states.

Rules of this file:
- `len(slots)` is what counts against `max_size`: a place is taken from the decision to open until the
  destroy has ended.
- Every change is one primitive step followed by `settle`, which derives all that follows from the state and
  may be run again at any time.
- An interrupt may end any of these methods between two bytecodes. What that leaves is found by the audit (`audit.py`):
  a resource whose slot is in no container and held by no running operation is destroyed.
- No method leaves `alarm` at or before its own `now`: the timer would ring again at once, endlessly if the sweep finds
  nothing to do. So a sweep must clear or move every due time that it has seen.
- `fast` may be true only while acquire and release need nothing but the move of a slot. A thread that appends to `idle`
  without the lock reads `fast` *afterwards*; a waiter that queues clears `fast` *before* it reads `idle`. So one of the
  two sees the other. (Without a global interpreter lock, too: there each of the two writes takes and gives back the
  lock of the object that it changes, before the read.)
- `idle` and `out` change without the lock. Copy them in one step, and go through the copy: without a global interpreter
  lock, other threads run between any two steps of a loop, also of one in C.
- A thread that lends without the lock reads the slot's `state` *after* it has put the slot into `out`; the audit reads
  `out` *after* it has changed the state. At least one of the two sees the other, so no resource is lent and destroyed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from enum import Enum
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from .audit import AUDIT_EVERY, find_lost
from .backoff import CALM, Backoff
from .budget import EVICTED, Budget
from .slots import (
    ASSIGNED,
    CLOSING,
    GONE,
    LATE,
    LIVE,
    OPENING,
    OVERDUE,
    Check,
    Close,
    Leak,
    Open,
    Operation,
    Overdue,
    Slot,
    SlotState,
    Waiter,
    Wake,
    Watcher,
    Work,
)
from .standing import Average

if TYPE_CHECKING:
    from .nested import NestedBudget

SHORTEST_LOOK = 0.01  # least seconds between two sweeps for idle resources, however short their limits

SHORTEST_ALARM = 0.001  # least seconds from a change to the alarm it sets

REFILL_LOOK = 1.0  # seconds between two checks whether a spent budget has room for `min_size` again


class PoolState(Enum):
    """Whether a pool serves borrowers."""

    NEW = "new"
    RUNNING = "running"
    SUSPENDED = "suspended"
    RETIRING = "retiring"
    STOPPED = "stopped"


NEW, RUNNING, SUSPENDED, RETIRING, STOPPED = PoolState


class Ledger:
    """
    The state of one pool.

    Args:
        options: The pool's settings.
        jitter: Gives a number from 0 to 1; spreads lifetimes and pauses.
        plain: Whether acquire and release run no hook; only then may `fast` become true.
        inspects: Whether the fast path must inspect an idle resource before it lends it.
        watches: Whether to give up overdue hooks; `False` if the backend can interrupt them.
        budget: The limit it shares with other ledgers, or `None`.
        owner: The pool that carries out its work; needed with a budget, where all ledgers share one outbox.
        create_time: Under a budget, how long a create takes; shared by all pools of one kind, its own for `None`.
        noun: What messages call a resource.
    """

    __slots__ = (
        # Settings.
        "options",
        "jitter",
        "plain",
        "watches",
        "min_size",
        "max_size",
        "budget",
        "owner",
        "create_time",
        "noun",
        # Read and changed by the fast path, without the lock.
        "fast",
        "inspects",
        "notes",
        "idle",
        "pop",
        "put",
        "out",
        "dropped",
        # Changed under the pool's lock.
        "state",
        "generation",
        "mixed",
        "serial",
        "slots",
        "opening",
        "late",
        "closing",
        "returning",
        "queues",
        "watchers",
        "outbox",
        "alarm",
        "backoff",
        # Counts.
        "created",
        "create_failures",
        "retired_uses",
        "closed_by",
    )

    def __init__(
        self,
        options: Any,
        jitter: Callable[[], float],
        *,
        plain: bool = True,
        inspects: bool = False,
        watches: bool = True,
        budget: Budget | NestedBudget | None = None,
        owner: Any = None,
        create_time: Average | None = None,
        noun: str = "resource",
    ) -> None:
        self.options = options
        self.jitter = jitter
        self.plain = plain
        self.watches = watches
        self.min_size: int = options.min_size
        self.max_size: int = options.max_size
        self.budget = budget
        self.owner = owner
        self.create_time: Any = create_time if create_time is not None or budget is None else Average()
        self.noun = noun
        self.fast = False
        #: Whether the fast path records borrowers, too: after an error of a borrower, since the next error names them;
        #: and under a budget, which needs to know when each pool last lent a resource.
        self.notes = budget is not None
        #: Whether the fast path has to inspect a resource or record its borrower.
        self.inspects = inspects or self.notes
        # In both orders, `idle[0]` is the resource that has been idle for longest.
        self.idle: list[Slot] = []
        self.pop: Callable[[], Slot] = self.idle.pop if options.lifo else partial(self.idle.pop, 0)
        self.put: Callable[[Slot], Any] = self.idle.append
        self.out: dict[int, Slot] = {}
        #: Values whose leases were garbage collected: finalisers append, `settle` removes.
        self.dropped: list[tuple[Any, int | None]] = []
        self.state = NEW
        self.generation = 0
        self.mixed = False  # whether there may be a slot of an earlier generation
        self.serial = 0
        # Containers that most pools never need are a shared empty tuple or `None`: there may be ten thousand pools.
        self.slots: dict[Slot, None] = {}
        self.opening: dict[Slot, None] = {}
        self.late: tuple[Slot, ...] = ()
        self.closing: dict[Slot, None] = {}
        self.returning: dict[Slot, None] = {}  # in a release hook that has a due time
        self.queues: tuple[OrderedDict[Waiter, None], ...] = ()
        self.watchers: tuple[Watcher, ...] = ()
        self.outbox: list[Work] = [] if budget is None else budget.outbox
        self.alarm = inf  # when to call `sweep`
        self.backoff = CALM
        self.created = 0
        self.create_failures = 0
        self.retired_uses = 0
        self.closed_by: dict[str, int] | None = None

    # -- counts ------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many borrowers are in the queue."""
        queues = self.queues
        if len(queues) == 1:  # without priorities
            return len(queues[0])
        return sum(map(len, queues))

    def waiters(self) -> list[Waiter]:
        """*Lock-free.* Those in the queues, in any order."""
        # The keys of the underlying `dict` are copied in one step. Without a global interpreter lock, a change while
        # another thread goes through an `OrderedDict` can crash the process.
        return [waiter for queue in self.queues for waiter in list(dict.keys(queue))]

    @property
    def waiting_since(self) -> float:
        """When the first of its waiters queued; `inf` without waiters."""
        return min((next(iter(queue)).since for queue in self.queues if queue), default=inf)

    @property
    def live(self) -> int:
        """How many resources exist and are not being destroyed."""
        return len(self.slots) - len(self.opening) - len(self.late) - len(self.closing)

    @property
    def checked(self) -> int:
        """How many idle resources are being validated, for no borrower."""
        return sum(slot.is_checked for slot in list(self.slots))

    @property
    def uses(self) -> int:
        """How many acquisitions there have been."""
        uses = self.retired_uses
        for slot in list(self.slots):
            uses += slot.uses
        return uses

    # -- borrowers ---------------------------------------------------------

    def note_borrowers(self) -> None:
        """Record every borrower from now on, so that the next error can name them."""
        self.notes = self.inspects = True

    def take(self, now: float, operation: Operation | None = None) -> Slot | None:
        """Take an idle slot for a borrower that has not queued; `None` if others wait or nothing is idle."""
        if self.state is not RUNNING or not self.idle or any(self.queues):
            return None
        if self.mixed:
            self._close_outdated(now)
        return self.pop_idle(operation)

    def pop_idle(self, operation: Operation | None = None) -> Slot | None:
        """Take the next idle slot, to be held by `operation`; `None` if nothing is idle."""
        while True:
            try:
                slot = self.pop()
            except IndexError:
                return None
            if slot.state is LIVE:  # else the audit gave it up before it was put into `idle`
                slot.operation = operation
                return slot

    def enqueue(self, waiter: Waiter, now: float, *, first: bool = False) -> None:
        """Queue a borrower; `first` for one whose resource failed its check."""
        if not self.queues:
            self.queues = tuple([OrderedDict() for _ in range(self.options.priorities)])
        queue = self.queues[waiter.priority]
        waiter.serial = self.serial
        waiter.since = min(waiter.since, now)
        self.fast = False
        queue[waiter] = None
        self._look_at(now + AUDIT_EVERY, now)
        if first:
            queue.move_to_end(waiter, last=False)
        elif now < self.backoff.retry_at and not self.opening:
            self._probe(now)
        self.settle(now)

    def withdraw(self, waiter: Waiter, now: float) -> None:
        """Remove a borrower that gives up; a slot assigned to it goes to the next waiter, or becomes idle."""
        if self.queues:
            self.queues[waiter.priority].pop(waiter, None)
        slot, waiter.slot = waiter.slot, None
        if slot is not None:
            slot.state = LIVE
            slot.operation = slot.waiter = None
            self.put(slot)
        self.settle(now)

    def claim(self, waiter: Waiter) -> Slot | None:
        """
        *Lock-free, for a waiter that was woken.* Take the slot that was assigned to it; `None` if none was.

        No other thread changes a slot that is assigned.
        """
        slot, waiter.slot = waiter.slot, None
        if slot is not None:
            slot.state = LIVE
            slot.waiter = None
        return slot

    def lend(self, slot: Slot, now: float) -> None:
        """Lend a resource."""
        slot.uses += 1
        slot.noted = slot.uses
        slot.taken_at = now
        if self.options.leak_timeout is not None:
            slot.due = now + self.options.leak_timeout
            self._look_at(slot.due, now)
        self.out[id(slot.value)] = slot

    def reclaim(self, value: Any, operation: Operation | None = None) -> Slot | None:
        """Take a resource back from its borrower, into the hands of `operation`; `None` if it is not out."""
        slot = self.out.pop(id(value), None)
        if slot is not None:
            slot.operation = operation
        return slot

    def begin_release(self, slot: Slot, now: float) -> None:
        """Note that a release hook begins, and when it will be overdue."""
        if self.watches:
            slot.due = now + self.options.destroy_timeout
            self.returning[slot] = None
            self._look_at(slot.due, now)

    def give_back(self, slot: Slot, now: float, *, cold: bool = False) -> None:
        """Put back a resource in good order; `cold` if it was checked rather than used."""
        self.returning.pop(slot, None)
        slot.operation = None
        slot.is_checked = False
        slot.due = inf
        if slot not in self.slots:  # its release hook was overdue, and has ended after all
            self.condemn(slot, "overdue", now)
            return
        if slot.state is CLOSING:
            return
        slot.state = LIVE
        if self.budget is not None and not cold:
            self.budget.use_time.add(now - slot.taken_at)
        if cold:
            slot.due = now + (self.options.validate_idle or inf)
        if cold and self.options.lifo:
            self.idle.insert(0, slot)
        else:
            self.put(slot)
        self.settle(now)

    def came_back(self, since: float, now: float) -> None:
        """A borrower has put back a resource, which was taken at `since`, without the lock."""
        if self.budget is not None:
            self.budget.use_time.add(now - since)
        self.settle(now)

    def drop(self, value: Any, loan: int | None = None) -> None:
        """
        *Lock-free, for finalisers.* Give up a resource whose lease was garbage collected while it was out.

        Args:
            value: The resource.
            loan: The slot's `uses` during that lease, so that a later borrower keeps the resource.
        """
        self.dropped.append((value, loan))
        self.fast = False

    # -- opening and closing -----------------------------------------------

    def begin_work(self, slot: Slot, operation: Operation, *states: SlotState) -> bool:
        """Give a slot to `operation` if it is in one of these states; whether it is."""
        if slot.state not in states or (slot.operation is not None and slot.operation.is_under_way):
            return False
        slot.operation = operation
        return True

    def opened(self, slot: Slot, value: Any, hooks: Any, now: float) -> None:
        """A create has succeeded, perhaps late."""
        slot.value, slot.hooks = value, hooks
        slot.operation = None
        if self.budget is not None:
            self.budget.created(self, now - slot.born_at, now, is_late=slot.state is LATE)
        slot.born_at = slot.idle_since = now
        options = self.options
        slot.due = inf
        if options.max_lifetime != inf:
            slot.expires_at = now + max(options.max_lifetime * (1 - 0.1 * self.jitter()), SHORTEST_LOOK)
            self._look_at(slot.expires_at, now)
        slot.state = LIVE
        self._leave_opening(slot)
        self._look_at(self._next_look_at_idle(now), now)
        self.created += 1
        slot.failures, self.backoff = self.backoff.failures, CALM
        self.put(slot)
        self.settle(now)

    def open_failed(self, slot: Slot, error: BaseException, now: float, *, final: bool) -> None:
        """A create has failed. It is tried again after a pause; if it is `final`, waiters get the error instead."""
        self._leave_opening(slot)
        self._vacate(slot)
        slot.state = GONE
        self.failed(error, now, final=final)
        if final:
            self._reject(slot, error)
        elif any(queue and next(reversed(queue)).serial >= slot.serial for queue in self.queues):
            self._probe(now)  # for a waiter that came after this attempt had begun
        self.settle(now)

    def _leave_opening(self, slot: Slot) -> None:
        self.opening.pop(slot, None)
        if self.late:
            self.late = tuple(other for other in self.late if other is not slot)

    def _reject(self, slot: Slot, error: BaseException) -> None:
        """
        Give waiters the error of a create that is not tried again.

        Creates that are still under way may succeed. So an error goes only to waiters that came before this create
        was ordered and are more than the creates under way; at least one waiter gets it.
        """
        came_before = [waiter for queue in self.queues for waiter in queue if waiter.serial < slot.serial]
        for waiter in came_before[: max(1, len(came_before) - len(self.opening))]:
            self._dismiss(waiter, error)

    def spoiled(self, slot: Slot, value: Any, hooks: Any, error: BaseException, now: float, *, final: bool) -> None:
        """A resource was created but its `start` failed: destroy it, and count a failed create."""
        slot.value, slot.hooks = value, hooks
        self._leave_opening(slot)
        self.failed(error, now, final=final)
        if final:
            self._reject(slot, error)
        self._close(slot, "start failed", now)
        self.settle(now)

    def failed(self, error: BaseException, now: float, *, final: bool = False) -> None:
        """Count a failed create and pause before the next one."""
        self.create_failures += 1
        self._pause(error, now, is_final=final)

    def refused(self, slot: Slot, error: BaseException, now: float) -> None:
        """A new resource failed its check: pause as after a failed create, without counting one."""
        self._pause(error, now, was_made=True, failures=slot.failures)

    def _pause(
        self, error: BaseException, now: float, *, is_final: bool = False, was_made: bool = False, failures: int = 0
    ) -> None:
        if self.backoff is CALM:
            self.backoff = Backoff()
        backoff = self.backoff
        backoff.failures = max(backoff.failures, failures)
        backoff.pause(error, now, self.options, self.jitter, is_final=is_final, was_made=was_made)
        self._look_at(backoff.fill_at, now)

    def _probe(self, now: float) -> None:
        """Schedule one attempt during the pause after a failure."""
        self.backoff.probe(now, self.options)
        self._look_at(self.backoff.probe_at, now)

    def retry(self, now: float) -> None:
        """Create missing resources at once, ending the pause after a failed create."""
        self.backoff.end_pause()
        self.settle(now)

    def condemn(self, slot: Slot, reason: str, now: float) -> None:
        """Have a resource destroyed that the caller holds."""
        self.returning.pop(slot, None)
        self._close(slot, reason, now)
        self.settle(now)

    def closed(self, slot: Slot, now: float) -> None:
        """A destroy has ended, successfully or not: its place is free."""
        self.closing.pop(slot, None)
        self._retire(slot)
        slot.state = GONE
        slot.operation = None
        self.settle(now)

    # -- the pool as a whole -----------------------------------------------

    def start(self, now: float) -> None:
        """Serve borrowers. Resources still out from before a stop are destroyed as they come back."""
        if self.state in (NEW, STOPPED):
            self.state = RUNNING
            self.backoff.failures = 0
            self.backoff.end_pause()
            self.settle(now)

    def stop(self, now: float) -> None:
        """Refuse borrowers, reject the waiting ones, destroy idle resources now and the others as they come back."""
        self.state = STOPPED
        self.fast = False
        self.generation += 1
        self.mixed = True
        for waiter in [waiter for queue in self.queues for waiter in queue]:
            self._dismiss(waiter, "closed")
        self.settle(now)

    def retire(self, now: float) -> None:
        """Refuse new borrowers, serve the waiting ones, then stop."""
        if self.state in (RUNNING, SUSPENDED):
            self.state = RETIRING
        elif self.state is NEW:
            self.state = STOPPED
        self.fast = False
        self.settle(now)

    def suspend(self, now: float) -> None:
        """Let borrowers wait."""
        if self.state in (NEW, RUNNING):
            self.state = SUSPENDED
            self.fast = False
            self.settle(now)

    def resume(self, now: float) -> None:
        """Serve borrowers again."""
        if self.state is SUSPENDED:
            self.state = RUNNING
            self.settle(now)

    def expire(self, now: float) -> None:
        """Replace all resources: idle ones now, the others as they come back."""
        self.fast = False
        self.generation += 1
        self.mixed = True
        self.settle(now)

    def keep_none(self, now: float) -> None:
        """As `expire`, and from now on create resources only for waiters, not for `min_size`."""
        self.min_size = 0
        self.expire(now)

    def resize(self, min_size: int, max_size: int, now: float) -> None:
        """Change the limits. What is above the new maximum is destroyed: if idle now, else as it comes back."""
        self.fast = False
        self.min_size, self.max_size = min_size, max_size
        self._look_at(self._next_look_at_idle(now), now)
        self.settle(now)

    def adjust(self, options: Any, now: float) -> None:
        """Take other settings. A resource keeps what it was created with: the end of its lifetime."""
        self.options = options
        self._look_at(self._next_look_at_idle(now), now)
        self.settle(now)

    def count_in(self, budget: NestedBudget, now: float) -> None:
        """Count its places in a budget within its present one, too."""
        if self.budget is not None and self.budget is not budget:
            self.budget.set_demand(self, 0)
            self.budget = budget
            budget.adopt(self, now)
        self.settle(now)

    def forget_all(self) -> None:
        """
        Free all places without destroying what is in them, and forget all waiters.

        For a pool whose event loop was closed: what belongs to that loop can be used, awaited or woken no more.
        """
        self.fast = False
        mine = self.slots.copy()
        self.outbox[:] = [item for item in self.outbox if getattr(item, "slot", None) not in mine]
        self.idle.clear()
        containers: tuple[dict[Any, Any], ...] = (self.out, self.opening, self.closing, self.returning, *self.queues)
        for container in containers:
            container.clear()
        self.late = self.watchers = ()
        for slot in mine:
            if slot.waiter is not None:
                slot.waiter.slot = None
            slot.state, slot.operation, slot.waiter = GONE, None, None
            slot.reason = slot.reason or "forgotten"
            self._retire(slot)
        if self.budget is not None:
            self.budget.withdraw(self)

    def watch(self, watcher: Watcher, now: float) -> None:
        """Wake the watcher when its state is reached, until it is forgotten."""
        self.watchers += (watcher,)
        self._look_at(now + AUDIT_EVERY, now)

    def forget(self, watcher: Watcher) -> None:
        """Remove the watcher."""
        self.watchers = tuple(other for other in self.watchers if other is not watcher)

    # -- settling ----------------------------------------------------------

    def settle(self, now: float) -> None:
        """Derive the work that the present state requires, put it in `outbox`, and set `fast` and `alarm`."""
        while self.dropped:
            self._abandon(*self.dropped[0], now)
            del self.dropped[0]  # finalisers append meanwhile
        if self.mixed:
            self._close_outdated(now)
        if self.idle and (self.state is STOPPED or len(self.slots) - len(self.closing) > self.max_size):
            self._shrink(now)
        budget = self.budget
        if self.state in (RUNNING, RETIRING):
            if self.idle and self.queues:
                self._serve(now)
            if any(self.queues) or self.min_size:
                self._order(now)
            elif budget is not None:
                budget.set_demand(self, 0)
            if self.state is RETIRING and not any(self.queues):
                self.state = STOPPED
                self._shrink(now)
        elif budget is not None:
            budget.withdraw(self)
        if budget is not None:
            budget.share(self, now)
        self.fast = (
            self.plain
            and self.state is RUNNING
            and (budget is None or not budget.alert)
            and not self.mixed
            and not self.dropped
            and not any(self.queues)
            and len(self.slots) - len(self.closing) <= self.max_size
        )
        for watcher in self.watchers:
            if watcher.is_met():
                self.outbox.append(Wake(watcher))

    def _serve(self, now: float) -> None:
        """Assign idle slots to waiters: by priority, then in the order in which they queued."""
        for queue in self.queues:
            while queue:
                slot = self.pop_idle()
                if slot is None:
                    return
                if self.budget is not None and self.budget.must_yield(self, slot, now):
                    self._close(slot, EVICTED, now)
                    continue
                waiter = next(iter(queue))
                waiter.slot, slot.waiter = slot, waiter
                slot.operation = waiter.operation
                slot.state = ASSIGNED
                del queue[waiter]
                self.outbox.append(Wake(waiter))

    def _dismiss(self, waiter: Waiter, verdict: str | BaseException) -> None:
        waiter.verdict = verdict
        self.outbox.append(Wake(waiter))
        self.queues[waiter.priority].pop(waiter, None)

    def _order(self, now: float) -> None:
        """Order creates for waiters and for `min_size`, as far as limits and pauses allow."""
        budget = self.budget
        if budget is None and len(self.slots) >= self.max_size:
            return  # no room, however many wait
        waiting, opening = self.waiting, len(self.opening)
        missing = self.min_size and self.min_size - self.live - opening
        if not waiting and missing <= 0:
            if budget is not None:
                budget.set_demand(self, 0)
            return
        backoff = self.backoff
        if missing and (self.state is not RUNNING or now < backoff.fill_at):
            missing = 0
        unserved = waiting - opening
        if now < backoff.retry_at:
            unserved = 1 if unserved > 0 and now >= backoff.probe_at and not opening else 0
        room = min(self.options.max_creating - opening, self.max_size - len(self.slots))
        short = min(unserved, room)
        for _ in range(min(max(unserved, missing), room)):
            if budget is not None and not budget.grant(self, now):
                break
            short -= 1
            self._open(now)
        if budget is not None:
            budget.set_demand(self, max(short, 0))
            self._look_at(self._next_look_at_budget(now), now)

    def _open(self, now: float) -> None:
        """Take a place and order a create for it."""
        if self.backoff is not CALM:
            self.backoff.probe_at = inf
        self.serial += 1
        slot = Slot(self.generation, self.serial, now)
        if self.budget is not None:
            slot.home = self
        if self.watches:
            slot.due = now + self.options.create_timeout
            self._look_at(slot.due, now)
        self.slots[slot] = self.opening[slot] = None
        self.outbox.append(Open(slot))

    def evict(self, now: float) -> bool:
        """Destroy the resource that has been idle for longest, for another ledger; whether there was one."""
        try:
            slot = self.idle[0]
        except IndexError:  # a borrower was faster
            return False
        was_idle = self._close_idle(slot, EVICTED, now)
        self._look_at(self._next_look_at_budget(now), now)
        return was_idle

    def _close_outdated(self, now: float) -> None:
        """Destroy idle slots of an earlier generation; `mixed` ends with the last such slot."""
        for slot in list(self.idle):
            if slot.generation != self.generation:
                self._close_idle(slot, "stopped" if self.state is STOPPED else slot.reason or "expired", now)
        self.mixed = any(slot.generation != self.generation for slot in self.slots if slot.state is not CLOSING)

    def _close_idle(self, slot: Slot, reason: str, now: float) -> bool:
        """Destroy an idle slot's resource; whether it was still idle."""
        try:
            self.idle.remove(slot)
        except ValueError:  # a borrower was faster
            return False
        self._close(slot, reason, now)
        return True

    def _shrink(self, now: float) -> None:
        """Destroy idle resources, longest idle first, while there are too many."""
        for slot in list(self.idle):
            if self.state is not STOPPED and len(self.slots) - len(self.closing) <= self.max_size:
                break
            self._close_idle(slot, "stopped" if self.state is STOPPED else "resized", now)

    def _abandon(self, value: Any, loan: int | None, now: float) -> None:
        """Destroy a resource whose lease was garbage collected, unless it came back and was lent again."""
        slot = self.out.get(id(value))
        if slot is not None and (loan is None or slot.uses == loan) and self.out.pop(id(value), None) is slot:
            self._close(slot, "abandoned", now)

    def _close(self, slot: Slot, reason: str, now: float) -> None:
        """Order the destroy of a slot's resource, unless it was ordered before."""
        if slot.state not in (CLOSING, GONE):
            self._order_close(slot, reason, now)

    def _order_close(self, slot: Slot, reason: str, now: float) -> None:
        slot.state = CLOSING
        slot.is_checked = False
        slot.operation = slot.waiter = None
        slot.reason = reason
        slot.due = slot.expires_at = inf
        if self.watches:
            slot.due = now + self.options.destroy_timeout
            self._look_at(slot.due, now)
        if slot in self.slots:  # else its place was freed when it was overdue
            self._await_close(slot)
        self.outbox.append(Close(slot))

    def _await_close(self, slot: Slot) -> None:
        self.closing[slot] = None
        if self.budget is not None:
            self.budget.will_free(self)

    # -- time --------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Do what is due at this time: idle and old resources, overdue hooks, leaks, pauses that have ended."""
        self.audit(now)
        self._sweep_idle(now)
        self._sweep_lifetimes(now)
        self._sweep_overdue(now)
        self._sweep_leaks(now)
        self.settle(now)
        self._look_ahead(now)

    def audit(self, now: float) -> None:
        """Recover what an interrupt has left: lost slots, and waiters of operations that have ended."""
        self._correct_containers()
        lost, again_at = find_lost(self.slots, self.idle, self.out, self.outbox, now)
        for slot in lost:
            self._recover(slot, now)
        for queue in self.queues:
            for waiter in [waiter for waiter in queue if not _is_under_way(waiter.operation)]:
                del queue[waiter]
        self.watchers = tuple(watcher for watcher in self.watchers if _is_under_way(watcher.operation))
        self._look_at(again_at, now)

    def _correct_containers(self) -> None:
        """Take out of the containers of a state what an interrupt has left there after that state."""
        for slots, state in ((self.opening, OPENING), (self.closing, CLOSING), (self.returning, LIVE)):
            for slot in [slot for slot in slots if slot.state is not state or slot not in self.slots]:
                del slots[slot]
        self.late = tuple(slot for slot in self.late if slot.state is LATE and slot in self.slots)

    def _recover(self, slot: Slot, now: float) -> None:
        """Destroy the resource of a lost slot, or order again the work that was lost."""
        waiter = slot.waiter
        if slot.state in (OPENING, LATE):
            self._leave_opening(slot)
            if slot.value is None:
                self._vacate(slot)
                slot.state = GONE
            else:  # the create had succeeded
                self._close(slot, "lost", now)
        elif slot.state is ASSIGNED and waiter is not None and _is_under_way(waiter.operation):
            self.outbox.append(Wake(waiter))  # the first wake-up may be lost
        elif slot.state is CLOSING:
            if slot.operation is None:  # its work item was lost
                self._await_close(slot)
                self.outbox.append(Close(slot))
            else:  # its destroy was interrupted: the hooks have been called
                self.closing.pop(slot, None)
                self._retire(slot)
                slot.state = GONE
        elif slot.state is GONE:
            self._retire(slot)
        elif slot.operation is None or not slot.operation.is_under_way:  # else its waiter has just claimed it
            self._close_lost(slot, now)

    def _close_lost(self, slot: Slot, now: float) -> None:
        """Destroy a lost resource, unless the fast path has just put it into a container."""
        state, operation = slot.state, slot.operation
        slot.state, slot.operation = CLOSING, None  # as one that is to be closed still
        if (self.out.get(id(slot.value)) is slot and operation is None) or slot in self.idle.copy():
            slot.state = state
            return
        self.out.pop(id(slot.value), None)
        self.returning.pop(slot, None)
        self._order_close(slot, "lost", now)

    def _sweep_idle(self, now: float) -> None:
        options = self.options
        for slot in list(self.idle):
            if slot.idle_uses != slot.uses:  # used since the last sweep
                slot.idle_uses = slot.uses
                slot.idle_since = now
                slot.due = inf
            if now - slot.idle_since >= options.max_idle and self.live > self.min_size:
                self._close_idle(slot, "max_idle", now)
            elif options.validate_idle is not None:
                if slot.due == inf:
                    slot.due = slot.idle_since + options.validate_idle
                if slot.due <= now:
                    try:
                        self.idle.remove(slot)
                    except ValueError:  # a borrower was faster
                        continue
                    slot.is_checked = True
                    self.outbox.append(Check(slot))

    def _sweep_lifetimes(self, now: float) -> None:
        if self.options.max_lifetime == inf:
            return
        for slot in self.slots:
            if slot.expires_at <= now:
                slot.expires_at = inf
                slot.generation = -1
                slot.reason = "max_lifetime"
                self.fast = False
                self.mixed = True

    def _sweep_overdue(self, now: float) -> None:
        for slot in (*self.opening, *self.closing, *self.returning):
            if slot.due <= now:
                self._give_up(slot, now)

    def _sweep_leaks(self, now: float) -> None:
        if self.options.leak_timeout is None:
            return
        for slot in list(self.out.values()):
            if slot.due <= now:
                slot.due = inf
                self.outbox.append(Leak(slot))

    def _give_up(self, slot: Slot, now: float) -> None:
        """Report a hook that is overdue, and free its place for other borrowers; a late create keeps its place."""
        slot.due = inf
        if slot.state is OPENING:
            del self.opening[slot]
            slot.state = LATE
            self.late += (slot,)
            self.outbox.append(Overdue(slot, "create"))
            self.failed(TimeoutError(f"create did not end within create_timeout={self.options.create_timeout} s"), now)
        elif slot.state is CLOSING:
            self.closing.pop(slot, None)
            self._retire(slot)
            self.outbox.append(Overdue(slot, "destroy"))
        elif _is_under_way(slot.operation):
            self.returning.pop(slot, None)
            slot.state = OVERDUE
            slot.reason = slot.reason or "overdue"
            self._retire(slot)
            self.outbox.append(Overdue(slot, "release"))
        else:  # an interrupt ended the release
            self.returning.pop(slot, None)
            self._close(slot, "lost", now)

    def _retire(self, slot: Slot) -> None:
        if self._vacate(slot):
            self.retired_uses += slot.uses
            if self.closed_by is None:
                self.closed_by = {}
            self.closed_by[slot.reason] = self.closed_by.get(slot.reason, 0) + 1

    def _vacate(self, slot: Slot) -> bool:
        """Free a slot's place; whether it had one."""
        if self.slots.pop(slot, self) is not None:
            return False
        if self.budget is not None:
            self.budget.vacated(self)
        return True

    def _look_ahead(self, now: float) -> None:
        """Set the alarm to the earliest due time."""
        dues = [slot.due for slot in (*self.opening, *self.closing, *self.returning)]
        if self.options.max_lifetime != inf:
            dues += [slot.expires_at for slot in self.slots]
        if self.options.leak_timeout is not None:
            dues += [slot.due for slot in list(self.out.values())]
        dues += [pause_ends for pause_ends in (self.backoff.fill_at, self.backoff.probe_at) if now < pause_ends]
        if any(self.queues) or self.watchers:
            dues.append(now + AUDIT_EVERY)
        dues += [slot.missing_since + AUDIT_EVERY for slot in self.slots]
        dues += [self._next_look_at_budget(now), self._next_look_at_idle(now)]
        self.alarm = max(min(dues), now + SHORTEST_ALARM)

    def _look_at(self, when: float, now: float) -> None:
        """Bring the next sweep forward to `when`, but to no earlier than `SHORTEST_ALARM` from now."""
        if when < self.alarm:
            self.alarm = min(self.alarm, max(when, now + SHORTEST_ALARM))

    def _next_look_at_budget(self, now: float) -> float:
        """When it may ask for more of a spent budget, or whether that has room for `min_size`, which evicts nothing."""
        if self.budget is None:
            return inf
        when = self.budget.next_look(self, now)
        if self.min_size and self.state is RUNNING and self.live + len(self.opening) < self.min_size:
            when = min(when, now + REFILL_LOOK)
        return when

    def _next_look_at_idle(self, now: float) -> float:
        """When to look for idle resources: after a quarter of the limit, since the fast path records no idle times."""
        options = self.options
        limit = options.max_idle if self.live > self.min_size else inf
        if options.validate_idle is not None and self.live:
            limit = min(limit, options.validate_idle)
        return now + max(limit / 4, SHORTEST_LOOK)


def _is_under_way(operation: Operation | None) -> bool:
    """Whether an operation may still go on; `None`, an unknown one, may."""
    return operation is None or operation.is_under_way
