"""
A pool for each key: for each user, host, tenant, shard.

`KeyedPoolingService` is for threads, `AsyncKeyedPoolingService` for asyncio. Pools come with the first use of their
key and go when it has been quiet; one budget limits them all.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, Unpack, overload

from ._backends.alarms import Ring
from ._engine import messages
from ._engine.lru import Entry, LeastRecentlyUsed
from .budget import PoolBudget
from .errors import ConfigurationError, PoolClosedError, PoolExhaustedError, ReleaseError
from .lease import NOTHING, AsyncLease, Lease
from .options import PoolingServiceOptions, PoolingServiceOptionsDict, checked_seconds, is_seconds
from .service import AsyncPoolingService, PoolingService, check_parts, members

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import TracebackType

    from .events import PoolObserver
    from .factory import PoolFactory
    from .stats import PoolStats

__all__ = ["AsyncKeyedPoolingService", "KeyedPoolStats", "KeyedPoolingService"]

R = TypeVar("R")
if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault  # type checkers know it without installation

    # A key is any hashable. Of a `lambda` nothing says which: there it is Any, as the bound lets its body take it.
    K = TypeVarWithDefault("K", bound=Any, default=Any)
    T = TypeVarWithDefault("T", default=Any)
    S = TypeVarWithDefault("S", bound=PoolingService[Any] | AsyncPoolingService[Any], default=Any)

    class KeyedArguments(PoolingServiceOptionsDict, Generic[K, S], total=False):
        """What a keyed service takes by name."""

        max_total: float | None
        max_keys: int | None
        max_key_idle: float | None
        budget: PoolBudget | None
        context: Any
        name: str | None
        observer: PoolObserver | None
        on_dropped: Callable[[K, S], None] | None
        clock: Callable[[], float]

else:
    K = TypeVar("K")
    T = TypeVar("T")
    S = TypeVar("S")

log = logging.getLogger("pooling")

_numbers = itertools.count(1)
#: Keys forgotten in one go by the timer, which has other pools to serve.
BATCH = 500
LATE = 5.0  # seconds after which a timer that was to call counts as gone, with its event loop

_all: weakref.WeakSet[_Keyed[Any, Any, Any]] = weakref.WeakSet()


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyedPoolStats:
    """
    A keyed pool's numbers at one instant.

    Args:
        keys: Keys that have a pool.
        size: Places taken by all.
        available: Idle resources of all.
        borrowed: Resources out of all.
        pending: Borrowers waiting on any.
        max_total: The limit on `size`.
        created: Resources made, since the beginning and by pools that have gone too.
        per_key: Each pool's numbers.
    """

    keys: int
    size: int
    available: int
    borrowed: int
    pending: int
    max_total: float
    created: int
    per_key: Mapping[Any, PoolStats]


class _Keyed(Generic[K, T, S]):
    """What both front ends have in common: the map from keys to pools."""

    _service_class: type[Any]

    def __init__(
        self,
        factory_for_key: Callable[[K], PoolFactory[T] | type[T] | Callable[[], T]] | None = None,
        options: PoolingServiceOptions | PoolingServiceOptionsDict | None = None,
        *,
        max_total: float | None = None,
        max_keys: int | None = None,
        max_key_idle: float | None = None,
        budget: PoolBudget | None = None,
        context: Any = None,
        name: str | None = None,
        observer: PoolObserver | None = None,
        on_dropped: Callable[[K, S], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        **options_as_keywords: Unpack[PoolingServiceOptionsDict],
    ) -> None:
        if factory_for_key is not None and not callable(factory_for_key):
            raise ConfigurationError(
                f"factory_for_key={factory_for_key!r}: expected a callable that gets the key", field="factory_for_key"
            )
        if max_keys is not None and (isinstance(max_keys, bool) or not isinstance(max_keys, int) or max_keys < 1):
            raise ConfigurationError(f"max_keys={max_keys!r}: expected a whole number, at least 1", field="max_keys")
        if max_key_idle is not None and not (is_seconds(max_key_idle) and max_key_idle >= 0):
            raise ConfigurationError(
                f"max_key_idle={max_key_idle!r}: expected a number of seconds, 0 or more", field="max_key_idle"
            )
        if budget is not None and max_total is not None:
            raise ConfigurationError("max_total and budget exclude each other: a budget has its own", field="max_total")
        if name is not None and (not isinstance(name, str) or not name):
            raise ConfigurationError(f"name={name!r}: expected a text that is not empty", field="name")
        if on_dropped is not None and not callable(on_dropped):
            raise ConfigurationError(
                f"on_dropped={on_dropped!r}: expected a callable that gets key and pool", field="on_dropped"
            )
        check_parts(budget, observer)
        own = ("max_total", "max_keys", "max_key_idle", "budget", "context", "name", "observer", "on_dropped", "clock")
        self._options = PoolingServiceOptions.gathered(options, options_as_keywords, own)
        self._factory_for_key = factory_for_key
        self._max_keys = math.inf if max_keys is None else max_keys
        self._max_key_idle = self._options.max_idle if max_key_idle is None else max_key_idle
        self._budget = budget or PoolBudget(math.inf if max_total is None else max_total)
        self._context = context
        self._name = f"keyed-pool-{next(_numbers)}" if name is None else name
        self._observer = observer
        self._on_dropped = on_dropped
        self._now = clock
        self._is_stopped = False
        self._entries: dict[K, Entry[S]] = {}
        self._lru = LeastRecentlyUsed(self._entries)
        self._others: weakref.WeakSet[Any] = weakref.WeakSet()  # pools off the map that somebody may still use
        self._lock = threading.RLock()  # for changes of the map; looking a key up takes none
        self._out: dict[int, S] = {}
        self._created_before = 0
        self._armed_at = math.inf
        self._arm_again_at = -math.inf if self._max_key_idle < math.inf else math.inf
        _all.add(self)

    # -- keys ----------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name that all its pools have, in texts and statistics."""
        return self._name

    @property
    def options(self) -> PoolingServiceOptions:
        """The settings of each key's pool."""
        return self._options

    @property
    def budget(self) -> PoolBudget:
        """The limit on all keys together; give it to other pools to have them share it."""
        return self._budget

    def keys(self) -> list[K]:
        """The keys that have a pool, least recently used first."""
        # A copy is made in one step, whatever other threads do.
        return [entry.key for entry in sorted(self._entries.copy().values(), key=lambda entry: entry.touched)]

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[K]:
        return iter(self.keys())

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def pool(self, key: K) -> S:
        """
        The key's pool, made if there is none. Does not block, and starts nothing.

        It may be kept: one that has gone from the map because it was quiet still works, within the same budget.

        Raises:
            PoolExhaustedError: `max_keys` pools are in use.
            PoolClosedError: All was stopped.
        """
        entry = self._entries.get(key)
        if entry is None:
            if self._factory_for_key is None:
                raise ConfigurationError(
                    f"pool {self._name!r} has no factory_for_key, and key {key!r} was not opened by open_key()",
                    field="factory_for_key",
                )
            return self.open_key(key, self._factory_for_key(key))
        now = entry.touched = self._now()
        if now >= self._arm_again_at:
            self._arm(entry.service)
        return entry.service

    def touch(self, key: K) -> bool:
        """Count as a use of the key; whether it has a pool."""
        entry = self._entries.get(key)
        if entry is None:
            return False
        now = entry.touched = self._now()
        if now >= self._arm_again_at:
            self._arm(entry.service)
        return True

    def open_key(
        self,
        key: K,
        factory: PoolFactory[T] | type[T] | Callable[[], T] | Callable[[], Awaitable[T]],
        options: PoolingServiceOptions | PoolingServiceOptionsDict | None = None,
        **options_as_keywords: Unpack[PoolingServiceOptionsDict],
    ) -> S:
        """
        Give a key a pool with a factory and options of its own. Does not block, and starts nothing.

        Where the key has one already, that one is returned.

        Args:
            key: Any hashable.
            factory: Makes this key's resources.
            options: This key's settings; by default those of all.
            **options_as_keywords: Fields of `PoolingServiceOptions`; they win over `options`.

        Raises:
            PoolExhaustedError: `max_keys` pools are in use.
            PoolClosedError: All was stopped.
        """
        made: S = self._service_class(
            factory,
            self._options if options is None else options,
            context=self._context,
            name=self._name,
            key=key,
            observer=self._observer,
            budget=self._budget,
            clock=self._now,
            **options_as_keywords,
        )
        # Of two threads that came at once the first has put its pool in; the other's has nothing in it yet.
        forgotten: list[Entry[S]] = []
        with self._lock:
            if self._is_stopped:
                raise self._stopped(key)
            entry = self._entries.get(key)
            if entry is None:
                if len(self._entries) >= self._max_keys:
                    forgotten = self._forget(most=1)
                    if not forgotten:
                        raise PoolExhaustedError(
                            f"pool {self._name!r}: no pool for key {key!r}: all of max_keys={self._max_keys} are in "
                            "use. Raise max_keys, or release sooner.",
                            pool=self._name,
                            key=key,
                            limit="max_keys",
                        )
                entry = self._entries[key] = Entry(key, made, self._now())
                self._lru.add(entry)
        self._part_with(forgotten)
        if entry.touched >= self._arm_again_at:
            self._arm(entry.service)
        return entry.service

    def _stopped(self, key: K) -> PoolClosedError:
        return PoolClosedError(
            f"pool {self._name!r} is stopped: key {key!r} gets no pool. Call start() to use it again.",
            pool=self._name,
            key=key,
        )

    def _seconds_left(self, key: K, service: S, error: PoolClosedError, timeout: float | None) -> float:
        """
        How long a borrower may still wait that has found the key's pool closed, and is to look the key up again.

        Raises:
            PoolClosedError: That was not it: all are stopped, or this pool was by itself.
        """
        if self._is_stopped:
            raise self._stopped(key) from error
        entry = self._entries.get(key)
        if error.pool != service.name or error.key is not service._key or (entry and entry.service is service):
            raise error
        return max((service.options.timeout if timeout is None else timeout) - error.waited, 0.0)

    def _forget(self, *, before: float = math.inf, most: float = math.inf) -> list[Entry[S]]:
        """Take quiet keys off the map; `_part_with` is to follow, without the lock."""

        def is_quiet(entry: Entry[S]) -> bool:
            service, ledger = entry.service, entry.service._ledger
            in_use = service.borrowed if before == math.inf else ledger.live - len(ledger.idle)
            if service.pending or in_use or (before < math.inf and service.size > ledger.min_size):
                entry.touched = self._now()
                return False
            if before < math.inf:  # what `min_size` keeps is there, and may be used past this map
                entry.touched = max([entry.touched, *(slot.taken_at for slot in list(ledger.idle) if slot.uses)])
            return entry.touched <= before

        taken = self._lru.take(is_quiet, before=before, most=most)
        for entry in taken:
            self._leaves(entry)
        return taken

    def _leaves(self, entry: Entry[S]) -> None:
        """Take an entry off the map; whoever stops all still finds its pool."""
        self._others.add(entry.service)
        entry.service._leave_the_map()
        self._entries.pop(entry.key, None)

    def _part_with(self, forgotten: list[Entry[S]]) -> None:
        """Whoever still has such a pool may use it; idle resources go now."""
        for entry in forgotten:
            self._tell_dropped(entry)
            if entry.service.size or entry.service._ledger.min_size:
                entry.service._let_go()

    def _tell_dropped(self, entry: Entry[S]) -> None:
        with self._lock:
            self._created_before += entry.service._ledger.created
        if self._on_dropped is None:
            return
        try:
            self._on_dropped(entry.key, entry.service)
        except Exception:
            log.exception("pool %r: on_dropped() failed", self._name)

    def expire(self, key: K) -> None:
        """Replace the key's resources: idle ones now, the others as they come back."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.service.expire()

    def close_key(self, key: K) -> bool:
        """
        Take the key's pool off the map: it refuses new borrowers and ends with those it has. Does not block.

        The next use of the key makes a new pool. Returns whether there was one.
        """
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return False
            self._leaves(entry)
        self._tell_dropped(entry)
        entry.service.retire()
        return True

    def stats(self) -> KeyedPoolStats:
        """The numbers of all keys and of each."""
        per_key = {key: entry.service.stats() for key, entry in self._entries.copy().items()}
        every = [*per_key.values(), *(service.stats() for service in members(self._others))]
        return KeyedPoolStats(
            keys=len(per_key),
            size=sum(stats.size for stats in every),
            available=sum(stats.available for stats in every),
            borrowed=sum(stats.borrowed for stats in every),
            pending=sum(stats.pending for stats in every),
            max_total=self._budget.max_total,
            created=self._created_before + sum(stats.created for stats in per_key.values()),
            per_key=per_key,
        )

    # -- quiet keys ------------------------------------------------------------

    def _arm(self, service: S) -> None:
        """Have the timer call when the first key may have been quiet for long enough."""
        if not service._can_be_rung():
            return
        now = self._now()
        with self._lock:
            when = max(self._lru.first() + self._max_key_idle, now + max(self._max_key_idle / 16, 0.01))
            self._armed_at, self._arm_again_at = when, when + LATE
        service._operations.backend.at(when, Ring(self, when))

    def ring(self, when: float) -> None:
        """The timer's call; never raises."""
        if when != self._armed_at:
            return
        try:
            self._sweep(most=BATCH)
        except Exception:
            log.exception("pool %r: the periodic look for quiet keys failed", self._name)
        entry = next(iter(self._entries.copy().values()), None)
        if entry is None:
            self._armed_at, self._arm_again_at = math.inf, -math.inf
        else:
            self._arm(entry.service)

    def sweep(self) -> None:
        """Forget the keys that have been quiet for `max_key_idle`; this also happens in the background."""
        self._sweep(most=math.inf)

    def _sweep(self, most: float) -> None:
        for number, service in list(self._out.items()):
            if number not in service._ledger.out:  # it was given back past this map
                self._out.pop(number, None)
        with self._lock:
            forgotten = self._forget(before=self._now() - self._max_key_idle, most=most)
        self._part_with(forgotten)

    # -- values ----------------------------------------------------------------

    def is_borrowed(self, value: T) -> bool:
        """Whether this very object is out, under whatever key."""
        return self._lender(value) is not None

    def _lender(self, value: T) -> S | None:
        service = self._out.get(id(value))
        if service is not None:
            if service.is_borrowed(value):
                return service
            self._out.pop(id(value), None)  # it was given back past this map
        # A lease, and whoever has a key's pool, borrow past this map.
        return next((one for one in self._every() if one.is_borrowed(value)), None)

    def _service_of(self, value: T) -> S:
        service = self._lender(value)
        if service is None:
            raise ReleaseError(
                f"pool {self._name!r}: <{type(value).__name__} object at {id(value):#x}> is not out under any key: it "
                "was given back before, or is not this pool's. Give back the very object that acquire() returned, "
                "once; `lease()` does.",
                pool=self._name,
                step="releasing",
                counts=messages.sum_of([one._ledger for one in self._every()], self._options.max_size),
            )
        return service

    def _keep(self, value: T, service: S) -> None:
        """After an interrupt: what had not been given back is still out."""
        if service.is_borrowed(value):
            self._out[id(value)] = service

    def _every(self) -> list[S]:
        return [*(entry.service for entry in self._entries.copy().values()), *members(self._others)]

    def _closing(self) -> list[S]:
        """All pools there are, and from here on no key gets another."""
        with self._lock:
            self._is_stopped = True
        return self._every()

    def _parted_with(self) -> list[S]:
        """Pools off the map that somebody may still use."""
        return members(self._others)

    def _begin_stop(self, services: list[S]) -> list[S]:
        for service in services:  # all at once, before any is waited for
            service._begin_stop()
        return services

    def _empty(self) -> None:
        with self._lock:
            for entry in self._entries.copy().values():
                self._created_before += entry.service._ledger.created
                self._leaves(entry)
            self._lru.clear()

    def start(self) -> Any:
        """Serve borrowers; needed only after `stop`."""
        self._is_stopped = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}: {len(self)} keys, {self._budget!r}>"


class KeyedPoolingService(_Keyed[K, T, PoolingService[T]]):
    """
    A pool for each key, for threads.

    Args:
        factory_for_key: Gets a key, returns the factory of its resources. Must not block. `None` where every key is
            opened by `open_key`.
        options: Settings of each key's pool, as an object or a mapping.
        max_total: Most resources of all keys together; `None` is no limit.
        max_keys: Most keys that have a pool; one more has a quiet one forgotten. `None` is no limit.
        max_key_idle: Seconds after which a key without borrowers is forgotten that has no resources, or no more than
            `min_size`, unused for as long; those are destroyed. `None` takes `max_idle`.
        budget: A limit shared with further pools, instead of `max_total`.
        context: Handed to acquire hooks where the borrower gives no context.
        name: For texts and statistics; every key's pool has it.
        observer: Told of what happens under every key.
        on_dropped: Called with key and pool when a key is taken off the map; must not block.
        clock: Seconds that never go back.
        **options_as_keywords: Fields of `PoolingServiceOptions`; they win over `options`.

    Raises:
        ConfigurationError: A setting that cannot work.
    """

    _service_class = PoolingService

    def acquire(self, key: K, request_ctx: Any = None, *, timeout: float | None = None, priority: int = 0) -> T:
        """As `PoolingService.acquire`, of the key's pool; also waits where the budget is spent."""
        while True:
            service = self.pool(key)
            value: Any = NOTHING
            try:
                value = service.acquire(request_ctx, timeout=timeout, priority=priority)
                self._out[id(value)] = service
                return value  # type: ignore[no-any-return]
            except PoolClosedError as error:
                timeout = self._seconds_left(key, service, error, timeout)
            except BaseException:
                if value is not NOTHING:  # interrupted between these lines
                    self._out.pop(id(value), None)
                    service.release(value)
                raise

    def acquire_nowait(self, key: K, request_ctx: Any = None, *, priority: int = 0) -> T:
        """As `PoolingService.acquire_nowait`, of the key's pool."""
        while True:
            service = self.pool(key)
            value: Any = NOTHING
            try:
                value = service.acquire_nowait(request_ctx, priority=priority)
                self._out[id(value)] = service
                return value  # type: ignore[no-any-return]
            except PoolClosedError as error:
                self._seconds_left(key, service, error, None)
            except BaseException:
                if value is not NOTHING:  # interrupted between these lines
                    self._out.pop(id(value), None)
                    service.release(value)
                raise

    def release(self, value: T, exc: BaseException | None = None) -> None:
        """As `PoolingService.release`; the value knows its key."""
        service = self._service_of(value)
        try:
            self._out.pop(id(value), None)
            service.release(value, exc)
        except BaseException:
            self._keep(value, service)
            raise

    def destroy(self, value: T) -> None:
        """As `PoolingService.destroy`; the value knows its key."""
        service = self._service_of(value)
        try:
            self._out.pop(id(value), None)
            service.destroy(value)
        except BaseException:
            self._keep(value, service)
            raise

    def lease(self, key: K, request_ctx: Any = None, *, timeout: float | None = None, priority: int = 0) -> Lease[T]:
        """As `PoolingService.lease`, of the pool that the key has on entry."""
        return _KeyedLease(self, key, request_ctx, timeout, priority)

    def run(self, key: K, task: Callable[[T], R], request_ctx: Any = None) -> R:
        """As `PoolingService.run`, with the key's pool."""
        return _KeyedLease(self, key, request_ctx, None, 0)._run(task)

    def stop(self, timeout: float = 5.0) -> None:
        """Stop every key's pool, all within `timeout` seconds; afterwards the map is empty."""
        self._stop_all(self._closing, timeout)
        self._empty()

    def stop_closed(self, timeout: float = 5.0) -> None:
        """
        Stop the pools that are off the map, closed or forgotten, all within `timeout` seconds; keys keep theirs.

        So `close_key` for each key and then this gives every key a new pool, and waits for what is out of the old ones.
        """
        self._stop_all(self._parted_with, timeout)

    def _stop_all(self, which: Callable[[], list[PoolingService[T]]], timeout: float) -> None:
        deadline = self._now() + checked_seconds(timeout, "timeout", f"pool {self._name!r}")
        for service in self._begin_stop(which()):
            service._stop_last(max(deadline - self._now(), 0.0), timeout)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> Literal[False]:
        self.stop()
        return False


class _KeyedLease(Lease[T]):
    """`Lease` of a key, which is looked up on entry."""

    __slots__ = ("_key", "_keyed")

    def __init__(self, keyed: KeyedPoolingService[Any, T], key: Any, ctx: Any, timeout: float | None, priority: int):
        super().__init__(keyed, ctx, timeout, priority)  # type: ignore[arg-type] # until there is the key's
        self._keyed = keyed
        self._key = key

    def __enter__(self) -> T:
        if self._value is not NOTHING:
            raise self._in_use()
        timeout = self._timeout
        while True:
            service = self._service = self._keyed.pool(self._key)
            try:  # the value is kept in the line it comes in, as in `Lease`
                value: T
                value = self._value = service.acquire(self._ctx, timeout=timeout, priority=self._priority)
                return value
            except PoolClosedError as error:
                timeout = self._keyed._seconds_left(self._key, service, error, timeout)


class _AsyncKeyedLease(AsyncLease[T]):
    """`_KeyedLease` for `async with`."""

    __slots__ = ("_key", "_keyed")

    def __init__(
        self, keyed: AsyncKeyedPoolingService[Any, T], key: Any, ctx: Any, timeout: float | None, priority: int
    ):
        super().__init__(keyed, ctx, timeout, priority)  # type: ignore[arg-type] # until there is the key's
        self._keyed = keyed
        self._key = key

    async def __aenter__(self) -> T:
        if self._value is not NOTHING:
            raise self._in_use()
        timeout = self._timeout
        while True:
            service = self._service = self._keyed.pool(self._key)
            try:  # the value is kept in the line it comes in, as in `Lease`
                value: T
                value = self._value = await service.acquire(self._ctx, timeout=timeout, priority=self._priority)
                return value
            except PoolClosedError as error:
                timeout = self._keyed._seconds_left(self._key, service, error, timeout)


class AsyncKeyedPoolingService(_Keyed[K, T, AsyncPoolingService[T]]):
    """`KeyedPoolingService` for asyncio; belongs to the first loop that uses it."""

    if TYPE_CHECKING:  # as in `AsyncPoolingService`

        @overload
        def __init__(
            self,
            factory_for_key: Callable[[K], PoolFactory[T] | type[T]] | None = None,
            options: PoolingServiceOptions | PoolingServiceOptionsDict | None = None,
            **arguments: Unpack[KeyedArguments[K, AsyncPoolingService[T]]],
        ) -> None: ...
        @overload
        def __init__(
            self,
            factory_for_key: Callable[[K], Callable[[], Awaitable[T]]],
            options: PoolingServiceOptions | PoolingServiceOptionsDict | None = None,
            **arguments: Unpack[KeyedArguments[K, AsyncPoolingService[T]]],
        ) -> None: ...
        @overload
        def __init__(
            self,
            factory_for_key: Callable[[K], Callable[[], T]],
            options: PoolingServiceOptions | PoolingServiceOptionsDict | None = None,
            **arguments: Unpack[KeyedArguments[K, AsyncPoolingService[T]]],
        ) -> None: ...
        def __init__(self, factory_for_key: Any = None, options: Any = None, **arguments: Any) -> None: ...

    _service_class = AsyncPoolingService

    async def acquire(self, key: K, request_ctx: Any = None, *, timeout: float | None = None, priority: int = 0) -> T:
        """As `KeyedPoolingService.acquire`."""
        while True:
            service = self.pool(key)
            value: Any = NOTHING
            try:
                value = await service.acquire(request_ctx, timeout=timeout, priority=priority)
                self._out[id(value)] = service
                return value  # type: ignore[no-any-return]
            except PoolClosedError as error:
                timeout = self._seconds_left(key, service, error, timeout)
            except BaseException:
                if value is not NOTHING:  # interrupted between these lines
                    self._out.pop(id(value), None)
                    await service.release(value)
                raise

    async def acquire_nowait(self, key: K, request_ctx: Any = None, *, priority: int = 0) -> T:
        """As `KeyedPoolingService.acquire_nowait`."""
        while True:
            service = self.pool(key)
            value: Any = NOTHING
            try:
                value = await service.acquire_nowait(request_ctx, priority=priority)
                self._out[id(value)] = service
                return value  # type: ignore[no-any-return]
            except PoolClosedError as error:
                self._seconds_left(key, service, error, None)
            except BaseException:
                if value is not NOTHING:  # interrupted between these lines
                    self._out.pop(id(value), None)
                    await service.release(value)
                raise

    async def release(self, value: T, exc: BaseException | None = None) -> None:
        """As `KeyedPoolingService.release`."""
        service = self._service_of(value)
        try:
            self._out.pop(id(value), None)
            await service.release(value, exc)
        except BaseException:
            self._keep(value, service)
            raise

    async def destroy(self, value: T) -> None:
        """As `KeyedPoolingService.destroy`."""
        service = self._service_of(value)
        try:
            self._out.pop(id(value), None)
            await service.destroy(value)
        except BaseException:
            self._keep(value, service)
            raise

    def lease(
        self, key: K, request_ctx: Any = None, *, timeout: float | None = None, priority: int = 0
    ) -> AsyncLease[T]:
        """As `KeyedPoolingService.lease`."""
        return _AsyncKeyedLease(self, key, request_ctx, timeout, priority)

    @overload
    async def run(self, key: K, task: Callable[[T], Awaitable[R]], request_ctx: Any = None) -> R: ...
    @overload
    async def run(self, key: K, task: Callable[[T], R], request_ctx: Any = None) -> R: ...
    async def run(self, key: K, task: Callable[[T], Any], request_ctx: Any = None) -> Any:
        """As `KeyedPoolingService.run`."""
        return await _AsyncKeyedLease(self, key, request_ctx, None, 0)._run(task)

    async def start(self) -> None:
        """As `KeyedPoolingService.start`."""
        self._is_stopped = False

    async def stop(self, timeout: float = 5.0) -> None:
        """As `KeyedPoolingService.stop`."""
        await self._stop_all(self._closing, timeout)
        self._empty()

    async def stop_closed(self, timeout: float = 5.0) -> None:
        """As `KeyedPoolingService.stop_closed`."""
        await self._stop_all(self._parted_with, timeout)

    async def _stop_all(self, which: Callable[[], list[AsyncPoolingService[T]]], timeout: float) -> None:
        deadline = self._now() + checked_seconds(timeout, "timeout", f"pool {self._name!r}")
        for service in self._begin_stop(which()):
            await service._stop_last(max(deadline - self._now(), 0.0), timeout)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> Literal[False]:
        await self.stop()
        return False


def _after_fork() -> None:
    for keyed in members(_all):
        keyed._lock = threading.RLock()
        keyed._armed_at = math.inf  # the timer that was to call is the parent's
        if keyed._max_key_idle < math.inf:
            keyed._arm_again_at = -math.inf


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
