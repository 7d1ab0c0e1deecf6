"""
The pools: `PoolingService` for threads, `AsyncPoolingService` for asyncio.

The services add little to the engine except the fast path: with an idle resource, no waiter and no hook to run,
acquire and release move a slot between two containers by atomic operations, without the lock. `_engine/ledger.py`
says when that is allowed (`fast`), why no waiter is overlooked, and how an interrupt in between is repaired.
"""

from __future__ import annotations

import itertools
import sys
import time
from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, Unpack, overload

from ._backends.asyncio import AsyncioBackend
from ._backends.fork import Survivors, keep_forever
from ._backends.loops import bind
from ._backends.threads import ThreadBackend, finish
from ._engine import messages
from ._engine.borrowers import by_age
from ._engine.call_site import note
from ._engine.engine import Engine
from ._engine.hooks import Hooks, refuse_coroutines
from ._engine.lease import NOTHING, AsyncLease, Lease
from ._engine.ledger import RUNNING, STOPPED
from ._engine.slots import LIVE, Slot
from .budget import PoolBudget, join
from .errors import ConfigurationError
from .events import EVENTS
from .factory import PoolFactory, as_factory
from .options import PoolingServiceOptions, PoolingServiceOptionsDict

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from ._engine.budget import Budget
    from ._engine.operations.take import Take
    from .events import PoolObserver
    from .stats import Holder, PoolStats, Waiting

__all__ = ["AsyncPoolingService", "PoolingService"]

T = TypeVar("T")
R = TypeVar("R")


class ServiceArguments(PoolingServiceOptionsDict, total=False):
    """What a service takes by name, for signatures that pass it on."""

    context: Any
    name: str | None
    observer: PoolObserver | None
    clock: Callable[[], float]
    key: Any
    budget: PoolBudget | None


#: Options that can be changed while a pool works.
ADJUSTABLE = ("timeout", "max_waiting", "max_idle", "max_lifetime")

_numbers = itertools.count(1)
_services: Survivors[_Service[Any]] = Survivors()
_frame = sys._getframe


def live_services() -> list[PoolingService[Any] | AsyncPoolingService[Any]]:
    """The services of this process, those of keyed services left out; for other modules of this package."""
    return [service for service in _services if service.engine.owners is None]  # type: ignore[misc]


class _Service(Generic[T]):
    """What both front ends share: construction, numbers, limits."""

    def __init__(
        self,
        factory: PoolFactory[T] | type[T] | Callable[[], T],
        options: PoolingServiceOptions | PoolingServiceOptionsDict | None = None,
        *,
        context: Any = None,
        name: str | None = None,
        observer: PoolObserver | None = None,
        clock: Callable[[], float] = time.monotonic,
        key: Any = None,
        budget: PoolBudget | None = None,
        **options_as_keywords: Unpack[PoolingServiceOptionsDict],
    ) -> None:
        gathered = PoolingServiceOptions.gathered(options, options_as_keywords)
        self._factory = as_factory(factory)
        self._name = f"pool-{next(_numbers)}" if name is None else name
        if not isinstance(self._name, str) or not self._name:
            raise ConfigurationError(f"name={name!r}: expected a text that is not empty", field="name")
        check_parts(budget, observer)
        self._context = context
        self._observer = observer
        self._now = clock
        self._key = key
        self._budget = budget
        self._hooks = Hooks(self._factory)
        self._is_alive = self._hooks.is_alive
        self._build(gathered)
        _services.add(self)

    def _build(self, options: PoolingServiceOptions) -> None:
        raise NotImplementedError

    def _set_up(self, options: PoolingServiceOptions, backend: Any, budget: Budget | None) -> None:
        #: Runs the operations; for other modules of this package.
        self.engine = Engine(
            self._hooks,
            options,
            backend,
            name=self._name,
            key=self._key,
            observer=self._observer,
            budget=budget,
        )
        self._ledger = self.engine.ledger

    def _renew(self) -> None:
        """Become an empty pool in a forked child; the parent's resources are left alone."""
        old = self.engine
        if old.ledger.slots:
            keep_forever(old.ledger)
        self._build(old.options)
        self.engine.inherited = old.inherited.union(id(slot.value) for slot in old.ledger.slots)
        if old.ledger.state is STOPPED:
            self._ledger.state = STOPPED
        self.engine.owners, self.engine.kept_service = old.owners, old.kept_service

    # -- numbers -------------------------------------------------------------

    @property
    def name(self) -> str:
        """The pool's name, as in messages and statistics."""
        return self._name

    @property
    def options(self) -> PoolingServiceOptions:
        """The current settings."""
        return self.engine.options

    @property
    def budget(self) -> PoolBudget | None:
        """The limit that it shares with others, or `None`."""
        return self._budget

    @property
    def context(self) -> Any:
        """What acquire hooks receive if the borrower gives no context."""
        return self._context

    @property
    def factory(self) -> PoolFactory[T]:
        """What makes the resources."""
        return self._factory

    @property
    def size(self) -> int:
        """Places taken: resources, and those being created or destroyed."""
        return len(self._ledger.slots)

    @property
    def available(self) -> int:
        """Idle resources."""
        return len(self._ledger.idle)

    @property
    def idle(self) -> list[T]:
        """The idle resources at this instant, for inspection only: borrowers may acquire them at any time."""
        return [slot.value for slot in tuple(self._ledger.idle)]

    @property
    def borrowed(self) -> int:
        """Resources out."""
        return len(self._ledger.out)

    @property
    def pending(self) -> int:
        """Borrowers waiting."""
        return self._ledger.waiting

    @property
    def is_running(self) -> bool:
        """Whether it was started, by `start` or the first acquisition, and is neither stopped nor suspended."""
        return self._ledger.state is RUNNING

    def stats(self) -> PoolStats:
        """The pool's numbers at this instant."""
        return self.engine.stats()

    def holders(self) -> list[Holder]:
        """
        Who holds the resources that count as borrowed, longest first. Does not block; call it from any thread.

        A pool records each borrower that waits or for which a hook runs, and others only if it has a budget (every
        keyed pool has), if its factory says `notes_borrowers`, or after the first error or the first call of this
        method: until then a loan of an idle resource is not recorded, and its `Holder` names the resource only.
        """
        return by_age(self.engine.holders())

    def waiters(self) -> list[Waiting]:
        """Who is in the queue, longest first. Does not block; call it from any thread."""
        return by_age(self.engine.waiters())

    def is_borrowed(self, value: T) -> bool:
        """Whether this object, compared by identity, is out."""
        return id(value) in self._ledger.out

    @property
    def has_checkpoint(self) -> bool:
        """Whether the factory has a `checkpoint` hook."""
        return self._hooks.checkpoint is not None

    # -- limits --------------------------------------------------------------

    def resize(self, min_size: int, max_size: int) -> None:
        """
        Change the limits.

        Resources above the new maximum are destroyed: idle ones now, borrowed ones as they come back.
        A higher maximum serves waiting borrowers at once. Does not block.

        Raises:
            ConfigurationError: A limit is no whole number, or the minimum is above the maximum.
        """
        self.engine.resize(min_size, max_size)

    def adjust(self, **options: Unpack[PoolingServiceOptionsDict]) -> None:
        """
        Change settings that concern waiting and age: `timeout`, `max_waiting`, `max_idle`, `max_lifetime`.

        They hold for what comes: a borrower that waits keeps its deadline, and a resource the end of its lifetime.
        `resize` changes the sizes. Does not block.

        Raises:
            ConfigurationError: A value that cannot be, or another setting.
        """
        for name in options:
            if name not in ADJUSTABLE:
                raise ConfigurationError(
                    f"{messages.title(self._name, self._key)}: {name} cannot be changed; adjust() changes "
                    f"{', '.join(ADJUSTABLE)}, and resize() the sizes",
                    field=name,
                )
        self.engine.adjust(**options)

    def expire(self) -> None:
        """Replace all resources: idle ones are destroyed now, the others as they come back. Does not block."""
        self.engine.change(self._ledger.expire)

    def count_in(self, budget: PoolBudget) -> None:
        """
        From now on, count this pool's resources in a budget within its present one as well. Does not block.

        Above the new limit, idle resources are destroyed, and borrowed ones as they come back while others wait.

        Raises:
            ConfigurationError: `budget` is not within this pool's budget.
        """
        if budget is self._budget:
            return
        if not isinstance(budget, PoolBudget) or budget.within is None or budget.within is not self._budget:
            raise ConfigurationError(
                f"{messages.title(self._name, self._key)}: budget={budget!r}: expected one within this pool's budget, "
                "as PoolBudget(max_total, within=...) makes it",
                field="budget",
            )
        _, nested = self._join(budget)
        self._budget = budget
        self.engine.change(self._ledger.count_in, nested)

    def _join(self, budget: PoolBudget) -> Any:
        """Become one of the budget's pools; returns the lock that they share, and what their ledgers count in."""
        raise NotImplementedError

    def retire(self) -> None:
        """
        Refuse new borrowers, serve the waiting ones, destroy idle resources now and the others as they come back.

        Does not block. For a pool that has been replaced by another; call `stop` afterwards to wait for its end.
        """
        self.engine.change(self._ledger.retire)

    def suspend(self) -> None:
        """Let borrowers wait, within their timeouts, until `resume`."""
        self.engine.change(self._ledger.suspend)

    def resume(self) -> None:
        """Serve borrowers again."""
        self.engine.change(self._ledger.resume)

    def sweep(self) -> None:
        """
        Handle what is due now: resources idle or old for too long, overdue hooks, leaks, pauses that have ended.

        A pool does this by itself in time. Call it after the process was frozen, or after a custom `clock` jumped.
        Does not block.
        """
        self.engine.change(self._ledger.sweep)

    # -- giving back -----------------------------------------------------------

    def _refuse(self, value: T) -> None:
        """Raise for a value that is not out, unless it was borrowed before a fork."""
        if id(value) not in self.engine.inherited:
            owner = next((other for other in _services if other.is_borrowed(value)), None)
            elsewhere = None if owner is None else messages.title(owner._name, owner._key)
            raise messages.not_borrowed_error(self._name, self._key, self._ledger, value, elsewhere)

    # -- the fast path ---------------------------------------------------------

    def _inspect(self, slot: Slot, frame: FrameType) -> bool:
        """
        Check an idle resource and record its borrower, as far as this pool does either; whether it may be lent.

        One that fails the check is destroyed.
        """
        if self._is_alive is not None and slot.state is LIVE and self.engine.find_visible_flaw(slot) is not None:
            self.engine.condemn(slot, "invalid")
            return False
        if self._ledger.notes:
            slot.taken_at = self._now()
            slot.borrower = note(frame, whole_stack=False)
            slot.noted = slot.uses + 1
        return True

    def _take(self, ctx: Any, timeout: float | None, priority: int, *, queues: bool = True) -> Take:
        """Acquire with all steps: to finish in threads, or to await."""
        borrower = note(_frame(1), whole_stack=self.engine.options.leak_timeout is not None)
        ctx = self._context if ctx is None else ctx
        return self.engine.take(ctx, timeout, priority, borrower, queues=queues)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r} {self._ledger.state.value}: {messages.counts_of(self._ledger)}>"


class PoolingService(_Service[T]):
    """
    A pool of resources for threads.

    Construction starts nothing; the first acquisition, `start()` or `with` starts the pool. All methods
    may be called from any thread. Resources are created and destroyed on background threads that all pools of the
    process share.

    Args:
        factory: Makes the resources: a `PoolFactory`, or a callable or class that does.
        options: Settings, as an object or a mapping.
        context: Passed to acquire hooks if the borrower gives no context.
        name: For messages and statistics; generated if `None`.
        observer: Is called for each event.
        key: Tells this pool from others of the same name, in messages.
        budget: A limit that this pool shares with others.
        clock: A monotonic clock in seconds, for ages, idle times and pauses. Waits and timers use the machine's
            clock, so call `sweep()` after this one jumped.
        **options_as_keywords: Fields of `PoolingServiceOptions`; they win over `options`.

    Raises:
        ConfigurationError: A setting has a value that cannot work, or a hook is a coroutine function.
    """

    def _build(self, options: PoolingServiceOptions) -> None:
        refuse_coroutines(self._factory, self._name)
        lock, budget = (None, None) if self._budget is None else self._join(self._budget)
        self._set_up(options, ThreadBackend(self._now, is_inline=options.inline_hooks, lock=lock), budget)

    def _join(self, budget: PoolBudget) -> Any:
        return join(budget, PoolingService)

    def start(self, *, wait: bool = True, timeout: float | None = None) -> None:
        """
        Serve borrowers. Blocks until `min_size` resources exist, at most `timeout` seconds.

        A pool that cannot be filled is stopped again. Starting after `stop` works; starting twice does nothing.

        Args:
            wait: `False` returns at once and fills in the background.
            timeout: Seconds; `None` takes the service's `timeout`.

        Raises:
            CreateError: A create failed, and trying again would not help.
            PoolTimeoutError: `min_size` was not reached in time.
        """
        finish(self.engine.start(timeout, waits=wait))

    def stop(self, timeout: float = 5.0, *, drain: bool = True) -> None:
        """
        Refuse borrowers, reject the waiting ones, destroy idle resources.

        Blocks until all resources are destroyed, at most `timeout` seconds. Then it logs which are still out and where
        they were borrowed; those are destroyed when they come back. May be called again, and from several threads.

        Args:
            timeout: Seconds.
            drain: `False` waits for idle resources to be destroyed, but not for borrowed ones, and logs no warning.
        """
        finish(self.engine.stop(timeout, drains=drain))

    def acquire(self, request_ctx: Any = None, *, timeout: float | None = None, priority: int = 0) -> T:
        """
        Set one resource aside for the caller.

        Blocks while all are out. An interrupt of the wait loses nothing: a resource already
        set aside goes to the next waiter. You must release or destroy the resource;
        prefer `lease()`.

        Args:
            request_ctx: Passed to the acquire hook; the service's `context` if `None`.
            timeout: Seconds for queueing, creating, validating and the acquire hook together.
                `None` takes the service's `timeout`.
            priority: Which queue to wait in: `0` is served first, `priorities - 1` last.

        Raises:
            PoolTimeoutError: Time ran out; `step` says where, `__cause__` is the last create failure.
            PoolClosedError: The service stopped before or during the wait.
            PoolExhaustedError: `max_waiting` borrowers are waiting already.
            CreateError: No resource can be created, and trying again would not help.
        """
        ledger = self._ledger
        if ledger.fast:
            try:
                slot = ledger.pop()
            except IndexError:
                pass
            else:
                if not ledger.inspects or self._inspect(slot, _frame(1)):
                    value: T = slot.value
                    slot.uses += 1
                    ledger.out[id(value)] = slot
                    if slot.state is LIVE or self.engine.keeps(slot, value):
                        return value
        return finish(self._take(request_ctx, timeout, priority))  # type: ignore[no-any-return]

    def acquire_nowait(self, request_ctx: Any = None, *, priority: int = 0) -> T:
        """
        As `acquire`, but never wait for another borrower: take an idle resource, or create one if there is room.

        Creating, validating and the acquire hook may still block, at most for the service's `timeout`.

        Raises:
            PoolExhaustedError: All resources are out.
        """
        return finish(self._take(request_ctx, None, priority, queues=False))  # type: ignore[no-any-return]

    def release(self, value: T, exc: BaseException | None = None) -> None:
        """
        Give a resource back.

        Runs the release hook in the calling thread. If the hook or the validation fails, the resource
        is destroyed. After an interrupt the resource is still out, or released, or destroyed; it is never lost.

        Args:
            value: The object that `acquire` returned, not an equal one.
            exc: The exception that ended the use, if one did. `on_error` decides whether the resource is then reset or
                destroyed; a release hook with a parameter named `exc` receives it.

        Raises:
            ReleaseError: The resource is not out (given back twice, or another pool's), or the hook failed.
        """
        ledger = self._ledger
        if ledger.plain and exc is None:
            slot = ledger.out.pop(id(value), None)
            if slot is not None:
                since = slot.taken_at
                ledger.put(slot)
                if not ledger.fast:  # read after the slot was put back: a borrower may have queued meanwhile
                    self.engine.came_back(value, since)
                return
        if not finish(self.engine.give_back(value, exc)):
            self._refuse(value)

    def destroy(self, value: T) -> None:
        """
        Destroy a borrowed resource instead of giving it back, and free its place.

        Blocks until its destroy hook has ended, at most `destroy_timeout`.

        Raises:
            ReleaseError: The resource is not out.
        """
        if not finish(self.engine.destroy(value)):
            self._refuse(value)

    def checkpoint(self, value: T) -> None:
        """
        Make durable what was done with a borrowed resource, by the factory's `checkpoint` hook; it stays borrowed.

        Runs the hook in the calling thread, and raises its error as it is. Does nothing without a hook.

        Raises:
            ReleaseError: The resource is not out.
        """
        if not finish(self.engine.checkpoint(value)):
            self._refuse(value)

    def check(self, validate: Callable[[T], Any] | None = None) -> None:
        """
        Validate every idle resource now, destroy those that fail, and fill up to `min_size` again.

        Blocks until all are checked. Meanwhile the resources still to be checked cannot be acquired.

        Args:
            validate: Raises, or returns `False`, for a resource to destroy. `None` takes the factory's `validate`.

        Raises:
            ConfigurationError: `validate` cannot be called.
        """
        finish(self.engine.check_idle(self._hooks.validate if validate is None else checked_callable(validate)))

    def lease(self, request_ctx: Any = None, *, timeout: float | None = None, priority: int = 0) -> Lease[T]:
        """
        A context manager that acquires on entry and releases on exit.

        When the block raises, `on_error` decides between release and destroy. Arguments and errors as in `acquire`.
        """
        return Lease(self, request_ctx, timeout, priority)

    def run(self, task: Callable[[T], R], request_ctx: Any = None) -> R:
        """
        Acquire a resource, call `task` with it, release it; returns the task's result.

        If the task raises, the resource is destroyed.
        """
        return Lease(self, request_ctx, None, 0).run(task)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> Literal[False]:
        self.stop()
        return False


class AsyncPoolingService(_Service[T]):
    """
    A pool of resources for asyncio; `PoolingService`'s twin, whose hooks may be coroutine functions.

    You may construct it before the loop. It belongs to the first loop that uses it, until it is stopped or that loop is
    closed; what it has then is forgotten, not destroyed. Not thread-safe, as usual for asyncio. A hook that is a plain
    function runs in the loop and blocks it meanwhile.
    """

    if TYPE_CHECKING:  # so that `T` of a coroutine function is what it returns when awaited

        @overload
        def __init__(
            self,
            factory: PoolFactory[T] | type[T],
            options: PoolingServiceOptions | PoolingServiceOptionsDict | None = None,
            **arguments: Unpack[ServiceArguments],
        ) -> None: ...
        @overload
        def __init__(
            self,
            factory: Callable[[], Awaitable[T]],
            options: PoolingServiceOptions | PoolingServiceOptionsDict | None = None,
            **arguments: Unpack[ServiceArguments],
        ) -> None: ...
        @overload
        def __init__(
            self,
            factory: Callable[[], T],
            options: PoolingServiceOptions | PoolingServiceOptionsDict | None = None,
            **arguments: Unpack[ServiceArguments],
        ) -> None: ...
        def __init__(self, factory: Any, options: Any = None, **arguments: Any) -> None: ...

    def _build(self, options: PoolingServiceOptions) -> None:
        self._backend = AsyncioBackend(self._now)
        self._set_up(options, self._backend, None if self._budget is None else self._join(self._budget)[1])

    def _join(self, budget: PoolBudget) -> Any:
        return join(budget, AsyncPoolingService)

    async def start(self, *, wait: bool = True, timeout: float | None = None) -> None:
        """As `PoolingService.start`, without blocking the loop."""
        bind(self.engine)
        await self.engine.start(timeout, waits=wait)

    async def stop(self, timeout: float = 5.0, *, drain: bool = True) -> None:
        """As `PoolingService.stop`, without blocking the loop. After a cancellation the pool goes on stopping."""
        bind(self.engine)
        await self.engine.stop(timeout, drains=drain)

    async def acquire(self, request_ctx: Any = None, *, timeout: float | None = None, priority: int = 0) -> T:
        """
        As `PoolingService.acquire`; suspends instead of blocking.

        A cancellation loses nothing: a resource already set aside goes to the next waiter, a create goes on for others.

        Raises:
            PoolingError: The pool belongs to another event loop.
        """
        value = take_idle(self)
        if value is not NOTHING:
            return value
        bind(self.engine)
        return await self._take(request_ctx, timeout, priority)  # type: ignore[no-any-return]

    async def acquire_nowait(self, request_ctx: Any = None, *, priority: int = 0) -> T:
        """As `PoolingService.acquire_nowait`; it suspends only for the hooks."""
        bind(self.engine)
        return await self._take(request_ctx, None, priority, queues=False)  # type: ignore[no-any-return]

    async def release(self, value: T, exc: BaseException | None = None) -> None:
        """As `PoolingService.release`. A cancellation inside the release hook destroys the resource."""
        if exc is None and put_idle(self, value):
            return
        bind(self.engine)
        if not await self.engine.give_back(value, exc):
            self._refuse(value)

    async def destroy(self, value: T) -> None:
        """As `PoolingService.destroy`. A cancellation does not interrupt the destroy."""
        bind(self.engine)
        if not await self.engine.destroy(value):
            self._refuse(value)

    async def checkpoint(self, value: T) -> None:
        """As `PoolingService.checkpoint`. A cancellation is raised inside the hook."""
        bind(self.engine)
        if not await self.engine.checkpoint(value):
            self._refuse(value)

    async def check(self, validate: Callable[[T], Any] | None = None) -> None:
        """As `PoolingService.check`."""
        bind(self.engine)
        await self.engine.check_idle(self._hooks.validate if validate is None else checked_callable(validate))

    def lease(self, request_ctx: Any = None, *, timeout: float | None = None, priority: int = 0) -> AsyncLease[T]:
        """As `PoolingService.lease`, for `async with`."""
        return AsyncLease(self, request_ctx, timeout, priority)

    @overload
    async def run(self, task: Callable[[T], Awaitable[R]], request_ctx: Any = None) -> R: ...
    @overload
    async def run(self, task: Callable[[T], R], request_ctx: Any = None) -> R: ...
    async def run(self, task: Callable[[T], Any], request_ctx: Any = None) -> Any:
        """As `PoolingService.run`; what `task` returns is awaited if it can be."""
        return await AsyncLease(self, request_ctx, None, 0).run(task)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> Literal[False]:
        await self.stop()
        return False


# For asyncio no fast path needs a coroutine: a request that holds the value calls these without one.


def take_idle(service: AsyncPoolingService[T]) -> T:
    """Take an idle resource if no hook has to run and no other borrower waits; else return `NOTHING`."""
    ledger = service._ledger
    if ledger.fast and ledger.idle and service._backend.loop is _get_running_loop():
        slot = ledger.pop()
        if not ledger.inspects or service._inspect(slot, _frame(1)):
            value: T = slot.value
            slot.uses += 1
            ledger.out[id(value)] = slot
            return value
    return NOTHING  # type: ignore[no-any-return]


def put_idle(service: AsyncPoolingService[T], value: T) -> bool:
    """Give a resource back if no hook has to run; whether that was done."""
    ledger = service._ledger
    if ledger.plain and service._backend.loop is _get_running_loop():
        slot = ledger.out.pop(id(value), None)
        if slot is not None:
            since = slot.taken_at
            ledger.put(slot)
            if not ledger.fast:
                service.engine.came_back(value, since)
            return True
    return False


def check_parts(budget: object, observer: object) -> None:
    """
    Check the types of the `budget` and `observer` arguments.

    Raises:
        ConfigurationError: An argument has another type.
    """
    if budget is not None and not isinstance(budget, PoolBudget):
        raise ConfigurationError(f"budget={budget!r}: expected a PoolBudget", field="budget")
    if observer is not None and not any(callable(getattr(observer, name, None)) for name in EVENTS):
        raise ConfigurationError(f"observer={observer!r}: expected a PoolObserver", field="observer")


def checked_callable(validate: Any) -> Any:
    """
    Check the `validate` argument of `check`.

    Raises:
        ConfigurationError: It cannot be called.
    """
    if not callable(validate):
        raise ConfigurationError(f"validate={validate!r}: expected a callable that gets a resource", field="validate")
    return validate
