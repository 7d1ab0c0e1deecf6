"""
Pools of Lakebase connections that are psycopg_pool's to everybody who uses one.

`LakebasePool` is a `psycopg_pool.ConnectionPool` on this project's engine: no threads of its own, a budget it can
share with other pools, and errors that say what went wrong.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast

from psycopg import AsyncConnection, Connection
from psycopg.pq import TransactionStatus
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from psycopg_pool.abc import ACT, CT

from pooling import AsyncPoolingService, PoolingError, PoolingService, ReleaseError

from ._base import PoolBase, _sizes, seconds_left
from ._connecting import AsyncConnector, Connector, awaited, left_open
from .config import LakebasePoolConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from .credentials import CredentialSource

__pooling_internal__ = True

__all__ = ["AsyncLakebasePool", "LakebasePool", "create_async_lakebase_pool", "create_lakebase_pool"]

R = TypeVar("R")

logger = logging.getLogger("lakebase")

_IDLE = TransactionStatus.IDLE
_OPEN = (TransactionStatus.INTRANS, TransactionStatus.INERROR)


class Borrowed:
    """What `LakebasePool.connection` returns: a transaction on a connection of the pool."""

    __slots__ = ("_conn", "_pool", "_since", "_timeout")

    def __init__(self, pool: LakebasePool[Any], timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout

    def __enter__(self) -> Any:
        pool = self._pool
        if pool._closed:
            pool._check_open()
        try:
            conn = pool._service.acquire(timeout=self._timeout)
        except PoolingError as error:
            raise pool._translated(error) from error.__cause__
        conn._pool = pool
        self._conn = conn
        self._since = monotonic()
        return conn.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> Literal[False]:
        conn = self._conn
        try:
            conn.__exit__(kind, error, at)  # commits, or rolls back
        finally:
            self._pool._usage += monotonic() - self._since
            self._pool.putconn(conn)
        return False


class BorrowedByGetconn(Borrowed):
    """`Borrowed` of a subclass that has a `getconn` of its own, as psycopg_pool's `connection` calls it."""

    __slots__ = ()

    def __enter__(self) -> Any:
        self._conn = self._pool.getconn(timeout=self._timeout)
        self._since = monotonic()
        return self._conn.__enter__()


class AsyncBorrowed:
    """`Borrowed` of an `AsyncLakebasePool`."""

    __slots__ = ("_conn", "_pool", "_since", "_timeout")

    def __init__(self, pool: AsyncLakebasePool[Any], timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout

    async def __aenter__(self) -> Any:
        pool = self._pool
        if pool._closed:
            pool._check_open()
        try:
            conn = await pool._service.acquire(timeout=self._timeout)
        except PoolingError as error:
            raise pool._translated(error) from error.__cause__
        conn._pool = pool
        self._conn = conn
        self._since = monotonic()
        return await conn.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> Literal[False]:
        conn = self._conn
        try:
            await conn.__aexit__(kind, error, at)
        finally:
            self._pool._usage += monotonic() - self._since
            await self._pool.putconn(conn)
        return False


class AsyncBorrowedByGetconn(AsyncBorrowed):
    """`BorrowedByGetconn` of an `AsyncLakebasePool`."""

    __slots__ = ()

    async def __aenter__(self) -> Any:
        self._conn = await self._pool.getconn(timeout=self._timeout)
        self._since = monotonic()
        return await self._conn.__aenter__()


class LakebasePool(PoolBase, ConnectionPool[CT]):
    """
    A pool of connections for threads; a `psycopg_pool.ConnectionPool` to its users.

    Usable as soon as it is built; nothing is connected before the first request, or `open()` where `min_size` is
    above 0. It has no threads. An idle connection that the server has closed is noticed without a round trip and
    never handed out; nothing keeps idle connections, and with them the compute, awake.

    Differences to psycopg_pool: a connect that cannot succeed is told at once (`LoginError`, `CredentialError`);
    `reset` runs in the thread that gives back; `num_workers` is accepted and means nothing. All of them are in
    docs/per-user-pools.md.

    Args:
        conninfo: A connection string, or what returns one, called for each connection.
        config: Where and as whom to connect, instead of `conninfo`; also sizes and times that are not given here.
        credentials: Where passwords are had from, or what gives that for the configuration with the first
            connection; by default what `config` says.
        connection_class: Of the driver's connections.
        kwargs: Further arguments of `connect`, or what returns them.
        min_size: Connections kept open.
        max_size: Most connections at once.
        open: `False` waits for `open()`.
        configure: Called with each new connection.
        check: Called with each connection before it is handed out; one for which it raises is replaced.
        reset: Called with each connection that is given back.
        name: For texts and statistics.
        key: The same, where many pools share a name.
        close_returns: Whether `close()` of a connection gives it back.
        timeout: Seconds in which a connection must be in the borrower's hands.
        max_waiting: Most borrowers in the queue; 0 is unlimited, as in psycopg_pool.
        max_lifetime: Seconds after which a connection is replaced.
        max_idle: Seconds after which an idle connection is closed, above `min_size`.
        reconnect_timeout: Seconds of failing connects after which `reconnect_failed` is called, within some 2.5 s. The
            pool goes on trying, for whoever waits and up to `min_size`.
        reconnect_failed: Called with the pool, in the background.
        num_workers: Accepted; there are no workers.
        on_crowded: Called when the server takes no more connections; by default it squeezes the `budget`, if there
            is one: an idle connection of another pool is closed, and the budget is smaller for a while.
        service_class: Makes the engine's service, by default a `PoolingService`.
        **service: Further arguments of the engine's service, such as `observer`.

    Raises:
        ConfigurationError: Something is missing in `config`, or cannot work.
        ValueError: Sizes that cannot work.
    """

    _service: PoolingService[CT]
    _is_async = False
    _block_class = Borrowed

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.getconn is not LakebasePool.getconn:
            cls._block_class = BorrowedByGetconn

    def __init__(
        self,
        conninfo: Any = "",
        *,
        config: LakebasePoolConfig | Mapping[str, Any] | None = None,
        credentials: CredentialSource | Callable[[LakebasePoolConfig], CredentialSource] | None = None,
        connection_class: type[CT] = cast("type[CT]", Connection),  # noqa: B008 - the driver's own default
        kwargs: Any = None,
        min_size: int | None = None,
        max_size: int | None = None,
        open: bool | None = True,  # noqa: A002
        configure: Callable[[CT], None] | None = None,
        check: Callable[[CT], None] | None = None,
        reset: Callable[[CT], None] | None = None,
        name: str | None = None,
        key: Any = None,
        close_returns: bool = False,
        timeout: float | None = None,
        max_waiting: int | None = None,
        max_lifetime: float | None = None,
        max_idle: float | None = None,
        reconnect_timeout: float = 5 * 60.0,
        reconnect_failed: Callable[[Any], None] | None = None,
        num_workers: int = 3,
        on_crowded: Callable[[], Any] | None = None,
        service_class: Callable[..., Any] | None = None,
        **service: Any,
    ) -> None:
        self.conninfo = conninfo
        self.kwargs = kwargs
        self.connection_class = connection_class
        self.close_returns = close_returns
        self.reconnect_timeout = reconnect_timeout
        self.num_workers = num_workers
        self._configure = configure
        self._check = check
        self._reset = reset
        self._reconnect_failed = reconnect_failed
        self._make(
            Connector,
            PoolingService if service_class is None else service_class,
            config=None if config is None else LakebasePoolConfig.of(config).resolved(),
            credentials=credentials,
            sizes={
                "min_size": min_size,
                "max_size": max_size,
                "timeout": timeout,
                "max_waiting": max_waiting,
                "max_lifetime": max_lifetime,
                "max_idle": max_idle,
            },
            on_crowded=on_crowded,
            service={"name": name, "key": key, **service},
        )
        if open is None or open:
            self._open()

    def __del__(self) -> None:
        """Nothing: a pool that is dropped has no workers to stop."""

    def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        """
        Serve borrowers, and fill up to `min_size` in the background or, with `wait`, before returning.

        Raises:
            LakebasePoolTimeout: `min_size` was not reached in time; the pool is closed again.
            LoginError: It never will be.
            LakebasePoolClosed: The pool was closed before; it cannot be opened again.
        """
        self._open()
        if wait:
            self.wait(timeout)
        elif self.min_size:
            self._service.start(wait=False)

    def wait(self, timeout: float = 30.0) -> None:
        """
        Block until `min_size` connections are open.

        Raises:
            LakebasePoolTimeout: They were not in time; the pool is closed.
            LoginError: They never will be; the pool is closed.
        """
        self._check_open()
        try:
            self._service.start(timeout=timeout)
        except PoolingError as error:
            self.close()
            raise self._translated(error) from error.__cause__

    def close(self, timeout: float = 5.0) -> None:
        """
        Refuse borrowers, send the waiting ones away, and close idle connections.

        What is out stays usable and is closed when it comes back. Blocks until the idle ones are closed, at most
        `timeout` seconds.
        """
        if not self._closed:
            self._closed = True
            self._service.stop(max(timeout, 0.0), drain=False)

    def connection(self, timeout: float | None = None) -> Any:
        """
        A context manager: a connection whose transaction is committed, or rolled back where the block raises.

        Args:
            timeout: Seconds; `None` takes the pool's.

        Raises:
            LakebasePoolTimeout: No connection in time.
            LakebasePoolClosed: The pool is not open.
            LakebaseTooManyRequests: `max_waiting` others wait.
            LoginError: The server will have no connection of this pool's.
            CredentialError: There is no password to be had.
        """
        return self._block_class(self, seconds_left(timeout))

    def getconn(self, timeout: float | None = None) -> CT:
        """A connection that must be given back by `putconn`. Errors as in `connection`, which is to be preferred."""
        if self._closed:
            self._check_open()
        try:
            conn = self._service.acquire(timeout=seconds_left(timeout))
        except PoolingError as error:
            raise self._translated(error) from error.__cause__
        conn._pool = self
        return conn

    def putconn(self, conn: CT) -> None:
        """
        Give a connection back, rolled back if its transaction is open.

        One that is broken, or in the middle of an operation, is closed instead. An interrupt here loses nothing.

        Raises:
            ValueError: It is not out from this pool.
        """
        if getattr(conn, "_pool", None) is not self:
            raise self._not_ours(conn)
        conn._pool = None
        try:
            if conn.pgconn.transaction_status == _IDLE and self._reset is None and not self._closed:
                self._service.release(conn)
                return
            if conn.__dict__.get("_in_reset"):  # `reset` closes it, where `close_returns`
                conn.close()
                return
            if self._closed and not self._service.pending:  # nobody will have it: close it here and now
                self._service.destroy(conn)
                return
            if self._is_clean(conn):
                self._service.release(conn)
            else:
                self._returned_bad += 1
                self._service.destroy(conn)
        except ReleaseError as error:  # two threads gave it back at once
            raise self._translated(error) from None
        except BaseException:
            if self._service.is_borrowed(conn):  # else what was interrupted had taken it back already
                self._service.destroy(conn)
            raise

    def _is_clean(self, conn: CT) -> bool:
        """Bring a connection back to idle; whether that worked."""
        status = conn.pgconn.transaction_status
        if status in _OPEN:
            logger.warning("rolling back returned connection: %s", conn)
            try:
                conn.rollback()
            except Exception as error:  # noqa: BLE001 - it goes the way of all broken ones
                logger.warning("rollback failed: %s: %s. Closing connection %s", type(error).__name__, error, conn)
                return False
        elif status != _IDLE:
            logger.warning("closing returned connection, which is broken or in use: %s", conn)
            return False
        if self._reset is None:
            return True
        conn._in_reset = True  # type: ignore[attr-defined]
        try:
            self._connector.call(self._reset, conn)
        except Exception as error:  # noqa: BLE001 - a connection that cannot be reset is replaced
            logger.warning("error resetting connection: %s: %s. It is closed", type(error).__name__, error)
            return False
        finally:
            del conn._in_reset  # type: ignore[attr-defined]
        if conn.pgconn.transaction_status == _IDLE:
            return True
        logger.warning("%s", left_open(conn, "reset", self._reset))
        return False

    def drain(self) -> None:
        """Replace all connections: idle ones now, the others as they come back."""
        self._service.expire()

    def resize(self, min_size: int, max_size: int | None = None) -> None:
        """Change the sizes; what is above the new maximum is closed, what of it is out as it comes back."""
        self._service.resize(*_sizes(min_size, max_size))

    def check(self) -> None:
        """Ask the server on every idle connection; those that do not answer are closed."""
        with self._connector.checking():
            self._service.check(self._told_if_broken)

    def _told_if_broken(self, conn: CT) -> None:
        try:
            self._connector.call(self.check_connection, conn)
        except Exception:
            logger.warning("discarding broken connection: %s", conn)
            raise

    def reconnect_failed(self) -> None:
        """
        Call the function given as `reconnect_failed`; a subclass may do something else.

        Called in the background when connecting has failed for `reconnect_timeout` seconds, and each time it has for
        so long again. That is noticed when an attempt fails, so up to a pause between two of them later, some 2.5 s.
        The pool does not give up: attempts go on while somebody waits, and for `min_size` without end.
        """
        if self._reconnect_failed is not None:
            self._reconnect_failed(self)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        self.close()


class AsyncLakebasePool(PoolBase, AsyncConnectionPool[ACT]):
    """
    A pool of connections for asyncio; a `psycopg_pool.AsyncConnectionPool` to its users, else as `LakebasePool`.

    Callbacks are coroutine functions. It may be built before the loop runs, and has no tasks while it is idle.
    """

    _service: AsyncPoolingService[ACT]
    _is_async = True
    _block_class = AsyncBorrowed

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.getconn is not AsyncLakebasePool.getconn:
            cls._block_class = AsyncBorrowedByGetconn

    def __init__(
        self,
        conninfo: Any = "",
        *,
        config: LakebasePoolConfig | Mapping[str, Any] | None = None,
        credentials: CredentialSource | Callable[[LakebasePoolConfig], CredentialSource] | None = None,
        connection_class: type[ACT] = cast("type[ACT]", AsyncConnection),  # noqa: B008 - the driver's own default
        kwargs: Any = None,
        min_size: int | None = None,
        max_size: int | None = None,
        open: bool | None = True,  # noqa: A002
        configure: Callable[[ACT], Any] | None = None,
        check: Callable[[ACT], Any] | None = None,
        reset: Callable[[ACT], Any] | None = None,
        name: str | None = None,
        key: Any = None,
        close_returns: bool = False,
        timeout: float | None = None,
        max_waiting: int | None = None,
        max_lifetime: float | None = None,
        max_idle: float | None = None,
        reconnect_timeout: float = 5 * 60.0,
        reconnect_failed: Callable[[Any], Any] | None = None,
        num_workers: int = 3,
        on_crowded: Callable[[], Any] | None = None,
        service_class: Callable[..., Any] | None = None,
        **service: Any,
    ) -> None:
        self.conninfo = conninfo
        self.kwargs = kwargs
        self.connection_class = connection_class
        self.close_returns = close_returns
        self.reconnect_timeout = reconnect_timeout
        self.num_workers = num_workers
        self._configure = configure
        self._check = check
        self._reset = reset
        self._reconnect_failed = reconnect_failed
        self._make(
            AsyncConnector,
            AsyncPoolingService if service_class is None else service_class,
            config=None if config is None else LakebasePoolConfig.of(config).resolved(),
            credentials=credentials,
            sizes={
                "min_size": min_size,
                "max_size": max_size,
                "timeout": timeout,
                "max_waiting": max_waiting,
                "max_lifetime": max_lifetime,
                "max_idle": max_idle,
            },
            on_crowded=on_crowded,
            service={"name": name, "key": key, **service},
        )
        if open is None or open:
            self._open()

    async def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        """As `LakebasePool.open`."""
        self._open()
        if wait:
            await self.wait(timeout)
        elif self.min_size:
            await self._service.start(wait=False)

    async def wait(self, timeout: float = 30.0) -> None:
        """As `LakebasePool.wait`."""
        self._check_open()
        try:
            await self._service.start(timeout=timeout)
        except PoolingError as error:
            await self.close()
            raise self._translated(error) from error.__cause__

    async def close(self, timeout: float = 5.0) -> None:
        """As `LakebasePool.close`."""
        if not self._closed:
            self._closed = True
            await self._service.stop(max(timeout, 0.0), drain=False)

    def connection(self, timeout: float | None = None) -> Any:
        """As `LakebasePool.connection`, for `async with`."""
        return self._block_class(self, seconds_left(timeout))

    async def getconn(self, timeout: float | None = None) -> ACT:
        """As `LakebasePool.getconn`."""
        if self._closed:
            self._check_open()
        try:
            conn = await self._service.acquire(timeout=seconds_left(timeout))
        except PoolingError as error:
            raise self._translated(error) from error.__cause__
        conn._pool = self
        return conn

    async def putconn(self, conn: ACT) -> None:
        """As `LakebasePool.putconn`. Cancelled in a rollback or `reset`, it closes the connection."""
        if getattr(conn, "_pool", None) is not self:
            raise self._not_ours(conn)
        conn._pool = None
        try:
            if conn.pgconn.transaction_status == _IDLE and self._reset is None and not self._closed:
                await self._service.release(conn)
                return
            if conn.__dict__.get("_in_reset"):
                await conn.close()
                return
            if self._closed and not self._service.pending:
                await self._service.destroy(conn)
                return
            if await self._is_clean(conn):
                await self._service.release(conn)
            else:
                self._returned_bad += 1
                await self._service.destroy(conn)
        except ReleaseError as error:
            raise self._translated(error) from None
        except BaseException:
            if self._service.is_borrowed(conn):  # else what was interrupted had taken it back already
                await self._service.destroy(conn)
            raise

    async def _is_clean(self, conn: ACT) -> bool:
        status = conn.pgconn.transaction_status
        if status in _OPEN:
            logger.warning("rolling back returned connection: %s", conn)
            try:
                await conn.rollback()
            except Exception as error:  # noqa: BLE001 - it goes the way of all broken ones
                logger.warning("rollback failed: %s: %s. Closing connection %s", type(error).__name__, error, conn)
                return False
        elif status != _IDLE:
            logger.warning("closing returned connection, which is broken or in use: %s", conn)
            return False
        if self._reset is None:
            return True
        conn._in_reset = True  # type: ignore[attr-defined]
        try:
            await self._connector.call(self._reset, conn)
        except Exception as error:  # noqa: BLE001 - a connection that cannot be reset is replaced
            logger.warning("error resetting connection: %s: %s. It is closed", type(error).__name__, error)
            return False
        finally:
            del conn._in_reset  # type: ignore[attr-defined]
        if conn.pgconn.transaction_status == _IDLE:
            return True
        logger.warning("%s", left_open(conn, "reset", self._reset))
        return False

    async def drain(self) -> None:
        """As `LakebasePool.drain`."""
        self._service.expire()

    async def resize(self, min_size: int, max_size: int | None = None) -> None:
        """As `LakebasePool.resize`."""
        self._service.resize(*_sizes(min_size, max_size))

    async def check(self) -> None:
        """As `LakebasePool.check`."""
        with self._connector.checking():
            await self._service.check(self._told_if_broken)

    async def _told_if_broken(self, conn: ACT) -> None:
        try:
            await self._connector.call(self.check_connection, conn)
        except Exception:
            logger.warning("discarding broken connection: %s", conn)
            raise

    async def reconnect_failed(self) -> None:
        """As `LakebasePool.reconnect_failed`."""
        if self._reconnect_failed is not None:
            await awaited(self._reconnect_failed(self))

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.close()


def create_lakebase_pool(
    config: LakebasePoolConfig | Mapping[str, Any] | None = None, **overrides: Any
) -> LakebasePool[Connection[Any]]:
    """
    A pool for one identity. Does no I/O; what is missing comes from the environment.

    Args:
        config: Settings, or `None` for all from the environment.
        **overrides: Fields of the configuration, and arguments of `LakebasePool` such as `configure` or `name`.

    Raises:
        ConfigurationError: A setting is missing or cannot work.
    """
    settings, others = _split(overrides)
    return LakebasePool(config=LakebasePoolConfig.of(config, **settings), **others)


def create_async_lakebase_pool(
    config: LakebasePoolConfig | Mapping[str, Any] | None = None, **overrides: Any
) -> AsyncLakebasePool[AsyncConnection[Any]]:
    """As `create_lakebase_pool`, for asyncio. May be called before the loop runs."""
    settings, others = _split(overrides)
    return AsyncLakebasePool(config=LakebasePoolConfig.of(config, **settings), **others)


#: Arguments of the pools that are not settings of a configuration.
_OF_THE_POOL = frozenset(
    {
        "credentials", "connection_class", "kwargs", "open", "configure", "check", "reset", "name", "key",
        "close_returns", "on_crowded", "reconnect_timeout", "reconnect_failed", "num_workers", "observer", "clock",
        "budget",
    }
)  # fmt: skip


def _split(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    settings = {name: value for name, value in given.items() if name not in _OF_THE_POOL}
    return settings, {name: value for name, value in given.items() if name in _OF_THE_POOL}
