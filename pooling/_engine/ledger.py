"""
The books of one pool: who holds what, who waits, what must be made or unmade.

Pure and synchronous. Time comes in as `now`; the answer is work in `outbox`, which the
caller carries out afterwards, in order: `Open`, `Close`, `Check`, `Wake`, `Leak`, `Overdue`. Takes no
lock, calls no hook, logs nothing. One rule for the caller: every method runs under the pool's lock,
except what is marked *lock-free*.

Where a slot can be, and what moves it on:

    state      where it stands            moved by
    OPENING    slots, opening             opened -> IDLE | open_failed -> GONE | sweep -> LATE
    LATE       slots, late                opened -> IDLE | open_failed -> GONE
    IDLE       slots, idle                take -> HELD | settle -> ASSIGNED | condemn -> CLOSING
    ASSIGNED   slots, waiter.slot         claim -> HELD | withdraw -> IDLE
    HELD       slots, one flow's hands    lend -> OUT | give_back -> IDLE | condemn -> CLOSING
    OUT        slots, out                 reclaim -> HELD
    CLOSING    slots, closing             closed -> GONE | sweep -> GONE
    GONE       nowhere

`IDLE` and `OUT` are where the lock-free fast path of a service moves slots to and fro without
touching `state`; for these two the container tells, so `state` says LIVE for IDLE, HELD and OUT alike.

Rules of this file:
- `len(slots)` is what counts against `max_size`: a place is taken from the decision to open until the
  destroy has ended.
- Every change is one primitive step followed by `settle`, which derives all that follows from the state and
  may be run again at any time: an interrupt between two lines is repaired by the next call. Therefore a slot
  leaves one place for another within one line, and a step's last line is the one that says it is done.
- No step sets `alarm` at or before its own `now`, and no sweep leaves it there: its timer would ring it again at once,
  and for ever where the sweep finds nothing to do. So what has come due is no longer due after the sweep that saw it.
- `fast` may be true only while nothing needs looking at on the way in or out. Whoever appends to `idle`
  without the lock looks at `fast` *afterwards*; whoever queues clears `fast` *before* looking at `idle`. One of the
  two sees the other.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from .budget import EVICTED

if TYPE_CHECKING:
    from .budget import Budget

OPENING, LATE, LIVE, ASSIGNED, CLOSING, GONE = "opening", "late", "live", "assigned", "closing", "gone"
CHECK_DUE, CHECKING = "check due", "checking"
SHORTEST_LOOK = 0.01  # seconds between two looks at the idle ones and the old ones, however short their limit

SHORTEST_ALARM = 0.001  # seconds at least from a step to the alarm it sets, however soon something is due

DROPPED_LOOK = 1.0  # seconds between two looks for resources whose borrowers are garbage, while somebody waits

TRIES_APART = 0.2  # seconds at least from a failed create to the next for who came during the pause after it

REFILL_LOOK = 1.0  # seconds between two looks whether a spent budget has room for `min_size` again

NEW, RUNNING, SUSPENDED, RETIRING, STOPPED = "new", "running", "suspended", "retiring", "stopped"


class Slot:
    """One place in the pool and the resource in it. All the pool knows of a resource is here, nothing on it."""

    __slots__ = (
        "begun",
        "born_at",
        "code",
        "due",
        "expires_at",
        "failures",
        "generation",
        "home",
        "hooks",
        "idle_since",
        "idle_uses",
        "job",
        "lasti",
        "noted",
        "ordered_at",
        "reason",
        "serial",
        "stack",
        "state",
        "taken_at",
        "turns",
        "uses",
        "value",
    )

    def __init__(self, generation: int, serial: int, now: float) -> None:
        self.state = OPENING
        self.begun = ""  # the background work that has begun last, see `begins`
        self.serial = serial
        self.value: Any = None
        self.home: Ledger | None = None  # set only under a budget: a pool of its own is to be free of cycles
        self.hooks: Any = None
        self.generation = generation
        self.ordered_at = now
        self.born_at = now
        self.expires_at = inf
        self.failures = 0  # creates failed in a row before it
        self.due = inf  # when the step under way counts as overdue
        self.uses = 0
        self.turns = 0  # borrowers served while another ledger was hungry
        self.noted = -1  # the use that the next four are about; the fast path may have skipped later ones
        self.taken_at = now
        self.code: Any = None
        self.lasti = 0
        self.stack: Any = None
        self.idle_since = now  # as of the last sweep that saw `idle_uses` acquisitions
        self.idle_uses = -1
        self.reason = ""
        self.job: Any = None


class Waiter:
    """One borrower in the queue. Exactly one of `slot` and `verdict` is set when it is woken."""

    __slots__ = ("latch", "priority", "serial", "slot", "verdict")

    def __init__(self, latch: Any, priority: int = 0) -> None:
        self.latch = latch
        self.priority = priority
        self.serial = 0  # number of the last open ordered when it queued
        self.slot: Slot | None = None
        self.verdict: str | BaseException | None = None  # "closed", or a final create error

    @property
    def is_settled(self) -> bool:
        return self.slot is not None or self.verdict is not None


class Watcher(Waiter):
    """Somebody who waits for a state of the pool, not for a resource."""

    __slots__ = ("is_met",)

    def __init__(self, latch: Any, is_met: Callable[[Ledger], bool]) -> None:
        super().__init__(latch)
        self.is_met = is_met


class Open(NamedTuple):
    slot: Slot


class Close(NamedTuple):
    slot: Slot
    what: str = "close"  # tuples of one slot would equal each other


class Check(NamedTuple):
    slot: Slot


class Wake(NamedTuple):
    waiter: Waiter


class Leak(NamedTuple):
    slot: Slot
    what: str = "leak"


class Overdue(NamedTuple):
    slot: Slot
    step: str


Work = Open | Close | Check | Wake | Leak | Overdue


class Ledger:
    """
    The books of one pool.

    Args:
        options: The pool's settings.
        jitter: Gives a number from 0 to 1; spreads lifetimes and pauses.
        plain: Whether acquire and release need nothing but the hand-over; only then is `fast` ever true.
        watches: Whether to give up steps that are overdue; `False` where the environment can end them itself.
        budget: The budget it shares with other ledgers, or `None`.
        owner: Whoever carries out its work; only for a ledger with a budget, since the outbox is shared there.
        noun: What messages call a resource.
    """

    __slots__ = (
        "alarm",
        "closed_by",
        "closing",
        "create_failures",
        "created",
        "budget",
        "doomed",
        "dropped",
        "failed_at",
        "failures",
        "fast",
        "fill_at",
        "generation",
        "idle",
        "jitter",
        "last_error",
        "last_is_final",
        "last_was_made",
        "late",
        "max_size",
        "min_size",
        "mixed",
        "noun",
        "notes",
        "opening",
        "options",
        "out",
        "outbox",
        "owner",
        "plain",
        "pop",
        "probe_at",
        "put",
        "queues",
        "retired_uses",
        "retry_at",
        "returning",
        "serial",
        "slots",
        "state",
        "watchers",
        "watches",
    )

    def __init__(
        self,
        options: Any,
        jitter: Callable[[], float],
        *,
        plain: bool = True,
        watches: bool = True,
        budget: Budget | None = None,
        owner: Any = None,
        noun: str = "resource",
    ) -> None:
        self.options = options
        self.jitter = jitter
        self.plain = plain
        self.watches = watches
        self.min_size: int = options.min_size
        self.max_size: int = options.max_size
        self.state = NEW
        self.fast = False
        #: Whether the fast path, too, notes who borrows: in a pool that has let somebody down once, and under a
        #: budget, which wants to know who was quiet for longest.
        self.notes = budget is not None
        self.generation = 0
        self.mixed = False  # whether a slot of an earlier generation may be about
        self.slots: dict[Slot, None] = {}
        self.opening: dict[Slot, None] = {}
        self.late: dict[Slot, None] = {}  # their create is overdue and still running
        self.closing: dict[Slot, None] = {}
        self.doomed: dict[Slot, str] = {}  # taken out of `idle` or `out` to be destroyed, and why
        self.returning: dict[Slot, None] = {}  # under a release hook; kept only where it has a due time
        self.out: dict[int, Slot] = {}
        # A list is popped at the end it is put to; its other end is where the coldest are.
        self.idle: list[Slot] | deque[Slot] = [] if options.lifo else deque()
        self.put: Callable[[Slot], Any] = self.idle.append
        self.pop: Callable[[], Slot] = self.idle.pop if isinstance(self.idle, list) else self.idle.popleft
        self.queues: tuple[OrderedDict[Waiter, None], ...] = ()
        self.dropped: list[
            tuple[Any, int | None]
        ] = []  # values whose borrowers are garbage; a finaliser appends, `settle` looks
        self.watchers: list[Watcher] = []
        self.budget = budget
        self.owner = owner
        self.noun = noun
        self.outbox: list[Work] = [] if budget is None else budget.outbox
        self.serial = 0
        self.failures = 0  # creates failed in a row
        self.failed_at = -inf  # when the last of them did
        self.retry_at = -inf  # no open for a waiter before this, but
        self.probe_at = inf  # one at this instant, for who came too late for the last attempt
        self.fill_at = -inf  # no open for min_size before this
        self.last_error: BaseException | None = None
        self.last_is_final = False
        self.last_was_made = False  # whether it was of a resource that had been made and was no good
        self.alarm = inf  # when `sweep` wants to be called
        self.created = 0
        self.create_failures = 0
        self.retired_uses = 0
        self.closed_by: Counter[str] = Counter()

    # -- what there is -----------------------------------------------------

    @property
    def waiting(self) -> int:
        """Borrowers in the queue that nothing has been assigned to."""
        return sum(map(len, self.queues))

    @property
    def live(self) -> int:
        """Resources that exist and are not being destroyed."""
        return len(self.slots) - len(self.opening) - len(self.late) - len(self.closing)

    @property
    def uses(self) -> int:
        """Acquisitions so far."""
        return self.retired_uses + sum(slot.uses for slot in list(self.slots))

    # -- borrowers ---------------------------------------------------------

    def take(self, now: float) -> Slot | None:
        """An idle slot for somebody who has not queued; `None` where others wait or nothing is idle."""
        if self.state != RUNNING or any(self.queues):
            return None
        if self.mixed:
            self._weed(now)
        try:
            return self.pop()
        except IndexError:
            return None

    def enqueue(self, waiter: Waiter, now: float, *, first: bool = False) -> None:
        """Let a borrower wait; `first` for one that had been served, and what it got was no good."""
        if not self.queues:
            self.queues = tuple(OrderedDict() for _ in range(self.options.priorities))
        queue = self.queues[waiter.priority]
        waiter.serial = self.serial
        self.fast = False
        queue[waiter] = None
        self._look_at(now + DROPPED_LOOK, now)
        if first:
            queue.move_to_end(waiter, last=False)
        elif now < self.retry_at and not self.opening:
            self._probe(now)
        self.settle(now)

    def withdraw(self, waiter: Waiter, now: float) -> None:
        """A borrower gives up: what it was assigned goes to the next, or back."""
        if self.queues:
            self.queues[waiter.priority].pop(waiter, None)
        if waiter.slot is not None:
            waiter.slot.state = LIVE
            waiter.slot = self.put(waiter.slot)
        self.settle(now)

    def claim(self, waiter: Waiter) -> Slot | None:
        """
        What the waiter was assigned, now in its hands; `None` if nothing was.

        `waiter.slot` stays, so that one interrupted right here still finds what it holds.
        """
        if waiter.slot is not None:
            waiter.slot.state = LIVE
            self.queues[waiter.priority].pop(waiter, None)  # it is there still where `_serve` was interrupted
        return waiter.slot

    def lend(self, slot: Slot, now: float) -> None:
        """A resource goes out."""
        slot.uses += 1
        slot.noted = slot.uses
        slot.taken_at = now
        if self.options.leak_timeout is not None:
            slot.due = now + self.options.leak_timeout
            self._look_at(slot.due, now)
        self.out[id(slot.value)] = slot

    def returns(self, slot: Slot, now: float) -> None:
        """A release hook begins; from its due time on the slot counts as given up."""
        if self.watches:
            slot.due = now + self.options.destroy_timeout
            self.returning[slot] = None
            self._look_at(slot.due, now)

    def reclaim(self, value: Any) -> Slot | None:
        """*Lock-free.* Take a resource back from whoever had it; `None` if it is not out. Of two callers one wins."""
        return self.out.pop(id(value), None)

    def drop(self, value: Any, loan: int | None = None) -> None:
        """
        *Lock-free, for finalisers.* The borrower of this resource is gone, and its state unknown.

        Args:
            value: The resource.
            loan: Its slot's `uses` while that borrower had it; whoever borrowed it since then keeps it.
        """
        self.dropped.append((value, loan))
        self.fast = False

    def give_back(self, slot: Slot, now: float, *, cold: bool = False) -> None:
        """A resource in good order comes back."""
        if not self.receives(slot, now):
            return
        if cold:  # it was looked at, not used
            slot.due = now + (self.options.validate_idle or inf)
        if cold and isinstance(self.idle, list):
            self.idle.insert(0, slot)
        else:
            self.put(slot)
        self.settle(now)

    def receives(self, slot: Slot, now: float) -> bool:
        """
        The first half of `give_back`: whether the slot may be put to the idle ones; else it is being destroyed.

        By itself for a caller that must know, interrupted at any line, whether the slot is still in its hands.
        """
        self.returning.pop(slot, None)
        slot.due = inf
        if slot not in self.slots:  # given up as overdue, and here it is after all
            self.condemn(slot, "overdue", now)
        if slot.state == CLOSING:
            return False
        slot.state = LIVE
        return True

    # -- opening and closing -----------------------------------------------

    def opened(self, slot: Slot, value: Any, hooks: Any, now: float) -> None:
        """A create has ended well, perhaps late."""
        slot.value, slot.hooks = value, hooks
        slot.born_at = slot.idle_since = now
        options = self.options
        slot.due = inf
        if options.max_lifetime != inf:
            slot.expires_at = now + max(options.max_lifetime * (1 - 0.1 * self.jitter()), SHORTEST_LOOK)
            self._look_at(slot.expires_at, now)
        slot.state = LIVE
        self.opening.pop(slot, None)
        self.late.pop(slot, None)
        self._look_at(self._next_look_at_idle(now), now)
        self.created += 1
        slot.failures, self.failures = self.failures, 0
        self._end_pause()
        self.last_error, self.last_is_final = None, False
        self.put(slot)
        self.settle(now)

    def open_failed(self, slot: Slot, error: BaseException, now: float, *, final: bool) -> None:
        """A create has failed: later it is tried again for whoever waits, or, if that is no use, they are told."""
        self.opening.pop(slot, None)
        self.late.pop(slot, None)
        self._vacate(slot)
        slot.state = GONE
        self.failed(error, now, final=final)
        if final:
            self._reject(slot, error)
        elif any(queue and next(reversed(queue)).serial >= slot.serial for queue in self.queues):
            self._probe(now)  # for who came after this attempt had begun
        self.settle(now)

    def _reject(self, slot: Slot, error: BaseException) -> None:
        """
        Tell borrowers that this create has failed for good.

        The attempts still under way may do better; whoever came before this one and is not covered by
        those gets the error.
        """
        came_before = [waiter for queue in self.queues for waiter in queue if waiter.serial < slot.serial]
        for waiter in came_before[: max(1, len(came_before) - len(self.opening))]:
            self._dismiss(waiter, error)

    def begins(self, slot: Slot, work: str) -> bool:
        """Whether to begin with this work, `OPENING`, `CHECKING` or `CLOSING`; `False` for an item that came before."""
        wanted_after = {OPENING: ("",), CHECKING: (CHECK_DUE,), CLOSING: ("", OPENING, CHECK_DUE, CHECKING)}
        if slot.begun not in wanted_after[work] or (work == OPENING and slot not in self.slots):
            return False
        slot.begun = work
        return True

    def spoiled(self, slot: Slot, value: Any, hooks: Any, error: BaseException, now: float, *, final: bool) -> None:
        """A resource was made but would not start: it is destroyed, and counts as a failed create."""
        slot.value, slot.hooks = value, hooks
        self.opening.pop(slot, None)
        self.late.pop(slot, None)
        self.failed(error, now, final=final)
        if final:
            self._reject(slot, error)
        self._close(slot, "start failed", now)
        self.settle(now)

    def failed(self, error: BaseException, now: float, *, final: bool = False) -> None:
        """Count a failed create and pause before the next."""
        self.create_failures += 1
        self._pause(error, now, final=final)

    def refused(self, slot: Slot, error: BaseException, now: float) -> None:
        """A new resource was no good: the create has not failed, but the pauses go on from those before it."""
        self.failures = max(self.failures, slot.failures)
        self._pause(error, now, was_made=True)

    def _pause(self, error: BaseException, now: float, *, final: bool = False, was_made: bool = False) -> None:
        self.failures += 1
        self.failed_at, self.probe_at = now, inf
        self.last_error, self.last_is_final, self.last_was_made = error, final, was_made
        options = self.options
        pause = min(options.create_backoff * 2.0 ** min(self.failures - 1, 30), options.create_backoff_max)
        self.fill_at = now + pause * (0.75 + 0.5 * self.jitter())
        self._look_at(self.fill_at, now)
        # An interrupted create says nothing about the next, for which a loop that is shutting down has no time.
        self.retry_at = -inf if final and isinstance(error, Exception) else self.fill_at

    def _probe(self, now: float) -> None:
        """Have one attempt made during the pause: who came after the last does not know that it failed."""
        apart = max(TRIES_APART, self.options.create_backoff)
        self.probe_at = min(self.probe_at, max(now, self.failed_at + apart))
        self._look_at(self.probe_at, now)

    def _end_pause(self) -> None:
        self.retry_at = self.fill_at = -inf
        self.probe_at = inf

    def retry(self, now: float) -> None:
        """Make what is wanted at once, without the pause after a failed create: somebody has asked for that."""
        self._end_pause()
        self.settle(now)

    def condemn(self, slot: Slot, reason: str, now: float) -> None:
        """A resource in the caller's hands is to be destroyed."""
        self.returning.pop(slot, None)
        if CLOSING not in (slot.state, slot.begun):
            self._close(slot, reason, now)
        self.settle(now)

    def closed(self, slot: Slot, now: float) -> None:
        """A destroy has ended, well or not: the place is free."""
        self.closing.pop(slot, None)
        slot.state = GONE
        self._retire(slot)
        self.settle(now)

    # -- the pool as a whole -----------------------------------------------

    def start(self, now: float) -> None:
        """Serve borrowers from now on; what is left from before a stop ends as it comes back."""
        if self.state in (NEW, STOPPED):
            self.state = RUNNING
            self.failures = 0
            self._end_pause()
            self.settle(now)

    def stop(self, now: float) -> None:
        """Refuse borrowers, send the waiting ones away, and destroy everything as it comes in."""
        self.state = STOPPED
        self.fast = False
        self.generation += 1
        self.mixed = True
        for waiter in [waiter for queue in self.queues for waiter in queue]:
            self._dismiss(waiter, "closed")
        self.settle(now)

    def retire(self, now: float) -> None:
        """Refuse borrowers, but serve those who wait; then as `stop`."""
        if self.state in (RUNNING, SUSPENDED):
            self.state = RETIRING
        elif self.state == NEW:
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
        if self.state == SUSPENDED:
            self.state = RUNNING
            self.settle(now)

    def expire(self, now: float) -> None:
        """Replace all resources there are: idle ones now, the others as they come back."""
        self.fast = False
        self.generation += 1
        self.mixed = True
        self.settle(now)

    def let_go(self, now: float) -> None:
        """Keep nothing any more: as `expire`, and nothing is made but for who waits."""
        self.min_size = 0
        self.expire(now)

    def resize(self, min_size: int, max_size: int, now: float) -> None:
        """Other limits from now on; what is above the new ones is destroyed, what is out as it comes back."""
        self.fast = False
        self.min_size, self.max_size = min_size, max_size
        self._look_at(self._next_look_at_idle(now), now)
        self.settle(now)

    # -- what follows from all that ----------------------------------------

    def settle(self, now: float) -> None:
        """Derive what must happen in the present state, put it in `outbox`, and say when to look again."""
        while self.dropped:
            self._abandon(*self.dropped[0])
            del self.dropped[0]  # finalisers append meanwhile
        if self.doomed:
            self._close_doomed(now)
        if self.mixed:
            self._weed(now)
        if self.idle and (self.state == STOPPED or len(self.slots) - len(self.closing) > self.max_size):
            self._shrink(now)
        budget = self.budget
        if self.state in (RUNNING, RETIRING):
            if self.queues:
                self._serve(now)
            self._order(now)
            if self.state == RETIRING and not any(self.queues):
                self.state = STOPPED
                self._shrink(now)
        elif budget is not None:
            budget.wants(self, 0)
        if budget is not None:
            budget.feed(self, now)
        self.fast = (
            self.plain
            and self.state == RUNNING
            and (budget is None or not budget.alert)
            and not self.mixed
            and not self.dropped
            and not any(self.queues)
            and len(self.slots) - len(self.closing) <= self.max_size
        )
        if self.watchers:
            for watcher in [watcher for watcher in self.watchers if watcher.is_met(self)]:
                self.watchers.remove(watcher)
                self.outbox.append(Wake(watcher))

    def _serve(self, now: float) -> None:
        for queue in self.queues:
            while queue:
                waiter = next(iter(queue))
                if waiter.slot is None:  # else an interrupt came between two of these lines
                    if not self.idle:
                        return
                    try:
                        waiter.slot = self.pop()
                    except IndexError:  # a borrower was faster
                        return
                if self.budget is not None and self.budget.must_yield(self, waiter.slot):
                    self.doomed[waiter.slot], waiter.slot = EVICTED, None
                    self._close_doomed(now)
                    continue
                waiter.slot.state = ASSIGNED
                self.outbox.append(Wake(waiter))
                queue.pop(waiter, None)

    def _dismiss(self, waiter: Waiter, verdict: str | BaseException) -> None:
        waiter.verdict = verdict
        self.outbox.append(Wake(waiter))
        self.queues[waiter.priority].pop(waiter, None)

    def _order(self, now: float) -> None:
        if self.budget is None and len(self.slots) >= self.max_size:
            return  # no room, whoever waits
        waiting = self.waiting if self.queues else 0
        if not waiting and self.live + len(self.opening) >= self.min_size:
            if self.budget is not None:
                self.budget.wants(self, 0)
            return
        fills = self.state == RUNNING and now >= self.fill_at
        missing = self.min_size - self.live - len(self.opening) if fills else 0
        unserved = waiting - len(self.opening)
        if now < self.retry_at:
            unserved = 1 if unserved > 0 and now >= self.probe_at and not self.opening else 0
        wanted = max(unserved, missing)
        room = min(self.options.max_creating - len(self.opening), self.max_size - len(self.slots))
        budget = self.budget
        short = min(unserved, room)
        for _ in range(min(wanted, room)):
            if budget is not None and not budget.grant(self):
                break
            short -= 1
            self.probe_at = inf
            self.serial += 1
            slot = Slot(self.generation, self.serial, now)
            if budget is not None:
                slot.home = self
            if self.watches:
                slot.due = now + self.options.create_timeout
                self._look_at(slot.due, now)
            # Should an interrupt come here, `begins` knows an order whose place was not taken yet.
            self.outbox.append(Open(slot))
            self.slots[slot] = self.opening[slot] = None
        if budget is not None:
            budget.wants(self, max(short, 0))
            self._look_at(self._next_look_at_budget(now), now)

    def evict(self, now: float) -> bool:
        """Destroy the coldest idle resource to make room for another ledger; whether there was one."""
        try:
            slot = self.idle[0]
        except IndexError:  # a borrower was faster
            return False
        return self._close_idle(slot, EVICTED, now)

    def _weed(self, now: float) -> None:
        """Destroy idle slots of an earlier generation; `mixed` ends with the last such slot."""
        for slot in list(self.idle):
            if slot.generation != self.generation:
                self._close_idle(slot, "stopped" if self.state == STOPPED else slot.reason or "expired", now)
        self.mixed = any(slot.generation != self.generation for slot in self.slots if slot.state != CLOSING)

    def _close_idle(self, slot: Slot, reason: str, now: float) -> bool:
        try:
            self.doomed[slot] = self.idle.remove(slot) or reason
        except ValueError:  # a borrower was faster
            return False
        self._close_doomed(now)
        return True

    def _close_doomed(self, now: float) -> None:
        for slot, reason in list(self.doomed.items()):
            if CLOSING not in (slot.state, slot.begun):
                self._close(slot, reason, now)
            del self.doomed[slot]

    def _shrink(self, now: float) -> None:
        """Destroy idle slots, the coldest first, while there are too many."""
        for slot in list(self.idle):
            if self.state != STOPPED and len(self.slots) - len(self.closing) <= self.max_size:
                break
            self._close_idle(slot, "stopped" if self.state == STOPPED else "resized", now)

    def _abandon(self, value: Any, loan: int | None) -> None:
        """Take what was dropped from its borrower, unless it has come back and is out again."""
        slot = self.out.get(id(value))
        if slot is not None and (loan is None or slot.uses == loan):
            try:
                self.doomed[self.out.pop(id(value))] = "abandoned"
            except KeyError:  # it was given back just now
                pass

    def _close(self, slot: Slot, reason: str, now: float) -> None:
        slot.reason = reason
        slot.due = slot.expires_at = inf
        if self.watches:
            slot.due = now + self.options.destroy_timeout
            self._look_at(slot.due, now)
        if slot in self.slots:  # else its place is another's already
            self.closing[slot] = None
        self.outbox.append(Close(slot))
        slot.state = CLOSING

    # -- time --------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Do what time alone brings about: idle and old resources, overdue steps, pauses that have ended."""
        self._sweep_idle(now)
        self._sweep_lifetimes(now)
        self._sweep_overdue(now)
        self._sweep_leaks(now)
        self.settle(now)
        self._look_ahead(now)

    def _sweep_idle(self, now: float) -> None:
        options = self.options
        for slot in list(self.idle):
            if slot.idle_uses != slot.uses:  # used since the last look
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
                    slot.begun = CHECK_DUE
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
                self._overdue(slot, now)

    def _sweep_leaks(self, now: float) -> None:
        if self.options.leak_timeout is None:
            return
        for slot in list(self.out.values()):
            if slot.due <= now:
                slot.due = inf
                self.outbox.append(Leak(slot))

    def _overdue(self, slot: Slot, now: float) -> None:
        """A hook has not ended in its time: report it, and let nobody else suffer from it."""
        slot.due = inf
        if slot.state == OPENING:
            del self.opening[slot]
            slot.state = LATE
            self.late[slot] = None
            self.outbox.append(Overdue(slot, "create"))
            self.failed(TimeoutError(f"create did not end within create_timeout={self.options.create_timeout} s"), now)
        else:
            step = "destroy" if slot.state == CLOSING else "release"
            self.closing.pop(slot, None)
            self.returning.pop(slot, None)
            slot.state = GONE
            slot.reason = slot.reason or "overdue"
            self._retire(slot)
            self.outbox.append(Overdue(slot, step))

    def _retire(self, slot: Slot) -> None:
        if self._vacate(slot):
            self.retired_uses += slot.uses
            self.closed_by[slot.reason] += 1

    def _vacate(self, slot: Slot) -> bool:
        """Free a slot's place; whether it had one."""
        if self.slots.pop(slot, self) is not None:
            return False
        if self.budget is not None:
            self.budget.vacated(self)
        return True

    def _look_ahead(self, now: float) -> None:
        """Set the alarm anew, for the first of all that time alone is going to bring about."""
        dues = [slot.due for slot in (*self.opening, *self.closing, *self.returning)]
        if self.options.max_lifetime != inf:
            dues += [slot.expires_at for slot in self.slots]
        if self.options.leak_timeout is not None:
            dues += [slot.due for slot in list(self.out.values())]
        dues += [pause_ends for pause_ends in (self.fill_at, self.probe_at) if now < pause_ends]
        if any(self.queues):
            dues.append(now + DROPPED_LOOK)
        dues += [self._next_look_at_budget(now), self._next_look_at_idle(now)]
        self.alarm = max(min(dues), now + SHORTEST_ALARM)

    def _look_at(self, when: float, now: float) -> None:
        """Bring the next sweep forward to `when`, though not to this very instant."""
        self.alarm = min(self.alarm, max(when, now + SHORTEST_ALARM))

    def _next_look_at_budget(self, now: float) -> float:
        """When to look whether a spent budget has room for `min_size` again: to fill up, nobody is evicted."""
        is_short = self.state == RUNNING and self.live + len(self.opening) < self.min_size
        return now + REFILL_LOOK if is_short and self.budget is not None else inf

    def _next_look_at_idle(self, now: float) -> float:
        """Idle times are not written down by the fast path; a look four times in the shortest limit finds them."""
        options = self.options
        limit = options.max_idle if self.live > self.min_size else inf
        if options.validate_idle is not None and self.live:
            limit = min(limit, options.validate_idle)
        return now + max(limit / 4, SHORTEST_LOOK)
