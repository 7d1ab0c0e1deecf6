"""The pool of the request's user, or the app's: one pool object for code that takes just one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolClosed
from psycopg_pool.abc import ACT, CT

from ._checkpoint import committing
from ._delegating import Delegating
from ._driver_state import lender_of
from ._steps import arun, run
from .errors import ConfigurationError, IdentityError
from .identity import UserIdentity, request_with_user

if TYPE_CHECKING:
    from types import TracebackType

__pooling_internal__ = True

__all__ = ["AsyncRoutingPool", "RoutingPool"]


P = TypeVar("P", bound="ConnectionPool[Any] | AsyncConnectionPool[Any]")


class _Routing(Delegating[P]):
    def __init__(
        self,
        app_pool: P,
        resolve_user_pool: Callable[[UserIdentity], P | None],
        *,
        allow_app_in_requests: bool = False,
    ) -> None:
        if not callable(getattr(app_pool, "connection", None)):
            raise ConfigurationError(
                f"app_pool is of type {type(app_pool).__name__}: expected a pool, such as create_lakebase_pool() makes",
                field="app_pool",
            )
        if not callable(resolve_user_pool):
            raise ConfigurationError(
                f"resolve_user_pool={resolve_user_pool!r}: expected a function that gets a request's identity and "
                "returns that user's pool, such as a manager's for_user",
                field="resolve_user_pool",
            )
        self.app_pool = app_pool
        self.resolve_user_pool = resolve_user_pool
        self.allow_app_in_requests = allow_app_in_requests

    @property
    def _pool_behind(self) -> P:  # type: ignore[override] # theirs can be set
        return self.app_pool

    @property
    def current(self) -> P:
        """
        The pool of the current request's user; outside requests, the app's.

        An identity that is missing or selects no pool is an error, never a reason to fall back to the app's pool.

        Raises:
            RequestContextError: The request has ended.
            IdentityError: The request has no identity, or one that proves nothing, or is a bare name.
            LookupError: `resolve_user_pool` returned no pool of the user's.
        """
        context = request_with_user()
        if context is None:
            return self.app_pool
        identity = context.get("identity")
        if identity is None:
            if self.allow_app_in_requests:
                return self.app_pool
            raise IdentityError(
                f"{context} has no identity, and is not served with the app's role instead. Open it with one, as "
                "values=lakebase.request_identity does in each web integration. Work that belongs to no user has the "
                "app's pool, or allow_app_in_requests=True."
            )
        if isinstance(identity, (str, bytes)):
            identity = UserIdentity.checked(identity)
        if isinstance(identity, UserIdentity):
            identity.pool_key()  # refuses one that proves nothing, before a pool is looked up
        pool = self.resolve_user_pool(identity)
        if pool is None or pool is self.app_pool:
            returned = "None" if pool is None else "the app's pool"
            user = identity.user if isinstance(identity, UserIdentity) else repr(identity)
            raise LookupError(
                f"resolve_user_pool returned {returned} for {user}; refusing to fall back to the app's pool."
            )
        return pool

    def _closed_meanwhile(self, pool: object) -> bool:
        """Whether a pool that was found closed has been replaced: its user has another token now."""
        return self.current is not pool


class Routed(Generic[CT]):
    """
    What `RoutingPool.connection` returns: a transaction on a connection of the pool that is current on entry.

    A pool that was replaced just then, because its user has another token now, is looked up once more.
    """

    __slots__ = ("_block", "_conn", "_pool", "_routing", "_timeout")

    def __init__(self, routing: RoutingPool[CT], timeout: float | None) -> None:
        self._routing = routing
        self._timeout = timeout

    def __enter__(self) -> CT:
        while True:
            pool = self._routing.current
            try:
                self._block = pool.connection(self._timeout)
                self._pool, self._conn = pool, self._block.__enter__()
                return self._conn
            except PoolClosed:
                if not self._routing._closed_meanwhile(pool):
                    raise

    def checkpoint(self) -> None:
        """Commit, before a request's answer goes out; the connection stays with its borrower."""
        own = getattr(self._pool, "checkpoint", None)
        run(committing(self._conn)) if own is None else own(self._conn)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> bool | None:
        return self._block.__exit__(kind, error, at)


class AsyncRouted(Generic[ACT]):
    """`Routed` of an `AsyncRoutingPool`."""

    __slots__ = ("_block", "_conn", "_pool", "_routing", "_timeout")

    def __init__(self, routing: AsyncRoutingPool[ACT], timeout: float | None) -> None:
        self._routing = routing
        self._timeout = timeout

    async def __aenter__(self) -> ACT:
        while True:
            pool = self._routing.current
            try:
                self._block = pool.connection(self._timeout)
                self._pool, self._conn = pool, await self._block.__aenter__()
                return self._conn
            except PoolClosed:
                if not self._routing._closed_meanwhile(pool):
                    raise

    async def checkpoint(self) -> None:
        """As `Routed.checkpoint`."""
        own = getattr(self._pool, "checkpoint", None)
        await (arun(committing(self._conn)) if own is None else own(self._conn))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> bool | None:
        return await self._block.__aexit__(kind, error, at)


class RoutingPool(_Routing[ConnectionPool[CT]], ConnectionPool[CT]):
    """
    A `psycopg_pool.ConnectionPool`; each connection is from the pool of the request's user, or from the app's.

    What does not concern one connection is the app's pool's: `open`, `close`, `resize`, `get_stats`, `name`, ….

    Args:
        app_pool: Used outside requests.
        resolve_user_pool: Gets the request's `identity`, returns that user's pool: `manager.for_user`.
        allow_app_in_requests: Whether a request without an identity is served from the app's pool, with the app's role.
            Otherwise it is an `IdentityError`.

    Raises:
        ConfigurationError: Something else was given.
    """

    def connection(self, timeout: float | None = None) -> Routed[CT]:  # type: ignore[override] # theirs is a generator
        """As `LakebasePool.connection`, of the current pool."""
        return Routed(self, timeout)

    def getconn(self, timeout: float | None = None) -> CT:
        """As `LakebasePool.getconn`, of the current pool."""
        while True:
            pool = self.current
            try:
                return pool.getconn(timeout)
            except PoolClosed:
                if not self._closed_meanwhile(pool):
                    raise

    def putconn(self, conn: CT) -> None:
        """Give a connection back to the pool it came from, which need not be the current one."""
        (lender_of(conn) or self.app_pool).putconn(conn)


class AsyncRoutingPool(_Routing[AsyncConnectionPool[ACT]], AsyncConnectionPool[ACT]):
    """`RoutingPool` for asyncio, a `psycopg_pool.AsyncConnectionPool`."""

    def connection(self, timeout: float | None = None) -> AsyncRouted[ACT]:  # type: ignore[override]
        """As `AsyncLakebasePool.connection`, of the current pool."""
        return AsyncRouted(self, timeout)

    async def getconn(self, timeout: float | None = None) -> ACT:
        """As `AsyncLakebasePool.getconn`, of the current pool."""
        while True:
            pool = self.current
            try:
                return await pool.getconn(timeout)
            except PoolClosed:
                if not self._closed_meanwhile(pool):
                    raise

    async def putconn(self, conn: ACT) -> None:
        """As `RoutingPool.putconn`."""
        await (lender_of(conn) or self.app_pool).putconn(conn)
