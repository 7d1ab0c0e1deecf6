"""
The operations of a pool that take more than one step, each written once.

They await nothing but the environment. In threads that never suspends; in a loop it may, and then
a cancellation can arrive at any `await`. The rule that keeps them whole: whoever holds a slot
across an `await` has an `except BaseException` around it that gives the slot away.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Callable
from math import inf
from random import random
from typing import TYPE_CHECKING, Any

from .._backends.alarms import Ring
from .._backends.base import Backend, StepTimeoutError
from ..errors import ConfigurationError, CreateError, PoolTimeoutError
from ..events import EVENTS, PoolEvent, PoolObserver
from ..options import checked_seconds
from ..stats import Histogram, PoolStats
from . import messages
from .ledger import (
    CHECKING,
    CLOSING,
    NEW,
    OPENING,
    RETIRING,
    RUNNING,
    STOPPED,
    Check,
    Close,
    Leak,
    Ledger,
    Open,
    Overdue,
    Slot,
    Waiter,
    Wake,
    Watcher,
)
from .messages import ACQUIRE_HOOK, CREATING, QUEUEING, RELEASE_HOOK, VALIDATING

if TYPE_CHECKING:
    from ..options import PoolingServiceOptions
    from .budget import Budget
    from .call_site import CallSite
    from .hooks import Hooks, ValueHooks

log = logging.getLogger("pooling")


class Tally:
    """
    How many borrowers have come that did not take the fast path, and what became of them.

    A pool that had none shares `NO_TALLY` with all others.
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


class Operations:
    """
    One pool at work: its ledger, its hooks and the environment they run in.

    Args:
        hooks: What to do with resources.
        options: Settings.
        backend: Threads, a loop, or a script.
        name: For texts and statistics.
        key: The same, in a keyed pool.
        observer: Told of what happens.
        budget: The budget it shares with other pools, whose environments then share one lock.
    """

    __slots__ = (
        "__weakref__",
        "armed_at",
        "create_time",
        "door",
        "backend",
        "hooks",
        "key",
        "ledger",
        "name",
        "observer",
        "options",
        "tally",
        "threshold",
        "use_time",
        "wait_time",
        "wanted",
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
        budget: Budget | None = None,
    ) -> None:
        self.hooks = hooks
        self.options = options
        self.backend = backend
        self.name = name
        self.key = key
        self.observer = observer
        self.wanted: frozenset[str] = frozenset() if observer is None else overrides(observer)
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
            watches=not backend.can_interrupt,
            budget=budget,
            owner=None if budget is None else self,
            noun=hooks.noun,
        )
        #: Seconds a resource may have been idle before it is validated; `inf` for never.
        validates = options.validate_on_acquire
        self.threshold = inf if validates is False else -inf if validates is True else float(validates)
        #: The service, once its key was closed or forgotten: it is to live as long as there is a slot, whose home
        #: this pool is, and nobody else may have it.
        self.door: Any = None
        self.armed_at = inf
        self.tally = NO_TALLY
        self.wait_time = Histogram()
        self.create_time = Histogram()
        self.use_time = Histogram()

    # -- borrowing -----------------------------------------------------------

    async def take(
        self,
        ctx: Any,
        timeout: float | None,
        priority: int,
        site: CallSite,
        *,
        queues: bool = True,
        hand: list[Slot] | None = None,
    ) -> Any:
        """
        Acquire a resource: queue, wait for one, validate it, run the acquire hook; all before one deadline.

        With a `hand`, the slot that was lent is also put in there, for a caller that may be interrupted
        after this has ended and before it has the result.
        """
        backend, ledger = self.backend, self.ledger
        if self.tally is NO_TALLY:
            with backend.lock:
                self.tally = Tally() if self.tally is NO_TALLY else self.tally
        tally = self.tally
        timeout = self._seconds(timeout)
        if not isinstance(priority, int) or not 0 <= priority < self.options.priorities:
            raise ConfigurationError(
                f"{messages.title(self.name, self.key)}: priority={priority!r}: expected 0 (served first) to "
                f"priorities - 1 = {self.options.priorities - 1}",
                field="priority",
                pool=self.name,
                key=self.key,
            )
        now = began = backend.now()
        deadline = began + timeout
        slot: Slot | None = None
        waiter: Waiter | None = None
        step = QUEUEING
        is_back = False  # whether it was served before, and what it got was no good
        has_queued = False
        refused: BaseException | None = None  # why what it got last was no good
        refusal = ""
        try:
            while True:
                with backend.lock:
                    now = backend.now()
                    if not is_back:
                        tally.asked += 1
                    if ledger.state == NEW:
                        ledger.start(now)
                    if ledger.state == STOPPED or (ledger.state == RETIRING and not is_back):
                        refusal = "closed"
                    else:
                        if not is_back:
                            slot = ledger.take(now)
                        if slot is None:
                            refusal = "" if is_back else self._refusal(queues, now)
                            if not refusal:
                                waiter = Waiter(backend.latch(), priority)
                                if not has_queued:
                                    has_queued = True
                                    tally.queued += 1
                                ledger.enqueue(waiter, now, first=is_back)
                if refusal == "closed":
                    raise self._closed(now - began, step)
                if refusal:
                    ledger.notes = True
                    raise messages.exhausted(self.name, self.key, ledger, now, limit=refusal)
                self.dispatch()
                if slot is None:
                    assert waiter is not None
                    if not waiter.is_settled:
                        await backend.wait(waiter.latch, deadline)
                    with backend.lock:
                        step = self._step()
                        slot = ledger.claim(waiter)
                        if slot is None and waiter.verdict is None:
                            ledger.withdraw(waiter, backend.now())
                    if slot is None:
                        raise self._verdict(waiter, timeout, step, backend.now() - began)
                    step = QUEUEING
                if is_back and backend.now() >= deadline:
                    step = VALIDATING
                    raise self._timed_out(timeout, step, refused)
                flaw = self.flaw_at_once(slot)
                if flaw is None and self._is_to_validate(slot):
                    step = VALIDATING
                    flaw = await self._flaw(slot, deadline)
                if flaw is not None and not isinstance(flaw, StepTimeoutError):
                    with backend.lock:
                        now = backend.now()
                        if slot.uses == 0 and slot.born_at >= began:  # made for us and no good
                            ledger.refused(slot, flaw, now)
                        ledger.condemn(slot, "invalid", now)
                    refused, slot, waiter, is_back, step = flaw, None, None, True, QUEUEING
                    self.dispatch()
                    continue
                if flaw is None and slot.hooks.acquire is not None:
                    step = ACQUIRE_HOOK
                    flaw = await self._prepare(slot, ctx, deadline)
                if flaw is not None:
                    with backend.lock:
                        ledger.condemn(slot, step, backend.now())
                    slot = waiter = None
                    self.dispatch()
                    raise flaw
                with backend.lock:
                    now = backend.now()
                    slot.code, slot.lasti, slot.stack = site
                    ledger.lend(slot, now)
                    tally.served += 1
                break
            if waiter is not None:
                tally.waited += 1
                self.wait_time.record(now - began)
            self.dispatch()
            self.tell("on_acquired", value=slot.value, duration=now - began)
            if hand is not None:
                hand.append(slot)
            return slot.value
        except BaseException as error:
            if hand:
                hand.clear()
            with backend.lock:
                now = backend.now()
                if slot is not None:
                    ledger.out.pop(id(slot.value), None)
                    if step == QUEUEING:
                        ledger.give_back(slot, now)
                    else:
                        ledger.condemn(slot, step, now)
                elif waiter is not None:
                    ledger.withdraw(waiter, now)
                is_late = isinstance(error, StepTimeoutError) or (
                    isinstance(error, PoolTimeoutError) and error.pool == self.name
                )
                if has_queued:
                    tally.waited_in_vain += now - began
                if is_late:
                    tally.timeouts += 1
                elif not isinstance(error, Exception):
                    tally.cancelled += 1
                elif refusal and refusal != "closed":
                    tally.rejected += 1
                else:
                    tally.dismissed += 1
            self.dispatch()
            if isinstance(error, StepTimeoutError):
                error = self._timed_out(timeout, step)
            if is_late:
                self.tell("on_timeout", duration=timeout, reason=step)
                raise error  # noqa: TRY201 - not always the one that was caught
            raise

    def _refusal(self, queues: bool, now: float) -> str:
        """Why one more borrower may not queue behind others; empty if it may, or need not."""
        most = self.options.max_waiting if queues else 0
        ledger = self.ledger
        if most is None or (ledger.idle and not ledger.waiting and ledger.state == RUNNING):
            return ""
        # Those for whom a place is free, or being made or unmade, do not wait for another borrower.
        room: float = ledger.max_size - (len(ledger.slots) - len(ledger.closing))
        if ledger.budget is not None:
            room = min(room, ledger.budget.room_for(ledger, now))
        covered = max(room, 0) + len(ledger.opening) if ledger.state == RUNNING else 0
        if ledger.waiting + 1 - covered <= most:
            return ""
        return f"max_waiting={most}" if queues else "acquire_nowait"

    def _closed(self, waited: float, step: str) -> Exception:
        return messages.closed(
            self.name, self.key, self.ledger, waited=waited, is_off_the_map=self.door is not None, step=step
        )

    def _verdict(self, waiter: Waiter, timeout: float, step: str, waited: float) -> Exception:
        if waiter.verdict is None:
            return self._timed_out(timeout, step)
        if isinstance(waiter.verdict, str):
            return self._closed(waited, QUEUEING)
        error = messages.create_failed(self.name, self.key, self.ledger, waiter.verdict)
        error.__cause__ = waiter.verdict
        return error

    def _seconds(self, timeout: float | None) -> float:
        """What a caller has given as `timeout`, checked; the pool's own for `None`."""
        if timeout is None:
            return self.options.timeout
        return checked_seconds(timeout, "timeout", messages.title(self.name, self.key))

    def _step(self) -> str:
        """What a borrower waits for that has nothing yet."""
        ledger = self.ledger
        if ledger.failures and ledger.last_was_made and not ledger.opening:
            return VALIDATING
        return CREATING if ledger.opening or ledger.late or ledger.failures else QUEUEING

    def _timed_out(
        self, timeout: float, step: str, refused: BaseException | None = None, *, fills: bool = False
    ) -> PoolTimeoutError:
        last = refused or self.ledger.last_error
        self.ledger.notes = True
        error = messages.timed_out(
            self.name, self.key, self.ledger, self.backend.now(), timeout=timeout, step=step, error=last, fills=fills
        )
        error.__cause__ = last
        return error

    # -- checking ------------------------------------------------------------

    def flaw_at_once(self, slot: Slot) -> BaseException | None:
        """What is visibly wrong with a resource; `None` if nothing is. Runs no hook that takes time."""
        if self.hooks.is_alive is None:
            return None
        try:
            return None if self.hooks.is_alive(slot.value) else CreateError("is_alive() said no", pool=self.name)
        except Exception as error:
            return error

    def _is_to_validate(self, slot: Slot) -> bool:
        if self.threshold == inf or self.hooks.validate is None:
            return False
        return self.backend.now() - slot.idle_since > self.threshold

    async def _flaw(self, slot: Slot, deadline: float) -> BaseException | None:
        """What is wrong with a resource; `None` if nothing is, `StepTimeoutError` if that was not found out in time."""
        assert self.hooks.validate is not None
        try:
            if await self.backend.call(self.hooks.validate, (slot.value,), deadline):
                return None
        except Exception as error:
            return error
        return CreateError("validate() said no", pool=self.name, step=VALIDATING)

    async def _prepare(self, slot: Slot, ctx: Any, deadline: float) -> BaseException | None:
        """
        Run the acquire hook; what it failed with.

        Returned, not raised: an interrupt while an error is being handled would not find the slot.
        """
        try:
            await self.backend.call(slot.hooks.acquire, (slot.value, ctx), deadline)
        except Exception as error:
            return error
        return None

    async def check(self, slot: Slot) -> None:
        """Validate an idle resource in the background."""
        if not self._begins(slot, CHECKING):
            return
        try:
            flaw = None if self.hooks.validate is None else await self._flaw(slot, self._until(self.options.timeout))
        except BaseException as error:
            flaw = error
        with self.backend.lock:
            now = self.backend.now()
            if flaw is None:
                self.ledger.give_back(slot, now, cold=True)
            else:
                self.ledger.condemn(slot, "invalid", now)
        self.dispatch()

    async def check_idle(self, validate: Callable[[Any], Any] | None) -> None:
        """Look at all idle resources now, one after the other; those that are no good are destroyed."""
        slots: list[Slot] = []
        try:
            with self.backend.lock:
                self.ledger.retry(self.backend.now())
                for _ in range(len(self.ledger.idle)):
                    try:
                        slots.insert(0, self.ledger.pop())
                    except IndexError:  # a borrower was faster
                        break
            while slots:
                slot = slots[-1]
                flaw = self.flaw_at_once(slot)
                if flaw is None and validate is not None:
                    try:
                        if await self.backend.call(validate, (slot.value,), self._until(self.options.timeout)) is False:
                            flaw = CreateError("the check said no", pool=self.name, step=VALIDATING)
                    except Exception as error:
                        flaw = error
                    except BaseException:
                        with self.backend.lock:
                            self.ledger.condemn(slots.pop(), "invalid", self.backend.now())
                        raise
                with self.backend.lock:
                    if flaw is None:
                        self.ledger.give_back(slots.pop(), self.backend.now(), cold=True)
                    else:
                        self.ledger.condemn(slots.pop(), "invalid", self.backend.now())
                self.dispatch()
        finally:
            with self.backend.lock:
                while slots:
                    self.ledger.give_back(slots.pop(), self.backend.now(), cold=True)
            self.dispatch()

    def _until(self, seconds: float) -> float:
        """The deadline of a step of the pool's own; what cannot be interrupted is watched by the ledger instead."""
        return self.backend.now() + seconds if self.backend.can_interrupt else inf

    # -- giving back -----------------------------------------------------------

    async def give_back(self, value: Any, exc: BaseException | None) -> bool:
        """
        Reset a resource that was out, and let the next have it; one that cannot be reset is destroyed.

        `False` if it is not out. Taking it back is a part of this flow, so that no interrupt comes in between.
        """
        backend, ledger, options = self.backend, self.ledger, self.options
        reason = ""
        slot: Slot | None = None  # while it is in our hands
        try:
            slot = back = ledger.reclaim(value)
            if slot is None or back is None:
                return False
            if options.use_times:
                self.use_time.record(backend.now() - slot.taken_at)
            slot.code = slot.stack = None
            slot.due = inf
            if exc is not None and not self._can_reset(slot):
                reason = "broken"
            elif slot.hooks.release is not None or options.validate_on_release:
                reason, failure = await self._reset(slot, exc)
                if failure is not None:
                    await self.discard(slot, reason)
                    how = "failed"
                    if isinstance(failure, StepTimeoutError):  # a `TimeoutError` of the hook's own is not ours
                        how = f"did not end within destroy_timeout={options.destroy_timeout} s"
                        failure = TimeoutError(f"{reason} {how}")
                    raise messages.release_failed(
                        self.name, self.key, ledger, failure, step=reason, how=how
                    ) from failure
            if slot.uses >= options.max_uses:
                reason = "max_uses"
            if reason:
                await self.discard(slot, reason)
                return True
            with backend.lock:
                now = backend.now()
                slot.idle_since, slot.idle_uses = now, slot.uses
                if ledger.receives(slot, now):
                    slot = ledger.put(slot)  # None: in the same line it is no longer ours
                ledger.settle(now)
            self.dispatch()
            self.tell("on_released", value=value, duration=now - back.taken_at)
            return True
        except BaseException:
            if slot is None:  # an interrupt between two lines of the ledger, perhaps
                self.settle()
            else:
                self.discard_later(slot, reason or RELEASE_HOOK)
            raise

    def _can_reset(self, slot: Slot) -> bool:
        """Whether a resource whose borrower failed is to be released all the same."""
        policy = self.options.on_error
        return policy == "release" or (policy == "auto" and slot.hooks.release is not None)

    async def _reset(self, slot: Slot, exc: BaseException | None) -> tuple[str, Exception | None]:
        """Run the hooks of a release: why the resource is to be destroyed, if it is, and with which error."""
        backend, options = self.backend, self.options
        step = RELEASE_HOOK
        try:
            hook = slot.hooks.release
            if hook is not None:
                with backend.lock:
                    self.ledger.returns(slot, backend.now())
                self._arm()
                await backend.call(hook, (slot.value, exc), self._until(options.destroy_timeout))
            if options.validate_on_release and self.hooks.validate is not None:
                step = VALIDATING
                flaw = await self._flaw(slot, backend.now() + options.destroy_timeout)
                if isinstance(flaw, StepTimeoutError):
                    raise flaw
                if flaw is not None:
                    return "invalid", None
        except Exception as error:
            return step, error
        return "", None

    def discard_later(self, slot: Slot, reason: str) -> None:
        """Destroy a resource that is in the caller's hands, without waiting for it."""
        with self.backend.lock:
            self.ledger.condemn(slot, reason, self.backend.now())
        self.dispatch()

    async def destroy(self, value: Any) -> bool:
        """Destroy a resource that was out; `False` if it is not out."""
        slot: Slot | None = None
        try:
            slot = self.ledger.reclaim(value)
            if slot is None:
                return False
            await self.discard(slot, "destroyed")
            return True
        except BaseException:
            if slot is not None:
                self.discard_later(slot, "destroyed")
            raise

    async def discard(self, slot: Slot, reason: str) -> None:
        """Destroy a resource that is in the caller's hands; return when that has ended or was given up."""
        outbox = self.ledger.outbox
        try:
            with self.backend.lock:
                self.ledger.condemn(slot, reason, self.backend.now())
            ours = next((item for item in list(outbox) if isinstance(item, Close) and item.slot is slot), None)
            if ours is not None:  # here rather than in `dispatch`, where another thread might get it: we want its job
                self._carry_out(ours)
                try:
                    outbox.remove(ours)
                except ValueError:  # another thread did get it, too: it begins once
                    pass
            self.dispatch()
        except BaseException:
            self.discard_later(slot, reason)
            raise
        await self.backend.join(slot.job, self.backend.now() + self.options.destroy_timeout)

    # -- background ------------------------------------------------------------

    async def open(self, slot: Slot) -> None:
        """Make a resource, and let the ledger give it to whoever is first."""
        backend, ledger = self.backend, self.ledger
        if not self._begins(slot, OPENING):
            return
        began = backend.now()
        found: ValueHooks | None = None
        value: Any = None
        try:
            value = await backend.call(self.hooks.create, (), self._until(self.options.create_timeout), stays=True)
            if any(other.value is value and other is not slot for other in list(ledger.slots)):
                raise CreateError(
                    f"{messages.title(self.name, self.key)}: create() returned an object that is in the pool already. "
                    "Resources are told apart by identity: return a new one each time.",
                    pool=self.name,
                )
            found = self.hooks.of(value)
            if found.start is not None:
                await backend.call(found.start, (value,), self._until(self.options.create_timeout))
        except BaseException as error:
            failure = error
            if isinstance(error, StepTimeoutError):
                failure = TimeoutError(f"create did not end within create_timeout={self.options.create_timeout} s")
            is_final = self._is_final(failure)
            with backend.lock:
                now = backend.now()
                if found is None:
                    ledger.open_failed(slot, failure, now, final=is_final)
                else:  # it exists, but would not start
                    ledger.spoiled(slot, value, found, failure, now, final=is_final)
            self.dispatch()
            self.tell("on_create_failed", error=failure, duration=now - began)
            log.debug("%s: create failed with %s", messages.title(self.name, self.key), type(failure).__name__)
            if not isinstance(error, Exception):
                raise
            return
        with backend.lock:
            now = backend.now()
            if found.acquire is not None or found.release is not None:
                ledger.plain = ledger.fast = False
            self.create_time.record(now - began)
            ledger.opened(slot, value, found, now)
        self.dispatch()
        self.tell("on_created", value=value, duration=now - began)

    def _is_final(self, error: BaseException) -> bool:
        if not isinstance(error, Exception):
            return True
        try:
            return bool(self.hooks.is_final(error))
        except Exception:
            log.exception("%s: is_final() failed; the create is tried again", messages.title(self.name, self.key))
            return False

    async def close(self, slot: Slot) -> None:
        """Unmake a resource; whatever its hooks do, its place is free afterwards."""
        if not self._begins(slot, CLOSING):
            return
        value, began = slot.value, self.backend.now()
        failure: BaseException | None = None
        try:
            for hook in (slot.hooks.stop, slot.hooks.destroy):
                if hook is None:
                    continue
                try:
                    await self.backend.call(hook, (value,), self._until(self.options.destroy_timeout))
                except Exception as error:
                    failure = error
                    # Where it failed, but not its words: a driver's may have a password in them.
                    log.warning(
                        "%s: destroying a %s (%s) failed with %s; its place is free all the same\n%s",
                        messages.title(self.name, self.key),
                        self.ledger.noun,
                        slot.reason,
                        "a timeout" if isinstance(error, StepTimeoutError) else type(error).__name__,
                        "".join(traceback.format_tb(error.__traceback__)),
                    )
        finally:
            with self.backend.lock:
                now = self.backend.now()
                self.ledger.closed(slot, now)
            self.dispatch()
        self.tell("on_destroyed", value=value, reason=slot.reason, error=failure, duration=now - began)
        slot.value = None

    def _begins(self, slot: Slot, work: str) -> bool:
        """Whether a piece of background work is still to be done, by the caller; it may have been handed out twice."""
        with self.backend.lock:
            return self.ledger.begins(slot, work)

    def dispatch(self) -> None:
        """Carry out what the ledger has put in its outbox."""
        outbox = self.ledger.outbox
        item: Any = None
        try:
            while outbox:
                try:
                    item = outbox.pop(0)
                except IndexError:  # another thread was faster
                    break
                # Under a budget the outbox is all members', and an item may be another's.
                owner = self if isinstance(item, Wake) or item.slot.home is None else item.slot.home.owner
                item = owner._carry_out(item)
        except BaseException:
            if item is not None:  # it has not been carried out to its end
                outbox.insert(0, item)
            raise
        self._arm()
        budget = self.ledger.budget
        while budget is not None and budget.stirred:
            try:
                budget.stirred.pop().owner._arm()
            except IndexError:  # another thread was faster
                break

    def _carry_out(self, item: Any) -> None:
        if isinstance(item, Wake):
            self.backend.wake(item.waiter.latch)
        elif isinstance(item, Open):
            self._spawn(self.open, item.slot)
        elif isinstance(item, Close):
            self._spawn(self.close, item.slot)
        elif isinstance(item, Check):
            self._spawn(self.check, item.slot)
        elif isinstance(item, Leak):
            self._report_leak(item.slot)
        elif isinstance(item, Overdue):
            log.warning(
                "%s: a %s hook has not ended in its time; %s",
                messages.title(self.name, self.key),
                item.step,
                "its place stays taken until it does" if item.step == "create" else "its place is free again",
            )

    def _spawn(self, flow: Callable[[Slot], Any], slot: Slot) -> None:
        work: Any = None
        try:
            work = flow(slot)
            job = self.backend.spawn(work, f"{self.name}-{flow.__name__}")
            if slot.state == CLOSING:  # only the end of a resource is waited for
                slot.job = job
        except Exception as error:  # no thread to be had, or the loop is closed
            with self.backend.lock:
                if slot.state == OPENING:
                    self.ledger.open_failed(slot, error, self.backend.now(), final=False)
                elif slot.state == CLOSING:
                    self.ledger.closed(slot, self.backend.now())
                else:
                    self.ledger.give_back(slot, self.backend.now(), cold=True)
        except BaseException:
            if work is not None:
                with contextlib.suppress(ValueError):  # it runs already, and goes on
                    work.close()
            raise

    def _report_leak(self, slot: Slot) -> None:
        stack = "".join(slot.stack.format()) if slot.stack is not None else ""
        now = self.backend.now()
        log.warning(
            "%s: a %s has been out for more than leak_timeout=%s s: borrowed %s\n%s",
            messages.title(self.name, self.key),
            self.ledger.noun,
            self.options.leak_timeout,
            messages.holder(slot, now),
            stack,
        )
        self.tell("on_leaked", value=slot.value, duration=now - slot.taken_at, stack=stack)

    # -- time ------------------------------------------------------------------

    def _arm(self) -> None:
        when = self.ledger.alarm
        if when < self.armed_at:
            try:
                self.armed_at = when
                self.backend.at(when, Ring(self, when))
            except BaseException:
                self.armed_at = inf
                raise

    def ring(self, when: float) -> None:
        """The timer's call; never raises."""
        if when == self.armed_at:
            self.armed_at = inf
        try:
            # Another is not a stale one for sure: two threads may have armed at once, and the later alarm been noted.
            if self.ledger.alarm > when:
                self._arm()
                return
            with self.backend.lock:
                now = self.backend.now()
                if self.ledger.alarm <= now:
                    self.ledger.sweep(now)
            self.dispatch()
        except Exception:
            log.exception("%s: the periodic look at it failed", messages.title(self.name, self.key))

    def __repr__(self) -> str:
        return f"<{messages.title(self.name, self.key)}>"

    def settle(self) -> None:
        """Let the ledger look again, after something came back without the lock."""
        self.change(self.ledger.settle)

    def change(self, step: Callable[..., None], *args: Any) -> None:
        """Have the ledger take a step, and carry out what follows."""
        with self.backend.lock:
            step(*args, self.backend.now())
        self.dispatch()

    # -- the pool as a whole -----------------------------------------------------

    async def start(self, timeout: float | None, *, waits: bool) -> None:
        """
        Begin to serve, and fill up to `min_size` within `timeout`.

        A pool that cannot be filled is stopped again, and the error raised.
        """
        backend, ledger = self.backend, self.ledger
        timeout = self._seconds(timeout)
        failed_before = ledger.create_failures
        watcher: Watcher | None = None
        fatal: list[BaseException] = []

        def is_filled(ledger: Ledger) -> bool:
            last = ledger.last_error
            if ledger.create_failures > failed_before and last is not None and ledger.last_is_final:
                fatal.append(last)
            return bool(fatal) or ledger.state == STOPPED or ledger.live >= ledger.min_size

        with backend.lock:
            ledger.start(backend.now())
            if waits:
                ledger.retry(backend.now())
            if waits and ledger.state == RUNNING and ledger.live < ledger.min_size:
                watcher = Watcher(backend.latch(), is_filled)
                ledger.watchers.append(watcher)
        self.dispatch()
        if watcher is None:
            return
        try:
            if await backend.wait(watcher.latch, backend.now() + timeout) and not fatal:
                return
            error: Exception
            if fatal:
                error = messages.create_failed(self.name, self.key, ledger, fatal[0])
                error.__cause__ = fatal[0]
            else:
                error = self._timed_out(timeout, self._step(), fills=True)
            raise error
        except BaseException:
            with backend.lock:
                if watcher in ledger.watchers:
                    ledger.watchers.remove(watcher)
                ledger.stop(backend.now())
            self.dispatch()
            raise

    async def stop(self, timeout: float, *, drains: bool, given: float | None = None) -> None:
        """
        Refuse borrowers, destroy what is idle, wait for what is out; then say who still holds what.

        `given` is the timeout that the caller has named, where this pool has only a part of it.
        """
        backend, ledger = self.backend, self.ledger
        checked_seconds(timeout, "timeout", messages.title(self.name, self.key))

        def is_empty(ledger: Ledger) -> bool:
            return not ledger.slots or (not drains and not ledger.closing and not ledger.idle)

        with backend.lock:
            watcher = Watcher(backend.latch(), is_empty)
            ledger.watchers.append(watcher)
            ledger.stop(backend.now())
        try:
            self.dispatch()
            if await backend.wait(watcher.latch, backend.now() + timeout):
                return
        finally:
            with backend.lock:
                if watcher in ledger.watchers:
                    ledger.watchers.remove(watcher)
        if not is_empty(ledger):
            ledger.notes = True
            now = backend.now()
            stacks = "".join(
                "\n" + "".join(slot.stack.format()) for slot in list(ledger.out.values()) if slot.stack is not None
            )
            counts = messages.counts_of(ledger)
            log.warning(
                "%s was stopped, and after timeout=%s s: %s.%s%s%s",
                messages.title(self.name, self.key),
                timeout if given is None else given,
                counts,
                " What is out is destroyed when it comes back" if counts.borrowed else " See whether a hook hangs.",
                f": {messages.holders(ledger, now, most=10)}." if ledger.out else "." if counts.borrowed else "",
                stacks,
            )

    def stats(self) -> PoolStats:
        """The pool's numbers now."""
        ledger = self.ledger
        counts = messages.counts_of(ledger)
        acquired, tally = ledger.uses, self.tally
        return PoolStats(
            name=self.name,
            min_size=ledger.min_size,
            max_size=ledger.max_size,
            size=len(ledger.slots),
            available=counts.idle,
            borrowed=counts.borrowed,
            pending=counts.waiting,
            creating=counts.creating,
            closing=counts.closing,
            requested=tally.asked - tally.served + acquired,
            acquired=acquired,
            queued=tally.queued,
            waited=tally.waited,
            waited_in_vain=tally.waited_in_vain,
            timeouts=tally.timeouts,
            rejected=tally.rejected,
            cancelled=tally.cancelled,
            dismissed=tally.dismissed,
            created=ledger.created,
            create_failures=ledger.create_failures,
            destroyed=sum(ledger.closed_by.values()),
            destroyed_by=dict(ledger.closed_by),
            wait_time=self.wait_time.copy(),
            create_time=self.create_time.copy(),
            use_time=self.use_time.copy(),
        )

    # -- observers ---------------------------------------------------------------

    def tell(self, what: str, **facts: Any) -> None:
        """Tell the observer; whatever it does, the pool goes on."""
        if what not in self.wanted:
            return
        try:
            getattr(self.observer, what)(PoolEvent(pool=self.name, key=self.key, **facts))
        except Exception:
            log.exception("%s: its observer's %s failed", messages.title(self.name, self.key), what)


def overrides(observer: PoolObserver) -> frozenset[str]:
    """Names of the events this observer wants."""
    return frozenset(name for name in EVENTS if getattr(type(observer), name, None) is not getattr(PoolObserver, name))
