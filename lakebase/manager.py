"""
One pool for each user: `LakebasePoolManager` and its asyncio twin.

Row-level security sees the role that has logged in, so every user's requests need that user's own
connections. A manager keeps a pool under each key, replaces it when the user's token has changed, evicts it when it
has been unused, and holds all pools together to one budget.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, Self, TypeVar, Unpack

from psycopg_pool.abc import ACT, CT

from pooling import (
    AsyncKeyedPoolingService,
    ConfigurationError,
    KeyedPoolingService,
    PoolBudget,
    PoolExhaustedError,
)

from ._connecting import Outage
from ._pool_arguments import CALLBACKS, SharedArguments, check_callables
from ._warm_up import warm_up_for_users
from .config import LakebasePoolConfig
from .credentials import CredentialCache
from .identity import UserIdentity
from .limits import warn_if_over_limit
from .pool import AsyncLakebasePool, LakebasePool

if TYPE_CHECKING:
    from types import TracebackType

__pooling_internal__ = True

__all__ = ["AsyncLakebasePoolManager", "LakebasePoolManager", "ManagerStats"]

C = TypeVar("C")
P = TypeVar("P", bound="LakebasePool[Any] | AsyncLakebasePool[Any]")

#: The defaults of a user's pool, as in Databricks AppKit: a person has few requests at once, and goes away.
PER_USER = {"max_size": 3, "max_idle": 30.0}

_all: weakref.WeakSet[_Manager[Any, Any]] = weakref.WeakSet()


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
    is_async: bool, given: Mapping[str, Any], *, max_pools: object, max_pool_idle: object, budget: object
) -> None:
    """Refuse at once what would fail with the first user's pool."""
    known = [*SharedArguments.__annotations__, "connection_class"]
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
    check_callables({name: given.get(name) for name in CALLBACKS}, is_async=is_async)


class _UserPool(NamedTuple):
    """What the map of keys keeps with a key."""

    pool: Any
    fingerprint: str | None

    def serves(self, fingerprint: str | None) -> bool:
        """Whether the pool is open, and of this token; `None` is any."""
        return (fingerprint is None or fingerprint == self.fingerprint) and not self.pool.closed


class _Manager(Generic[C, P]):
    """What both front ends have in common; nothing here blocks."""

    _keyed_class: ClassVar[type[Any]]
    _pool_class: ClassVar[type[Any]]
    _is_async: ClassVar[bool]

    def __init__(
        self,
        base_config: LakebasePoolConfig | Mapping[str, Any] | None = None,
        *,
        max_total: int | None = None,
        max_pools: int | None = None,
        max_pool_idle: float = 300.0,
        budget: PoolBudget | None = None,
        name: str = "lakebase",
        connection_class: type[C] | None = None,
        **pool: Unpack[SharedArguments],
    ) -> None:
        _check_arguments(self._is_async, pool, max_pools=max_pools, max_pool_idle=max_pool_idle, budget=budget)
        base = LakebasePoolConfig.of(base_config)
        self._base = LakebasePoolConfig(**{**PER_USER, **base.given()})
        if max_total is not None:
            PoolBudget(max_total)  # refuses what is no number of connections
            warn_if_over_limit(self._base, budget=max_total)
        self._name = name
        self._keyed = self._keyed_class(
            max_total=max_total,
            max_keys=max_pools,
            max_key_idle=max_pool_idle,
            budget=budget,
            name=name,
            observer=pool.pop("observer", None),
        )
        self._credentials = CredentialCache()
        self._outage = Outage()
        self._source_of = partial(self._credentials.source, is_async=self._is_async)
        self._pool_arguments = {
            **pool,
            "connection_class": connection_class,
            # One object of each for all pools.
            "service_class": self._make_service,
            "on_crowded": self._keyed.budget.squeeze,
            "outage": self._outage,
            "renewal": "call get_pool again",
        }
        self._lock = threading.RLock()  # held while a pool is made or replaced; looking one up takes no lock
        self._rotations = 0
        _all.add(self)
        warm_up_for_users(self._base)

    @property
    def budget(self) -> PoolBudget:
        """The limit on all connections; give it to the app's own pool (`budget=`) to count that one in."""
        return self._keyed.budget  # type: ignore[no-any-return]

    @property
    def size(self) -> int:
        """Keys that have a pool."""
        return len(self._keyed)

    def __len__(self) -> int:
        return len(self._keyed)

    def keys(self) -> list[Any]:
        """The keys that have a pool."""
        return list(self._keyed.all_data())

    def has_pool(self, key: Hashable) -> bool:
        """Whether the key has a pool."""
        return key in self._keyed

    def get_pool(
        self,
        key: Hashable,
        per_pool_config: LakebasePoolConfig | Mapping[str, Any] | None = None,
        token_fingerprint: str | None = None,
    ) -> P:
        """
        The key's pool, made if there is none. Never blocks, never does I/O.

        Args:
            key: The user: any hashable that differs between users who must not share connections.
            per_pool_config: The user's own settings (`user`, `token`, …), merged over the base; used only
                when the pool is made.
            token_fingerprint: `lakebase.token_fingerprint(token)`. Another one than the pool was made with replaces the
                pool: the old one refuses new borrowers and serves those it has. `None` takes the pool as it is.

        Raises:
            ConfigurationError: The merged configuration is incomplete or cannot work.
            PoolExhaustedError: `max_pools` pools are in use.
        """
        found = self._keyed.key_data(key)
        if found is not None and found.serves(token_fingerprint):
            return found.pool  # type: ignore[no-any-return]
        with self._lock:
            found = self._keyed.key_data(key)
            if found is not None and found.serves(token_fingerprint):
                return found.pool  # type: ignore[no-any-return] # another thread was faster
            return self._replace(key, found, per_pool_config, token_fingerprint)

    def for_user(self, identity: UserIdentity) -> P:
        """
        The pool of a request's user.

        Raises:
            IdentityError: The identity proves nothing, since its headers came without a token; or it is no identity.
        """
        identity = UserIdentity.checked(identity)
        return self.get_pool(identity.pool_key(), identity.pool_config(), identity.fingerprint)

    def _replace(
        self,
        key: Hashable,
        old: _UserPool | None,
        per_pool_config: LakebasePoolConfig | Mapping[str, Any] | None,
        fingerprint: str | None,
    ) -> P:
        """Make a key's pool, and only then retire the one that it takes the place of."""
        config = self._base.merged(per_pool_config) if old is None or per_pool_config else old.pool.config
        made: P = self._pool_class(
            config=config,
            # A token is minted for the first connection: many a pool is looked up and never used.
            credentials=self._source_of if config.password is None else None,
            key=key,
            **self._pool_arguments,
        )
        if old is not None:
            self._rotations += fingerprint is not None and fingerprint != old.fingerprint
            self._retire(key, old.pool)
        try:
            self._keyed.add_pool(key, made.service, _UserPool(made, fingerprint))
        except PoolExhaustedError as error:
            raise PoolExhaustedError(
                f"{self!r} has no pool for key {key!r}: all of max_pools={self.size} are in use. Raise max_pools, or "
                "give connections back sooner.",
                pool=error.pool,
                key=key,
                limit="max_pools",
            ) from error
        return made

    def _make_service(self, connector: Any, options: Any, *, key: Hashable, name: None, **service: Any) -> Any:
        return self._keyed.make_pool(key, connector, options, **service)

    def _retire(self, key: Hashable, pool: P) -> None:
        """Take a pool off the map: closed for new borrowers, while those it has are served."""
        pool.retire()
        self._keyed.close_key(key)

    def stats(self) -> ManagerStats:
        """The manager's numbers, in all and for each key."""
        total = self._keyed.stats()
        pools = self._keyed.all_data()
        return ManagerStats(
            pools=len(pools),
            connections=total.size,
            borrowed=total.borrowed,
            pending=total.pending,
            max_total=total.max_total,
            connections_opened=total.created,
            rotations=self._rotations,
            per_key={key: found.pool.get_stats() for key, found in pools.items()},
        )

    def _take_off(self, key: Hashable) -> Any:
        """Retire the key's pool; its service, or `None` if the key has no pool."""
        with self._lock:
            found = self._keyed.key_data(key)
            if found is None:
                return None
            self._retire(key, found.pool)
        return found.pool.service

    def _retire_all(self) -> None:
        """Retire the present pools, one by one, so that `get_pool` never waits for all of them."""
        self._credentials.clear()
        for key, found in self._keyed.all_data().items():
            with self._lock:
                if self._keyed.key_data(key) is found:
                    self._retire(key, found.pool)

    def after_fork(self) -> None:
        """In the child of a fork: another thread of the parent may have held a lock."""
        self._lock = threading.RLock()
        self._credentials.after_fork()
        self._outage.after_fork()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}: {self.size} pools, {self.budget!r}>"


class LakebasePoolManager(_Manager[CT, LakebasePool[CT]]):
    """
    A pool for each user, for threads.

    Args:
        base_config: What all pools have in common; what is missing in it and in a pool's own part is taken from the
            environment. A user's pool has at most 3 connections, closed after 30 s, unless it says otherwise.
        max_total: Most connections of all pools together; `None` is no limit. When it is reached, the idle connection
            of the least recent user is closed for one that is needed.
        max_pools: Most keys at once; for one more, the least recently used is evicted. `None` is no limit.
        max_pool_idle: Seconds after which a pool without connections and borrowers is evicted.
        budget: A limit shared with further pools, instead of `max_total`.
        name: For texts and statistics; every user's pool has it.
        connection_class: Of the driver's connections.
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
        service = self._take_off(key)
        if service is not None:
            service.stop(timeout, drain=False)
        return service is not None

    def close_all(self, timeout: float = 5.0) -> None:
        """
        Close every pool, and wait at most `timeout` seconds for connections that are out.

        `get_pool` works meanwhile and afterwards, also where this is interrupted: it makes new pools, within the same
        budget.
        """
        self._retire_all()
        self._keyed.stop_closed(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> Literal[False]:
        self.close_all()
        return False


class AsyncLakebasePoolManager(_Manager[ACT, AsyncLakebasePool[ACT]]):
    """`LakebasePoolManager` for asyncio; may be built before the loop runs. `get_pool` is an ordinary method."""

    _keyed_class = AsyncKeyedPoolingService
    _pool_class = AsyncLakebasePool
    _is_async = True

    async def close_pool(self, key: Hashable, timeout: float = 5.0) -> bool:
        """As `LakebasePoolManager.close_pool`."""
        service = self._take_off(key)
        if service is not None:
            await service.stop(timeout, drain=False)
        return service is not None

    async def close_all(self, timeout: float = 5.0) -> None:
        """As `LakebasePoolManager.close_all`."""
        self._retire_all()
        await self._keyed.stop_closed(timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> Literal[False]:
        await self.close_all()
        return False


def _after_fork() -> None:
    for manager in list(_all):
        manager.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
