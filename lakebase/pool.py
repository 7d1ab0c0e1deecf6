"""
Pools of Lakebase connections that their users take for psycopg_pool's.

`LakebasePool` is a `psycopg_pool.ConnectionPool` on this project's engine: it has no threads, can share a budget
with other pools, and its errors say what went wrong.
"""

from __future__ import annotations

from functools import wraps
from inspect import isawaitable
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, Self, TypeVar, Unpack

from psycopg import AsyncConnection, Connection
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from psycopg_pool.abc import ACT, CT

from pooling import (
    AsyncPooledValue,
    AsyncPoolingService,
    PooledValue,
    PoolingError,
    PoolingService,
    ReleaseError,
    telemetry,
)

from ._base import PoolBase
from ._connecting import AsyncConnector, Connector
from ._driver_state import drop_socket
from ._failover import note_refused_write
from ._handles import lend, lent, revoke
from ._pool_arguments import PoolOverrides, split_overrides
from ._session_reset import ending_block
from ._steps import arun, run
from .config import LakebasePoolConfig

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping
    from types import TracebackType

__pooling_internal__ = True

__all__ = ["AsyncLakebasePool", "LakebasePool", "create_async_lakebase_pool", "create_lakebase_pool"]

P = ParamSpec("P")
R = TypeVar("R")


class Borrowed(Generic[CT]):
    """
    What `LakebasePool.connection` returns: a transaction on a connection of the pool.

    A connection that an interrupt keeps from being given back is closed when this is collected.
    """

    __slots__ = ("_conn", "_held", "_pool", "_since", "_timeout")

    def __init__(self, pool: LakebasePool[CT], timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """As a decorator: each call is a block."""

        @wraps(function)
        def call(*args: P.args, **keywords: P.kwargs) -> R:
            with Borrowed(self._pool, self._timeout):
                return function(*args, **keywords)

        return call

    def __enter__(self) -> CT:
        pool = self._pool
        held: PooledValue[CT]
        held = self._held = PooledValue.expected(pool.service)
        conn = self._conn = held.value = pool.getconn(timeout=self._timeout)
        if pool.check_handles:
            held.value = lent(conn)
        held.note_loan()
        self._since = monotonic()
        return conn if pool.is_direct else conn.__enter__()

    def checkpoint(self) -> None:
        """Commit, before a request's answer goes out; the connection stays with its borrower."""
        self._pool.service.checkpoint(self._held.value)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> Literal[False]:
        pool, conn = self._pool, self._conn
        is_as_left = error is None and pool.is_direct and pool._is_as_left(conn)
        try:
            if is_as_left:
                pass  # nothing to commit
            elif pool.session_reset is None:
                conn.__exit__(kind, error, at)  # commits, or rolls back
            else:
                run(ending_block(conn, error))
        finally:
            if error is not None and note_refused_write(pool, conn, error):
                drop_socket(conn)
            seconds = monotonic() - self._since
            pool.usage += seconds
            telemetry.note_use(pool.service, seconds)
            if is_as_left:
                pool._hand_back(conn)
            else:
                pool.putconn(conn)
            self._held.forget()
        return False


class AsyncBorrowed(Generic[ACT]):
    """`Borrowed` of an `AsyncLakebasePool`."""

    __slots__ = ("_conn", "_held", "_pool", "_since", "_timeout")

    def __init__(self, pool: AsyncLakebasePool[ACT], timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout

    def __call__(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """As a decorator of a coroutine function: each call is a block."""

        @wraps(function)
        async def call(*args: P.args, **keywords: P.kwargs) -> R:
            async with AsyncBorrowed(self._pool, self._timeout):
                return await function(*args, **keywords)

        return call

    async def __aenter__(self) -> ACT:
        pool = self._pool
        held: AsyncPooledValue[ACT]
        held = self._held = AsyncPooledValue.expected(pool.service)
        conn = self._conn = held.value = await pool.getconn(timeout=self._timeout)
        if pool.check_handles:
            held.value = lent(conn)
        held.note_loan()
        self._since = monotonic()
        return conn if pool.is_direct else await conn.__aenter__()

    async def checkpoint(self) -> None:
        """As `Borrowed.checkpoint`."""
        await self._pool.service.checkpoint(self._held.value)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> Literal[False]:
        pool, conn = self._pool, self._conn
        is_as_left = error is None and pool.is_direct and pool._is_as_left(conn)
        try:
            if is_as_left:
                pass  # nothing to commit
            elif pool.session_reset is None:
                await conn.__aexit__(kind, error, at)
            else:
                await arun(ending_block(conn, error))
        finally:
            if error is not None and note_refused_write(pool, conn, error):
                drop_socket(conn)
            seconds = monotonic() - self._since
            pool.usage += seconds
            telemetry.note_use(pool.service, seconds)
            if is_as_left:
                await pool._hand_back(conn)
            else:
                await pool.putconn(conn)
            self._held.forget()
        return False


class LakebasePool(PoolBase[CT], ConnectionPool[CT]):
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
        credentials: The source of passwords, or a function that returns it for the configuration, called at the first
            connection; by default the source that `config` describes.
        connection_class: Of the driver's connections.
        kwargs: Further arguments of `connect`, or what returns them.
        min_size: Connections kept open.
        max_size: Most connections at once.
        open: `False` waits for `open()`.
        configure: Called with each new connection.
        check: Called with each connection before it is handed out; one for which it raises is replaced.
        reset: Called with each connection that is given back.
        session_reset: `"discard"` has what a borrower leaves in the server's session cleared, in the round trip that
            ends the transaction: settings, role, temporary tables, locks, `LISTEN`, cursors, and prepared statements
            that are not the driver's. `configure` is called again after it. `None` leaves the session alone.
        check_handles: Whether a connection refuses to be used after it was given back. For finding such uses: each
            borrowing takes some microseconds more.
        name: For texts and statistics.
        key: The same, where many pools share a name.
        close_returns: Whether `close()` of a connection gives it back.
        timeout: Seconds in which a connection must be in the borrower's hands.
        max_waiting: Most borrowers in the queue; 0 is unlimited, as in psycopg_pool.
        max_lifetime: Seconds after which a connection is replaced.
        max_idle: Seconds after which an idle connection is closed, above `min_size`.
        reconnect_timeout: Seconds of failing connects after which `reconnect_failed` is called, within some 2.5 s. The
            pool goes on trying, for waiters and up to `min_size`.
        reconnect_failed: Called with the pool, in the background.
        num_workers: Accepted; there are no workers.
        on_crowded: Called when the server takes no more connections; by default it squeezes the `budget`, if there
            is one: an idle connection of another pool is closed, and the budget is smaller for a while.
        outage: Shared by pools of one server, so that an outage is logged once for all of them.
        renewal: How the user of this pool gets an open one after it was closed, for texts.
        service_class: Makes the engine's service, by default a `PoolingService`.
        **service: Further arguments of the engine's service, such as `observer`.

    Raises:
        ConfigurationError: Something is missing in `config`, or cannot work.
        ValueError: Sizes that cannot work.
    """

    service: PoolingService[CT]
    _is_async = False
    _connector_class = Connector
    _service_class = PoolingService
    _connection_class = Connection
    _of_blocks = ("__enter__", "__exit__", "commit", "rollback")

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
            self.service.start(wait=False)

    def wait(self, timeout: float = 30.0) -> None:
        """
        Block until `min_size` connections are open.

        Raises:
            LakebasePoolTimeout: They were not in time; the pool is closed.
            LoginError: They never will be; the pool is closed.
        """
        self._check_open()
        try:
            self.service.start(timeout=timeout)
        except PoolingError as error:
            self.close()
            raise self._translated(error) from error.__cause__

    def close(self, timeout: float = 5.0) -> None:
        """
        Refuse borrowers, fail the waiting ones, and close idle connections.

        What is out stays usable and is closed when it comes back. Blocks until the idle ones are closed, at most
        `timeout` seconds.
        """
        if not self._closed:
            seconds = max(0.0, timeout)  # first: one that is no number leaves the pool open
            self._closed = True
            self.service.stop(seconds, drain=False)

    def connection(self, timeout: float | None = None) -> Borrowed[CT]:  # type: ignore[override] # theirs is a generator
        """
        A context manager: a connection whose transaction is committed, or rolled back where the block raises.

        Args:
            timeout: Seconds; `None` takes the pool's.

        Raises:
            LakebasePoolTimeout: No connection in time.
            LakebasePoolClosed: The pool is not open.
            LakebaseTooManyRequests: `max_waiting` others wait.
            LoginError: The server refuses this pool's connections.
            CredentialError: No password could be minted.
        """
        return Borrowed(self, timeout)

    def getconn(self, timeout: float | None = None) -> CT:
        """A connection that must be given back by `putconn`. Errors as in `connection`, which is to be preferred."""
        if self._closed:
            self._check_open()
        if timeout is not None:
            self._check_timeout(timeout)
        if self._connector.mints_first:
            timeout = run(self._minting_first(timeout))
        try:
            conn = self.service.acquire(timeout=timeout)
        except PoolingError as error:
            raise self._translated(error) from error.__cause__
        conn._pool = self
        return lend(conn) if self.check_handles else conn

    def putconn(self, conn: CT) -> None:
        """
        Give a connection back, rolled back if its transaction is open.

        One that is broken, or in the middle of an operation, is closed instead.

        Raises:
            ValueError: It is not out from this pool.
        """
        if getattr(conn, "_pool", None) is not self and not self._is_still_out(conn):
            self._refuse_return(conn)
        if self.check_handles:
            conn = revoke(conn, self._title)
        if self._is_as_left(conn):
            self._hand_back(conn)
        else:
            conn._pool = None
            run(self._returning(conn))

    _of_loans = (getconn, putconn)  # what its blocks call, unless a subclass has its own

    def _hand_back(self, conn: CT) -> None:
        """Give a connection back that `_is_as_left`."""
        conn._pool = None
        try:
            self.service.release(conn)
        except ReleaseError as error:  # two threads gave it back at once
            raise self._translated(error) from None

    def drain(self) -> None:
        """Replace all connections: idle ones now, the others as they come back."""
        self.service.expire()

    def resize(self, min_size: int, max_size: int | None = None) -> None:
        """Change the sizes; what is above the new maximum is closed, what of it is out as it comes back."""
        self._change_sizes(min_size, max_size)

    def check(self) -> None:
        """Ask the server on every idle connection; those that do not answer are closed."""
        with self._connector.checking():
            self.service.check(lambda conn: run(self._checking(conn)))

    def reconnect_failed(self) -> None:
        """
        Call the function given as `reconnect_failed`; a subclass may do something else.

        Called in the background when connecting has failed for `reconnect_timeout` seconds, and each time it has for
        so long again. That is noticed when an attempt fails, so up to a pause between two of them later, some 2.5 s.
        The pool does not give up: attempts go on while a borrower waits, and for `min_size` without end.
        """
        if self._reconnect_failed is not None:
            self._reconnect_failed(self)

    def _resolve_kwargs(self) -> dict[str, Any]:
        """What psycopg_pool's users connect with by themselves: what this pool connects with, with a fresh password."""
        return run(self._connector.resolving())

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        self.close()


class AsyncLakebasePool(PoolBase[ACT], AsyncConnectionPool[ACT]):
    """
    A pool of connections for asyncio; a `psycopg_pool.AsyncConnectionPool` to its users, else as `LakebasePool`.

    Callbacks are coroutine functions. It may be built before the loop runs, and has no tasks while it is idle.
    """

    service: AsyncPoolingService[ACT]
    _is_async = True
    _connector_class = AsyncConnector
    _service_class = AsyncPoolingService
    _connection_class = AsyncConnection
    _of_blocks = ("__aenter__", "__aexit__", "commit", "rollback")

    async def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        """As `LakebasePool.open`."""
        self._open()
        if wait:
            await self.wait(timeout)
        elif self.min_size:
            await self.service.start(wait=False)

    async def wait(self, timeout: float = 30.0) -> None:
        """As `LakebasePool.wait`."""
        self._check_open()
        try:
            await self.service.start(timeout=timeout)
        except PoolingError as error:
            await self.close()
            raise self._translated(error) from error.__cause__

    async def close(self, timeout: float = 5.0) -> None:
        """As `LakebasePool.close`."""
        if not self._closed:
            seconds = max(0.0, timeout)
            self._closed = True
            await self.service.stop(seconds, drain=False)

    def connection(self, timeout: float | None = None) -> AsyncBorrowed[ACT]:  # type: ignore[override]
        """As `LakebasePool.connection`, for `async with`."""
        return AsyncBorrowed(self, timeout)

    async def getconn(self, timeout: float | None = None) -> ACT:
        """As `LakebasePool.getconn`."""
        if self._closed:
            self._check_open()
        if timeout is not None:
            self._check_timeout(timeout)
        if self._connector.mints_first:
            timeout = await arun(self._minting_first(timeout))
        try:
            conn = await self.service.acquire(timeout=timeout)
        except PoolingError as error:
            raise self._translated(error) from error.__cause__
        conn._pool = self
        return lend(conn) if self.check_handles else conn

    async def putconn(self, conn: ACT) -> None:
        """As `LakebasePool.putconn`. Cancelled in a rollback or `reset`, it closes the connection."""
        if getattr(conn, "_pool", None) is not self and not self._is_still_out(conn):
            self._refuse_return(conn)
        if self.check_handles:
            conn = revoke(conn, self._title)
        if self._is_as_left(conn):
            await self._hand_back(conn)
        else:
            conn._pool = None
            await arun(self._returning(conn))

    _of_loans = (getconn, putconn)  # what its blocks call, unless a subclass has its own

    async def _hand_back(self, conn: ACT) -> None:
        """As `LakebasePool._hand_back`."""
        conn._pool = None
        try:
            await self.service.release(conn)
        except ReleaseError as error:  # two threads gave it back at once
            raise self._translated(error) from None

    async def drain(self) -> None:
        """As `LakebasePool.drain`."""
        self.service.expire()

    async def resize(self, min_size: int, max_size: int | None = None) -> None:
        """As `LakebasePool.resize`."""
        self._change_sizes(min_size, max_size)

    async def check(self) -> None:
        """As `LakebasePool.check`."""
        with self._connector.checking():
            await self.service.check(lambda conn: arun(self._checking(conn)))

    async def reconnect_failed(self) -> None:
        """As `LakebasePool.reconnect_failed`."""
        if self._reconnect_failed is not None:
            result = self._reconnect_failed(self)
            if isawaitable(result):
                await result

    async def _resolve_kwargs(self) -> dict[str, Any]:
        """As `LakebasePool._resolve_kwargs`."""
        return await arun(self._connector.resolving())

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.close()


def create_lakebase_pool(
    config: LakebasePoolConfig | Mapping[str, Any] | None = None,
    *,
    connection_class: type[CT] = Connection,  # type: ignore[assignment] # the default of `CT`
    **overrides: Unpack[PoolOverrides],
) -> LakebasePool[CT]:
    """
    A pool for one identity. Does no I/O; what is missing comes from the environment.

    Args:
        config: Settings, or `None` for all from the environment.
        connection_class: Of the driver's connections.
        **overrides: Fields of the configuration, and arguments of `LakebasePool` such as `configure` or `name`; also
            `project` and `branch`, instead of `endpoint`.

    Raises:
        ConfigurationError: A setting is missing or cannot work.
    """
    settings, others = split_overrides(overrides)
    return LakebasePool(config=LakebasePoolConfig.of(config, **settings), connection_class=connection_class, **others)


def create_async_lakebase_pool(
    config: LakebasePoolConfig | Mapping[str, Any] | None = None,
    *,
    connection_class: type[ACT] = AsyncConnection,  # type: ignore[assignment]
    **overrides: Unpack[PoolOverrides],
) -> AsyncLakebasePool[ACT]:
    """As `create_lakebase_pool`, for asyncio. May be called before the loop runs."""
    settings, others = split_overrides(overrides)
    return AsyncLakebasePool(
        config=LakebasePoolConfig.of(config, **settings), connection_class=connection_class, **others
    )
