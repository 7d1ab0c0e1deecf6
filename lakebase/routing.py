"""The request's user's pool, or the app's: one pool object for code that wants just one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from psycopg_pool import PoolClosed

from pooling import RequestContext

from .errors import ConfigurationError
from .identity import UserIdentity

if TYPE_CHECKING:
    from types import TracebackType

    from .pool import AsyncLakebasePool, LakebasePool

__pooling_internal__ = True

__all__ = ["AsyncRoutingPool", "RoutingPool"]


class _Routing:
    def __init__(self, app_pool: Any, resolve_user_pool: Callable[[UserIdentity], Any]) -> None:
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

    @property
    def current(self) -> Any:
        """
        The pool for what runs now: the user's inside a request whose context has an `identity`, else the app's.

        An identity that selects no pool is an error, never a reason to fall back to another one's rights.

        Raises:
            IdentityError: The request's identity proves nothing, or is a bare name.
        """
        context = RequestContext.current()
        identity = None if context is None else context.get("identity")
        if identity is None:
            return self.app_pool
        if isinstance(identity, (str, bytes)):
            identity = UserIdentity.checked(identity)
        if isinstance(identity, UserIdentity):
            identity.pool_key()  # refuses one that proves nothing, before anybody's pool is looked up
        pool = self.resolve_user_pool(identity)
        if pool is None or pool is self.app_pool:
            raise LookupError(
                "resolve_user_pool gave no pool of the user's: nothing is run with the app's rights instead"
            )
        return pool


class Routed:
    """
    What `RoutingPool.connection` returns: a transaction on a connection of the pool that is current on entry.

    A pool that was replaced just then, because its user has another token now, is looked up once more.
    """

    __slots__ = ("_block", "_routing", "_timeout")

    def __init__(self, routing: _Routing, timeout: float | None) -> None:
        self._routing = routing
        self._timeout = timeout

    def __enter__(self) -> Any:
        while True:
            pool = self._routing.current
            try:
                self._block = pool.connection(self._timeout)
                return self._block.__enter__()
            except PoolClosed:
                if self._routing.current is pool:
                    raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> bool | None:
        return self._block.__exit__(kind, error, at)  # type: ignore[no-any-return]


class AsyncRouted:
    """`Routed` of an `AsyncRoutingPool`."""

    __slots__ = ("_block", "_routing", "_timeout")

    def __init__(self, routing: _Routing, timeout: float | None) -> None:
        self._routing = routing
        self._timeout = timeout

    async def __aenter__(self) -> Any:
        while True:
            pool = self._routing.current
            try:
                self._block = pool.connection(self._timeout)
                return await self._block.__aenter__()
            except PoolClosed:
                if self._routing.current is pool:
                    raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> bool | None:
        return await self._block.__aexit__(kind, error, at)  # type: ignore[no-any-return]


class RoutingPool(_Routing):
    """
    Looks like a pool, and is the request's user's or the app's.

    Args:
        app_pool: Used outside requests, and in requests that belong to nobody.
        resolve_user_pool: Gets the request's `identity`, returns that user's pool: `manager.for_user`.

    Raises:
        ConfigurationError: Something else was given.
    """

    app_pool: LakebasePool[Any]

    def connection(self, timeout: float | None = None) -> Any:
        """As `LakebasePool.connection`, of the current pool."""
        return Routed(self, timeout)

    def getconn(self, timeout: float | None = None) -> Any:
        """As `LakebasePool.getconn`, of the current pool."""
        while True:
            pool = self.current
            try:
                return pool.getconn(timeout)
            except PoolClosed:
                if self.current is pool:
                    raise

    def putconn(self, conn: Any) -> None:
        """Give a connection back to the pool it came from, whoever's turn it is now."""
        (getattr(conn, "_pool", None) or self.app_pool).putconn(conn)


class AsyncRoutingPool(_Routing):
    """`RoutingPool` for asyncio."""

    app_pool: AsyncLakebasePool[Any]

    def connection(self, timeout: float | None = None) -> Any:
        """As `AsyncLakebasePool.connection`, of the current pool."""
        return AsyncRouted(self, timeout)

    async def getconn(self, timeout: float | None = None) -> Any:
        """As `AsyncLakebasePool.getconn`, of the current pool."""
        while True:
            pool = self.current
            try:
                return await pool.getconn(timeout)
            except PoolClosed:
                if self.current is pool:
                    raise

    async def putconn(self, conn: Any) -> None:
        """As `RoutingPool.putconn`."""
        await (getattr(conn, "_pool", None) or self.app_pool).putconn(conn)
