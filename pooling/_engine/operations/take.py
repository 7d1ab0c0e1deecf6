"""Acquire a resource: queue, wait for one, validate it, run the acquire hook; all before one deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..._backends.base import StepTimeoutError
from ...errors import ConfigurationError, PoolTimeoutError
from .. import messages
from ..ledger import NEW, RETIRING, STOPPED
from ..messages import ACQUIRE_HOOK, QUEUEING, VALIDATING
from ..pool import NO_TALLY
from ..slots import Slot, Waiter
from .base import Operation

if TYPE_CHECKING:
    from ..call_site import CallSite
    from ..pool import Pool

CLOSED = "closed"  # why a borrower is refused that no limit refuses


class Take(Operation[Any]):
    """
    One borrower on its way to a resource.

    Args:
        pool: Where it borrows.
        ctx: For the acquire hook.
        timeout: Seconds for all steps together; `None` takes the pool's.
        priority: Which queue to wait in.
        site: Where the borrower stands in its code.
        queues: Whether it may wait for other borrowers.
    """

    __slots__ = (
        # What is wanted.
        "ctx",
        "timeout",
        "priority",
        "site",
        "queues",
        # How far it is. `slot` and `waiter` are what it holds.
        "slot",
        "waiter",
        "step",
        "began",
        "deadline",
        "has_queued",
        "was_served",
        "flaw",
        "refusal",
    )

    def __init__(
        self, pool: Pool, ctx: Any, timeout: float | None, priority: int, site: CallSite, *, queues: bool = True
    ) -> None:
        super().__init__(pool)
        self.ctx = ctx
        self.timeout = pool.options.timeout if timeout is None else pool.seconds(timeout)
        self.priority = _checked_priority(pool, priority)
        self.site = site
        self.queues = queues
        self.slot: Slot | None = None
        self.waiter: Waiter | None = None
        self.step = QUEUEING
        self.began = pool.backend.now()
        self.deadline = self.began + self.timeout
        self.has_queued = False
        self.was_served = False  # before, and what it got was no good
        self.flaw: BaseException | None = None  # why that was no good
        self.refusal = ""

    async def run(self) -> Any:
        try:
            if self.pool.tally is NO_TALLY:
                self.pool.count_from_now_on()
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
            raise failure  # noqa: B904 - its cause is what failed last, not the step that took too long

    # -- steps ---------------------------------------------------------------

    def _take_or_queue(self) -> Slot | None:
        """An idle resource; without one the borrower queues."""
        pool = self.pool
        self.step = QUEUEING
        with pool.backend.lock:
            now = pool.backend.now()
            self.refusal = self._enter(now)
        if self.refusal == CLOSED:
            raise self._closed_error(self.step)
        if self.refusal:
            pool.ledger.note_borrowers()
            raise messages.exhausted(pool.name, pool.key, pool.ledger, now, limit=self.refusal)
        pool.dispatch()
        return self.slot

    def _enter(self, now: float) -> str:
        """Take an idle slot or queue, under the lock; the limit that forbids it, if one does."""
        ledger = self.pool.ledger
        if not self.was_served:
            self.pool.tally.asked += 1
        if ledger.state is NEW:
            ledger.start(now)
        if ledger.state is STOPPED or (ledger.state is RETIRING and not self.was_served):
            return CLOSED
        if not self.was_served:
            self.slot = ledger.take(now, self)
            if self.slot is None and (limit := self.pool.limit_on_waiting(now, queues=self.queues)):
                return limit
        if self.slot is None:
            self._queue(now)
        return ""

    def _queue(self, now: float) -> None:
        if not self.has_queued:
            self.has_queued = True
            self.pool.tally.queued += 1
        self.waiter = Waiter(self.pool.backend.latch(), self.priority, self)
        self.pool.ledger.enqueue(self.waiter, now, first=self.was_served)

    async def _wait(self) -> Slot:
        """Wait until a resource comes back or is created, and is assigned to this borrower."""
        pool, ledger, waiter = self.pool, self.pool.ledger, self.waiter
        assert waiter is not None
        if not waiter.is_settled:
            pool.arm_again()
            await pool.backend.wait(waiter.latch, self.deadline)
        with pool.backend.lock:
            step = pool.step_of_waiters()
            self.slot = ledger.claim(waiter)
            if self.slot is None and waiter.verdict is None:
                ledger.withdraw(waiter, pool.backend.now())
        if self.slot is not None:
            return self.slot
        self.step = step
        if waiter.verdict is None:
            raise pool.timeout_error(self.timeout, step)
        if isinstance(waiter.verdict, str):
            raise self._closed_error(QUEUEING)
        raise messages.create_failed(pool.name, pool.key, ledger, waiter.verdict) from waiter.verdict

    async def _is_good(self, slot: Slot) -> bool:
        """Whether the resource may be lent; one that may not is on its way to be destroyed."""
        pool = self.pool
        if self.was_served and pool.backend.now() >= self.deadline:
            self.step = VALIDATING
            raise pool.timeout_error(self.timeout, VALIDATING, self.flaw)
        flaw = pool.flaw_at_once(slot)
        if flaw is None and pool.is_to_validate(slot):
            self.step = VALIDATING
            flaw = await pool.find_flaw(slot, self.deadline)
        if isinstance(flaw, StepTimeoutError):
            raise flaw
        if flaw is not None:
            self._reject(slot, flaw)
        return flaw is None

    def _reject(self, slot: Slot, flaw: BaseException) -> None:
        """Have a resource destroyed that is no good; this borrower is the first to get another."""
        pool, ledger = self.pool, self.pool.ledger
        with pool.backend.lock:
            now = pool.backend.now()
            if slot.uses == 0 and slot.born_at >= self.began:  # it was made for this borrower
                ledger.refused(slot, flaw, now)
            ledger.condemn(slot, "invalid", now)
        self.slot = self.waiter = None
        self.flaw, self.was_served = flaw, True
        pool.dispatch()

    async def _prepare(self, slot: Slot) -> None:
        """Run the acquire hook."""
        self.step = ACQUIRE_HOOK
        await self.pool.backend.call(slot.hooks.acquire, (slot.value, self.ctx), self.deadline)

    def _lend(self, slot: Slot) -> Any:
        """Note that the resource is out; the resource."""
        pool = self.pool
        with pool.backend.lock:
            now = pool.backend.now()
            slot.code, slot.lasti, slot.stack = self.site
            pool.ledger.lend(slot, now)
            self._count(None, now)
        pool.dispatch()
        if pool.wanted:
            pool.tell("on_acquired", value=slot.value, duration=now - self.began)
        slot.operation = None  # the last step: from here on the resource is the borrower's
        return slot.value

    # -- the end that is none --------------------------------------------------

    def _give_up(self, error: BaseException) -> BaseException:
        """Give away what this borrower holds; the error that it gets."""
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
        if self._is_late(error):
            pool.tell("on_timeout", duration=self.timeout, reason=self.step)
        return error

    def _is_late(self, error: BaseException | None) -> bool:
        """Whether this is about the borrower's own deadline; a hook may have deadlines too."""
        is_ours = isinstance(error, PoolTimeoutError) and error.pool == self.pool.name
        return is_ours or isinstance(error, StepTimeoutError)

    def _count(self, error: BaseException | None, now: float) -> None:
        """Count what has become of this borrower; under the lock."""
        tally = self.pool.tally
        if error is None:
            tally.served += 1
            if self.waiter is not None:
                tally.waited += 1
                self.pool.wait_time.record(now - self.began)
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

    def _closed_error(self, step: str) -> Exception:
        pool = self.pool
        waited = pool.backend.now() - self.began
        return messages.closed(
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
