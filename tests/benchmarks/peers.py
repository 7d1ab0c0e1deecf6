"""
The contenders, each behind the same few methods, filled with resources that cost nothing.

`acquire` and `release` are the peer's own bound methods wherever its signature allows, so that no adapter
is timed along with it.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import queue
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from typing import Any

from pooling import AsyncPoolingService, PoolFactory, PoolingService


class Resource:
    """What the generic pools are filled with."""


def version(distribution: str) -> str:
    """`name 1.2.3` of an installed distribution."""
    return f"{distribution} {importlib.metadata.version(distribution)}"


def is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


# --- bare containers -------------------------------------------------------------------------------------------------


class LockAndDeque:
    """The simplest pool: no limits, no waiting, no ownership."""

    def __init__(self, size: int) -> None:
        self._lock = threading.Lock()
        self._idle = deque(Resource() for _ in range(size))

    def acquire(self) -> Resource:
        with self._lock:
            return self._idle.pop()

    def release(self, value: Resource) -> None:
        with self._lock:
            self._idle.append(value)

    @contextmanager
    def lease(self) -> Any:
        value = self.acquire()
        try:
            yield value
        finally:
            self.release(value)


class Peer:
    """
    A pool that is open and full.

    Attributes:
        acquire, release: As functions of nothing and of the value; coroutine functions for asyncio.
        lease: A context manager around one use, or `None` where the peer has none.
        close: Ends it; awaited for asyncio.
    """

    def __init__(
        self,
        name: str,
        acquire: Callable[[], Any] | None,
        release: Callable[[Any], Any] | None,
        lease: Callable[[], AbstractContextManager[Any] | AbstractAsyncContextManager[Any]] | None = None,
        close: Callable[[], Any] = lambda: None,
        *,
        is_ours: bool = False,
    ) -> None:
        self.name = name
        self.acquire = acquire
        self.release = release
        self.lease = lease
        self.close = close
        self.is_ours = is_ours


OURS = "PoolingService"
OURS_ASYNC = "AsyncPoolingService"
BARE = "lock + deque"
QUEUE = "asyncio.Queue"
PSYCOPG = "psycopg_pool"
PSYCOPG_ASYNC = "psycopg_pool (async)"
SQLALCHEMY = "SQLAlchemy QueuePool"
GENERIC = "generic-connection-pool"
CONNPOOL = "connpool"
ASYNCIO_POOL = "asyncio-connection-pool"


def fill(peer: Peer, size: int) -> Peer:
    """Have a pool make all its resources."""
    assert peer.acquire is not None
    assert peer.release is not None
    for value in [peer.acquire() for _ in range(size)]:
        peer.release(value)
    return peer


async def afill(peer: Peer, size: int) -> Peer:
    if peer.acquire is None or peer.release is None:  # nothing but context managers
        assert peer.lease is not None
        leases = [peer.lease() for _ in range(size)]
        for lease in leases:
            await lease.__aenter__()  # type: ignore[union-attr]
        for lease in leases:
            await lease.__aexit__(None, None, None)  # type: ignore[union-attr]
        return peer
    for value in [await peer.acquire() for _ in range(size)]:
        result = peer.release(value)
        if result is not None:
            await result
    return peer


# --- threads ---------------------------------------------------------------------------------------------------------


def ours(size: int, factory: Any = Resource, name: str = OURS, **options: Any) -> Peer:
    pool = PoolingService(factory, max_size=size, max_creating=size, timeout=300.0, **options)
    return fill(Peer(name, pool.acquire, pool.release, pool.lease, pool.stop, is_ours=True), size)


def bare(size: int) -> Peer:
    pool = LockAndDeque(size)
    return Peer(BARE, pool.acquire, pool.release, pool.lease)


def lifo_queue(size: int) -> Peer:
    """The shortest pool of the standard library that can wait."""
    pool: queue.LifoQueue[Resource] = queue.LifoQueue()
    for _ in range(size):
        pool.put(Resource())
    return Peer("queue.LifoQueue", pool.get, pool.put)


def simple_queue(size: int) -> Peer:
    pool: queue.SimpleQueue[Resource] = queue.SimpleQueue()
    for _ in range(size):
        pool.put(Resource())
    return Peer("queue.SimpleQueue", pool.get, pool.put)


def psycopg(size: int, **options: Any) -> Peer:
    from psycopg_pool import ConnectionPool

    from .fakes import FakeConnection

    pool: Any = ConnectionPool(
        "", connection_class=FakeConnection, min_size=size, max_size=size, timeout=300.0, open=False, **options
    )
    pool.open(wait=True)
    return Peer(PSYCOPG, pool.getconn, pool.putconn, pool.connection, pool.close)


def sqlalchemy(size: int) -> Peer:
    from sqlalchemy.pool import QueuePool

    from .fakes import FakeDBAPIConnection

    pool = QueuePool(FakeDBAPIConnection, pool_size=size, max_overflow=0, timeout=300.0, reset_on_return=None)
    return fill(Peer(SQLALCHEMY, pool.connect, lambda fairy: fairy.close(), pool.connect, pool.dispose), size)


def generic_connection_pool(size: int) -> Peer:
    from generic_connection_pool.threading import BaseConnectionManager, ConnectionPool

    class Manager(BaseConnectionManager[str, Resource]):
        def create(self, endpoint: str, timeout: float | None = None) -> Resource:
            return Resource()

        def dispose(self, endpoint: str, conn: Resource, timeout: float | None = None) -> None:
            pass

    pool = ConnectionPool(Manager(), max_size=size, min_idle=size, total_max_size=size, acquire_timeout=300.0)
    peer = Peer(
        GENERIC,
        lambda: pool.acquire("one"),
        lambda value: pool.release(value, "one"),
        lambda: pool.connection("one"),
        pool.close,
    )
    return fill(peer, size)


def connpool(size: int, **hooks: Any) -> Peer:
    from connpool import ConnectionPool, PoolConfig

    seconds = 0.0 if "validate" in hooks else None
    config = PoolConfig(max_size=size, acquire_timeout=300.0, validate_after_idle=seconds)
    pool = ConnectionPool.from_callables(Resource, close=lambda _: None, config=config, **hooks)
    return fill(Peer(CONNPOOL, pool.acquire, pool.release, pool.connection, pool.close), size)


THREADED = {
    PSYCOPG: ("psycopg_pool", psycopg),
    SQLALCHEMY: ("sqlalchemy", sqlalchemy),
    GENERIC: ("generic_connection_pool", generic_connection_pool),
    CONNPOOL: ("connpool", connpool),
}


def threaded(size: int) -> tuple[list[Peer], list[str]]:
    """The pools of other libraries that are installed, and the names of those that are not."""
    found = [build(size) for module, build in THREADED.values() if is_installed(module)]
    return found, [f"{name}: not installed" for name, (module, _) in THREADED.items() if not is_installed(module)]


# --- asyncio ---------------------------------------------------------------------------------------------------------


async def ours_async(size: int, factory: Any = Resource, name: str = OURS_ASYNC, **options: Any) -> Peer:
    pool = AsyncPoolingService(factory, max_size=size, max_creating=size, timeout=300.0, **options)
    return await afill(Peer(name, pool.acquire, pool.release, pool.lease, pool.stop, is_ours=True), size)


async def asyncio_queue(size: int) -> Peer:
    pool: asyncio.Queue[Resource] = asyncio.Queue()
    for _ in range(size):
        pool.put_nowait(Resource())

    async def nothing() -> None:
        pass

    return Peer(QUEUE, pool.get, pool.put_nowait, close=nothing)


async def psycopg_async(size: int) -> Peer:
    from psycopg_pool import AsyncConnectionPool

    from .fakes import FakeAsyncConnection

    pool: Any = AsyncConnectionPool(
        "", connection_class=FakeAsyncConnection, min_size=size, max_size=size, timeout=300.0, open=False
    )
    await pool.open(wait=True)
    return Peer(PSYCOPG_ASYNC, pool.getconn, pool.putconn, pool.connection, pool.close)


async def generic_connection_pool_async(size: int) -> Peer:
    from generic_connection_pool.asyncio import BaseConnectionManager, ConnectionPool

    class Manager(BaseConnectionManager[str, Resource]):
        async def create(self, endpoint: str) -> Resource:
            return Resource()

        async def dispose(self, endpoint: str, conn: Resource) -> None:
            pass

    pool = ConnectionPool(Manager(), max_size=size, min_idle=size, total_max_size=size)
    peer = Peer(
        GENERIC,
        lambda: pool.acquire("one"),
        lambda value: pool.release(value, "one"),
        lambda: pool.connection("one"),
        pool.close,
    )
    return await afill(peer, size)


async def connpool_async(size: int) -> Peer:
    from connpool import AsyncConnectionPool, PoolConfig

    config = PoolConfig(max_size=size, acquire_timeout=300.0, validate_after_idle=None)
    pool: Any = AsyncConnectionPool.from_callables(Resource, close=lambda _: None, config=config)
    return await afill(Peer(CONNPOOL, pool.acquire, pool.release, pool.connection, pool.close), size)


async def asyncio_connection_pool(size: int) -> Peer:
    from asyncio_connection_pool import ConnectionPool, ConnectionStrategy

    class Strategy(ConnectionStrategy[Resource]):
        async def make_connection(self) -> Resource:
            return Resource()

        def connection_is_closed(self, conn: Resource) -> bool:
            return False

        async def close_connection(self, conn: Resource) -> None:
            pass

    pool = ConnectionPool(strategy=Strategy(), max_size=size)

    async def nothing() -> None:
        pass

    return await afill(Peer(ASYNCIO_POOL, None, None, pool.get_connection, nothing), size)


ASYNC = {
    PSYCOPG_ASYNC: ("psycopg_pool", psycopg_async),
    GENERIC: ("generic_connection_pool", generic_connection_pool_async),
    CONNPOOL: ("connpool", connpool_async),
    ASYNCIO_POOL: ("asyncio_connection_pool", asyncio_connection_pool),
}


async def asynchronous(size: int) -> tuple[list[Peer], list[str]]:
    """As `threaded`, for asyncio."""
    found = [await build(size) for module, build in ASYNC.values() if is_installed(module)]
    return found, [f"{name}: not installed" for name, (module, _) in ASYNC.items() if not is_installed(module)]


def hooked(*names: str) -> PoolFactory[Resource]:
    """A factory of ours with these of its hooks, each doing nothing."""
    hooks: dict[str, Callable[..., Any]] = {
        "validate": lambda value: True,
        "acquire": lambda value, ctx: None,
        "release": lambda value: None,
    }
    return PoolFactory.of(Resource, **{name: hooks[name] for name in names})
