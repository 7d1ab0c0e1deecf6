"""Attributes and arguments that users of psycopg_pool read, set and give."""

from __future__ import annotations

import asyncio

import psycopg
import psycopg_pool
import pytest

from lakebase import AsyncLakebasePool, ConfigurationError, LakebasePool, RoutingPool, UserIdentity, UserScopedPool
from pooling import RequestContext
from tests.dropin.parts import PASSWORD, ROLE, Pools, ask, connection, enter, on_asyncio, on_both, pid, wait


@on_both
async def test_times_and_limits_can_be_set_at_any_time(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1)
        await pid(pool)
        pool.timeout, pool.max_waiting = 0.05, 3
        assert (pool.timeout, pool.max_waiting) == (0.05, 3)
        async with connection(pool):
            with pytest.raises(psycopg_pool.PoolTimeout, match=r"timeout=0\.05 s"):
                await wait(pool.getconn())
            pool.timeout, pool.max_waiting = 30, 1
            waiting = side.go(pid, pool)
            await side.until(lambda: pool.service.pending == 1)
            with pytest.raises(psycopg_pool.TooManyRequests):
                await wait(pool.getconn())
        await waiting.result()
        pool.max_waiting = 0
        assert pool.service.options.max_waiting is None
        with pytest.raises(ConfigurationError, match="timeout"):
            pool.timeout = "soon"


@on_both
async def test_idle_connections_age_out_by_a_new_max_idle(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=2)
        await pid(pool)
        pool.max_idle = 0.01
        assert pool.max_idle == 0.01
        await side.until(lambda: pool._nconns == 0)


@on_both
async def test_connections_made_from_now_on_have_a_new_max_lifetime(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1)
        first = await pid(pool)
        pool.max_lifetime = 0.05
        assert await pid(pool) == first
        await wait(pool.drain())
        await pid(pool)
        await side.until(lambda: pool._nconns == 0)


@on_both
async def test_connection_arguments_set_later_are_the_next_connections(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        dsn, pools.dsn = pools.dsn, "host=127.0.0.1 dbname=no_such user=nobody"
        pool = await pools.open(max_size=1, kwargs={"application_name": "before"})
        pool.conninfo, pool.kwargs, pool.reconnect_timeout = dsn, {"application_name": "after"}, 7
        assert (pool.conninfo, pool.kwargs, pool.reconnect_timeout) == (dsn, {"application_name": "after"}, 7)
        async with connection(pool) as conn:
            assert await ask(conn, "select current_setting('application_name')") == "after"
        with pytest.raises(ConfigurationError, match="kwargs is of type int"):
            pool.kwargs = 5


@pytest.mark.parametrize("given", [{"kwargs": 5}, {"kwargs": "host=h"}, {"conninfo": 5}])
@pytest.mark.parametrize("kind", [LakebasePool, AsyncLakebasePool])
def test_what_cannot_be_connected_with_is_refused_at_construction(kind, given):
    with pytest.raises(ConfigurationError, match=f"{next(iter(given))} is of type"):
        kind(**given, open=False)


async def connected(kind, pool):
    """A connection that a user of psycopg_pool makes with what the pool connects with."""
    conninfo, kwargs = await wait(pool._resolve_conninfo()), await wait(pool._resolve_kwargs())
    return await wait(kind.connect(conninfo, **kwargs))


@pytest.mark.parametrize("made", ["of a configuration", "of a connection string", "of callables"])
@on_both
async def test_a_connection_beside_the_pool_is_one_of_the_same_user(side, lakebase_local, made):
    async with Pools(side, lakebase_local) as pools:
        lake = lakebase_local
        if made == "of a configuration":
            user = "beside@corp.example"
            lake.add_user(user)
            pool = pools.kind(config=lake.config(user=user), open=False, kwargs={"application_name": "beside"})
        else:
            user = ROLE
            kwargs = {"application_name": "beside"}
            is_fixed = made == "of a connection string"
            dsn = pools.dsn
            pools.dsn = dsn if is_fixed else lambda: dsn
            pool = await pools.open(opens=False, kwargs=kwargs if is_fixed else lambda: kwargs)
        for _ in range(2):
            conn = await connected(pool.connection_class, pool)
            assert await ask(conn, "select current_user") == user
            assert await ask(conn, "select current_setting('application_name')") == "beside"
            await wait(conn.close())


def test_the_arguments_of_a_configuration_show_no_password_and_connect(lakebase_local):
    lakebase_local.add_user("shown@corp.example")
    pool = LakebasePool(config=lakebase_local.config(user="shown@corp.example"), open=False)
    assert repr(pool.kwargs["password"]) == "***"
    with psycopg.connect(pool.conninfo, **pool.kwargs) as conn:
        assert conn.execute("select current_user").fetchone() == ("shown@corp.example",)
    lakebase_local.add_user("n@corp.example")
    native = LakebasePool(
        config=lakebase_local.config(user="n@corp.example").merged({"password": PASSWORD}), open=False
    )
    assert PASSWORD not in repr(native.kwargs)


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
@on_both
async def test_a_timeout_of_no_time_is_one_at_once(side, lakebase_local, timeout):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1)
        await pid(pool)
        with pytest.raises(psycopg_pool.PoolTimeout, match="no time at all"):
            await wait(pool.getconn(timeout=timeout))
        with pytest.raises(psycopg_pool.PoolTimeout):
            await enter(pool.connection(timeout=timeout))
        assert pool.service.borrowed == 0


def test_a_block_decorates_a_function(lakebase_local):
    with LakebasePool(Pools(_Threads, lakebase_local).dsn, min_size=0, max_size=1) as pool:

        @pool.connection(timeout=5)
        def doubled(number):
            """Doubles."""
            assert pool.service.borrowed == 1
            return number * 2

        assert [doubled(number) for number in (1, 2)] == [2, 4]
        assert doubled.__doc__ == "Doubles."
        assert pool.service.borrowed == 0


class _Threads:
    name = "threads"


@on_asyncio
async def test_a_block_decorates_a_coroutine_function(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1)

        @pool.connection()
        async def doubled(number):
            await asyncio.sleep(0)
            assert pool.service.borrowed == 1
            return number * 2

        assert await asyncio.gather(doubled(1), doubled(2), doubled(3)) == [2, 4, 6]
        assert pool.service.borrowed == 0


def _message(pool):
    with pytest.raises(psycopg_pool.PoolTimeout) as caught:
        pool.getconn(timeout=0.01)
    return str(caught.value)


def test_the_first_timeout_names_the_line_that_holds_the_connection_and_its_request(lakebase_local):
    with LakebasePool(Pools(_Threads, lakebase_local).dsn, min_size=0, max_size=1) as pool:
        with pool.connection():
            assert "at test_attributes.py:" in _message(pool)
        with RequestContext("GET /orders"), pool.connection():
            assert "in test_the_first_timeout_names" in _message(pool)
            assert "for request 'GET /orders'" in _message(pool)
        conn = pool.getconn()
        assert "in test_the_first_timeout_names" in _message(pool)
        pool.putconn(conn)


def test_a_line_that_borrows_through_other_pools_and_engines_is_named_too(lakebase_local):
    sqlalchemy = pytest.importorskip("sqlalchemy")
    from lakebase.sqlalchemy import create_lakebase_engine

    identity = UserIdentity("ann@line.example", "token")
    with LakebasePool(Pools(_Threads, lakebase_local).dsn, min_size=0, max_size=1) as pool:
        blocks = (
            create_lakebase_engine(pool).connect,
            RoutingPool(pool, lambda _: None).connection,
            lambda: UserScopedPool(pool, trust_headers=True).connection(identity=identity),
        )
        for block in blocks:
            with block():
                assert "in test_a_line_that_borrows" in _message(pool), block
        assert sqlalchemy


@on_asyncio
async def test_a_task_that_only_borrows_is_named(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1)
        conn = await asyncio.create_task(pool.getconn(), name="orders")
        with pytest.raises(psycopg_pool.PoolTimeout, match="for task 'orders'"):
            await pool.getconn(timeout=0.01)
        await pool.putconn(conn)
