"""
A pool for each key: for each user, host, tenant, shard.

`KeyedPoolingService` is for threads, `AsyncKeyedPoolingService` for asyncio. A pool is made at the first use of its
key and evicted when the key has been unused; one budget limits them all.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, Unpack, overload

from ._backends.alarms import Ring
from ._backends.fork import Survivors
from ._backends.fork import snapshot as members
from ._backends.loops import bind
from ._backends.threads import finish
from ._engine import messages
from ._engine.borrowers import by_age
from ._engine.lease import NOTHING, AsyncLease, Lease
from ._engine.lru import Entry, LeastRecentlyUsed
from ._engine.pool import Owners
from ._engine.standing import Average
from .budget import PoolBudget
from .errors import ConfigurationError, PoolClosedError, PoolExhaustedError, PoolingError, ReleaseError
from .factory import is_factory
from .locks import make_rlock
from .options import PoolingServiceOptions, PoolingServiceOptionsDict, checked_seconds, is_seconds
from .service import AsyncPoolingService, PoolingService, check_parts

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import TracebackType

    from ._engine.hooks import Hooks
    from .events import PoolObserver
    from .factory import PoolFactory
    from .stats import Holder, PoolStats, Waiting

__all__ = ["AsyncKeyedPoolingService", "KeyedPoolStats", "KeyedPoolingService"]

R = TypeVar("R")
if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault  # type checkers know it without installation

    # A key is any hashable. Type checkers cannot infer it from a `lambda`: it is Any there, so that the body checks.
    K = TypeVarWithDefault("K", bound=Any, default=Any)
    T = TypeVarWithDefault("T", default=Any)
    S = TypeVarWithDefault("S", bound=PoolingService[Any] | AsyncPoolingService[Any], default=Any)
else:
    K = TypeVar("K")
    T = TypeVar("T")
    S = TypeVar("S")


class KeyedArguments(PoolingServiceOptionsDict, Generic[K, S], total=False):
    """What a keyed service takes by name, for signatures that pass it on."""

    max_total: float | None
    max_keys: int | None
    max_key_idle: float | None
    budget: PoolBudget | None
    context: Any
    name: str | None
    observer: PoolObserver | None
    on_dropped: Callable[[K, S], None] | None
    clock: Callable[[], float]


log: logging.Logger = logging.getLogger("pooling")

_numbers = itertools.count(1)
#: Most keys that the timer evicts in one call, so that it does not delay other pools.
BATCH = 500
#: Most provisional keys that no borrower uses. With one more, the least recently used is evicted.
MOST_PROVISIONAL = 1000
LATE = 5.0  # seconds after which a timer that has not called counts as gone, as when its event loop has ended

_keyed_services: Survivors[_Keyed[Any, Any, Any]] = Survivors()


def live_keyed_services() -> list[KeyedPoolingService[Any, Any] | AsyncKeyedPoolingService[Any, Any]]:
    """The keyed services of this process; for other modules of this package."""
    return list(_keyed_services)  # type: ignore[arg-type]


def pools_of(service: Any) -> list[Any]:
    """The pools of all keys of a keyed service, also of closed and evicted ones; for other modules of this package."""
    pools: list[Any] = service._every_pool()
    return pools


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyedPoolStats:
    """
    A keyed pool's numbers at one instant.

    Args:
        keys: Keys that have a pool.
        size: Places taken by all pools.
        available: Idle resources of all pools.
        borrowed: Borrowed resources of all pools.
        pending: Borrowers in the queues of all pools.
        max_total: The limit on `size`.
        created: Resources created since construction, those of closed and evicted keys included.
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


def _check_arguments(
    *,
    factory_for_key: object,
    max_total: object,
    max_keys: object,
    max_key_idle: Any,
    budget: object,
    name: object,
    on_dropped: object,
) -> None:
    """
    Check the arguments that only a keyed service has.

    Raises:
        ConfigurationError: One cannot work.
    """
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


class _Keyed(Generic[K, T, S]):
    """What both front ends share: the map from keys to pools."""

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
        _check_arguments(
            factory_for_key=factory_for_key,
            max_total=max_total,
            max_keys=max_keys,
            max_key_idle=max_key_idle,
            budget=budget,
            name=name,
            on_dropped=on_dropped,
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
        self._provisional: dict[K, Entry[S]] = {}  # those of them that do not count in `max_keys`
        self._lru = LeastRecentlyUsed(self._entries)
        #: Pools of closed or evicted keys that a caller may still use.
        self._removed: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = make_rlock()  # for changes of the map; looking up a key takes no lock
        self._owners = Owners()
        #: The hooks of the pool made last, which tell what the resources are; `None` before the first.
        self.latest_hooks: Hooks | None = None
        self._create_time = Average()
        self._armed_at = math.inf
        self._arm_again_at = -math.inf if self._max_key_idle < math.inf else math.inf
        _keyed_services.add(self)

    # -- keys ----------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name that all its pools have, in messages and statistics."""
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
        return [entry.key for entry in sorted(self._all_entries(), key=lambda entry: entry.touched)]

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[K]:
        return iter(self.keys())

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def pool(self, key: K) -> S:
        """
        The key's pool, made if there is none. Does not block and does not start the pool.

        You may keep the pool: it still works after its key was evicted, within the same budget.

        Raises:
            PoolExhaustedError: `max_keys` pools are in use.
            PoolClosedError: The service is stopped.
        """
        entry = self._entries.get(key)
        if entry is not None:
            now = entry.touched = self._now()  # as `_used`, inlined for speed
            if now >= self._arm_again_at:
                self._arm(entry.service)
            return entry.service
        if self._factory_for_key is None:
            raise ConfigurationError(
                f"pool {self._name!r} has no factory_for_key, and key {key!r} was not opened by open_key()",
                field="factory_for_key",
            )
        factory = self._factory_for_key(key)
        if not is_factory(factory):
            raise ConfigurationError(
                f"pool {self._name!r} key {key!r}: factory_for_key returned an object of type "
                f"{type(factory).__name__}, not what makes one: expected a PoolFactory, a class or a callable, "
                "as in `lambda key: lambda: connect(key)`",
                field="factory_for_key",
            )
        return self.open_key(key, factory)

    def touch(self, key: K) -> bool:
        """Count as a use of the key. Returns whether it has a pool."""
        return self._used(key) is not None

    def key_data(self, key: K) -> Any:
        """
        What `open_key` or `add_pool` attached to the key as `data`; `None` if the key has no pool.

        Counts as a use of the key. Takes no lock.
        """
        entry = self._used(key)
        return None if entry is None else entry.data

    def last_used(self, key: K) -> float:
        """When the key was used last, by the service's clock; `-inf` if it has no pool. Does not count as a use."""
        entry = self._entries.get(key)
        return -math.inf if entry is None else entry.touched

    def all_data(self) -> dict[K, Any]:
        """The `data` of each key. Does not count as a use of the keys."""
        return {entry.key: entry.data for entry in self._all_entries()}

    def _all_entries(self) -> list[Entry[S]]:
        """The entries of all keys; copied in one step, so that other threads do not change the map meanwhile."""
        return list(self._entries.values())

    def _used(self, key: K) -> Entry[S] | None:
        """The key's entry, or `None`; counts as a use."""
        entry = self._entries.get(key)
        if entry is not None:
            now = entry.touched = self._now()
            if now >= self._arm_again_at:
                self._arm(entry.service)
        return entry

    def open_key(
        self,
        key: K,
        factory: PoolFactory[T] | type[T] | Callable[[], T] | Callable[[], Awaitable[T]],
        options: PoolingServiceOptions | PoolingServiceOptionsDict | None = None,
        *,
        data: Any = None,
        **options_as_keywords: Unpack[PoolingServiceOptionsDict],
    ) -> S:
        """
        Give a key a pool with its own factory and options. Does not block and does not start the pool.

        If the key has a pool already, that one is returned.

        Args:
            key: Any hashable.
            factory: Makes this key's resources.
            options: This key's settings; the service's by default.
            data: Any object to keep with the key's pool; `key_data` returns it.
            **options_as_keywords: Fields of `PoolingServiceOptions`; they win over `options`.

        Raises:
            PoolExhaustedError: `max_keys` pools are in use.
            PoolClosedError: The service is stopped.
        """
        return self.add_pool(key, self.make_pool(key, factory, options, **options_as_keywords), data)

    def make_pool(
        self,
        key: K,
        factory: PoolFactory[T] | type[T] | Callable[[], T] | Callable[[], Awaitable[T]],
        options: PoolingServiceOptions | PoolingServiceOptionsDict | None = None,
        *,
        budget: PoolBudget | None = None,
        **options_as_keywords: Unpack[PoolingServiceOptionsDict],
    ) -> S:
        """
        A pool with this service's budget, name and observer, not yet on the map: `add_pool` puts it under its key.

        For an object that holds the pool and is the `data` of the key. Arguments as in `open_key`.

        Args:
            key: Any hashable; what messages call the key. `add_pool` may use another one.
            factory: Makes this key's resources.
            options: This key's settings; the service's by default.
            budget: One within the service's budget, for several keys with a lower limit in common.
            **options_as_keywords: Fields of `PoolingServiceOptions`; they win over `options`.

        Raises:
            ConfigurationError: `budget` is not within this service's budget.
        """
        if budget is not None and (not isinstance(budget, PoolBudget) or budget.within is not self._budget):
            raise ConfigurationError(
                f"pool {self._name!r} key {key!r}: budget={budget!r}: expected one within this service's budget, as "
                "PoolBudget(max_total, within=service.budget) makes it",
                field="budget",
            )
        made: S = self._service_class(
            factory,
            self._options if options is None else options,
            context=self._context,
            name=self._name,
            key=key,
            observer=self._observer,
            budget=budget or self._budget,
            clock=self._now,
            **options_as_keywords,
        )
        self.latest_hooks = made.engine.hooks
        made.engine.owners, made.engine.ledger.create_time = self._owners, self._create_time
        return made

    def add_pool(self, key: K, pool: S, data: Any = None, *, is_provisional: bool = False) -> S:
        """
        Put a pool of `make_pool` on the map, with any object as `data`. Does not block.

        If the key has a pool already, that one stays and is returned.

        Args:
            key: Any hashable.
            pool: From `make_pool`; also one that was evicted before it had a resource.
            data: Any object to keep with it.
            is_provisional: Whether the key does not count in `max_keys`, so that no other key is evicted for it, until
                `confirm` is called: for a key that anybody may make up.

        Raises:
            PoolExhaustedError: `max_keys` pools are in use.
            PoolClosedError: The service is stopped.
        """
        with self._lock:
            if self._is_stopped:
                raise self._stopped(key)
            entry = self._entries.get(key)
            evicted: list[Entry[S]] = []
            if entry is None:
                evicted = self._make_room(key, is_provisional=is_provisional)
                entry = self._entries[key] = Entry(key, pool, data, self._now())
                self._lru.add(entry)
                if pool.engine.is_off_the_map:
                    self._removed.discard(pool)
                    pool.engine.kept_service = None
                if is_provisional:
                    self._provisional[key] = entry
        if evicted:
            self._close_evicted(evicted)
        if entry.touched >= self._arm_again_at:
            self._arm(entry.service)
        return entry.service

    def confirm(self, key: K) -> bool:
        """
        Have a provisional key count in `max_keys`; the least recently used key is evicted if it is one too many.

        Returns whether the key has a pool that counts: it goes on as a provisional one if all others are in use.
        """
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or self._provisional.get(key) is not entry:
                return entry is not None
            try:
                evicted = self._make_room(key, is_provisional=False)
            except PoolExhaustedError:
                return False
            self._provisional.pop(key, None)
        self._close_evicted(evicted)
        return True

    def _make_room(self, key: K, *, is_provisional: bool) -> list[Entry[S]]:
        """
        Evict what one more key is too many for. Release the lock, then pass the result to `_close_evicted`.

        Raises:
            PoolExhaustedError: `max_keys` pools are in use, or as many provisional ones as there may be.
        """
        if len(self._provisional) >= MOST_PROVISIONAL and is_provisional:
            return self._evict(most=1, among=self._is_provisional)
        if len(self._entries) - len(self._provisional) < self._max_keys:
            return []
        if is_provisional:  # no other key is evicted for it now, but one might be when it counts
            if self._lru.has(lambda entry: not self._is_provisional(entry) and self._is_unused(entry)):
                return []
        elif evicted := self._evict(most=1, among=lambda entry: not self._is_provisional(entry)):
            return evicted
        raise PoolExhaustedError(
            f"pool {self._name!r}: no pool for key {key!r}: all of max_keys={self._max_keys} are in use. Raise "
            "max_keys, or release sooner.",
            pool=self._name,
            key=key,
            limit="max_keys",
        )

    def _is_provisional(self, entry: Entry[S]) -> bool:
        return self._provisional.get(entry.key) is entry

    def _stopped(self, key: K) -> PoolClosedError:
        return PoolClosedError(
            f"pool {self._name!r} is stopped: key {key!r} gets no pool. Call start() to use it again.",
            pool=self._name,
            key=key,
        )

    def _seconds_left(self, key: K, service: S, error: PoolClosedError, timeout: float | None) -> float:
        """
        The seconds left for a borrower whose pool was closed because its key was closed or evicted.

        Raises:
            PoolClosedError: The service is stopped, or a caller stopped this pool.
        """
        if self._is_stopped:
            raise self._stopped(key) from error
        entry = self._entries.get(key)
        if error.pool != service.name or error.key is not service.engine.key or (entry and entry.service is service):
            raise error
        return max((service.options.timeout if timeout is None else timeout) - error.waited, 0.0)

    def _evict(
        self,
        *,
        before: float = math.inf,
        most: float = math.inf,
        among: Callable[[Entry[S]], bool] | None = None,
    ) -> list[Entry[S]]:
        """Take unused keys off the map. Release the lock, then pass them to `_close_evicted`."""
        taken = self._lru.take(
            lambda entry: (among is None or among(entry)) and self._is_unused(entry, before=before),
            before=before,
            most=most,
        )
        for entry in taken:
            self._remove(entry)
        return taken

    def _is_unused(self, entry: Entry[S], *, before: float = math.inf) -> bool:
        """Whether no borrower has or wants anything of a key, and, with `before`, none has had since then."""
        service, ledger = entry.service, entry.service.engine.ledger
        in_use = service.borrowed if before == math.inf else ledger.live - len(ledger.idle)
        if service.pending or in_use or (before < math.inf and service.size > ledger.min_size):
            entry.touched = self._now()
            return False
        if before < math.inf:  # a caller that kept a pool of `min_size` resources may be using it
            entry.touched = max([entry.touched, *(slot.taken_at for slot in list(ledger.idle) if slot.uses)])
        return entry.touched <= before

    def _remove(self, entry: Entry[S]) -> None:
        """Take an entry off the map. `stop` still stops its pool, which lives as long as its loans."""
        self._removed.add(entry.service)
        entry.service.engine.kept_service = entry.service
        self._entries.pop(entry.key, None)
        self._provisional.pop(entry.key, None)

    def _close_evicted(self, evicted: list[Entry[S]]) -> None:
        """Destroy the idle resources of evicted keys. A caller that kept such a pool may go on using it."""
        for entry in evicted:
            self._tell_dropped(entry)
            if entry.service.size or entry.service.engine.ledger.min_size:
                entry.service.engine.keep_none()

    def _tell_dropped(self, entry: Entry[S]) -> None:
        if self._on_dropped is None:
            return
        try:
            self._on_dropped(entry.key, entry.service)
        except Exception:
            log.exception("pool %r: on_dropped() failed", self._name)

    def expire(self, key: K) -> None:
        """Replace the key's resources: idle ones now, the others as they come back. Does not block."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.service.expire()

    def expire_all(self) -> None:
        """As `expire`, of every key, those that were closed or evicted and are still in use included."""
        for service in self._every_pool():
            service.expire()

    def close_key(self, key: K) -> bool:
        """
        Take the key's pool off the map. It refuses new borrowers and serves the waiting ones. Does not block.

        The next use of the key makes a new pool. Returns whether the key had a pool.
        """
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return False
            self._remove(entry)
        self._tell_dropped(entry)
        entry.service.retire()
        return True

    def drop_key(self, key: K) -> bool:
        """
        Take the key's pool off the map, as if it had been unused for long. Does not block.

        Idle resources are destroyed. Unlike after `close_key`, a caller that kept the pool may go on using it.
        Returns whether the key had a pool.
        """
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return False
            self._remove(entry)
        self._close_evicted([entry])
        return True

    def stats(self) -> KeyedPoolStats:
        """The numbers of all keys together and of each key."""
        per_key = {entry.key: entry.service.stats() for entry in self._all_entries()}
        every = [*per_key.values(), *(service.stats() for service in members(self._removed))]
        return KeyedPoolStats(
            keys=len(per_key),
            size=sum(stats.size for stats in every),
            available=sum(stats.available for stats in every),
            borrowed=sum(stats.borrowed for stats in every),
            pending=sum(stats.pending for stats in every),
            max_total=self._budget.max_total,
            created=self._owners.made,
            per_key=per_key,
        )

    def holders(self) -> list[Holder]:
        """Who holds the resources of all keys, longest first. As `PoolingService.holders`."""
        used = [service for service in self._every_pool() if service.size]
        return by_age([holder for service in used for holder in service.engine.holders()])

    def waiters(self) -> list[Waiting]:
        """Who waits for a resource of any key, longest first."""
        awaited = [service for service in self._every_pool() if service.pending]
        return by_age([waiter for service in awaited for waiter in service.engine.waiters()])

    # -- unused keys ------------------------------------------------------------

    def _arm(self, service: S) -> None:
        """Set the timer to the instant at which a key may first be unused for `max_key_idle`."""
        if not self._can_be_rung(service):
            return
        now = self._now()
        with self._lock:
            when = max(self._lru.first() + self._max_key_idle, now + max(self._max_key_idle / 16, 0.01))
            self._armed_at, self._arm_again_at = when, when + LATE
        service.engine.backend.at(when, Ring(self, when))

    def _can_be_rung(self, service: S) -> bool:
        """Whether the timer of this pool can call back."""
        return True

    def _ring(self, when: float) -> None:
        """The timer's call; never raises."""
        if when != self._armed_at:
            return
        try:
            self._sweep(most=BATCH)
        except Exception:
            log.exception("pool %r: the periodic look for unused keys failed", self._name)
        if entries := self._all_entries():
            self._arm(entries[0].service)
        else:
            self._armed_at, self._arm_again_at = math.inf, -math.inf

    def sweep(self) -> None:
        """Evict the keys that have been unused for `max_key_idle`. This also happens in the background."""
        self._sweep(most=math.inf)

    def _sweep(self, most: float) -> None:
        with self._lock:
            evicted = self._evict(before=self._now() - self._max_key_idle, most=most)
        self._close_evicted(evicted)

    # -- values ----------------------------------------------------------------

    def is_borrowed(self, value: T) -> bool:
        """Whether this object, compared by identity, is out under any key."""
        return self._find_pool(value) is not None

    def _find_pool(self, value: T) -> S | None:
        """The pool from which a value is borrowed."""
        engine = self._owners.get(id(value))
        if engine is None or engine.loan_of(value) < 0:
            return None
        entry = self._entries.get(engine.key)
        if entry is not None and entry.service.engine is engine:
            return entry.service
        if engine.kept_service is not None:  # its key was closed or evicted
            return engine.kept_service  # type: ignore[no-any-return]
        return next((service for service in self._every_pool() if service.engine is engine), None)  # under another key

    def _find_heir(self, value: T) -> S | None:
        """The pool that had a value before this process was forked; it leaves it alone."""
        return next((service for service in self._every_pool() if id(value) in service.engine.inherited), None)

    def _pool_of(self, value: T) -> S:
        """
        The pool to which a value must be given back.

        Raises:
            ReleaseError: The value is not out under any key.
        """
        service = self._find_pool(value) or self._find_heir(value)
        if service is None:
            raise ReleaseError(
                f"pool {self._name!r}: <{type(value).__name__} object at {id(value):#x}> is not out under any key: it "
                "was given back before, or is not this pool's. Give back the very object that acquire() returned, "
                "once; `lease()` does.",
                pool=self._name,
                step="releasing",
                counts=messages.sum_of([one.engine.ledger for one in self._every_pool()], self._options.max_size),
            )
        return service

    def _every_pool(self) -> list[S]:
        """The pools of all keys, those of closed and evicted keys included that a caller may still use."""
        return [*(entry.service for entry in self._all_entries()), *members(self._removed)]

    def _deadline(self, timeout: float) -> float:
        return self._now() + checked_seconds(timeout, "timeout", f"pool {self._name!r}")

    def _closing(self) -> list[S]:
        """All pools, for stopping; from now on no key gets a new pool."""
        with self._lock:
            self._is_stopped = True
        return self._every_pool()

    def _off_the_map(self) -> list[S]:
        """Pools of closed or evicted keys that a caller may still use."""
        return members(self._removed)

    def _begin_stop(self, services: list[S]) -> list[S]:
        for service in services:  # begin to stop all before waiting for any
            service.engine.change(service.engine.ledger.stop)
        return services

    def _empty(self) -> None:
        with self._lock:
            for entry in self._all_entries():
                self._remove(entry)
            self._lru.clear()

    def start(self) -> Any:
        """Serve borrowers; needed only after `stop`."""
        self._is_stopped = False

    def _renew(self) -> None:
        """Go on in a child process, where no other thread has the lock, and no timer is set."""
        self._lock = make_rlock()
        self._owners.clear()  # the parent's
        self._owners.made = 0
        self._armed_at = math.inf
        if self._max_key_idle < math.inf:
            self._arm_again_at = -math.inf

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}: {len(self)} keys, {self._budget!r}>"


class KeyedPoolingService(_Keyed[K, T, PoolingService[T]]):
    """
    A pool for each key, for threads.

    Args:
        factory_for_key: Called with a key, returns the factory of its resources. Must not block. `None` if every key is
            opened by `open_key`.
        options: Settings of each key's pool, as an object or a mapping.
        max_total: Most resources of all keys together; `None` is no limit.
        max_keys: Most keys that have a pool. For a further key, the least recently used is evicted. `None` is no limit.
        max_key_idle: Seconds after which an unused key is evicted. A key is unused if it has no borrowers and its pool
            has at most `min_size` resources, unused for as long; these are destroyed. `None` takes `max_idle`.
        budget: A limit shared with further pools, instead of `max_total`.
        context: Passed to acquire hooks if the borrower gives no context.
        name: For messages and statistics; every key's pool has it.
        observer: Is called for each event of every key.
        on_dropped: Called with key and pool when a key is taken off the map; must not block.
        clock: A monotonic clock in seconds.
        **options_as_keywords: Fields of `PoolingServiceOptions`; they win over `options`.

    Raises:
        ConfigurationError: A setting that cannot work.
    """

    _service_class = PoolingService

    def acquire(self, key: K, request_ctx: Any = None, *, timeout: float | None = None, priority: int = 0) -> T:
        """As `PoolingService.acquire`, from the key's pool; also waits while the budget is spent."""
        # The loop of `_borrow`, written out: a call through a function would make each acquisition a third slower.
        while True:
            service = self.pool(key)
            try:
                return service.acquire(request_ctx, timeout=timeout, priority=priority)
            except PoolClosedError as error:
                timeout = self._seconds_left(key, service, error, timeout)

    def acquire_nowait(self, key: K, request_ctx: Any = None, *, priority: int = 0) -> T:
        """As `PoolingService.acquire_nowait`, from the key's pool."""
        return self._borrow(key, None, lambda service, _: service.acquire_nowait(request_ctx, priority=priority))

    def _borrow(self, key: K, timeout: float | None, acquire: Callable[[PoolingService[T], float | None], T]) -> T:
        """
        Acquire from the key's pool. If the key is closed meanwhile, acquire from its next pool.

        Args:
            key: Whose pool.
            timeout: Seconds for all attempts together; `None` takes the pool's.
            acquire: Called with the pool and the seconds left.
        """
        while True:
            service = self.pool(key)
            try:
                return acquire(service, timeout)
            except PoolClosedError as error:
                timeout = self._seconds_left(key, service, error, timeout)

    def release(self, value: T, exc: BaseException | None = None) -> None:
        """As `PoolingService.release`; the pool is found by the value."""
        service = self._pool_of(value)
        service.release(value, exc)

    def destroy(self, value: T) -> None:
        """As `PoolingService.destroy`; the pool is found by the value."""
        service = self._pool_of(value)
        service.destroy(value)

    def lease(self, key: K, request_ctx: Any = None, *, timeout: float | None = None, priority: int = 0) -> Lease[T]:
        """As `PoolingService.lease`, of the pool that the key has on entry."""
        return _KeyedLease(self, key, request_ctx, timeout, priority)

    def run(self, key: K, task: Callable[[T], R], request_ctx: Any = None) -> R:
        """As `PoolingService.run`, with the key's pool."""
        return _KeyedLease(self, key, request_ctx, None, 0).run(task)

    def stop(self, timeout: float = 5.0) -> None:
        """Stop every key's pool, all within `timeout` seconds; afterwards, or after an interrupt, the map is empty."""
        deadline = self._deadline(timeout)
        try:
            self._stop_all(self._closing(), deadline, timeout)
        finally:
            self._empty()

    def stop_closed(self, timeout: float = 5.0) -> None:
        """
        Stop the pools of closed and evicted keys, all within `timeout` seconds. Pools on the map go on.

        To replace every key's pool, call `close_key` for each key and then this: new borrowers get new pools at once.
        """
        self._stop_all(self._off_the_map(), self._deadline(timeout), timeout)

    def _stop_all(self, services: list[PoolingService[T]], deadline: float, timeout: float) -> None:
        for service in self._begin_stop(services):
            finish(service.engine.stop(max(deadline - self._now(), 0.0), drains=True, given=timeout))

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
        super().__init__(keyed, ctx, timeout, priority)  # type: ignore[arg-type] # replaced on entry
        self._keyed = keyed
        self._key = key

    def __enter__(self) -> T:
        if self._value is not NOTHING:
            raise self._in_use()
        return self._keyed._borrow(self._key, self._timeout, self._enter)

    def _enter(self, service: PoolingService[T], timeout: float | None) -> T:
        """Acquire from this pool, and release to it."""
        self._service = service
        value: T  # assigned in the same statement, as in `Lease`
        value = self._value = service.acquire(self._ctx, timeout=timeout, priority=self._priority)
        return value


class _AsyncKeyedLease(AsyncLease[T]):
    """`_KeyedLease` for `async with`."""

    __slots__ = ("_key", "_keyed")

    def __init__(
        self, keyed: AsyncKeyedPoolingService[Any, T], key: Any, ctx: Any, timeout: float | None, priority: int
    ):
        super().__init__(keyed, ctx, timeout, priority)  # type: ignore[arg-type] # replaced on entry
        self._keyed = keyed
        self._key = key

    async def __aenter__(self) -> T:
        if self._value is not NOTHING:
            raise self._in_use()
        return await self._keyed._borrow(self._key, self._timeout, self._enter)

    async def _enter(self, service: AsyncPoolingService[T], timeout: float | None) -> T:
        """As `_KeyedLease._enter`."""
        self._service = service
        value: T  # assigned in the same statement, as in `Lease`
        value = self._value = await service.acquire(self._ctx, timeout=timeout, priority=self._priority)
        return value


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
            try:
                return await service.acquire(request_ctx, timeout=timeout, priority=priority)
            except PoolClosedError as error:
                timeout = self._seconds_left(key, service, error, timeout)

    async def acquire_nowait(self, key: K, request_ctx: Any = None, *, priority: int = 0) -> T:
        """As `KeyedPoolingService.acquire_nowait`."""
        return await self._borrow(key, None, lambda service, _: service.acquire_nowait(request_ctx, priority=priority))

    async def _borrow(
        self, key: K, timeout: float | None, acquire: Callable[[AsyncPoolingService[T], float | None], Awaitable[T]]
    ) -> T:
        """As `KeyedPoolingService._borrow`."""
        while True:
            service = self.pool(key)
            try:
                return await acquire(service, timeout)
            except PoolClosedError as error:
                timeout = self._seconds_left(key, service, error, timeout)

    async def release(self, value: T, exc: BaseException | None = None) -> None:
        """As `KeyedPoolingService.release`."""
        service = self._pool_of(value)
        await service.release(value, exc)

    async def destroy(self, value: T) -> None:
        """As `KeyedPoolingService.destroy`."""
        service = self._pool_of(value)
        await service.destroy(value)

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
        return await _AsyncKeyedLease(self, key, request_ctx, None, 0).run(task)

    def _can_be_rung(self, service: AsyncPoolingService[T]) -> bool:
        try:
            bind(service.engine)
        except (RuntimeError, PoolingError):
            return False
        return True

    async def start(self) -> None:
        """As `KeyedPoolingService.start`."""
        self._is_stopped = False

    async def stop(self, timeout: float = 5.0) -> None:
        """As `KeyedPoolingService.stop`."""
        deadline = self._deadline(timeout)
        try:
            await self._stop_all(self._closing(), deadline, timeout)
        finally:
            self._empty()

    async def stop_closed(self, timeout: float = 5.0) -> None:
        """As `KeyedPoolingService.stop_closed`."""
        await self._stop_all(self._off_the_map(), self._deadline(timeout), timeout)

    async def _stop_all(self, services: list[AsyncPoolingService[T]], deadline: float, timeout: float) -> None:
        for service in self._begin_stop(services):
            bind(service.engine)
            await service.engine.stop(max(deadline - self._now(), 0.0), drains=True, given=timeout)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> Literal[False]:
        await self.stop()
        return False
