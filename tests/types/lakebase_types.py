"""What type checkers infer for `lakebase`. Checked, not run."""

from __future__ import annotations

from typing import Any, assert_type

from psycopg import AsyncConnection, Connection
from psycopg.rows import TupleRow

from lakebase import (
    AsyncLakebasePool,
    AsyncLakebasePoolManager,
    AsyncRoutingPool,
    AsyncUserScopedPool,
    LakebasePool,
    LakebasePoolConfig,
    LakebasePoolManager,
    RoutingPool,
    UserIdentity,
    UserScopedPool,
    create_async_lakebase_pool,
    create_lakebase_pool,
)


class Own(Connection[TupleRow]):
    """A connection class of the user's."""


class AsyncOwn(AsyncConnection[TupleRow]):
    """One for asyncio."""


def close(connection: Connection[Any]) -> None:
    """A callback."""


CONFIG = LakebasePoolConfig(host="h", database="d", user="u", password="p")


def pools() -> None:
    pool = create_lakebase_pool(CONFIG, max_size=3, name="app", configure=close)
    assert_type(pool, LakebasePool[Connection[TupleRow]])
    with pool.connection() as connection:
        assert_type(connection, Connection[TupleRow])
        assert_type(connection.execute("select 1").fetchall(), list[TupleRow])
    assert_type(pool.getconn(), Connection[TupleRow])
    pool.putconn(pool.getconn())

    assert_type(LakebasePool(config=CONFIG), LakebasePool[Connection[TupleRow]])
    assert_type(LakebasePool("dbname=d", max_size=2), LakebasePool[Connection[TupleRow]])
    own = LakebasePool(config=CONFIG, connection_class=Own)
    assert_type(own, LakebasePool[Own])
    with own.connection() as its:
        assert_type(its, Own)
    assert_type(create_lakebase_pool(CONFIG, connection_class=Own), LakebasePool[Own])


def value_of_a_block(pool: LakebasePool) -> int:
    with pool.connection() as connection:
        assert_type(connection, Connection[TupleRow])
        return connection.pgconn.backend_pid


async def async_pools() -> None:
    pool = create_async_lakebase_pool(CONFIG, max_size=3)
    assert_type(pool, AsyncLakebasePool[AsyncConnection[TupleRow]])
    async with pool.connection() as connection:
        assert_type(connection, AsyncConnection[TupleRow])
    assert_type(await pool.getconn(), AsyncConnection[TupleRow])
    assert_type(AsyncLakebasePool(config=CONFIG), AsyncLakebasePool[AsyncConnection[TupleRow]])
    assert_type(create_async_lakebase_pool(connection_class=AsyncOwn), AsyncLakebasePool[AsyncOwn])


async def managers(ann: UserIdentity) -> None:
    manager = LakebasePoolManager({"host": "h"}, max_total=50, configure=close)
    assert_type(manager.get_pool("ann"), LakebasePool[Connection[TupleRow]])
    assert_type(manager.for_user(ann), LakebasePool[Connection[TupleRow]])
    with manager.for_user(ann).connection() as connection:
        assert_type(connection, Connection[TupleRow])
    assert_type(LakebasePoolManager(connection_class=Own).get_pool("ann"), LakebasePool[Own])

    other = AsyncLakebasePoolManager({"host": "h"})
    assert_type(other.get_pool("ann"), AsyncLakebasePool[AsyncConnection[TupleRow]])
    async with other.for_user(ann).connection() as async_connection:
        assert_type(async_connection, AsyncConnection[TupleRow])


async def pools_of_the_request(manager: LakebasePoolManager, other: AsyncLakebasePoolManager) -> None:
    routing = RoutingPool(create_lakebase_pool(CONFIG), manager.for_user)
    assert_type(routing, RoutingPool[Connection[TupleRow]])
    with routing.connection() as connection:
        assert_type(connection, Connection[TupleRow])
    assert_type(routing.getconn(), Connection[TupleRow])

    async_routing = AsyncRoutingPool(create_async_lakebase_pool(CONFIG), other.for_user)
    async with async_routing.connection() as async_connection:
        assert_type(async_connection, AsyncConnection[TupleRow])

    scoped = UserScopedPool(create_lakebase_pool(CONFIG))
    with scoped.connection() as connection:
        assert_type(connection, Connection[TupleRow])
    async_scoped = AsyncUserScopedPool(create_async_lakebase_pool(CONFIG))
    async with async_scoped.connection() as async_connection:
        assert_type(async_connection, AsyncConnection[TupleRow])


def misspelt() -> None:
    create_lakebase_pool(CONFIG, max_sizes=3)  # type: ignore[call-arg]
    create_async_lakebase_pool(CONFIG, max_size="3")  # type: ignore[arg-type]
    LakebasePoolConfig(hosst="h")  # type: ignore[call-arg]
    LakebasePoolConfig.from_env(prot=5432)  # type: ignore[call-arg]
    LakebasePool(config=CONFIG, max_use=3)  # type: ignore[call-arg]
    LakebasePoolManager(CONFIG, max_poolss=3)  # type: ignore[call-arg]
