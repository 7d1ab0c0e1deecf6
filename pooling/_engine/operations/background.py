"""Background work on resources: create them, destroy them, check the idle ones."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from ..._backends.base import StepTimeoutError
from ...errors import CreateError
from .. import messages
from ..messages import VALIDATING
from ..slots import CLOSING, LATE, LIVE, OPENING, Slot
from ..tracing import FOLLOWERS
from .base import Operation

if TYPE_CHECKING:
    from ..hooks import ValueHooks
    from ..pool import Pool

log = logging.getLogger("pooling")


class OnSlot(Operation[None]):
    """
    Work on one slot.

    Args:
        pool: Whose slot it is.
        slot: What to work on.
    """

    __slots__ = ("slot",)

    #: The name of such work, for threads and tasks.
    name = ""

    def __init__(self, pool: Pool, slot: Slot) -> None:
        super().__init__(pool)
        self.slot = slot


class OpenSlot(OnSlot):
    """Create a resource and hand it to the ledger."""

    __slots__ = ()
    name = "open"

    async def run(self) -> None:
        pool, slot = self.pool, self.slot
        with pool.backend.lock:
            if not pool.ledger.begin_work(slot, self, OPENING, LATE):
                return
        began = pool.backend.now()
        hooks: ValueHooks | None = None
        try:
            # Assigned in the same statement: after an interrupt the audit finds the resource and destroys it.
            with FOLLOWERS.creating(pool):
                slot.value = await pool.backend.call(
                    pool.hooks.create, (), pool.until(pool.options.create_timeout), stays=True
                )
            self._refuse_known()
            hooks = pool.hooks.of(slot.value)
            if hooks.start is not None:
                await pool.backend.call(hooks.start, (slot.value,), pool.until(pool.options.create_timeout))
        except BaseException as error:
            self._failed(hooks, error, began)
            if not isinstance(error, Exception):
                raise
        else:
            self._opened(hooks, began)

    def _refuse_known(self) -> None:
        """Raise if the pool has this object already: resources are told apart by identity."""
        pool, value = self.pool, self.slot.value
        if any(other.value is value and other is not self.slot for other in list(pool.ledger.slots)):
            self.slot.value = None
            raise CreateError(
                f"{messages.title(pool.name, pool.key)}: create() returned an object that is in the pool already. "
                "Resources are told apart by identity: return a new one each time.",
                pool=pool.name,
            )

    def _opened(self, hooks: ValueHooks, began: float) -> None:
        pool, value = self.pool, self.slot.value
        with pool.backend.lock:
            now = pool.backend.now()
            if hooks.acquire is not None or hooks.release is not None:
                pool.ledger.plain = pool.ledger.fast = False
            pool.create_time.record(now - began)
            self.slot.made_in = now - began
            if pool.owners is not None:
                pool.owners.add(value, pool)
            pool.ledger.opened(self.slot, value, hooks, now)
        pool.dispatch()
        pool.tell("on_created", value=value, duration=now - began)

    def _failed(self, hooks: ValueHooks | None, error: BaseException, began: float) -> None:
        pool, slot = self.pool, self.slot
        failure = error
        if isinstance(error, StepTimeoutError):
            failure = TimeoutError(f"create did not end within create_timeout={pool.options.create_timeout} s")
        is_final = self._is_final(failure)
        with pool.backend.lock:
            is_first = pool.ledger.backoff.failures == 0
            now = pool.backend.now()
            if slot.value is None:
                pool.ledger.open_failed(slot, failure, now, final=is_final)
            else:  # it was created, and its `start` failed
                pool.ledger.spoiled(slot, slot.value, hooks, failure, now, final=is_final)
        pool.dispatch()
        pool.tell("on_create_failed", error=failure, duration=now - began)
        self._log(failure, is_first=is_first)

    def _log(self, failure: BaseException, *, is_first: bool) -> None:
        """Log a failed create: the first of a series as a warning, unless the factory does."""
        is_news = is_first and isinstance(failure, Exception) and not self.pool.hooks.logs_failures
        log.log(
            logging.WARNING if is_news else logging.DEBUG,
            "%s: create failed with %s: %s",
            messages.title(self.pool.name, self.pool.key),
            type(failure).__name__,
            messages.words_of(failure),
        )

    def _is_final(self, error: BaseException) -> bool:
        if not isinstance(error, Exception):
            return True
        try:
            return bool(self.pool.hooks.is_final(error))
        except Exception:
            title = messages.title(self.pool.name, self.pool.key)
            log.exception("%s: is_final() failed; the create is tried again", title)
            return False


class CloseSlot(OnSlot):
    """Destroy a resource and free its place, also if a hook fails."""

    __slots__ = ()
    name = "close"

    async def run(self) -> None:
        pool, slot = self.pool, self.slot
        with pool.backend.lock:
            if not pool.ledger.begin_work(slot, self, CLOSING):
                return
        value, began = slot.value, pool.backend.now()
        failure: BaseException | None = None
        try:
            hooks = slot.hooks or pool.hooks.of(value)
            for hook in (hooks.stop, hooks.destroy):
                if hook is None:
                    continue
                try:
                    await pool.backend.call(hook, (value,), pool.until(pool.options.destroy_timeout))
                except Exception as error:
                    failure = error
                    self._report(error)
        finally:
            with pool.backend.lock:
                now = pool.backend.now()
                if pool.owners is not None:
                    pool.owners.pop(id(value), None)
                pool.ledger.closed(slot, now)
            pool.dispatch()
        pool.tell("on_destroyed", value=value, reason=slot.reason, error=failure, duration=now - began)
        slot.value = None

    def _report(self, error: Exception) -> None:
        # The traceback without the message: a driver's message may contain a password.
        log.warning(
            "%s: destroying a %s (%s) failed with %s; its place is free nevertheless\n%s",
            messages.title(self.pool.name, self.pool.key),
            self.pool.ledger.noun,
            self.slot.reason,
            "a timeout" if isinstance(error, StepTimeoutError) else type(error).__name__,
            "".join(traceback.format_tb(error.__traceback__)),
        )


class CheckSlot(OnSlot):
    """Validate an idle resource."""

    __slots__ = ()
    name = "check"

    async def run(self) -> None:
        pool, slot = self.pool, self.slot
        with pool.backend.lock:
            if not pool.ledger.begin_work(slot, self, LIVE):
                return
        flaw = None
        if pool.hooks.validate is not None:
            flaw = await _outcome(pool.find_flaw(slot, pool.until(pool.options.timeout)))
        with pool.backend.lock:
            now = pool.backend.now()
            if flaw is None:
                pool.ledger.give_back(slot, now, cold=True)
            else:
                pool.ledger.condemn(slot, "invalid", now)
        pool.dispatch()
        if flaw is not None and not isinstance(flaw, Exception):
            raise flaw


class CheckIdle(Operation[None]):
    """
    Check all idle resources, one after the other, and destroy those that fail.

    Args:
        pool: Whose resources to check.
        validate: Raises, or returns `False`, for a resource to destroy.
    """

    __slots__ = ("slots", "validate")

    def __init__(self, pool: Pool, validate: Callable[[Any], Any] | None) -> None:
        super().__init__(pool)
        self.validate = validate
        self.slots: list[Slot] = []

    async def run(self) -> None:
        pool = self.pool
        self._take_all()
        try:
            while self.slots:
                flaw = await self._find_flaw(self.slots[-1])
                with pool.backend.lock:
                    if flaw is None:
                        pool.ledger.give_back(self.slots.pop(), pool.backend.now(), cold=True)
                    else:
                        pool.ledger.condemn(self.slots.pop(), "invalid", pool.backend.now())
                pool.dispatch()
                if flaw is not None and not isinstance(flaw, Exception):
                    raise flaw
        finally:
            with pool.backend.lock:
                while self.slots:
                    pool.ledger.give_back(self.slots.pop(), pool.backend.now(), cold=True)
            pool.dispatch()

    def _take_all(self) -> None:
        ledger = self.pool.ledger
        with self.pool.backend.lock:
            ledger.retry(self.pool.backend.now())
            for _ in range(len(ledger.idle)):
                slot = ledger.pop_idle(self)
                if slot is None:  # a borrower was faster
                    break
                slot.is_checked = True
                self.slots.insert(0, slot)

    async def _find_flaw(self, slot: Slot) -> BaseException | None:
        """Check a resource: the flaw it has, an interrupt of the check included; or `None`."""
        pool = self.pool
        flaw = pool.find_visible_flaw(slot)
        if flaw is not None or self.validate is None:
            return flaw
        outcome = await _outcome(pool.backend.call(self.validate, (slot.value,), pool.until(pool.options.timeout)))
        if outcome is False:
            return CreateError("validate() returned False", pool=pool.name, step=VALIDATING)
        return outcome if isinstance(outcome, BaseException) else None


async def _outcome(look: Coroutine[Any, Any, Any]) -> Any:
    """Await a check; its result or what it raised, an interrupt included, for the caller still holds the slot."""
    try:
        return await look
    except BaseException as error:
        return error
