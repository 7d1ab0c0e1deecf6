"""Acquire a resource: queue, wait for one, validate it, run the acquire hook; all before one deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..._backends.base import StepTimeoutError
from ...errors import ConfigurationError, PoolTimeoutError
from ...factory import PROGRAMMING_ERRORS
from .. import messages
from ..durations import DURATIONS, WAIT
from ..ledger import NEW, RETIRING, STOPPED
from ..messages import ACQUIRE_HOOK, QUEUEING, VALIDATING
from ..pool import NO_TALLY
from ..slots import Slot, Waiter
from ..tracing import FOLLOWERS
from .base import Operation

if TYPE_CHECKING:
    from ..call_site import Borrower
    from ..pool import Pool

CLOSED = "closed"  # the refusal of a borrower because the pool is stopped, rather than by a limit


class Take(Operation[Any]):
    """
    Acquire a resource for one borrower.

    Args:
        pool: The pool to acquire from.
        ctx: For the acquire hook.
        timeout: Seconds for all steps together; `None` takes the pool's.
        priority: Which queue to wait in.
        borrower: Who asks.
        queues: Whether it may wait for other borrowers.
    """

    __slots__ = (
        # The request.
        "ctx",
        "timeout",
        "priority",
        "borrower",
        "queues",
        # Progress. `slot` and `waiter` have to be given back if the operation fails.
        "slot",
        "waiter",
        "step",
        "began",
        "deadline",
        "has_queued",
        "was_served",
        "flaw",
        "refusal",
        # For those who follow it; `None` without followers.
        "marks",
        "places",
    )

    def __init__(
        self, pool: Pool, ctx: Any, timeout: float | None, priority: int, borrower: Borrower, *, queues: bool = True
    ) -> None:
        super().__init__(pool)
        self.ctx = ctx
        self.timeout = pool.options.timeout if timeout is None else pool.seconds(timeout)
        self.priority = _checked_priority(pool, priority)
        self.borrower = borrower
        self.queues = queues
        self.slot: Slot | None = None
        self.waiter: Waiter | None = None
        self.step = QUEUEING
        self.began = pool.backend.now()
        self.deadline = self.began + self.timeout
        self.has_queued = False
        self.was_served = False  # whether it got a resource that failed its check
        self.flaw: BaseException | None = None  # the flaw of that resource
        self.refusal = ""
        #: The steps with their instants.
        self.marks: list[tuple[str, float]] | None = [] if FOLLOWERS.are_there else None
        #: What each follower says of the code that waits.
        self.places: dict[Any, Any] | None = None

    async def run(self) -> Any:
        try:
            if self.pool.tally is NO_TALLY:
                self.pool.start_counting()
            slot = self._take_or_queue() or await self._wait()
            while self.pool.looks and not await self._is_good(slot):
                slot = self._take_or_queue() or await self._wait()
            if slot.hooks.acquire is not None:
                await self._prepare(slot)
            return self._lend(slot)
        except BaseException as error:
            failure = self._give_up(error)
            if failure is error:
                raise
            raise failure  # noqa: B904 - the cause is the last create failure, not the `StepTimeoutError`

    # -- steps ---------------------------------------------------------------

    def _take_or_queue(self) -> Slot | None:
        """Take an idle slot; if there is none, queue and return `None`."""
        pool = self.pool
        self.step = QUEUEING
        with pool.backend.lock:
            now = pool.backend.now()
            self.refusal = self._enter(now)
        if self.refusal == CLOSED:
            raise self._closed_error(self.step)
        if self.refusal:
            pool.ledger.note_borrowers()
            raise messages.exhausted_error(pool.name, pool.key, pool.ledger, now, limit=self.refusal)
        if FOLLOWERS.are_there and self.waiter is not None:  # before a create for it begins
            self.places = FOLLOWERS.here()
        pool.dispatch()
        return self.slot

    def _enter(self, now: float) -> str:
        """Take an idle slot or queue, under the lock. Returns why the borrower is refused, else an empty text."""
        ledger = self.pool.ledger
        if not self.was_served:
            self.pool.tally.asked += 1
        if ledger.state is NEW:
            ledger.start(now)
        if ledger.state is STOPPED or (ledger.state is RETIRING and not self.was_served):
            return CLOSED
        if not self.was_served:
            self.slot = ledger.take(now, self)
            if self.slot is None and (limit := self.pool.find_waiting_limit(now, queues=self.queues)):
                return limit
        if self.slot is None:
            self._queue(now)
        return ""

    def _queue(self, now: float) -> None:
        if not self.has_queued:
            self.has_queued = True
            self.pool.tally.queued += 1
        self._mark("queue")
        self.waiter = Waiter(self.pool.backend.latch(), self.priority, self)
        self.pool.ledger.enqueue(self.waiter, now, first=self.was_served)

    async def _wait(self) -> Slot:
        """Wait for the slot that is assigned to this borrower."""
        pool, ledger, waiter = self.pool, self.pool.ledger, self.waiter
        assert waiter is not None
        step = QUEUEING
        if not await pool.wait(waiter, self.deadline):
            with pool.backend.lock:
                step = pool.find_waiting_step()
                if not waiter.is_settled:
                    ledger.withdraw(waiter, pool.backend.now())
        self.slot = slot = ledger.claim(waiter)
        if slot is not None:
            self._mark("served")
            return slot
        self.step = step
        if waiter.verdict is None:
            raise pool.timeout_error(self.timeout, step)
        if isinstance(waiter.verdict, str):
            raise self._closed_error(QUEUEING)
        raise messages.create_error(pool.name, pool.key, ledger, waiter.verdict) from waiter.verdict

    async def _is_good(self, slot: Slot) -> bool:
        """Check a resource; whether it may be lent. One that fails is destroyed."""
        pool = self.pool
        if self.was_served and pool.backend.now() >= self.deadline:
            self.step = VALIDATING
            raise pool.timeout_error(self.timeout, VALIDATING, self.flaw)
        flaw = pool.find_visible_flaw(slot)
        if flaw is None and pool.is_to_validate(slot):
            self.step = VALIDATING
            self._mark("validate")
            flaw = await pool.find_flaw(slot, self.deadline)
        if isinstance(flaw, StepTimeoutError):
            raise flaw
        if flaw is not None:
            is_new = self._reject(slot, flaw)
            if is_new and isinstance(flaw, PROGRAMMING_ERRORS):
                raise messages.check_error(pool.name, pool.key, pool.ledger, flaw) from flaw
        return flaw is None

    def _reject(self, slot: Slot, flaw: BaseException) -> bool:
        """
        Destroy a resource that failed its check; this borrower goes to the head of the queue.

        Returns whether the resource was created for this borrower.
        """
        pool, ledger = self.pool, self.pool.ledger
        is_new = slot.uses == 0 and slot.born_at >= self.began
        with pool.backend.lock:
            now = pool.backend.now()
            if is_new:
                ledger.refused(slot, flaw, now)
            ledger.condemn(slot, "invalid", now)
        self.slot = self.waiter = None
        self.flaw, self.was_served = flaw, True
        pool.dispatch()
        return is_new

    async def _prepare(self, slot: Slot) -> None:
        """Run the acquire hook."""
        self.step = ACQUIRE_HOOK
        self._mark("acquire hook")
        await self.pool.backend.call(slot.hooks.acquire, (slot.value, self.ctx), self.deadline)

    def _lend(self, slot: Slot) -> Any:
        """Record the loan and return the resource."""
        pool = self.pool
        with pool.backend.lock:
            now = pool.backend.now()
            slot.borrower = self.borrower
            if slot.uses == 0 and slot.born_at >= self.began:
                self._mark("create", slot.born_at - slot.made_in)
                self._mark("created", slot.born_at)
            pool.ledger.lend(slot, now)
            self._count(None, now)
        pool.arm()
        if FOLLOWERS.are_there:
            FOLLOWERS.ended(self, now, None)
        if pool.wants("on_acquired"):
            pool.tell("on_acquired", value=slot.value, duration=now - self.began)
        slot.operation = None  # last, since from here on the borrower holds the resource
        return slot.value

    # -- failure -----------------------------------------------------------------

    def _give_up(self, error: BaseException) -> BaseException:
        """Give back what this borrower holds, and return the error to raise."""
        pool, ledger = self.pool, self.pool.ledger
        with pool.backend.lock:
            now = pool.backend.now()
            if self.slot is not None:
                ledger.out.pop(id(self.slot.value), None)
                if self.step == QUEUEING:
                    ledger.give_back(self.slot, now)
                else:
                    ledger.condemn(self.slot, self.step, now)
            elif self.waiter is not None:
                ledger.withdraw(self.waiter, now)
            self._count(error, now)
        pool.dispatch()
        if isinstance(error, StepTimeoutError):
            error = pool.timeout_error(self.timeout, self.step)
        if FOLLOWERS.are_there:
            FOLLOWERS.ended(self, now, error)
        if self._is_late(error):
            pool.tell("on_timeout", duration=self.timeout, reason=self.step)
        return error

    def _is_late(self, error: BaseException | None) -> bool:
        """Whether the borrower's own deadline passed; a timeout error may also come from a hook."""
        is_ours = isinstance(error, PoolTimeoutError) and error.pool == self.pool.name
        return is_ours or isinstance(error, StepTimeoutError)

    def _count(self, error: BaseException | None, now: float) -> None:
        """Count how this acquisition ended. Call it under the lock."""
        tally = self.pool.tally
        if error is None:
            tally.served += 1
            if self.waiter is not None:
                tally.waited += 1
                self.pool.wait_time.record(now - self.began)
                if DURATIONS.are_wanted:
                    DURATIONS.add(self.pool, WAIT, now - self.began)
            return
        if self.has_queued:
            tally.waited_in_vain += now - self.began
        if self._is_late(error):
            tally.timeouts += 1
        elif not isinstance(error, Exception):
            tally.cancelled += 1
        elif self.refusal and self.refusal != CLOSED:
            tally.rejected += 1
        else:
            tally.dismissed += 1

    def _mark(self, step: str, now: float | None = None) -> None:
        """Note a step for those who follow."""
        if self.marks is not None:
            self.marks.append((step, self.pool.backend.now() if now is None else now))

    def _closed_error(self, step: str) -> Exception:
        pool = self.pool
        waited = pool.backend.now() - self.began
        return messages.closed_error(
            pool.name, pool.key, pool.ledger, waited=waited, is_off_the_map=pool.is_off_the_map, step=step
        )


def _checked_priority(pool: Pool, priority: int) -> int:
    if isinstance(priority, int) and 0 <= priority < pool.options.priorities:
        return priority
    raise ConfigurationError(
        f"{messages.title(pool.name, pool.key)}: priority={priority!r}: expected 0 (served first) to "
        f"priorities - 1 = {pool.options.priorities - 1}",
        field="priority",
        pool=pool.name,
        key=pool.key,
    )
