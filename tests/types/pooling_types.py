"""
What type checkers infer for `pooling` from code without annotations. These lines are checked, never run.

`test_inference.py` hands this file to mypy and pyright. Each assertion stands for what a reader expects.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, assert_type

from dependency_injector import providers

from pooling import (
    AsyncKeyedPoolingService,
    AsyncLease,
    AsyncPooledValue,
    AsyncPoolingService,
    KeyedPoolingService,
    Lease,
    PooledValue,
    PoolFactory,
    PoolingService,
    PoolingServiceOptions,
    RequestContext,
    create_pooled_binding_factory,
    get_pooled_value,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    import psycopg_pool
    from psycopg import AsyncConnection, Connection
    from psycopg.rows import TupleRow

    from pooling import PoolingServiceOptionsDict


class Session:
    def __init__(self, host: str = "db1") -> None:
        self.host = host

    def close(self) -> None: ...

    async def aclose(self) -> None: ...


def make() -> Session:
    return Session()


async def amake() -> Session:
    return Session()


class SessionFactory(PoolFactory[Session]):
    def create(self) -> Session:
        return Session()

    def destroy(self, value: Session) -> None:
        value.close()

    def validate(self, value: Session) -> bool:
        return bool(value.host)

    def acquire(self, value: Session, request_ctx: RequestContext | None) -> None: ...

    def release(self, value: Session, exc: BaseException | None = None) -> None: ...


class AsyncSessionFactory(PoolFactory[Session]):
    async def create(self) -> Session:
        return Session()

    async def destroy(self, value: Session) -> None:
        await value.aclose()

    async def validate(self, value: Session) -> bool:
        return bool(value.host)


class Awaited:
    """Awaitable itself, as the clients of some libraries are."""

    def __await__(self) -> Generator[Any, None, Awaited]:
        raise NotImplementedError


# --- factories -------------------------------------------------------------------------------------------------------

assert_type(PoolFactory.of(Session), PoolFactory[Session])
assert_type(PoolFactory.of(Session, destroy=Session.close), PoolFactory[Session])
assert_type(PoolFactory.of(make, destroy=lambda session: session.close()), PoolFactory[Session])
assert_type(
    PoolFactory.of(lambda: Session("db2"), validate=lambda session: session.host == "db2"), PoolFactory[Session]
)
assert_type(PoolFactory.of(Session, checkpoint=lambda session: session.host), PoolFactory[Session])
assert_type(PoolFactory.of(amake), PoolFactory[Session])
assert_type(PoolFactory.of(amake, destroy=Session.aclose), PoolFactory[Session])
assert_type(PoolFactory.of(amake, destroy=lambda session: session.aclose()), PoolFactory[Session])
assert_type(PoolFactory.of(lambda: amake(), destroy=Session.aclose), PoolFactory[Session])

# --- pools -----------------------------------------------------------------------------------------------------------

assert_type(PoolingService(Session), PoolingService[Session])
assert_type(PoolingService(dict), PoolingService[dict[Any, Any]])
assert_type(PoolingService(dict[str, int]), PoolingService[dict[str, int]])
assert_type(PoolingService(make), PoolingService[Session])
assert_type(PoolingService(lambda: Session("db2")), PoolingService[Session])
assert_type(PoolingService(SessionFactory()), PoolingService[Session])
assert_type(PoolingService(PoolFactory.of(Session, destroy=Session.close), max_size=2), PoolingService[Session])
assert_type(PoolingService(PoolFactory.of(lambda: Session("db2"))), PoolingService[Session])
assert_type(PoolingService(make, {"max_size": 2, "timeout": 0.5}, lifo=False), PoolingService[Session])
assert_type(PoolingService(make, PoolingServiceOptions(max_size=2), name="sessions"), PoolingService[Session])

assert_type(AsyncPoolingService(Session), AsyncPoolingService[Session])
assert_type(AsyncPoolingService(Awaited), AsyncPoolingService[Awaited])
assert_type(AsyncPoolingService(dict), AsyncPoolingService[dict[Any, Any]])
assert_type(AsyncPoolingService(make), AsyncPoolingService[Session])
assert_type(AsyncPoolingService(amake), AsyncPoolingService[Session])
assert_type(AsyncPoolingService(lambda: Session("db2")), AsyncPoolingService[Session])
assert_type(AsyncPoolingService(lambda: amake()), AsyncPoolingService[Session])
assert_type(AsyncPoolingService(SessionFactory()), AsyncPoolingService[Session])
assert_type(AsyncPoolingService(AsyncSessionFactory()), AsyncPoolingService[Session])
assert_type(AsyncPoolingService(PoolFactory.of(amake, destroy=Session.aclose)), AsyncPoolingService[Session])
assert_type(AsyncPoolingService(amake, {"max_size": 2}, name="sessions", min_size=1), AsyncPoolingService[Session])


def given(
    factory: PoolFactory[Session], create: Callable[[], Session], acreate: Callable[[], Awaitable[Session]], known: Any
) -> None:
    assert_type(PoolingService(factory), PoolingService[Session])
    assert_type(PoolingService(create), PoolingService[Session])
    assert_type(PoolingService(known), PoolingService[Any])
    assert_type(AsyncPoolingService(factory), AsyncPoolingService[Session])
    assert_type(AsyncPoolingService(create), AsyncPoolingService[Session])
    assert_type(AsyncPoolingService(acreate), AsyncPoolingService[Session])
    assert_type(AsyncPoolingService(known), AsyncPoolingService[Any])


# --- what a pool gives -----------------------------------------------------------------------------------------------


def count(session: Session) -> int:
    return len(session.host)


async def acount(session: Session) -> int:
    return len(session.host)


def use(pool: PoolingService[Session]) -> None:
    assert_type(pool.acquire(), Session)
    assert_type(pool.acquire_nowait(), Session)
    assert_type(pool.lease(), Lease[Session])
    with pool.lease(timeout=1.0) as session:
        assert_type(session, Session)
    assert_type(pool.run(count), int)
    assert_type(pool.run(lambda session: session.host), str)
    assert_type(pool.factory, PoolFactory[Session])
    with PoolingService(make) as entered:
        assert_type(entered, PoolingService[Session])
    with PoolingService(dict) as dicts, dicts.lease() as scratch:
        scratch["used"] = True
    pooled = get_pooled_value(pool)
    assert_type(pooled, PooledValue[Session])
    assert_type(pooled.service, PoolingService[Session])
    assert_type(pooled.value, Session)
    with pooled as value:
        assert_type(value, Session)


async def ause(pool: AsyncPoolingService[Session]) -> None:
    assert_type(await pool.acquire(), Session)
    assert_type(await pool.acquire_nowait(), Session)
    assert_type(pool.lease(), AsyncLease[Session])
    async with pool.lease(timeout=1.0) as session:
        assert_type(session, Session)
    assert_type(await pool.run(count), int)
    assert_type(await pool.run(acount), int)
    assert_type(await pool.run(lambda session: session.host), str)
    counted: int = await pool.run(lambda session: acount(session))
    assert_type(counted, int)
    async with AsyncPoolingService(amake) as entered:
        assert_type(entered, AsyncPoolingService[Session])
    pooled = await get_pooled_value(pool)
    assert_type(pooled, AsyncPooledValue[Session])
    assert_type(pooled.service, AsyncPoolingService[Session])
    assert_type(pooled.value, Session)
    async with pooled as value:
        assert_type(value, Session)


# --- requests --------------------------------------------------------------------------------------------------------


def requested(
    ctx: RequestContext,
    pool: PoolingService[Session],
    apool: AsyncPoolingService[Session],
    connections: psycopg_pool.ConnectionPool[Connection[TupleRow]],
) -> None:
    assert_type(ctx.acquire(pool), Session)
    assert_type(ctx.acquire(pool, key="second", timeout=1.0), Session)
    assert_type(ctx.acquire(apool), Session)
    assert_type(ctx.acquire(connections), Connection[TupleRow])
    with RequestContext("GET /") as entered:
        assert_type(entered, RequestContext)


async def arequested(
    ctx: RequestContext,
    pool: PoolingService[Session],
    apool: AsyncPoolingService[Session],
    connections: psycopg_pool.AsyncConnectionPool[AsyncConnection[TupleRow]],
) -> None:
    assert_type(await ctx.aacquire(pool), Session)
    assert_type(await ctx.aacquire(apool, timeout=1.0), Session)
    assert_type(await ctx.aacquire(connections), AsyncConnection[TupleRow])
    async with RequestContext("GET /") as entered:
        assert_type(entered, RequestContext)


# --- pools by key ----------------------------------------------------------------------------------------------------


def for_host(host: str) -> PoolFactory[Session]:
    return PoolFactory.of(lambda: Session(host), destroy=Session.close)


def opener(host: str) -> Callable[[], Session]:
    return lambda: Session(host)


def aopener(host: str) -> Callable[[], Awaitable[Session]]:
    async def open_session() -> Session:
        return Session(host)

    return open_session


assert_type(KeyedPoolingService(for_host), KeyedPoolingService[str, Session])
assert_type(KeyedPoolingService(opener, max_total=5, max_size=3), KeyedPoolingService[str, Session])
assert_type(KeyedPoolingService(lambda _: Session), KeyedPoolingService[Any, Session])
assert_type(KeyedPoolingService(lambda host: lambda: Session(host)), KeyedPoolingService[Any, Session])
assert_type(KeyedPoolingService(lambda host: for_host(host)), KeyedPoolingService[Any, Session])
assert_type(KeyedPoolingService(lambda _: SessionFactory()), KeyedPoolingService[Any, Session])
assert_type(
    KeyedPoolingService(lambda host: PoolFactory.of(lambda: Session(host), destroy=lambda session: session.close())),
    KeyedPoolingService[Any, Session],
)


def dropped(host: str, pool: PoolingService[Session]) -> None: ...


def adropped(host: str, pool: AsyncPoolingService[Session]) -> None: ...


assert_type(KeyedPoolingService(for_host, on_dropped=dropped), KeyedPoolingService[str, Session])
assert_type(AsyncKeyedPoolingService(for_host, on_dropped=adropped), AsyncKeyedPoolingService[str, Session])
hosts: KeyedPoolingService[str, Session] = KeyedPoolingService(lambda host: lambda: Session(host))
opened: KeyedPoolingService[str, Session] = KeyedPoolingService()  # every key is opened by `open_key`

assert_type(AsyncKeyedPoolingService(for_host), AsyncKeyedPoolingService[str, Session])
assert_type(AsyncKeyedPoolingService(opener, max_total=5), AsyncKeyedPoolingService[str, Session])
assert_type(AsyncKeyedPoolingService(aopener, max_size=3), AsyncKeyedPoolingService[str, Session])
assert_type(AsyncKeyedPoolingService(lambda _: Session), AsyncKeyedPoolingService[Any, Session])
assert_type(AsyncKeyedPoolingService(lambda host: lambda: Session(host)), AsyncKeyedPoolingService[Any, Session])
assert_type(AsyncKeyedPoolingService(lambda _: AsyncSessionFactory()), AsyncKeyedPoolingService[Any, Session])
assert_type(
    AsyncKeyedPoolingService(lambda _: PoolFactory.of(amake, destroy=Session.aclose)),
    AsyncKeyedPoolingService[Any, Session],
)
ahosts: AsyncKeyedPoolingService[str, Session] = AsyncKeyedPoolingService(lambda host: aopener(host))


def use_keys(keyed: KeyedPoolingService[str, Session], options: PoolingServiceOptionsDict) -> None:
    assert_type(keyed.pool("db1"), PoolingService[Session])
    assert_type(keyed.open_key("db1", for_host("db1"), {"max_size": 1}, timeout=1.0), PoolingService[Session])
    assert_type(keyed.open_key("db1", make, options), PoolingService[Session])
    assert_type(keyed.acquire("db1"), Session)
    assert_type(keyed.acquire_nowait("db1"), Session)
    with keyed.lease("db1") as session:
        assert_type(session, Session)
    assert_type(keyed.run("db1", count), int)
    assert_type(keyed.keys(), list[str])
    assert_type(list(keyed), list[str])
    with KeyedPoolingService(for_host) as entered:
        assert_type(entered, KeyedPoolingService[str, Session])


async def ause_keys(keyed: AsyncKeyedPoolingService[str, Session]) -> None:
    assert_type(keyed.pool("db1"), AsyncPoolingService[Session])
    assert_type(keyed.open_key("db1", amake), AsyncPoolingService[Session])
    assert_type(await keyed.acquire("db1"), Session)
    assert_type(await keyed.acquire_nowait("db1"), Session)
    async with keyed.lease("db1") as session:
        assert_type(session, Session)
    assert_type(await keyed.run("db1", count), int)
    assert_type(await keyed.run("db1", acount), int)
    async with AsyncKeyedPoolingService(for_host) as entered:
        assert_type(entered, AsyncKeyedPoolingService[str, Session])


# --- bindings --------------------------------------------------------------------------------------------------------

member = providers.Factory(Session)
assert_type(PoolingService(create_pooled_binding_factory(member)), PoolingService[Session])
assert_type(PoolingService(create_pooled_binding_factory("services.member")), PoolingService[Any])

# --- options ---------------------------------------------------------------------------------------------------------

settings: PoolingServiceOptionsDict = {"max_size": 2, "validate_on_acquire": 30.0, "on_error": "destroy"}
assert_type(PoolingService(make, settings), PoolingService[Session])
assert_type(PoolingService(make, **settings), PoolingService[Session])


def configured(from_a_file: dict[str, Any]) -> None:
    assert_type(PoolingService(make, **from_a_file), PoolingService[Session])
    apool: AsyncPoolingService[Session] = AsyncPoolingService(amake, **from_a_file)
    keyed: KeyedPoolingService[str, Session] = KeyedPoolingService(for_host, **from_a_file)
    assert_type(apool.options, PoolingServiceOptions)
    assert_type(keyed.options, PoolingServiceOptions)


assert_type(PoolingServiceOptions(**settings).replaced(max_size=3), PoolingServiceOptions)
