"""Pools that keep no connection, as psycopg_pool's null pools."""

from __future__ import annotations

import psycopg_pool
import pytest

from lakebase import AsyncNullLakebasePool, LoginError, NullLakebasePool
from tests.dropin.parts import Pools, ask, connection, on_both, pid, wait


class NullPools(Pools):
    """Opens null pools."""

    def __init__(self, side, lake):
        super().__init__(side, lake)
        self.kind = NullLakebasePool if side.name == "threads" else AsyncNullLakebasePool

    async def open(self, **options):
        options.setdefault("max_size", None)
        return await super().open(**options)


def test_they_are_psycopg_pools_by_type():
    assert issubclass(NullLakebasePool, psycopg_pool.NullConnectionPool)
    assert issubclass(AsyncNullLakebasePool, psycopg_pool.AsyncNullConnectionPool)


@on_both
async def test_a_connection_that_no_borrower_waits_for_is_closed_on_return(side, lakebase_local):
    async with NullPools(side, lakebase_local) as pools:
        pool = await pools.open()
        async with connection(pool) as conn:
            first = conn.info.backend_pid
        assert conn.closed
        assert await pid(pool) != first
        await side.until(lambda: pool._nconns == 0)
        assert pool.get_stats().get("returns_bad", 0) == 0


@on_both
async def test_a_borrower_that_waits_gets_the_connection(side, lakebase_local):
    async with NullPools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1)
        async with connection(pool) as conn:
            first = conn.info.backend_pid
            await wait(conn.set_autocommit(True))
            waiting = side.go(pid, pool)
            await side.until(lambda: pool.service.pending == 1)
        assert await waiting.result() == first
        assert pool.get_stats()["connections_num"] == 1


@pytest.mark.parametrize("max_size", [0, None])
@on_both
async def test_zero_and_none_are_no_limit(side, lakebase_local, max_size):
    async with NullPools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=max_size)
        assert (pool.min_size, pool.max_size) == (0, 0)
        conns = [await wait(pool.getconn()) for _ in range(12)]
        assert len({conn.info.backend_pid for conn in conns}) == 12
        for conn in conns:
            await wait(pool.putconn(conn))
        await wait(pool.resize(0, 2))
        assert pool.max_size == 2
        await wait(pool.resize(0))
        assert pool.max_size == 0


@pytest.mark.parametrize(("min_size", "max_size"), [(1, None), (1, 2), (0, -1)])
@on_both
async def test_sizes_that_cannot_be_are_refused(side, lakebase_local, min_size, max_size):
    async with NullPools(side, lakebase_local) as pools:
        with pytest.raises(ValueError):
            pools.kind(pools.dsn, min_size=min_size, max_size=max_size, open=False)
        pool = await pools.open()
        with pytest.raises(ValueError):
            await wait(pool.resize(min_size, max_size))


@on_both
async def test_waiting_for_it_connects_once(side, lakebase_local):
    async with NullPools(side, lakebase_local) as pools:
        pool = await pools.open()
        await wait(pool.wait(timeout=30))
        assert pool.get_stats()["connections_num"] == 1
        await wait(pool.check())
        async with connection(pool) as conn:
            assert await ask(conn, "select 1") == 1
        pools.dsn = pools.dsn.replace("dbname=", "dbname=no_such_")
        pool = await pools.open()
        with pytest.raises(LoginError):
            await wait(pool.wait(timeout=30))
        assert pool.closed
