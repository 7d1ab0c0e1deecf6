"""
A model of a pool, which drives a ledger as services and operations do and checks what it does.

The model does not use slots' states. It records which borrower holds which resource, which resources were created and
destroyed, and the order of the queue. `BrokenPromiseError` names the promise that the ledger has broken.
The lock-free steps of the fast path are split where another thread may come between them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Any

from pooling._engine.audit import AUDIT_EVERY
from pooling._engine.ledger import NEW, RETIRING, RUNNING, SHORTEST_ALARM, SHORTEST_LOOK, STOPPED, SUSPENDED, Ledger
from pooling._engine.slots import (
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
    Overdue,
    Slot,
    Waiter,
    Wake,
)
from pooling.options import PoolingServiceOptions

from .driver import Resource, Work

BACKGROUND = "the pool itself"


class BrokenPromiseError(AssertionError):
    """The ledger broke a promise."""


def promise(holds: bool, what: str, *facts: Any) -> None:
    if not holds:
        raise BrokenPromiseError(what, *facts)


@dataclass(eq=False)
class Latch:
    """What one waiter waits for."""

    is_open: bool = False
    is_left: bool = False  # by its waiter


@dataclass(eq=False)
class Borrower:
    """One acquisition, from its first step to its last."""

    priority: int
    waiter: Waiter | None = None
    slot: Slot | None = None
    was_served: bool = False  # whether it got a resource that failed its check
    is_under_way: bool = True  # for the ledger, to which it is an operation

    @property
    def is_woken(self) -> bool:
        return self.waiter is not None and self.waiter.latch.is_open

    def __repr__(self) -> str:
        return f"<borrower {id(self) & 0xFFFF:x} priority {self.priority}>"


@dataclass(eq=False)
class Model:
    """One pool, its borrowers, and its background work."""

    options: PoolingServiceOptions
    plain: bool = True
    watches: bool = True
    ledger_type: type[Ledger] = Ledger
    jitter: float = 0.5

    now: float = 1000.0
    ledger: Ledger = field(init=False)
    # borrowers, by what they are doing
    seeing_fast: list[Borrower] = field(default_factory=list)  # saw `fast`, about to pop
    popped: list[Borrower] = field(default_factory=list)  # popped without the lock, not in `out` yet
    waiting: list[Borrower] = field(default_factory=list)
    holding: list[Borrower] = field(default_factory=list)  # held by an operation
    using: list[Borrower] = field(default_factory=list)
    putting: list[Borrower] = field(default_factory=list)  # saw `fast`, out of `out`, about to be put
    rechecking: int = 0  # put without the lock, about to look at `fast` again
    returning: list[Borrower] = field(default_factory=list)  # under a release hook
    dropped: int = 0
    lost: set[Slot] = field(default_factory=set)  # their borrowers were interrupted between two containers
    # background work
    creating: list[Slot] = field(default_factory=list)
    destroying: list[Slot] = field(default_factory=list)
    checking: list[Slot] = field(default_factory=list)
    # the model
    queue: list[Borrower] = field(default_factory=list)  # in order of arrival
    holder: dict[Any, Any] = field(default_factory=dict)  # resource -> its borrower
    made: set[Any] = field(default_factory=set)
    unmade: set[Any] = field(default_factory=set)
    acquisitions: int = 0
    failures: int = 0
    allowed: int = field(init=False)  # most places: `max_size`, or more for a while after a resize
    is_pausing: bool = False
    is_late: bool = False  # the alarm's instant has passed, and its sweep has not come yet

    def __post_init__(self) -> None:
        self.ledger = self.ledger_type(self.options, lambda: self.jitter, plain=self.plain, watches=self.watches)
        self.allowed = self.ledger.max_size

    # -- borrowing without the lock ----------------------------------------

    def see_fast(self, priority: int) -> None:
        """The first step of an acquisition: without the lock if `fast`, else in the queue or with an idle slot."""
        borrower = Borrower(priority)
        if self.ledger.fast:
            self.seeing_fast.append(borrower)
        else:
            self.acquire(borrower)

    def pop_fast(self, borrower: Borrower) -> None:
        self.seeing_fast.remove(borrower)
        try:
            slot = self.ledger.pop()
        except IndexError:
            self.acquire(borrower)
            return
        borrower.slot = slot
        self.popped.append(borrower)

    def lend_fast(self, borrower: Borrower) -> None:
        self.popped.remove(borrower)
        slot = borrower.slot
        self.acquisitions += slot in self.ledger.slots
        slot.uses += 1
        slot.taken_at = self.now
        self.ledger.out[id(slot.value)] = slot
        if slot.state is LIVE:
            self.hand(slot, borrower)
            self.using.append(borrower)
        else:  # an audit gave it up: the borrower was between two bytecodes for too long
            self.ledger.out.pop(id(slot.value))
            borrower.slot = None
            self.acquire(borrower)

    # -- borrowing with the lock ---------------------------------------------

    def acquire(self, borrower: Borrower) -> None:
        """An operation takes an idle slot, is refused, or queues."""
        ledger = self.ledger
        if ledger.state is NEW:
            ledger.start(self.now)
        if ledger.state == STOPPED or (ledger.state == RETIRING and not borrower.was_served):
            return
        slot = None if borrower.was_served else ledger.take(self.now, borrower)
        if slot is not None:
            promise(ledger.state == RUNNING, "only a running pool lends", ledger.state)
            promise(not self.queue, "no borrower passes the queue", borrower, self.queue)
            self.hand(slot, borrower)
            self.holding.append(borrower)
            return
        borrower.waiter = Waiter(Latch(), borrower.priority, borrower)
        self.waiting.append(borrower)
        if borrower.was_served:
            self.queue.insert(0, borrower)
        else:
            self.queue.append(borrower)
        ledger.enqueue(borrower.waiter, self.now, first=borrower.was_served)

    def claim(self, borrower: Borrower) -> None:
        """A woken borrower claims its slot, or gets its verdict."""
        self._check_order_of_service()
        self.waiting.remove(borrower)
        waiter = borrower.waiter
        promise(
            (waiter.slot is None) != (waiter.verdict is None), "a woken waiter has either a slot or a verdict", waiter
        )
        slot = self.ledger.claim(waiter)
        if slot is not None:
            self.hand(slot, borrower)
            self.holding.append(borrower)

    def withdraw(self, borrower: Borrower) -> None:
        """A borrower's time runs out, or it is interrupted, woken or not."""
        self.waiting.remove(borrower)
        if borrower in self.queue:
            self.queue.remove(borrower)
        borrower.waiter.latch.is_left = True
        self.ledger.withdraw(borrower.waiter, self.now)

    def lend(self, borrower: Borrower) -> None:
        self.holding.remove(borrower)
        self.ledger.lend(borrower.slot, self.now)
        borrower.slot.operation = None
        self.acquisitions += 1
        self.using.append(borrower)

    def put_down(self, borrower: Borrower) -> None:
        """A borrower is interrupted before anything was done with the resource."""
        self.holding.remove(borrower)
        self.free(borrower.slot)
        self.ledger.give_back(borrower.slot, self.now)

    def reject(self, borrower: Borrower, *, again: bool, fresh: bool) -> None:
        """Validation fails; the borrower queues again, before all others, or gives up."""
        self.holding.remove(borrower)
        self.free(borrower.slot)
        if fresh and borrower.slot.uses == 0:
            self.ledger.refused(borrower.slot, OSError("invalid"), self.now)
        self.ledger.condemn(borrower.slot, "invalid", self.now)
        if again:
            borrower.slot, borrower.was_served = None, True
            self.acquire(borrower)

    # -- giving back -------------------------------------------------------------

    def release(self, borrower: Borrower) -> None:
        """The first step of a release: without the lock if `fast`."""
        self.using.remove(borrower)
        is_fast = self.ledger.fast
        slot = self.ledger.reclaim(borrower.slot.value)
        promise(slot is borrower.slot, "what was lent can be reclaimed", slot, borrower.slot)
        if is_fast:
            self.free(slot)
            self.putting.append(borrower)
        else:
            slot.operation = borrower
            self.ledger.begin_release(slot, self.now)
            self.returning.append(borrower)

    def put_fast(self, borrower: Borrower) -> None:
        self.putting.remove(borrower)
        self.ledger.put(borrower.slot)
        self.rechecking += 1

    def recheck(self) -> None:
        self.rechecking -= 1
        if not self.ledger.fast:
            self.ledger.settle(self.now)

    def returned(self, borrower: Borrower, *, works: bool) -> None:
        """The release hook ends."""
        self.returning.remove(borrower)
        slot = borrower.slot
        self.free(slot)
        if works:
            slot.idle_since, slot.idle_uses = self.now, slot.uses
            self.ledger.give_back(slot, self.now)
        else:
            self.ledger.condemn(slot, "release hook", self.now)

    def discard(self, borrower: Borrower) -> None:
        self.using.remove(borrower)
        slot = self.ledger.reclaim(borrower.slot.value)
        promise(slot is borrower.slot, "what was lent can be reclaimed", slot, borrower.slot)
        self.free(slot)
        self.ledger.condemn(slot, "destroyed", self.now)

    def drop(self, borrower: Borrower) -> None:
        """The borrower becomes garbage while it has the resource."""
        self.using.remove(borrower)
        self.dropped += 1
        self.free(borrower.slot)
        self.ledger.drop(borrower.slot.value)

    # -- interrupts ------------------------------------------------------------------

    def interrupt(self, borrower: Borrower) -> None:
        """An exception arrives between two bytecodes: the slot that the borrower held is in no container."""
        for borrowers, is_holder in (
            (self.popped, False),
            (self.holding, True),
            (self.putting, False),
            (self.returning, True),
        ):
            if borrower in borrowers:
                borrowers.remove(borrower)
                if is_holder:
                    self.free(borrower.slot)
        borrower.is_under_way = False
        if borrower.slot.state is OVERDUE:  # its place is free already, and the resource is never destroyed
            self.unmade.add(borrower.slot.value)
        if borrower.slot in self.ledger.slots and borrower.slot.state is not CLOSING:
            self.lost.add(borrower.slot)

    # -- background ----------------------------------------------------------------

    def dispatch(self) -> None:
        """Carry out all that is in the outbox, in order."""
        while self.ledger.outbox:
            self.carry_out(self.ledger.outbox.pop(0))

    def carry_out(self, item: Any) -> None:
        if isinstance(item, Wake):
            latch = item.waiter.latch
            was_woken = latch.is_open or latch.is_left
            promise(item.waiter.is_settled or was_woken, "only served or rejected waiters are woken", item.waiter)
            latch.is_open = True
        elif isinstance(item, (Open, Close)):
            states, where = (
                ((OPENING, LATE), self.creating) if isinstance(item, Open) else ((CLOSING,), self.destroying)
            )
            if self.ledger.begin_work(item.slot, Work(), *states):
                where.append(item.slot)
        elif isinstance(item, Check):
            if self.ledger.begin_work(item.slot, Work(), LIVE):
                self.hand(item.slot, BACKGROUND)
                self.checking.append(item.slot)
        else:
            promise(isinstance(item, (Leak, Overdue)), "known work", item)

    def opened(self, slot: Slot) -> None:
        self.creating.remove(slot)
        value = Resource()
        self.made.add(value)
        self.ledger.opened(slot, value, None, self.now)

    def open_failed(self, slot: Slot, *, final: bool) -> None:
        self.creating.remove(slot)
        self.failures += 1
        self.ledger.open_failed(slot, OSError("refused"), self.now, final=final)

    def spoiled(self, slot: Slot, *, final: bool) -> None:
        self.creating.remove(slot)
        self.failures += 1
        value = Resource()
        self.made.add(value)
        self.ledger.spoiled(slot, value, None, OSError("would not start"), self.now, final=final)

    def closed(self, slot: Slot) -> None:
        self.destroying.remove(slot)
        promise(slot.value in self.made, "only created resources are destroyed", slot.value)
        promise(slot.value not in self.unmade, "each resource is destroyed once", slot.value)
        promise(slot.value not in self.holder, "no borrower holds a resource that is destroyed", slot.value)
        self.unmade.add(slot.value)
        self.ledger.closed(slot, self.now)

    def checked(self, slot: Slot, *, works: bool) -> None:
        self.checking.remove(slot)
        self.free(slot)
        if works:
            self.ledger.give_back(slot, self.now, cold=True)
        else:
            self.ledger.condemn(slot, "invalid", self.now)

    # -- time ------------------------------------------------------------------------

    def turn(self, seconds: float) -> None:
        """Time passes, at most to the next alarm; then the ledger sweeps."""
        self.now = min(self.now + seconds, max(self.ledger.alarm, self.now))
        self.ring()

    def jump(self, seconds: float) -> None:
        """Freeze the process or set the clock: time jumps, perhaps back, without a sweep."""
        self.now += seconds
        self.after_a_jump(is_back=seconds < 0)

    def after_a_jump(self, *, is_back: bool) -> None:
        if is_back:  # after setting a clock back, `sweep` has to be called
            self.sweep()
        else:
            self.is_late = self.ledger.alarm <= self.now

    def ring(self) -> None:
        """The timer calls, and finds the alarm due or not."""
        if self.ledger.alarm <= self.now:
            self.sweep()

    def sweep(self) -> None:
        self.ledger.sweep(self.now)
        self.is_late = False
        alarm, due = self.ledger.alarm, self._due()
        promise(alarm > self.now, "no sweep leaves an alarm at or before its own now", alarm, self.now)
        for when, what in due:  # what the sweep itself has begun may have no time at all
            promise(when >= self.now, "a sweep does all that is due", what, when, self.now)
        causes = [max(when, self.now + SHORTEST_ALARM) for when, _ in due]
        causes += [max(when, self.now + SHORTEST_ALARM) for when in self._looks() if when > self.now]
        known = alarm == inf or any(abs(alarm - when) < 1e-6 for when in causes)
        promise(known, "an alarm has something to ring for", alarm, self.now, due)

    # -- the pool as a whole -----------------------------------------------------------

    def resize(self, min_size: int, max_size: int) -> None:
        self.ledger.resize(min_size, max_size, self.now)

    # -- the model -----------------------------------------------------------------------

    def hand(self, slot: Slot, to: Any) -> None:
        value = slot.value
        promise(value in self.made, "only created resources are lent", value)
        promise(value not in self.unmade, "no destroyed resource is lent", value)
        promise(value not in self.holder, "no resource has two holders", value, self.holder.get(value), to)
        self.holder[value] = to
        if isinstance(to, Borrower):
            to.slot = slot

    def free(self, slot: Slot) -> None:
        del self.holder[slot.value]

    # -- the promises --------------------------------------------------------------------

    def check(self) -> None:
        """Whether every promise is kept at this instant, between two calls of the ledger."""
        self._check_order_of_service()
        self._check_places()
        self._check_sizes()
        self._check_idleness()
        self._check_alarm()
        self._check_counters()

    def _check_order_of_service(self) -> None:
        """Check that served borrowers were first in the queue; then remove those served or rejected."""
        ranked = sorted(self.queue, key=lambda borrower: borrower.priority)
        served = [borrower.waiter.slot is not None for borrower in ranked if borrower.waiter.verdict is None]
        promise(served == sorted(served, reverse=True), "the oldest of the most urgent is served first", ranked, served)
        self.queue = [borrower for borrower in self.queue if not borrower.waiter.is_settled]
        promise(self.ledger.waiting == len(self.queue), "the queue has all waiters and no others", self.queue)
        if self.ledger.state == STOPPED:
            promise(not self.queue, "no borrower waits for a stopped pool", self.queue)
        woken = {id(item.waiter) for item in self.ledger.outbox if isinstance(item, Wake)}
        for borrower in self.waiting:
            if borrower.waiter.is_settled:
                promise(
                    borrower.is_woken or id(borrower.waiter) in woken,
                    "a waiter that is served or rejected is woken",
                    borrower,
                )

    def _check_places(self) -> None:
        """Each slot is in exactly one place, and the place fits its state."""
        ledger = self.ledger
        checks = [item.slot for item in ledger.outbox if isinstance(item, Check)]
        between = [b.slot for b in (*self.popped, *self.putting) if b.slot.state not in (CLOSING, GONE)]
        held = [*between, *(b.slot for b in (*self.holding, *self.returning))]
        assigned = [b.waiter.slot for b in self.waiting if b.waiter.slot is not None]
        places = {
            "opening": (list(ledger.opening), {OPENING}),
            "late": (list(ledger.late), {LATE}),
            "closing": (list(ledger.closing), {CLOSING}),
            "idle": ([slot for slot in ledger.idle if slot.state not in (CLOSING, GONE)], {LIVE}),  # see `putting`
            "out": (list(ledger.out.values()), {LIVE}),
            "assigned": (assigned, {ASSIGNED}),
            "held": ([*held, *self.checking, *checks], {LIVE}),
        }
        found: dict[Slot, str] = {}
        for place, (slots, states) in places.items():
            for slot in slots:
                promise(slot not in found, "a slot is in one place", found.get(slot), place, slot.state)
                found[slot] = place
                given_up = slot in held and slot.state is OVERDUE
                promise(slot.state in states or given_up, "a slot's state fits its place", place, slot.state)
                promise(slot in ledger.slots or given_up, "every place is accounted for", place, slot.state)
        self.lost = {slot for slot in self.lost if slot in ledger.slots and slot.state is not CLOSING}
        lost = [slot.state for slot in ledger.slots if slot not in found and slot not in self.lost]
        promise(not lost, "no slot is lost", lost)
        ordered = {item.slot for item in ledger.outbox if isinstance(item, (Open, Close))}
        for slot in ledger.opening:
            promise(slot in self.creating or slot in ordered, "each opening slot is being created or ordered")
        for slot in ledger.closing:
            promise(slot in self.destroying or slot in ordered, "each closing slot is being destroyed or ordered")

    def _check_sizes(self) -> None:
        ledger = self.ledger
        places = len(ledger.slots)
        self.allowed = max(ledger.max_size, min(self.allowed, places))
        promise(places <= self.allowed, "never above max_size", places, ledger.max_size, self.allowed)
        existing = len(self.made - self.unmade) + len(self.creating)
        overdue = sum(b.slot not in ledger.slots for b in self.returning)
        overdue += sum(slot not in ledger.slots for slot in self.destroying)
        overdue += sum(item.slot not in ledger.slots for item in ledger.outbox if isinstance(item, Close))
        promise(existing <= self.allowed + overdue, "never more resources than max_size", existing, self.allowed)
        promise(len(ledger.opening) <= self.options.max_creating, "at most max_creating at once", len(ledger.opening))

    def _check_idleness(self) -> None:
        ledger = self.ledger
        serves = ledger.state in (RUNNING, RETIRING)
        if serves and self.queue and not self.rechecking:
            idle = [slot for slot in ledger.idle if slot.state is LIVE]
            promise(not idle, "no borrower queues while a resource is idle", self.queue, idle)
        if not serves:
            return
        room = min(
            ledger.max_size - len(ledger.slots),
            self.options.max_creating - len(ledger.opening),
        )
        missing = len(self.queue) - len(ledger.opening)
        if room > 0 and missing > 0:
            promise(
                ledger.backoff.retry_at > self.now or ledger.alarm <= self.now,
                "no borrower queues while there is room, except in a pause",
                room,
                missing,
            )
        if ledger.state == RUNNING and room > 0 and ledger.live + len(ledger.opening) < ledger.min_size:
            promise(
                ledger.backoff.fill_at > self.now or ledger.alarm <= self.now,
                "min_size is restored, but for a pause",
                ledger.live,
                ledger.min_size,
            )

    def _check_alarm(self) -> None:
        """The alarm is no later than the first thing that is due, and later than the step that set it."""
        ledger = self.ledger
        promise(ledger.alarm > self.now or self.is_late, "no alarm rings again at once", ledger.alarm, self.now)
        for when, what in self._due():
            latest = max(when, self.now + SHORTEST_ALARM)
            promise(ledger.alarm <= latest + 1e-6 or when == inf, "the alarm is set", what, when, self.now)

    def _due(self) -> list[tuple[float, str]]:
        """Everything that has a due time, and when it is due."""
        ledger, options = self.ledger, self.options
        due = [(slot.due, "overdue create") for slot in ledger.opening]
        due += [(slot.due, "overdue destroy") for slot in ledger.closing]
        due += [(slot.due, "overdue release") for slot in ledger.returning]
        due += [(slot.expires_at, "max_lifetime") for slot in ledger.slots if slot.state in (LIVE, ASSIGNED)]
        if options.leak_timeout is not None:
            due += [(slot.due, "leak") for slot in ledger.out.values()]
        if ledger.state in (RUNNING, RETIRING):
            if self.queue and ledger.backoff.retry_at > self.now:
                due.append((ledger.backoff.retry_at, "retry"))
                if self.now < ledger.backoff.probe_at:
                    due.append((ledger.backoff.probe_at, "an attempt for a borrower that came during the pause"))
            missing = ledger.min_size - ledger.live - len(ledger.opening)
            if ledger.state == RUNNING and missing > 0 and ledger.backoff.fill_at > self.now:
                due.append((ledger.backoff.fill_at, "refill"))
        if self.queue and (self.dropped or self.lost):
            due.append((self.now + AUDIT_EVERY, "an audit"))
        if ledger.idle and ledger.live > ledger.min_size and options.max_idle != inf:
            due.append((self.now + max(options.max_idle / 4, SHORTEST_LOOK), "a look at the idle"))
        if ledger.idle and options.validate_idle is not None:
            due.append((self.now + max(options.validate_idle / 4, SHORTEST_LOOK), "a check of the idle"))
        return due

    def _looks(self) -> list[float]:
        """Further instants at which a sweep may be due, also if it finds nothing to do."""
        ledger, options = self.ledger, self.options
        looks = [ledger.backoff.fill_at, ledger.backoff.probe_at]
        if self.queue:
            looks.append(self.now + AUDIT_EVERY)
        looks += [slot.missing_since + AUDIT_EVERY for slot in ledger.slots]
        if ledger.live > ledger.min_size:
            looks.append(self.now + max(options.max_idle / 4, SHORTEST_LOOK))
        if ledger.live and options.validate_idle is not None:
            looks.append(self.now + max(options.validate_idle / 4, SHORTEST_LOOK))
        return looks

    def _check_counters(self) -> None:
        ledger = self.ledger
        promise(ledger.uses == self.acquisitions, "every acquisition is counted", ledger.uses, self.acquisitions)
        creates_overdue = ledger.create_failures - self.failures
        promise(creates_overdue >= 0, "every failed create is counted", ledger.create_failures, self.failures)
        live = ledger.live
        promise(live >= 0, "live counts the resources that exist")

    # -- the end -------------------------------------------------------------------------

    def calm(self) -> None:
        """All borrowers give back and all work succeeds; then all waiters must be served."""
        ledger = self.ledger
        if ledger.state == SUSPENDED:
            ledger.resume(self.now)
        else:
            ledger.start(self.now)
        for _ in range(2000):
            self.check()
            if not self._step_towards_calm():
                break
        else:
            raise BrokenPromiseError("a pool left alone comes to rest")
        self.check()
        promise(not self.queue and not self.waiting, "a pool left alone serves all waiters", self.waiting)
        promise(self.lost == set(), "what was lost is recovered", self.lost)
        idle = [slot for slot in ledger.idle if slot.state is LIVE]
        promise(len(idle) == len(ledger.slots), "a pool left alone has all its resources idle", ledger.slots)
        promise(ledger.min_size <= len(ledger.slots) <= ledger.max_size, "a pool left alone is within its limits")
        promise(self.made - self.unmade == {slot.value for slot in idle}, "all existing resources are idle")
        borrowers = [Borrower(0) for _ in range(ledger.max_size)]
        for borrower in borrowers:
            self.acquire(borrower)
        for _ in range(2000):
            self.check()
            if not self._step_towards_calm(gives_back=False):
                break
        out = {borrower.slot.value for borrower in self.holding}
        promise(len(out) == ledger.max_size, "the pool's whole capacity can be used", len(out), ledger.max_size)

    def _step_towards_calm(self, *, gives_back: bool = True) -> bool:
        self.dispatch()
        woken = [borrower for borrower in self.waiting if borrower.is_woken]
        if woken:
            self.claim(woken[0])
        elif self.seeing_fast:
            self.pop_fast(self.seeing_fast[0])
        elif self.popped:
            self.lend_fast(self.popped[0])
        elif self.putting:
            self.put_fast(self.putting[0])
        elif self.rechecking:
            self.recheck()
        elif self.returning:
            self.returned(self.returning[0], works=True)
        elif self.checking:
            self.checked(self.checking[0], works=True)
        elif self.creating:
            self.opened(self.creating[0])
        elif self.destroying:
            self.closed(self.destroying[0])
        elif gives_back and self.holding:
            self.put_down(self.holding[0])
        elif gives_back and self.using:
            self.release(self.using[0])
        elif self.dropped and self.ledger.dropped:
            self.ledger.settle(self.now)
        elif self.ledger.state == STOPPED:  # it was retiring before
            self.ledger.start(self.now)
        elif self.waiting or self.lost or len(self.ledger.slots) < self.ledger.min_size:
            if self.ledger.alarm < inf:
                self.jump(max(0.0, self.ledger.alarm - self.now))
            elif self.lost:  # found when somebody waits, or at the next sweep, for which nothing has set an alarm
                self.jump(AUDIT_EVERY)
            else:
                return False
            self.sweep()
        else:
            return False
        return True
