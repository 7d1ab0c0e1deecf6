"""Callbacks and subclasses, as psycopg_pool treats them."""

from __future__ import annotations

import functools
import gc
import warnings
import weakref

import psycopg
import psycopg_pool
import pytest
from psycopg.pq import TransactionStatus

from lakebase import AsyncLakebasePool, ConfigurationError, LakebasePool
from tests.dropin.parts import Pools, ask, connection, ending, enter, on_both, pid, wait

# --- a connection is the pool's while a callback has it ---------------------------------------------------------------


@pytest.mark.parametrize("close_returns", [False, True])
@pytest.mark.parametrize("which", ["configure", "check", "reset"])
@on_both
async def test_a_block_on_the_connection_in_a_callback_only_ends_the_transaction(
    side, lakebase_local, caplog, which, close_returns
):
    seen = []

    async def callback(conn):
        assert conn._pool is pool
        async with ending(conn):
            await wait(conn.execute("set application_name to 'kept'"))
        seen.append(conn.closed)

    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1, close_returns=close_returns, **{which: callback})
        first = await pid(pool)
        async with connection(pool) as conn:
            assert (conn.info.backend_pid, await ask(conn, "show application_name")) == (first, "kept")
        assert seen
        assert not any(seen)
        assert pool._pool[0]._pool is None, "an idle connection refers to no pool"
        assert not caplog.records


@pytest.mark.parametrize("close_returns", [False, True])
@on_both
async def test_a_reset_that_closes_costs_the_connection(side, lakebase_local, caplog, close_returns):
    async def reset(conn):
        await wait(conn.close())

    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1, close_returns=close_returns, reset=reset)
        first = await pid(pool)
        assert await pid(pool) != first
        assert "by reset function" in caplog.text


@on_both
async def test_a_connection_that_its_check_has_closed_is_not_handed_out(side, lakebase_local):
    closing = []

    async def check(conn):
        if closing:
            closing.pop()
            await wait(conn.close())

    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1, check=check)
        first = await pid(pool)
        closing.append(True)
        assert await pid(pool) != first


@on_both
async def test_a_check_sees_each_connection_before_it_is_handed_out_and_after_a_failure_another(side, lakebase_local):
    async def check(conn):
        async with ending(conn):
            await wait(conn.execute("select 1"))

    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=2, check=check)
        async with connection(pool) as one, connection(pool) as other:
            assert {await ask(one, "select 1"), await ask(other, "select 2")} == {1, 2}
            assert one._pool is other._pool is pool


@on_both
async def test_the_words_of_a_failing_rollback_and_reset_are_in_the_log(side, lakebase_local, caplog):
    async def reset(conn):
        raise RuntimeError("words of reset")

    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1, reset=reset)
        await pid(pool)
        assert "words of reset" in caplog.text
        caplog.clear()
        conn = await wait(pool.getconn())
        await wait(conn.execute("select 1"))
        with lakebase_local.refuse():
            lakebase_local.drop_connections()
            await wait(pool.putconn(conn))
        assert "rollback failed" in caplog.text
        assert "connection" in caplog.text.partition("rollback failed: ")[2].partition("Closing")[0].lower()


@on_both
async def test_a_dead_connection_that_check_finds_is_in_the_log(side, lakebase_local, caplog):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(min_size=3, max_size=3)
        await wait(pool.wait())
        await wait(pool._pool[0].close())
        assert not caplog.records
        await wait(pool.check())
        assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["discarding broken connection"]
        await wait(pool.wait())
        await wait(pool.check())
        assert len(caplog.records) == 1


# --- what is given back -----------------------------------------------------------------------------------------------


@on_both
async def test_what_is_no_pools_connection_is_refused_with_psycopg_pools_words(side, lakebase_local):
    kind = psycopg.Connection if side.name == "threads" else psycopg.AsyncConnection
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open()
        conn = await wait(kind.connect(pools.dsn))
        for stranger in (conn, None):
            with pytest.raises(
                ValueError, match=rf"^can't return connection to pool '{pool.name}', it doesn't come from"
            ):
                await wait(pool.putconn(stranger))
        await wait(conn.close())


@on_both
async def test_a_pool_that_is_dropped_goes_without_noise(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(min_size=2, max_size=2)
        await wait(pool.wait())
        gone = weakref.ref(pool)
        connections = [weakref.ref(conn) for conn in pool._pool]
        pools.opened.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del pool

            def is_collected():
                gc.collect()
                return gone() is None and not any(conn() for conn in connections)

            await side.until(is_collected)


# --- subclasses -------------------------------------------------------------------------------------------------------


def own(kind, calls):
    """A pool whose every method that psycopg_pool calls itself is overridden."""
    if kind is LakebasePool:

        class Own(LakebasePool):
            def getconn(self, timeout=None):
                calls.append("getconn")
                return super().getconn(timeout)

            def putconn(self, conn):
                calls.append("putconn")
                super().putconn(conn)

            def reconnect_failed(self):
                calls.append("reconnect_failed")
    else:

        class Own(AsyncLakebasePool):
            async def getconn(self, timeout=None):
                calls.append("getconn")
                return await super().getconn(timeout)

            async def putconn(self, conn):
                calls.append("putconn")
                await super().putconn(conn)

            async def reconnect_failed(self):
                calls.append("reconnect_failed")

    class Further(Own):
        pass

    return Further


@on_both
async def test_a_block_goes_through_a_subclass_own_methods(side, lakebase_local):
    calls = []
    async with Pools(side, lakebase_local) as pools:
        pools.kind = own(pools.kind, calls)
        pool = await pools.open(max_size=1)
        async with connection(pool, timeout=5) as conn:
            assert await ask(conn, "select 1") == 1
        assert calls == ["getconn", "putconn"]


class Told(psycopg.Connection):
    """A connection that counts its commits."""

    commits = 0

    def commit(self):
        self.commits += 1
        super().commit()


class AsyncTold(psycopg.AsyncConnection):
    commits = 0

    async def commit(self):
        self.commits += 1
        await super().commit()


@on_both
async def test_a_block_calls_a_connection_class_own_commit_also_when_nothing_is_to_commit(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        kind = Told if side.name == "threads" else AsyncTold
        pool = await pools.open(max_size=1, connection_class=kind, kwargs={"autocommit": True})
        async with connection(pool) as conn:
            assert await ask(conn, "select 1") == 1
        assert conn.commits == 1


@on_both
async def test_a_block_in_which_the_connection_was_given_back_says_so(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1)
        with pytest.raises(ValueError, match="can't return connection"):
            async with connection(pool) as conn:
                await wait(pool.putconn(conn))


@on_both
async def test_a_block_that_leaves_a_transaction_block_open_is_an_error(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1, kwargs={"autocommit": True})
        with pytest.raises(psycopg.ProgrammingError, match="Explicit commit"):
            async with connection(pool) as conn:
                block = conn.transaction()
                await enter(block)
        async with connection(pool) as other:
            assert other.pgconn.transaction_status == TransactionStatus.IDLE
            assert await ask(other, "select 1") == 1


@on_both
async def test_a_subclass_own_reconnect_failed_is_called(side, lakebase_local):
    calls = []
    async with Pools(side, lakebase_local) as pools:
        pools.kind = own(pools.kind, calls)
        pool = await pools.open(max_size=1, reconnect_timeout=0.05)
        with lakebase_local.refuse():
            with pytest.raises(psycopg_pool.PoolTimeout):
                await wait(pool.getconn(timeout=1.5))
            assert "reconnect_failed" in calls
            await side.until(lambda: pool._nconns == 0)


@on_both
async def test_reconnect_failed_can_be_called_by_hand(side, lakebase_local):
    called = []
    async with Pools(side, lakebase_local) as pools:
        await wait((await pools.open()).reconnect_failed())
        pool = await pools.open(reconnect_failed=called.append)
        await wait(pool.reconnect_failed())
        assert called == [pool]


# --- what cannot be a callback ----------------------------------------------------------------------------------------


async def coroutine(conn):
    """What a pool for threads would call and never run."""


class Callable:
    async def __call__(self, conn):
        pass


@pytest.mark.parametrize("callback", [coroutine, functools.partial(coroutine), Callable()])
@pytest.mark.parametrize("name", ["configure", "check", "reset", "reconnect_failed", "conninfo", "kwargs"])
def test_an_async_callback_on_a_pool_for_threads_is_refused(name, callback):
    with pytest.raises(ConfigurationError, match=f"^{name}=.* is async, .* use the asyncio pool") as caught:
        LakebasePool(open=False, **{name: callback})
    assert caught.value.field == name
    AsyncLakebasePool(open=False, **{name: callback})


@pytest.mark.parametrize("kind", [LakebasePool, AsyncLakebasePool])
@pytest.mark.parametrize("name", ["configure", "check", "reset", "reconnect_failed"])
def test_what_cannot_be_called_is_refused(name, kind):
    with pytest.raises(ConfigurationError, match=f"{name}='set role x': expected a function") as caught:
        kind(open=False, **{name: "set role x"})
    assert caught.value.field == name


async def test_a_coroutine_from_a_plain_function_does_not_pass_for_a_check(lakebase_local):
    async with Pools(Threads, lakebase_local) as pools:
        pool = pools.kind(pools.dsn, min_size=0, max_size=1, configure=lambda conn: coroutine(conn))
        pools.opened.append(pool)
        with pytest.raises(ConfigurationError, match="returned a coroutine"):
            pool.getconn(timeout=5)


class Threads:
    name = "threads"


@on_both
async def test_plain_functions_will_do_for_a_pool_of_either_kind(side, lakebase_local):
    seen = []
    async with Pools(side, lakebase_local) as pools:
        pool = pools.kind(pools.dsn, min_size=0, max_size=1, open=False, configure=seen.append, check=seen.append)
        pools.opened.append(pool)
        await wait(pool.open())
        assert await pid(pool)
        assert len(seen) == 2
        assert seen[0].info.transaction_status == TransactionStatus.IDLE


def test_a_budget_that_is_a_number_is_refused():
    with pytest.raises(ConfigurationError, match=r"budget=4: expected a PoolBudget, .*max_size=") as caught:
        LakebasePool(open=False, budget=4)
    assert caught.value.field == "budget"
