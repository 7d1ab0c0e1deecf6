"""
One pool for each user: `LakebasePoolManager` and its asyncio twin.

Row-level security sees the role that has logged in, so every user's requests need that user's own
connections. A manager keeps a pool for each session of each user, evicts it when it has been unused, and holds a user's
pools to the user's limit and all pools to one budget. `_sessions.py` says what a session is.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self, TypeVar, Unpack

from psycopg_pool.abc import ACT, CT

from pooling import (
    AsyncKeyedPoolingService,
    ConfigurationError,
    KeyedPoolingService,
    PoolBudget,
    PoolExhaustedError,
    telemetry,
)
from pooling.locks import make_rlock

from ._connecting import Outage
from ._pool_arguments import CALLBACKS, SharedArguments, check_callables
from ._sessions import MOST_SESSIONS, Session, User, UserLimit, sum_of
from ._telemetry import POOL_NAME, ROTATIONS
from ._warm_up import warm_up_for_users
from .config import LakebasePoolConfig
from .credentials import CredentialCache
from .identity import UserIdentity
from .limits import warn_if_over_limit
from .pool import AsyncLakebasePool, LakebasePool

if TYPE_CHECKING:
    from types import TracebackType

    from pooling import Holder, Waiting

__pooling_internal__ = True

__all__ = ["AsyncLakebasePoolManager", "LakebasePoolManager", "ManagerStats"]

C = TypeVar("C")
P = TypeVar("P", bound="LakebasePool[Any] | AsyncLakebasePool[Any]")

#: The defaults of a user's pool, as in Databricks AppKit: a person has few requests at once, and goes away.
PER_USER: dict[str, Any] = {"max_size": 3, "max_idle": 30.0}

_all: weakref.WeakSet[_Manager[Any, Any]] = weakref.WeakSet()


@dataclass(frozen=True, kw_only=True, slots=True)
class ManagerStats:
    """
    A manager's numbers at one instant.

    Args:
        pools: Keys that have a pool.
        sessions: Pools of all keys: one for each token that is in use.
        connections: Connections of all pools, those being made or closed included.
        borrowed: Connections out.
        pending: Borrowers waiting.
        max_total: The limit on `connections`.
        connections_opened: Since the manager was made.
        rotations: How often a user who had a session came with another token: one that logged in, or that `get_pool`
            was given. Tokens that take turns count once each.
        per_key: Of each key, the sum of its pools' `get_stats()`; `pool_min` and `pool_max` are the limits they share.
    """

    pools: int
    sessions: int
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
    if budget is not None and budget.within is not None:
        raise ConfigurationError(
            f"budget={budget!r} is within another budget. All sessions of a user have a limit of their own within the "
            "manager's budget, and there are two limits at most: give the outermost budget, or max_total=",
            field="budget",
        )
    check_callables({name: given.get(name) for name in CALLBACKS}, is_async=is_async)


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
            on_dropped=self._on_dropped,
        )
        self._users: dict[Any, User] = {}
        self._max_pools = max_pools
        self._credentials = CredentialCache()
        self._outage = Outage()
        self._source_of = partial(self._credentials.source, is_async=self._is_async)
        self._source_of_dropped = partial(self._credentials.known_or_new, is_async=self._is_async)
        self._pool_arguments = {
            **pool,
            "connection_class": connection_class,
            # One object of each for all pools.
            "service_class": self._make_service,
            "on_crowded": self._keyed.budget.squeeze,
            "outage": self._outage,
        }
        self._lock = make_rlock()  # held while a session begins or ends; looking one up takes no lock
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
        return len(self._users)

    def __len__(self) -> int:
        return len(self._users)

    def keys(self) -> list[Any]:
        """The keys that have a pool."""
        return list(self._users)

    def has_pool(self, key: Hashable) -> bool:
        """Whether the key has a pool."""
        return key in self._users

    def get_pool(
        self,
        key: Hashable,
        per_pool_config: LakebasePoolConfig | Mapping[str, Any] | None = None,
        token_fingerprint: str | None = None,
    ) -> P:
        """
        The key's pool, made if there is none. Never blocks, never does I/O.

        Believes its caller: call it with a token that you have verified, or use `for_user`. The key only tells pools
        apart: without a `user` and a credential in `per_pool_config` the pool logs in as the base configuration does,
        which in an app is the app itself, also for the key "ann@corp.example".

        Args:
            key: The user: any hashable that differs between users who must not share connections; not `None` or `""`.
            per_pool_config: The user's own settings (`user`, `token`, …), merged over the base; used only
                when the pool is made.
            token_fingerprint: `lakebase.token_fingerprint(token)`. One that the key has no pool of replaces the pool:
                the old one refuses new borrowers and serves those it has. `None` takes the pool as it is, of several
                sessions that of the latest.

        Raises:
            ConfigurationError: The merged configuration is incomplete or cannot work, or the key is nobody's.
            PoolExhaustedError: `max_pools` pools are in use.
        """
        found = self._find(key, token_fingerprint)
        if found is not None:
            return found.pool  # type: ignore[no-any-return]
        with self._lock:
            found = self._find(key, token_fingerprint)  # another thread may have been faster
            return self._replace(key, per_pool_config, token_fingerprint) if found is None else found.pool

    def for_user(self, identity: UserIdentity) -> P:
        """
        The pool of a request's user, of those connections that the request's own token has logged in.

        A user may have several sessions, as from two browsers, each with its own token and pool. Together they have at
        most the user's `max_size` connections: an idle one of another session is closed for one that is needed. If a
        session's pool is resized, the largest `max_size` of them counts. Never blocks, never does I/O. A token that has
        minted no password yet changes nothing for others.

        Raises:
            IdentityError: The identity proves nothing, since its headers came without a token; or it is no identity.
            ConfigurationError, PoolExhaustedError: As in `get_pool`.
        """
        identity = UserIdentity.checked(identity)
        place = identity.pool_key(), identity.fingerprint
        session = self._keyed.key_data(place)
        if session is None or session.pool.closed:
            session = self._begin_session(place, identity)
        session.note_use()
        return session.pool  # type: ignore[no-any-return]

    def _find(self, key: Hashable, fingerprint: str | None) -> Session | None:
        """The key's session with this fingerprint, its latest for `None`, if that can be used."""
        user = self._users.get(key)
        if user is None:
            return None
        session = latest = user.latest
        if fingerprint is not None and (latest is None or latest.fingerprint != fingerprint):
            session = user.find(fingerprint)
        if session is None or session.pool.closed or not self._keyed.touch(session.place):
            return None
        if session is not latest:
            session.note_use()
        return session

    def _begin_session(self, place: tuple[Any, str | None], identity: UserIdentity) -> Session:
        """A session of a user, beside those of other tokens."""
        key, fingerprint = place
        with self._lock:
            old = self._keyed.key_data(place)
            if old is not None and not old.pool.closed:
                return old  # type: ignore[no-any-return] # another thread was faster
            config = self._base.merged(identity.pool_config())
            user = self._users.get(key) or User(key)
            is_proven = identity.token is None  # the app vouches for it
            session = Session(
                user, fingerprint, self._make_pool(user, config, "call for_user again"), is_proven=is_proven
            )
            if not is_proven:
                session.connector.put_on_probation(partial(self._prove, session))
            if old is not None:
                self._end(old, keeps_credentials=True)
            self._add(session)
            return session

    def _replace(
        self, key: Hashable, per_pool_config: LakebasePoolConfig | Mapping[str, Any] | None, fingerprint: str | None
    ) -> P:
        """Make a key's pool, and only then retire those that it takes the place of."""
        if key is None or key == "":
            raise ConfigurationError(
                f"key={key!r}: expected the user whose pool it is. For work of no user, use the app's own pool.",
                field="key",
            )
        user = self._users.get(key)
        old = () if user is None else user.sessions
        if per_pool_config or user is None or user.latest is None:
            config = self._base.merged(per_pool_config)
        else:
            config = user.latest.pool.config
            fingerprint = user.latest.fingerprint if fingerprint is None else fingerprint
        new = User(key)
        session = Session(new, fingerprint, self._make_pool(new, config, "call get_pool again"), is_proven=True)
        if fingerprint is not None and any(each.fingerprint != fingerprint for each in old):
            self._note_rotation()
        for each in old:
            self._end(each, keeps_credentials=each.fingerprint == fingerprint)
        self._add(session)
        return session.pool  # type: ignore[no-any-return]

    def _make_pool(self, user: User, config: LakebasePoolConfig, renewal: str) -> P:
        """A pool of this user, within the limit that all of the user's pools have together."""
        if others := user.sessions:
            sizes = [config.max_size, *(each.pool.max_size for each in others)]
            if user.limit is None:
                user.limit = UserLimit(user, max(sizes), within=self.budget)
            for each in others:
                each.pool.service.count_in(user.limit)
            if user.limit.max_total < max(sizes):
                user.limit.resize(max(sizes))
        limit: dict[str, Any] = {} if user.limit is None else {"budget": user.limit}
        return self._pool_class(  # type: ignore[no-any-return]
            config=config,
            # A token is minted for the first connection: many a pool is looked up and never used.
            credentials=self._source_of if config.password is None else None,
            key=user.key,
            renewal=renewal,
            **limit,
            **self._pool_arguments,
        )

    def _note_rotation(self) -> None:
        self._rotations += 1
        telemetry.count(ROTATIONS, 1, {POOL_NAME: self._name})

    def _make_service(self, connector: Any, options: Any, *, key: Hashable, name: None, **service: Any) -> Any:
        return self._keyed.make_pool(key, connector, options, **service)

    def _add(self, session: Session) -> None:
        """Put a session on the map."""
        key, service = session.user.key, session.pool.service
        try:
            self._keyed.add_pool(session.place, service, session, is_provisional=not session.is_proven)
        except PoolExhaustedError as error:
            raise PoolExhaustedError(
                f"{self!r} has no pool for key {key!r}: all of max_pools={self._max_pools} are in use. Raise "
                "max_pools, or give connections back sooner.",
                pool=error.pool,
                key=key,
                limit="max_pools",
            ) from error
        session.user.add(session)
        self._users[key] = session.user

    def _prove(self, session: Session) -> None:
        """A session on probation has logged in. Called by its pool, on any thread."""
        with self._lock:
            user = session.user
            if session.is_proven or session.pool.closed or not self._is_on_the_map(session):
                return
            earlier = user.proven
            session.is_proven = True
            session.connector.on_login = None
            session.note_use()
            self._keyed.confirm(session.place)
            if earlier:
                self._note_rotation()
            for each in sorted(earlier, key=lambda each: self._keyed.last_used(each.place))[: 1 - MOST_SESSIONS]:
                self._keyed.drop_key(each.place)
            # Earlier tokens that have no session any more will not come back.
            live = [each.pool.config for each in user.sessions]
            self._credentials.forget_others(session.pool.config.user, keep=live)

    def _is_on_the_map(self, session: Session) -> bool:
        """Whether a session is on the map; one that was evicted while its token minted is put back."""
        user = session.user
        present = user.find(session.fingerprint)
        if present is None and self._users.get(user.key, user) is user:
            try:
                self._add(session)
            except PoolExhaustedError:
                return False
            return True
        return present is session

    def _end(self, session: Session, *, keeps_credentials: bool = False) -> None:
        """Take a session off the map for good: closed for new borrowers, while those it has are served."""
        session.pool.retire()
        self._forget(session, keeps_credentials=keeps_credentials)
        self._keyed.close_key(session.place)

    def _on_dropped(self, place: tuple[Any, str | None], service: Any) -> None:
        """The map has lost a pool: it was unused, or one too many, or closed."""
        with self._lock:
            user = self._users.get(place[0])
            session = None if user is None else user.find(place[1])
            if session is not None and session.pool.service is service:
                # A user who comes back with the same token needs no further mint, unless there is a later token.
                self._forget(session, keeps_credentials=session.user.proven == [session])

    def _forget(self, session: Session, *, keeps_credentials: bool) -> None:
        user = session.user
        user.forget(session)
        if not user.sessions and self._users.get(user.key) is user:
            del self._users[user.key]
        config = session.pool.config
        if config.password is not None:
            return
        if not keeps_credentials:
            self._credentials.forget(config)
        # A caller that kept it may go on using it, unless it is closed; its waiters may need a connection still.
        if session.is_proven and not session.pool.service.pending:
            session.connector.forget_credentials(self._source_of_dropped)

    def expire(self, key: Hashable | None = None) -> None:
        """
        Replace connections: idle ones now, the others as they come back. Does not block.

        Args:
            key: Whose; `None` is every user's.
        """
        if key is None:
            self._keyed.expire_all()
        elif (user := self._users.get(key)) is not None:
            for session in user.sessions:
                session.pool.service.expire()

    def stats(self) -> ManagerStats:
        """The manager's numbers, in all and for each key."""
        total = self._keyed.stats()
        sessions = {user.key: user.sessions for user in list(self._users.values())}
        return ManagerStats(
            pools=len(sessions),
            sessions=sum(map(len, sessions.values())),
            connections=total.size,
            borrowed=total.borrowed,
            pending=total.pending,
            max_total=total.max_total,
            connections_opened=total.created,
            rotations=self._rotations,
            per_key={key: sum_of(each.pool.get_stats() for each in every) for key, every in sessions.items()},
        )

    def holders(self) -> list[Holder]:
        """Who holds connections of any key, longest first: key, call site, request, task or thread."""
        return self._keyed.holders()  # type: ignore[no-any-return]

    def waiters(self) -> list[Waiting]:
        """Who waits for a connection of any key, longest first."""
        return self._keyed.waiters()  # type: ignore[no-any-return]

    def _take_off(self, key: Hashable) -> list[Any]:
        """Retire the key's pools; their services."""
        with self._lock:
            user = self._users.get(key)
            sessions = () if user is None else user.sessions
            for session in sessions:
                self._end(session)
        return [session.pool.service for session in sessions]

    def _retire_all(self) -> None:
        """Retire the present pools, one by one, so that `get_pool` never waits for all of them."""
        self._credentials.clear()
        for user in list(self._users.values()):
            for session in user.sessions:
                with self._lock:
                    if user.find(session.fingerprint) is session:
                        self._end(session)

    def _renew(self) -> None:
        """In the child of a fork: another thread of the parent may have held a lock."""
        self._lock = make_rlock()
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
        max_pools: Most pools at once; for one more, the least recently used is evicted. `None` is no limit.
        max_pool_idle: Seconds after which a pool without connections and borrowers is evicted.
        budget: A limit shared with further pools, instead of `max_total`; not one that is within another.
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
        Close the key's pools: no new borrowers; connections out are closed when they come back.

        Blocks until idle ones are closed, at most `timeout` seconds. Returns whether there was a pool.
        """
        services = self._take_off(key)
        deadline = monotonic() + timeout
        for service in services:
            service.stop(max(deadline - monotonic(), 0.0), drain=False)
        return bool(services)

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
        services = self._take_off(key)
        deadline = monotonic() + timeout
        for service in services:
            await service.stop(max(deadline - monotonic(), 0.0), drain=False)
        return bool(services)

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
        manager._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
