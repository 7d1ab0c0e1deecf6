"""Libraries that take a psycopg_pool: LangGraph's Postgres savers and SQLAlchemy."""

from __future__ import annotations

import importlib

import psycopg
import psycopg_pool
import pytest
from psycopg.rows import dict_row

from lakebase import AsyncLakebasePool, AsyncRoutingPool, LakebasePool, RoutingPool, UserIdentity
from pooling import RequestContext

TUPLE = {"configurable": {"thread_id": "1", "checkpoint_ns": ""}}


def checkpoint(base, number):
    found = base.empty_checkpoint()
    found["channel_values"] = {"count": number}
    found["channel_versions"] = {"count": number}
    return found


def settings(lake):
    """The admin's: the savers make tables."""
    return {
        "config": lake.config(max_size=2),
        "kwargs": {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row},
    }


def as_it_is(pool):
    return pool


def as_the_apps(pool):
    """Outside of requests."""
    return (RoutingPool if isinstance(pool, LakebasePool) else AsyncRoutingPool)(pool, lambda _: None)


@pytest.mark.parametrize("given", [as_it_is, as_the_apps])
def test_langgraphs_saver_works_on_it(lakebase_local, given):
    base = importlib.import_module("langgraph.checkpoint.base")
    from langgraph.checkpoint.postgres import PostgresSaver

    with LakebasePool(**settings(lakebase_local)) as pool:
        saver = PostgresSaver(given(pool))
        saver.setup()
        for number in (1, 2):
            saved = checkpoint(base, number)
            config = saver.put(TUPLE, saved, {"step": number}, {"count": number})
            saver.put_writes(config, [("count", number)], "task")
        assert saver.get_tuple(TUPLE).checkpoint["channel_values"] == {"count": 2}
        assert len(list(saver.list(TUPLE))) == 2
        saver.delete_thread("1")
        assert saver.get_tuple(TUPLE) is None
        assert pool.get_stats()["pool_available"] == pool.get_stats()["pool_size"]


@pytest.mark.parametrize("given", [as_it_is, as_the_apps])
async def test_langgraphs_async_saver_works_on_it(lakebase_local, given):
    base = importlib.import_module("langgraph.checkpoint.base")
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

    async with AsyncLakebasePool(**settings(lakebase_local)) as pool:
        saver = AsyncPostgresSaver(given(pool))
        await saver.setup()
        for number in (1, 2):
            config = await saver.aput(TUPLE, checkpoint(base, number), {"step": number}, {"count": number})
            await saver.aput_writes(config, [("count", number)], "task")
        assert (await saver.aget_tuple(TUPLE)).checkpoint["channel_values"] == {"count": 2}
        assert len([found async for found in saver.alist(TUPLE)]) == 2
        await saver.adelete_thread("1")
        assert pool.get_stats()["pool_available"] == pool.get_stats()["pool_size"]


def test_sqlalchemy_takes_its_connections_from_it(lakebase_local):
    sqlalchemy = importlib.import_module("sqlalchemy")

    with LakebasePool(config=lakebase_local.config(max_size=2), close_returns=True) as pool:
        engine = sqlalchemy.create_engine(
            "postgresql+psycopg://", creator=pool.getconn, poolclass=sqlalchemy.pool.NullPool
        )
        pids = set()
        for number in range(5):
            with engine.begin() as connection:
                pids.add(connection.scalar(sqlalchemy.text("select pg_backend_pid()")))
                assert connection.scalar(sqlalchemy.text("select :n"), {"n": number}) == number
        with pytest.raises(sqlalchemy.exc.ProgrammingError), engine.begin() as connection:
            connection.execute(sqlalchemy.text("wat"))
        with engine.connect() as connection:
            assert connection.scalar(sqlalchemy.text("select 1")) == 1
        assert len(pids) == 1
        assert (pool.get_stats()["pool_size"], len(pool._pool)) == (1, 1)


async def test_sqlalchemys_asyncio_engine_takes_its_connections_from_it(lakebase_local):
    sqlalchemy = importlib.import_module("sqlalchemy")
    from sqlalchemy.ext.asyncio import create_async_engine

    async with AsyncLakebasePool(config=lakebase_local.config(max_size=2), close_returns=True) as pool:
        engine = create_async_engine(
            "postgresql+psycopg://", async_creator=pool.getconn, poolclass=sqlalchemy.pool.NullPool
        )
        for number in range(3):
            async with engine.begin() as connection:
                assert await connection.scalar(sqlalchemy.text("select cast(:n as int)"), {"n": number}) == number
        await engine.dispose()
        assert (pool.get_stats()["pool_size"], len(pool._pool)) == (1, 1)


def test_langgraphs_saver_reads_as_the_requests_user(lakebase_local):
    from langgraph.checkpoint.postgres import PostgresSaver

    lake = lakebase_local
    ann = UserIdentity("ann@saver.example", lake.add_user("ann@saver.example"))
    with LakebasePool(**settings(lake)) as pool, LakebasePool(config=lake.config(user=ann.user)) as anns:
        PostgresSaver(pool).setup()
        saver = PostgresSaver(RoutingPool(pool, lambda _: anns))
        with RequestContext(identity=ann), pytest.raises(psycopg.errors.InsufficientPrivilege):
            saver.get_tuple(TUPLE)


def test_a_routing_pool_is_psycopgs_by_type_and_else_the_apps(lakebase_local):
    assert issubclass(AsyncRoutingPool, psycopg_pool.AsyncConnectionPool)
    app_pool = LakebasePool(config=lakebase_local.config(max_size=2), open=False, name="apps", timeout=3)
    routing = RoutingPool(app_pool, lambda _: None)
    assert isinstance(routing, psycopg_pool.ConnectionPool)
    assert (routing.name, routing.min_size, routing.max_size, routing.timeout, routing.closed) == (
        "apps",
        0,
        2,
        3,
        True,
    )
    with routing, routing.connection() as connection:
        assert connection.execute("select 1").fetchone() == (1,)
        assert routing.get_stats()["pool_size"] == app_pool.get_stats()["pool_size"] == 1
        assert "apps" in repr(routing)
        routing.resize(0, 3)
        routing.check()
        routing.drain()
        assert routing.pop_stats()["requests_num"] == 1
        assert app_pool.max_size == 3
        assert not hasattr(routing, "no_such_name")
    assert app_pool.closed


async def test_so_is_its_asyncio_twin(lakebase_local):
    app_pool = AsyncLakebasePool(config=lakebase_local.config(max_size=2), open=False, name="apps")
    async with AsyncRoutingPool(app_pool, lambda _: None) as routing, routing.connection() as connection:
        await connection.execute("select 1")
        await routing.wait()
        await routing.resize(0, 3)
        await routing.check()
        await routing.drain()
        assert (routing.name, routing.max_size) == ("apps", 3)
    assert app_pool.closed
