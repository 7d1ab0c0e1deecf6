"""
One pool for each user: `LakebasePoolManager` and its asyncio twin.

Row-level security sees the role that has logged in, so every user's requests need that user's own
connections. A manager keeps a pool under each key, replaces it when the user's token has changed, forgets it when the
user is gone, and holds all pools together to one budget.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

from psycopg import AsyncConnection, Connection

from pooling import (
    AsyncKeyedPoolingService,
    ConfigurationError,
    KeyedPoolingService,
    PoolBudget,
    PoolExhaustedError,
    PoolingServiceOptions,
)

from ._base import CALLBACKS, check_callables
from ._connecting import Outage
from .config import LakebasePoolConfig
from .credentials import CredentialCache
from .identity import UserIdentity
from .limits import warn_if_over_limit
from .pool import AsyncLakebasePool, LakebasePool

if TYPE_CHECKING:
    from types import TracebackType

    from .credentials import CredentialSource

__pooling_internal__ = True

__all__ = ["AsyncLakebasePoolManager", "LakebasePoolManager", "ManagerStats"]

P = TypeVar("P", bound="LakebasePool[Any] | AsyncLakebasePool[Any]")

#: What a user's pool is by default, as in Databricks AppKit: a person has few requests at once, and goes away.
PER_USER = {"max_size": 3, "max_idle": 30.0}

#: Arguments of a pool that a manager hands on; the others are its own.
_PER_POOL = (
    "configure",
    "check",
    "reset",
    "connection_class",
    "kwargs",
    "close_returns",
    "timeout",
    "max_waiting",
    "max_lifetime",
    "max_idle",
    "min_size",
    "max_size",
    "reconnect_timeout",
    "reconnect_failed",
    "num_workers",
    "observer",
)

_all: weakref.WeakSet[_Manager[Any]] = weakref.WeakSet()


@dataclass(frozen=True, kw_only=True, slots=True)
class ManagerStats:
    """
    A manager's numbers at one instant.

    Args:
        pools: Keys that have a pool.
        connections: Connections of all pools, those being made or closed included.
        borrowed: Connections out.
        pending: Borrowers waiting.
        max_total: The limit on `connections`.
        connections_opened: Since the manager was made.
        rotations: Pools replaced because of another token.
        per_key: Each pool's `get_stats()`.
    """

    pools: int
    connections: int
    borrowed: int
    pending: int
    max_total: float
    connections_opened: int
    rotations: int
    per_key: Mapping[Any, Mapping[str, int]]


def _check_arguments(
    pool_class: type[Any], given: Mapping[str, Any], *, max_pools: object, max_pool_idle: object, budget: object
) -> None:
    """Refuse at once what would fail with the first user's pool."""
    known = [*_PER_POOL, *PoolingServiceOptions.__dataclass_fields__]
    for name in given:
        if name in known:
            continue
        if name in LakebasePoolConfig.__dataclass_fields__:
            hint = f"it is a setting; give it in the base configuration, as {{{name!r}: …}}"
        elif near := get_close_matches(name, [*known, "max_total", "max_pools", "max_pool_idle"], n=1, cutoff=0.7):
            hint = f"did you mean {near[0]!r}?"
        else:
            hint = f"known are max_total, max_pools, max_pool_idle, budget, name, and of each pool {', '.join(known)}"
        raise ConfigurationError(f"unknown argument {name!r} of a manager: {hint}", field=name)
    if max_pools is not None and (isinstance(max_pools, bool) or not isinstance(max_pools, int) or max_pools < 1):
        raise ConfigurationError(f"max_pools={max_pools!r}: expected a whole number, at least 1", field="max_pools")
    if isinstance(max_pool_idle, bool) or not isinstance(max_pool_idle, (int, float)) or not max_pool_idle >= 0:
        raise ConfigurationError(
            f"max_pool_idle={max_pool_idle!r}: expected a number of seconds, 0 or more", field="max_pool_idle"
        )
    if budget is not None and not isinstance(budget, PoolBudget):
        raise ConfigurationError(
            f"budget={budget!r}: expected a PoolBudget; for a number, give max_total=", field="budget"
        )
    check_callables({name: given.get(name) for name in CALLBACKS}, is_async=pool_class._is_async)


class _Manager(Generic[P]):
    """What both front ends have in common; nothing here blocks."""

    _keyed_class: type[Any]
    _pool_class: type[Any]
    _is_async: bool

    def __init__(
        self,
        base_config: LakebasePoolConfig | Mapping[str, Any] | None = None,
        *,
        max_total: int | None = None,
        max_pools: int | None = None,
        max_pool_idle: float = 300.0,
        budget: PoolBudget | None = None,
        name: str = "lakebase",
        **pool: Any,
    ) -> None:
        _check_arguments(self._pool_class, pool, max_pools=max_pools, max_pool_idle=max_pool_idle, budget=budget)
        base = LakebasePoolConfig.of(base_config)
        self._base = LakebasePoolConfig(**{**PER_USER, **base.given()})
        if max_total is not None:
            PoolBudget(max_total)  # refuses what is no number of connections
            warn_if_over_limit(self._base, budget=max_total)
        self._pool_arguments = pool
        # One object of each for all pools.
        self._get_source = self._source_of
        self._name = name
        self._keyed = self._keyed_class(
            max_total=max_total,
            max_keys=max_pools,
            max_key_idle=max_pool_idle,
            budget=budget,
            name=name,
            observer=pool.pop("observer", None),
            on_dropped=self._dropped,
        )
        self._squeeze = self._keyed.budget.squeeze
        self._pools: dict[Hashable, tuple[P, str | None]] = {}
        self._credentials = CredentialCache()
        self._lock = threading.RLock()  # the map is told of a dropped key while another is put in
        self._rotations = 0
        self._outage = Outage()
        _all.add(self)

    @property
    def budget(self) -> PoolBudget:
        """The limit on all connections; give it to the app's own pool (`budget=`) to count that one in."""
        return self._keyed.budget  # type: ignore[no-any-return]

    @property
    def size(self) -> int:
        """Keys that have a pool."""
        return len(self._pools)

    def __len__(self) -> int:
        return len(self._pools)

    def keys(self) -> list[Any]:
        """The keys that have a pool."""
        return list(self._pools)

    def has_pool(self, key: Hashable) -> bool:
        """Whether the key has a pool."""
        return key in self._pools

    def get_pool(
        self,
        key: Hashable,
        per_pool_config: LakebasePoolConfig | Mapping[str, Any] | None = None,
        token_fingerprint: str | None = None,
    ) -> P:
        """
        The key's pool, made if there is none. Never blocks, never does I/O.

        Args:
            key: The user: whatever tells two apart that must not share connections.
            per_pool_config: What this pool has of its own (`user`, `token`, …), merged over the base; used only
                when the pool is made.
            token_fingerprint: `lakebase.token_fingerprint(token)`. Another one than the pool was made with replaces the
                pool: the old one refuses new borrowers and serves those it has. `None` takes the pool as it is.

        Raises:
            ConfigurationError: The merged configuration is incomplete or cannot work.
            PoolExhaustedError: `max_pools` pools are in use.
        """
        found = self._pools.get(key)
        if found is not None:
            pool, fingerprint = found
            is_same = token_fingerprint is None or token_fingerprint == fingerprint
            if is_same and not pool.closed and self._keyed.touch(key):
                return pool
        return self._made(key, per_pool_config, token_fingerprint)

    def for_user(self, identity: UserIdentity) -> P:
        """
        The pool of whoever a request belongs to.

        Raises:
            IdentityError: The identity proves nothing: its headers came without a token; or it is none.
        """
        identity = UserIdentity.checked(identity)
        return self.get_pool(identity.pool_key(), identity.pool_config(), identity.fingerprint)

    def _made(
        self, key: Hashable, per_pool_config: LakebasePoolConfig | Mapping[str, Any] | None, fingerprint: str | None
    ) -> P:
        with self._lock:
            found = self._pools.get(key)
            is_same = True
            if found is not None:
                pool, current = found
                is_same = fingerprint is None or fingerprint == current
                if is_same and not pool.closed and self._keyed.touch(key):
                    return pool  # another thread was faster
                config = self._merged(per_pool_config) if per_pool_config else pool.config
                assert config is not None
                self._rotations += not is_same
            else:
                config = self._merged(per_pool_config)
            if found is not None and (found[0].closed or not is_same):
                self._retire(key, found[0])  # else it was forgotten for being quiet just now, and stays usable
            made: P = self._pool_class(
                config=config,
                # A minted one is asked for with the first connection: many a pool is looked up and not used.
                credentials=self._get_source if config.password is None else self._source_of(config),
                service_class=self._opened,
                key=key,
                on_crowded=self._squeeze,
                **self._pool_arguments,
            )
            made._connector.outage = self._outage
            made._renewal = "call get_pool again"
            self._pools[key] = (made, fingerprint)
            return made

    def _merged(self, per_pool_config: LakebasePoolConfig | Mapping[str, Any] | None) -> LakebasePoolConfig:
        return self._base.merged(per_pool_config).resolved()

    def _source_of(self, config: LakebasePoolConfig) -> CredentialSource:
        return self._credentials.source(config, is_async=self._is_async)

    def _opened(self, connector: Any, options: Any, *, key: Hashable, name: None, **service: Any) -> Any:
        self._keyed.close_key(key)  # where an interrupt came between this map and that
        try:
            return self._keyed.open_key(key, connector, options, **service)
        except PoolExhaustedError as error:
            raise PoolExhaustedError(
                f"{self!r} has no pool for key {key!r}: all of max_pools={self.size} are in use. Raise max_pools, or "
                "give connections back sooner.",
                pool=error.pool,
                key=key,
                limit="max_pools",
            ) from error

    def _retire(self, key: Hashable, pool: P) -> None:
        """Take a pool off the map: closed for new borrowers, while those it has are served."""
        pool._closed = True
        self._keyed.close_key(key)
        self._pools.pop(key, None)

    def _dropped(self, key: Hashable, service: Any) -> None:
        """The engine has forgotten a quiet key. Whoever still has its pool may go on using it."""
        with self._lock:
            found = self._pools.get(key)
            if found is not None and found[0]._service is service:
                del self._pools[key]

    def stats(self) -> ManagerStats:
        """The manager's numbers, in all and for each key."""
        total = self._keyed.stats()
        return ManagerStats(
            pools=len(self._pools),
            connections=total.size,
            borrowed=total.borrowed,
            pending=total.pending,
            max_total=total.max_total,
            connections_opened=total.created,
            rotations=self._rotations,
            per_key={key: pool.get_stats() for key, (pool, _) in list(self._pools.items())},
        )

    def _part_with_all(self) -> None:
        """Whatever becomes of the pools there are, `get_pool` makes new ones from here on."""
        with self._lock:
            pools = [(key, pool) for key, (pool, _) in self._pools.items()]
            self._credentials.clear()
        for key, pool in pools:
            with self._lock:  # one by one: nobody waits in `get_pool` for all of them
                found = self._pools.get(key)
                if found is not None and found[0] is pool:
                    self._retire(key, pool)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}: {self.size} pools, {self.budget!r}>"


class LakebasePoolManager(_Manager[LakebasePool[Connection[Any]]]):
    """
    A pool for each user, for threads.

    Args:
        base_config: What all pools have in common; what is missing in it and in a pool's own part is taken from the
            environment. A user's pool has at most 3 connections, closed after 30 s, unless it says otherwise.
        max_total: Most connections of all pools together; `None` is no limit. Where it is reached, an idle connection
            of the user who was quiet for longest is closed for one who waits.
        max_pools: Most keys at once; one more has a quiet one forgotten. `None` is no limit.
        max_pool_idle: Seconds after which a pool without connections and borrowers is forgotten.
        budget: A limit shared with further pools, instead of `max_total`.
        name: For texts and statistics; every user's pool has it.
        **pool: Arguments of each `LakebasePool`, such as `configure` or `check`, and the engine's options.

    Raises:
        ConfigurationError: A setting that cannot work, or an argument that no pool has.
    """

    _keyed_class = KeyedPoolingService
    _pool_class = LakebasePool
    _is_async = False

    def close_pool(self, key: Hashable, timeout: float = 5.0) -> bool:
        """
        Close the key's pool: no new borrowers; connections out are closed when they come back.

        Blocks until idle ones are closed, at most `timeout` seconds. Returns whether there was a pool.
        """
        with self._lock:
            found = self._pools.get(key)
            if found is None:
                return False
            self._retire(key, found[0])
        found[0]._service.stop(timeout, drain=False)
        return True

    def close_all(self, timeout: float = 5.0) -> None:
        """
        Close every pool, and wait at most `timeout` seconds for connections that are out.

        `get_pool` works meanwhile and afterwards, also where this is interrupted: it makes new pools, within the same
        budget.
        """
        self._part_with_all()
        self._keyed.stop_closed(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> Literal[False]:
        self.close_all()
        return False


class AsyncLakebasePoolManager(_Manager[AsyncLakebasePool[AsyncConnection[Any]]]):
    """`LakebasePoolManager` for asyncio; may be built before the loop runs. `get_pool` is an ordinary method."""

    _keyed_class = AsyncKeyedPoolingService
    _pool_class = AsyncLakebasePool
    _is_async = True

    async def close_pool(self, key: Hashable, timeout: float = 5.0) -> bool:
        """As `LakebasePoolManager.close_pool`."""
        found = self._pools.get(key)
        if found is None:
            return False
        self._retire(key, found[0])
        await found[0]._service.stop(timeout, drain=False)
        return True

    async def close_all(self, timeout: float = 5.0) -> None:
        """As `LakebasePoolManager.close_all`."""
        self._part_with_all()
        await self._keyed.stop_closed(timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> Literal[False]:
        await self.close_all()
        return False


def _after_fork() -> None:
    for manager in list(_all):  # whoever held a lock is the parent's
        manager._lock = threading.RLock()
        manager._credentials._lock = threading.Lock()
        manager._outage._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
