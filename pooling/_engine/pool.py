"""
What the operations of one pool share: its ledger, its hooks, its backend, its observer and its counts.

To change the ledger, hold `backend.lock`; then call `dispatch` without it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf
from random import random
from typing import TYPE_CHECKING, Any

from .._backends.alarms import Ring
from ..errors import CreateError, PoolTimeoutError
from ..events import PoolEvent, PoolObserver
from ..options import PoolingServiceOptions, checked_seconds
from ..stats import Histogram
from . import messages
from .borrowers import holder_of
from .ledger import RUNNING, Ledger
from .messages import CREATING, QUEUEING, VALIDATING
from .observers import EVERYWHERE, overrides
from .slots import LIVE, Leak, Overdue, Slot, Waiter, Wake, Watcher, Work

if TYPE_CHECKING:
    from .._backends.base import Backend
    from .budget import Budget
    from .hooks import Hooks
    from .nested import NestedBudget

log = logging.getLogger("pooling")

# One for all pools: each takes 216 bytes.
NO_EVENTS: frozenset[str] = frozenset()
NOTHING_INHERITED: frozenset[int] = frozenset()

LATE = 0.2  # seconds after which an alarm that has not rung counts as lost to an interrupt
PATIENCE = 0.5  # seconds until a waiter looks for itself whether a sweep is due


class Tally:
    """
    How many borrowers did not take the fast path, and how their acquisitions ended.

    Until it has such a borrower, a pool shares `NO_TALLY` with all others.
    """

    __slots__ = (
        "asked",
        "cancelled",
        "dismissed",
        "queued",
        "rejected",
        "served",
        "timeouts",
        "waited",
        "waited_in_vain",
    )

    def __init__(self) -> None:
        self.asked = 0
        self.served = 0
        self.queued = 0
        self.waited = 0
        self.waited_in_vain = 0.0  # seconds
        self.timeouts = 0
        self.rejected = 0
        self.cancelled = 0
        self.dismissed = 0


NO_TALLY = Tally()


class Owners(dict[int, "Pool"]):
    """
    In a keyed pool: the pool of each resource that exists, by the resource's id.

    Attributes:
        made: How many resources have been added.
    """

    __slots__ = ("made",)

    def __init__(self) -> None:
        super().__init__()
        self.made = 0

    def add(self, value: Any, pool: Pool) -> None:
        """Note a resource that was created."""
        self[id(value)] = pool
        self.made += 1


class Pool:
    """
    One pool, as its operations need it.

    Args:
        hooks: Create, check and destroy resources.
        options: Settings.
        backend: Threads, an event loop, or a test's fake.
        name: For messages and statistics.
        key: The same, in a keyed pool.
        observer: Told of what happens.
        budget: The limit it shares with other pools, whose backends then share one lock.
    """

    __slots__ = (
        "__weakref__",
        # What it is made of.
        "name",
        "key",
        "options",
        "hooks",
        "backend",
        "observer",
        "wanted",
        "threshold",
        "looks",
        # Its state. The ledger changes under the lock of the backend; the others say when they change.
        "ledger",
        "kept_service",
        "inherited",
        "owners",
        "armed_at",
        # Its counts.
        "tally",
        "wait_time",
        "create_time",
        "use_time",
    )

    def __init__(
        self,
        hooks: Hooks,
        options: PoolingServiceOptions,
        backend: Backend,
        *,
        name: str,
        key: Any = None,
        observer: PoolObserver | None = None,
        budget: Budget | NestedBudget | None = None,
    ) -> None:
        self.name = name
        self.key = key
        self.options = options
        self.hooks = hooks
        self.backend = backend
        self.observer = observer
        self.wanted: frozenset[str] = NO_EVENTS if observer is None else overrides(observer)
        #: Seconds a resource may have been idle before it is validated; `inf` for never.
        validates = options.validate_on_acquire
        self.threshold = inf if validates is False else -inf if validates is True else float(validates)
        #: Whether an idle resource is checked before it is lent.
        self.looks = hooks.is_alive is not None or (self.threshold != inf and hooks.validate is not None)
        self.ledger = Ledger(
            options,
            random,
            plain=not (
                hooks.has_factory_steps
                or options.validate_on_acquire is not False
                or options.validate_on_release
                or options.max_uses != inf
                or options.leak_timeout is not None
                or options.use_times
                or not self.wanted.isdisjoint(("on_acquired", "on_released"))
            ),
            inspects=hooks.is_alive is not None,
            watches=not backend.can_interrupt,
            budget=budget,
            owner=None if budget is None else self,
            noun=hooks.noun,
        )
        if hooks.notes_borrowers:
            self.ledger.note_borrowers()
        #: The service, once its key was closed or evicted and no other object may refer to it: it has to live as long
        #: as a slot whose home is this pool.
        self.kept_service: Any = None
        #: The ids of the resources that the parent process had at a fork, or at earlier ones.
        self.inherited = NOTHING_INHERITED
        self.owners: Owners | None = None
        self.armed_at = inf  # when the timer is going to ring
        self.tally = NO_TALLY
        self.wait_time = Histogram()
        self.create_time = Histogram()
        self.use_time = Histogram()

    @property
    def is_off_the_map(self) -> bool:
        """Whether its key was closed or evicted."""
        return self.kept_service is not None

    # -- changes -------------------------------------------------------------

    def change(self, step: Callable[..., None], *args: Any) -> None:
        """Call a method of the ledger under the lock, then carry out the work it ordered."""
        with self.backend.lock:
            step(*args, self.backend.now())
        self.dispatch()

    def resize(self, min_size: int, max_size: int) -> None:
        """Change the limits."""
        with self.backend.lock:
            self.options = self.options.replaced(min_size=min_size, max_size=max_size)
            self.ledger.resize(min_size, max_size, self.backend.now())
        self.dispatch()

    def keep_none(self) -> None:
        """Replace all resources and no longer keep `min_size`. The pool can still be used."""
        with self.backend.lock:
            if self.ledger.min_size:
                self.options = self.options.replaced(min_size=0)
            self.ledger.keep_none(self.backend.now())
        self.dispatch()

    def adjust(self, **options: Any) -> None:
        """Take other settings of those that may change while the pool works."""
        with self.backend.lock:
            self.options = self.options.replaced(**options)
            self.ledger.adjust(self.options, self.backend.now())
        self.dispatch()

    def loan_of(self, value: Any) -> int:
        """The serial number of a resource's present loan; -1 if it is not out."""
        slot = self.ledger.out.get(id(value))
        return -1 if slot is None else slot.uses

    def came_back(self, value: Any, since: float) -> None:
        """See to what follows a release without the lock, of a resource that was taken at `since`."""
        self.change(self.ledger.came_back, since)
        if self.wants("on_released"):  # as for some loans only, without the instant of the acquisition
            self.tell("on_released", value=value, duration=None)

    def condemn(self, slot: Slot, reason: str) -> None:
        """Destroy a resource that the caller holds. Does not wait for the destroy."""
        self.change(self.ledger.condemn, slot, reason)

    def keeps(self, slot: Slot, value: Any) -> bool:
        """
        Whether a slot that was lent without the lock stays lent. Asked if its state is no longer `LIVE`.

        The audit then saw the slot while the fast path had it in no container. If it gave the slot up, the resource is
        being destroyed.
        """
        with self.backend.lock:
            if slot.state is LIVE:
                return True
            self.ledger.out.pop(id(value), None)
        return False

    def forget(self, watcher: Watcher) -> None:
        """Stop waiting with this watcher."""
        with self.backend.lock:
            self.ledger.forget(watcher)

    # -- work ----------------------------------------------------------------

    def dispatch(self) -> None:
        """Carry out the work in the ledger's outbox."""
        outbox = self.ledger.outbox
        while outbox:
            try:
                item = outbox.pop(0)
            except IndexError:  # another thread was faster
                break
            # Under a budget all members share one outbox, so an item may belong to another pool.
            owner: Pool = self if isinstance(item, Wake) or item.slot.home is None else item.slot.home.owner
            owner.carry_out(item)
        self.arm()
        budget = self.ledger.budget
        if budget is not None and budget.changed:
            self._arm_changed(budget)

    def _arm_changed(self, budget: Budget | NestedBudget) -> None:
        """Set the timers of the pools that were changed through the shared budget."""
        while budget.changed:
            try:
                budget.changed.pop().owner.arm()
            except IndexError:  # another thread was faster
                break

    def carry_out(self, item: Work) -> None:
        """Carry out one piece of work."""
        if isinstance(item, Wake):
            self.backend.wake(item.waiter.latch)
        elif isinstance(item, Leak):
            self._report_leak(item.slot)
        elif isinstance(item, Overdue):
            log.warning(
                "%s: a %s hook has not ended in its time; %s",
                messages.title(self.name, self.key),
                item.step,
                "its place stays taken until it does" if item.step == "create" else "its place is free again",
            )
        else:
            self.begin(item)

    def begin(self, item: Any) -> None:
        """Begin an operation in the background."""
        raise NotImplementedError

    def _report_leak(self, slot: Slot) -> None:
        whole = None if slot.borrower is None else slot.borrower.stack
        stack = "" if whole is None else "".join(whole.format())
        now = self.backend.now()
        log.warning(
            "%s: a %s has been out for more than leak_timeout=%s s: borrowed %s\n%s",
            messages.title(self.name, self.key),
            self.ledger.noun,
            self.options.leak_timeout,
            holder_of(self.name, self.key, slot, now),
            stack,
        )
        self.tell("on_leaked", value=slot.value, duration=now - slot.taken_at, stack=stack)

    # -- time ------------------------------------------------------------------

    def arm(self) -> None:
        """Set the timer to the instant of the ledger's next sweep."""
        when = self.ledger.alarm
        if when < self.armed_at:
            # Noted first: else the timer might ring before, and the pool wait for an alarm that has rung already.
            self.armed_at = when
            try:
                self.backend.at(when, Ring(self, when))
            except Exception:  # after an interrupt, a waiter sets it again: see `LATE`
                self.armed_at = inf
                raise

    async def wait(self, waiter: Waiter, deadline: float) -> bool:
        """
        Wait until a waiter is woken or the deadline has passed; whether it was woken.

        Now and then the waiter sees to a sweep that is due: an interrupt may have lost the alarm for it.
        """
        backend = self.backend
        while True:
            now = backend.now()
            if self.armed_at < now - LATE:
                self.armed_at = inf
            self.arm()
            until = min(deadline, now + PATIENCE)
            if await backend.wait(waiter.latch, until):
                return True
            if until == deadline:
                return False
            self.change(self._sweep_if_due)

    def _sweep_if_due(self, now: float) -> None:
        if self.ledger.alarm <= now:
            self.ledger.sweep(now)

    def _ring(self, when: float) -> None:
        """The timer's call; never raises."""
        try:
            # `when` may differ from `armed_at`: of two threads that arm at once, the later alarm may be written last.
            try:
                if self.ledger.alarm <= when:
                    with self.backend.lock:
                        self._sweep_if_due(self.backend.now())
            finally:
                # Not before the sweep, else other threads would meanwhile set the same alarm again.
                if when == self.armed_at:
                    self.armed_at = inf
            self.dispatch()
        except Exception:
            log.exception("%s: the periodic look at it failed", messages.title(self.name, self.key))

    def seconds(self, timeout: float | None) -> float:
        """Check the `timeout` that a caller has given; the pool's own for `None`."""
        if timeout is None:
            return self.options.timeout
        return checked_seconds(timeout, "timeout", messages.title(self.name, self.key))

    def until(self, seconds: float) -> float:
        """The deadline of a background hook; `inf` if the backend cannot interrupt it: the ledger then watches it."""
        return self.backend.now() + seconds if self.backend.can_interrupt else inf

    # -- borrowers ---------------------------------------------------------------

    def start_counting(self) -> None:
        """Replace `NO_TALLY` by a tally for this pool, before its first borrower is counted."""
        if self.tally is NO_TALLY:
            with self.backend.lock:
                self.tally = Tally() if self.tally is NO_TALLY else self.tally

    def find_waiting_limit(self, now: float, *, queues: bool) -> str:
        """Return the limit that forbids one more borrower to queue behind others; empty if none does."""
        most = self.options.max_waiting if queues else 0
        ledger = self.ledger
        if most is None or (ledger.idle and not ledger.waiting and ledger.state is RUNNING):
            return ""
        # A borrower does not count as waiting for others if a place is free for it, or a create or destroy under way.
        room: float = ledger.max_size - (len(ledger.slots) - len(ledger.closing))
        if ledger.budget is not None:
            room = min(room, ledger.budget.room_for(ledger, now))
        covered = max(room, 0) + len(ledger.opening) if ledger.state is RUNNING else 0
        if ledger.waiting + 1 - covered <= most:
            return ""
        return f"max_waiting={most}" if queues else "acquire_nowait"

    def find_waiting_step(self) -> str:
        """The step that a borrower in the queue waits for."""
        ledger, backoff = self.ledger, self.ledger.backoff
        if backoff.failures and backoff.last_was_made and not ledger.opening:
            return VALIDATING
        return CREATING if ledger.opening or ledger.late or backoff.failures else QUEUEING

    def timeout_error(
        self, timeout: float, step: str, flaw: BaseException | None = None, *, fills: bool = False
    ) -> PoolTimeoutError:
        """The error for a timeout at this step, after a resource with this flaw; `fills` if it is about `min_size`."""
        last = flaw or self.ledger.backoff.last_error
        self.ledger.note_borrowers()
        error = messages.timeout_error(
            self.name, self.key, self.ledger, self.backend.now(), timeout=timeout, step=step, error=last, fills=fills
        )
        error.__cause__ = last
        return error

    # -- looking at resources ----------------------------------------------------

    def find_visible_flaw(self, slot: Slot) -> BaseException | None:
        """Ask `is_alive` about a resource: the flaw it has, or `None`. Does not block."""
        if self.hooks.is_alive is None:
            return None
        try:
            return None if self.hooks.is_alive(slot.value) else CreateError("is_alive() returned False", pool=self.name)
        except Exception as error:
            return error

    def is_to_validate(self, slot: Slot) -> bool:
        """Whether a resource was idle for so long that it must be validated before it is lent."""
        if self.threshold == inf or self.hooks.validate is None:
            return False
        return self.backend.now() - slot.idle_since > self.threshold

    async def find_flaw(self, slot: Slot, deadline: float) -> BaseException | None:
        """Validate a resource: the flaw it has, or `None`; `StepTimeoutError` if the hook did not end in time."""
        assert self.hooks.validate is not None
        try:
            if await self.backend.call(self.hooks.validate, (slot.value,), deadline):
                return None
        except Exception as error:
            return error
        return CreateError("validate() returned False", pool=self.name, step=VALIDATING)

    # -- observers ---------------------------------------------------------------

    def tell(self, what: str, **facts: Any) -> None:
        """Tell the observers. What they raise is logged, and the pool goes on."""
        if not self.wants(what):
            return
        event = PoolEvent(pool=self.name, key=self.key, metric_prefix=self.hooks.metric_prefix, **facts)
        for observer in ((self.observer,) if what in self.wanted else ()) + tuple(EVERYWHERE.who_want(what)):
            try:
                getattr(observer, what)(event)
            except Exception:
                log.exception("%s: its observer's %s failed", messages.title(self.name, self.key), what)

    def wants(self, what: str) -> bool:
        """Whether an observer wants to know of this event."""
        return what in self.wanted or what in EVERYWHERE.wanted

    def __repr__(self) -> str:
        return f"<{messages.title(self.name, self.key)}>"
