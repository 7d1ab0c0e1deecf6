"""Give a resource back, or destroy it instead."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, NoReturn

from ..._backends.base import StepTimeoutError
from .. import messages
from ..durations import DURATIONS, USE
from ..messages import RELEASE_HOOK, VALIDATING
from ..slots import Slot, Watcher
from .base import Operation

if TYPE_CHECKING:
    from ..pool import Pool


class GiveBack(Operation[bool]):
    """
    Reset a borrowed resource and put it back; one that cannot be reset is destroyed.

    The result is `False` if the resource is not out.

    Args:
        pool: Where it was borrowed.
        value: The resource.
        exc: The exception that ended its use, if one did.
    """

    __slots__ = ("exc", "value")

    #: For those who ask what is done with a resource that is neither idle nor out.
    releases = True

    def __init__(self, pool: Pool, value: Any, exc: BaseException | None) -> None:
        super().__init__(pool)
        self.value = value
        self.exc = exc

    async def run(self) -> bool:
        pool, options = self.pool, self.pool.options
        with pool.backend.lock:
            slot = pool.ledger.reclaim(self.value, self)
        if slot is None:
            return False
        if options.use_times or (DURATIONS.are_wanted and not pool.ledger.plain):
            self._time_use(pool.backend.now() - slot.taken_at)
        slot.due = inf
        reason: str
        failure: Exception | None
        if self.exc is not None and not self._can_reset(slot):
            reason, failure = "broken", None
        elif slot.hooks.release is None and not options.validate_on_release:
            reason, failure = "", None
        else:
            reason, failure = await self._reset(slot)
        if not reason and slot.uses >= options.max_uses:
            reason = "max_uses"
        if reason:
            await discard(self, slot, reason)
        else:
            self._put_back(slot)
        if failure is not None:
            self._raise(reason, failure)
        return True

    def _time_use(self, seconds: float) -> None:
        if self.pool.options.use_times:
            with self.pool.backend.lock:
                self.pool.use_time.record(seconds)
        if DURATIONS.are_wanted:
            DURATIONS.add(self.pool, USE, seconds)

    async def _reset(self, slot: Slot) -> tuple[str, Exception | None]:
        """Run the release hooks; return why to destroy the resource, empty if it stays, and the error to report."""
        pool, options = self.pool, self.pool.options
        step = RELEASE_HOOK
        try:
            if slot.hooks.release is not None:
                with pool.backend.lock:
                    pool.ledger.begin_release(slot, pool.backend.now())
                pool.arm()
                deadline = pool.until(options.destroy_timeout)
                await pool.backend.call(slot.hooks.release, (self.value, self.exc), deadline)
            if options.validate_on_release and pool.hooks.validate is not None:
                step = VALIDATING
                flaw = await pool.find_flaw(slot, pool.backend.now() + options.destroy_timeout)
                if isinstance(flaw, StepTimeoutError):
                    raise flaw
                if flaw is not None:
                    return "invalid", None
        except Exception as error:
            return step, error
        except BaseException:
            pool.condemn(slot, step)
            raise
        return "", None

    def _can_reset(self, slot: Slot) -> bool:
        """Whether a resource whose borrower failed is reset rather than destroyed; see `on_error`."""
        policy = self.pool.options.on_error
        return policy == "release" or (policy == "auto" and slot.hooks.release is not None)

    def _put_back(self, slot: Slot) -> None:
        pool = self.pool
        with pool.backend.lock:
            now = pool.backend.now()
            slot.idle_since, slot.idle_uses = now, slot.uses
            slot.borrower = None
            pool.ledger.give_back(slot, now)
        pool.dispatch()
        if pool.wants("on_released"):
            # Of a pool with a fast path, only some loans come here, and the instant of the acquisition may be unknown.
            duration = None if pool.ledger.plain else now - slot.taken_at
            pool.tell("on_released", value=self.value, duration=duration)

    def _raise(self, step: str, failure: Exception) -> NoReturn:
        pool, how = self.pool, "failed"
        if isinstance(failure, StepTimeoutError):  # unlike a `TimeoutError` that the hook raised
            how = f"did not end within destroy_timeout={pool.options.destroy_timeout} s"
            failure = TimeoutError(f"{step} {how}")
        raise messages.release_error(pool.name, pool.key, pool.ledger, failure, step=step, how=how) from failure


class Destroy(Operation[bool]):
    """Destroy a borrowed resource. The result is `False` if it is not out."""

    __slots__ = ("value",)

    def __init__(self, pool: Pool, value: Any) -> None:
        super().__init__(pool)
        self.value = value

    async def run(self) -> bool:
        with self.pool.backend.lock:
            slot = self.pool.ledger.reclaim(self.value, self)
        if slot is None:
            return False
        await discard(self, slot, "destroyed")
        return True


async def discard(operation: Operation[Any], slot: Slot, reason: str) -> None:
    """Destroy a resource that is in the operation's hands; return when that has ended or was given up."""
    pool = operation.pool
    watcher = Watcher(pool.backend.latch(), lambda: slot not in pool.ledger.slots, operation)
    with pool.backend.lock:
        now = pool.backend.now()
        pool.ledger.watch(watcher, now)
        pool.ledger.condemn(slot, reason, now)
    try:
        pool.dispatch()
        await pool.wait(watcher, now + pool.options.destroy_timeout)
    finally:
        pool.forget(watcher)
