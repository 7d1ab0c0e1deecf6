"""What psycopg_pool's users rely on, on a real Postgres."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading

import psycopg
import psycopg_pool
import pytest
from psycopg.pq import TransactionStatus

from lakebase import AsyncLakebasePool, CallbackError, LakebasePool, LoginError
from tests.dropin.parts import (
    Pools,
    ask,
    connection,
    enter,
    on_asyncio,
    on_both,
    on_threads,
    pid,
    transaction,
    wait,
)

IDLE = TransactionStatus.IDLE


def test_they_are_psycopg_pools():
    assert issubclass(LakebasePool, psycopg_pool.ConnectionPool)
    assert issubclass(AsyncLakebasePool, psycopg_pool.AsyncConnectionPool)
    assert LakebasePool[psycopg.Connection[dict]]


@pytest.mark.parametrize(("min_size", "max_size"), [(0, 0), (0, None), (-1, None), (4, 2)])
@on_both
async def test_sizes_that_cannot_work_are_refused(side, lakebase_local, min_size, max_size):
    async with Pools(side, lakebase_local) as pools:
        with pytest.raises(ValueError):
            pools.kind(pools.dsn, min_size=min_size, max_size=max_size)
        pool = await pools.open()
        if (min_size, max_size) != (0, None):
            with pytest.raises(ValueError):
                await wait(pool.resize(min_size, max_size))


@on_both
async def test_defaults_are_psycopg_pools(side, lakebase_local):
    pool = Pools(side, lakebase_local).kind("", open=False)
    assert (pool.min_size, pool.max_size, pool.timeout) == (4, 4, 30)
    assert (pool.max_idle, pool.max_lifetime, pool.num_workers, pool.reconnect_timeout) == (600, 3600, 3, 300)
    assert (pool.max_waiting, pool.closed) == (0, True)


@on_both
async def test_a_block_is_a_transaction(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1)
        async with connection(pool) as conn:
            assert conn._pool is pool
            await wait(conn.execute("create temp table seen (n int)"))
            await wait(conn.execute("insert into seen values (1)"))
        with pytest.raises(ZeroDivisionError):
            async with connection(pool) as conn:
                await wait(conn.execute("insert into seen values (2)"))
                raise ZeroDivisionError
        async with connection(pool) as conn:
            assert await ask(conn, "select sum(n) from seen") == 1


@on_both
async def test_an_error_in_the_block_costs_no_connection(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1)
        before = await pid(pool)
        with pytest.raises(psycopg.errors.DivisionByZero):
            async with connection(pool) as conn:
                await wait(conn.execute("select 1/0"))
        assert await pid(pool) == before


@pytest.mark.parametrize("state", ["INTRANS", "INERROR"])
@on_both
async def test_what_is_left_open_is_rolled_back_on_return(side, lakebase_local, caplog, state):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1)
        conn = await wait(pool.getconn())
        before = conn.info.backend_pid
        await wait(conn.execute("create temp table left_open ()"))
        if state == "INERROR":
            with pytest.raises(psycopg.ProgrammingError):
                await wait(conn.execute("wat"))
        await wait(pool.putconn(conn))
        assert state in caplog.text
        async with connection(pool) as conn:
            assert (conn.info.backend_pid, conn.info.transaction_status) == (before, IDLE)
            assert await ask(conn, "select to_regclass('left_open')") is None


@on_both
async def test_a_connection_in_the_middle_of_an_operation_is_closed_on_return(side, lakebase_local, caplog):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1)
        conn = await wait(pool.getconn())
        before = conn.info.backend_pid
        conn.pgconn.exec_(b"copy (select * from generate_series(1, 10)) to stdout")
        assert conn.info.transaction_status == TransactionStatus.ACTIVE
        await wait(pool.putconn(conn))
        assert conn.closed
        assert await pid(pool) != before
        assert pool.get_stats()["returns_bad"] == 1


@on_both
async def test_a_connection_closed_by_its_borrower_is_replaced(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1)
        async with connection(pool) as conn:
            before = conn.info.backend_pid
            await wait(conn.close())
        assert await pid(pool) != before


@on_both
async def test_a_foreign_connection_is_refused(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        one, other = await pools.open(), await pools.open()
        conn = await wait(one.getconn())
        with pytest.raises(ValueError, match="it comes from pool"):
            await wait(other.putconn(conn))
        await wait(one.putconn(conn))
        with pytest.raises(ValueError, match="doesn't come from any pool"):
            await wait(one.putconn(conn))
        assert await pid(one)


@on_both
async def test_errors_are_psycopg_pools_by_type(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(opens=False, max_size=1, max_waiting=1)
        with pytest.raises(psycopg_pool.PoolClosed, match="is not open yet"):
            await wait(pool.getconn())
        block = pool.connection()  # says nothing yet, as in psycopg_pool
        with pytest.raises(psycopg_pool.PoolClosed, match="is not open yet"):
            await enter(block)
        await wait(pool.open())
        await wait(pool.open())  # does nothing
        async with connection(pool):
            with pytest.raises(psycopg_pool.PoolTimeout, match=pool.name) as caught:
                await wait(pool.getconn(timeout=0.02))
            assert isinstance(caught.value, psycopg.OperationalError)
            assert isinstance(caught.value, TimeoutError)
            with pytest.raises(psycopg_pool.PoolTimeout):
                async with connection(pool, timeout=-1):
                    pass
            waiter = side.go(pid, pool)
            await side.until(lambda: len(pool._waiting) == 1)
            with pytest.raises(psycopg_pool.TooManyRequests, match=pool.name) as refused:
                await wait(pool.getconn())
            assert "max_waiting=1" in str(refused.value)
        await waiter.result()
        await wait(pool.close())
        with pytest.raises(psycopg_pool.PoolClosed, match="is already closed"):
            await wait(pool.getconn())
        with pytest.raises(psycopg_pool.PoolClosed):
            await wait(pool.wait())
        with pytest.raises(psycopg.OperationalError, match="cannot be reused"):
            await wait(pool.open())


@on_both
async def test_a_pool_that_was_closed_with_a_timeout_that_cannot_work_is_open_still(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(min_size=1)
        await wait(pool.wait())
        with pytest.raises(TypeError):
            await wait(pool.close(None))
        assert not pool.closed
        await wait(pool.close())
        assert pool.service.size == 0


@on_both
async def test_closing_rejects_waiters_and_leaves_borrowed_connections_open(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1)
        async with connection(pool) as conn:
            waiter = side.go(pid, pool)
            await side.until(lambda: len(pool._waiting) == 1)
            await wait(pool.close())
            with pytest.raises(psycopg_pool.PoolClosed):
                await waiter.result()
            assert await ask(conn, "select 1") == 1
        assert conn.closed
        assert pool.closed


@on_both
async def test_configure_is_called_with_each_new_connection(side, lakebase_local):
    configured = []

    async def configure(conn):
        configured.append(conn)
        async with transaction(conn):
            await wait(conn.execute("set application_name to 'configured'"))

    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1, configure=configure)
        for count in (1, 1, 2):
            async with connection(pool) as conn:
                assert await ask(conn, "show application_name") == "configured"
                assert len(configured) == count
                if count == len(configured) == 1 and pool.get_stats()["requests_num"] == 2:
                    await wait(conn.close())


@pytest.mark.parametrize(("query", "word"), [("select 1", "INTRANS"), ("wat", "wat")])
@on_both
async def test_a_configure_that_fails_or_leaves_a_transaction_open_is_told(side, lakebase_local, caplog, query, word):
    async def configure(conn):
        await wait(conn.execute(query))

    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(min_size=1, configure=configure)
        with pytest.raises(CallbackError, match=rf"configure\(\) failed with [^:]*: .*{word}") as caught:
            await wait(pool.wait(timeout=30))
        assert isinstance(caught.value.__cause__, psycopg.ProgrammingError)
        assert caplog.text.count("configure() failed with") == 1
        await side.until(lambda: pool._nconns == 0)


@on_both
async def test_reset_is_called_on_return_and_one_that_fails_costs_the_connection(side, lakebase_local, caplog):
    resets, faults = [], []

    async def reset(conn):
        resets.append(conn)
        if faults:
            await wait(conn.execute(faults.pop()))
        else:
            async with transaction(conn):
                await wait(conn.execute("reset all"))

    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1, reset=reset)
        async with connection(pool) as conn:
            assert not resets
            before = conn.info.backend_pid
            await wait(conn.execute("set application_name to 'changed'"))
        async with connection(pool) as conn:
            assert conn.info.backend_pid == before
            assert await ask(conn, "show application_name") != "changed"
        for query, word in (("select 1", "in status INTRANS by reset"), ("wat", 'syntax error at or near "wat"')):
            faults.append(query)
            before = await pid(pool)
            assert word in caplog.text
            assert await pid(pool) != before
        assert pool.get_stats()["returns_bad"] == 2


@on_both
async def test_check_decides_whether_a_connection_is_handed_out(side, lakebase_local):
    condemned = set()

    async def check(conn):
        if conn.info.backend_pid in condemned:
            raise RuntimeError("no")

    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1, check=check)
        condemned.add(await pid(pool))
        assert await pid(pool) not in condemned
        assert pool.get_stats()["connections_lost"] == 1


@on_both
async def test_a_check_that_always_fails_ends_at_the_timeout(side, lakebase_local):
    calls = []

    async def check(conn):
        calls.append(conn)
        raise RuntimeError("no")

    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(min_size=1, max_size=1, check=check)
        await wait(pool.wait())  # a busy machine may need longer than the timeout for the first connection
        with pytest.raises(psycopg_pool.PoolTimeout):
            await wait(pool.getconn(timeout=0.5))
        assert 1 <= len(calls) <= 15
        await side.until(lambda: len(pool._pool) == pool._nconns == 1, "the last attempt to connect has not ended")


@on_both
async def test_the_pools_check_closes_dead_connections_and_fills_up_again(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(min_size=3, max_size=3)
        await wait(pool.wait())
        before = {conn.info.backend_pid for conn in pool._pool}
        victim = pool._pool[0]
        await wait(victim.close())
        await wait(pool.check())
        await wait(pool.wait())
        after = {conn.info.backend_pid for conn in pool._pool}
        assert len(before & after) == 2
        assert len(after) == 3
        assert all(conn.info.transaction_status == IDLE for conn in pool._pool)


@on_both
async def test_the_pools_check_does_not_wait_for_a_server_that_is_gone(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(min_size=2, max_size=2)
        await wait(pool.wait())
        with lakebase_local.refuse():
            lakebase_local.drop_connections()
            await wait(pool.check())
            assert len(pool._pool) == 0
        await wait(pool.wait())
        assert len(pool._pool) == 2


@on_both
async def test_drain_replaces_all_connections(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=2)
        async with connection(pool) as out:
            idle = await pid(pool)
            before = {out.info.backend_pid, idle}
            await wait(pool.drain())
            assert not out.closed
            assert await pid(pool) not in before
        await side.until(lambda: out.closed)


@on_both
async def test_resize_down_closes_what_is_too_much(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(min_size=3, max_size=3)
        await wait(pool.wait())
        await wait(pool.resize(1))
        assert (pool.min_size, pool.max_size) == (1, 1)
        await side.until(lambda: pool._nconns == 1)
        await wait(pool.resize(2, 4))
        await wait(pool.wait())
        assert (pool.min_size, pool.max_size, len(pool._pool)) == (2, 4, 2)


@on_both
async def test_wait_raises_when_the_pool_cannot_be_filled_and_closes_it(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        with lakebase_local.refuse():
            pool = await pools.open(min_size=1)
            with pytest.raises(psycopg_pool.PoolTimeout):
                await wait(pool.wait(timeout=0.2))
            assert pool.closed


@on_both
async def test_statistics_have_psycopg_pools_names(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(min_size=1, max_size=2)
        await wait(pool.wait())
        stats = pool.get_stats()
        assert (stats["pool_min"], stats["pool_max"], stats["pool_size"], stats["pool_available"]) == (1, 2, 1, 1)
        assert (stats["requests_waiting"], stats["connections_num"]) == (0, 1)
        async with connection(pool), connection(pool):
            with pytest.raises(psycopg_pool.PoolTimeout):
                await wait(pool.getconn(timeout=0.05))
        stats = pool.pop_stats()
        assert (stats["requests_num"], stats["requests_errors"], stats["connections_num"]) == (3, 1, 2)
        assert stats["requests_wait_ms"] >= 50
        assert stats["connections_ms"] > 0
        assert "requests_num" not in pool.get_stats()
        await pid(pool)
        assert pool.get_stats()["requests_num"] == 1


@on_both
async def test_close_gives_back_where_close_returns(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1, close_returns=True)
        conn = await wait(pool.getconn())
        await wait(conn.close())
        assert not conn.closed
        assert pool._pool == [conn]
        await wait(pool.close())
        await side.until(lambda: conn.closed)


@on_both
async def test_reconnect_failed_is_called_while_connects_go_on_failing(side, lakebase_local):
    called = []

    def reconnect_failed(pool):
        called.append(pool.name)
        raise RuntimeError("ignored")

    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(min_size=0, reconnect_timeout=0.1, reconnect_failed=reconnect_failed)
        await pid(pool)
        with lakebase_local.refuse():
            lakebase_local.drop_connections()
            with pytest.raises(psycopg_pool.PoolTimeout):
                await wait(pool.getconn(timeout=1.5))
        assert called
        assert set(called) == {pool.name}
        assert await pid(pool)


@pytest.mark.parametrize("silently", [False, True])
@on_both
async def test_a_connection_that_the_server_has_closed_is_never_handed_out(side, lakebase_local, silently):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(min_size=2, max_size=2)
        await wait(pool.wait())
        before = {conn.info.backend_pid for conn in pool._pool}
        lakebase_local.drop_connections(silently=silently)
        async with connection(pool) as one, connection(pool) as other:
            assert {await ask(one, "select 1"), await ask(other, "select 1")} == {1}
            assert not {one.info.backend_pid, other.info.backend_pid} & before


@on_both
async def test_a_terminated_backend_is_noticed_without_a_round_trip(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(min_size=2, max_size=2)
        await wait(pool.wait())
        async with connection(pool) as conn:
            async with connection(pool) as other:
                victim = other.info.backend_pid
            await wait(conn.execute("select pg_terminate_backend(%s, 5000)", [victim]))
            async with connection(pool) as again:
                assert again.info.backend_pid != victim
                assert await ask(again, "select 1") == 1


@pytest.mark.parametrize(("severity", "is_the_end"), [("FATAL", True), ("PANIC", True), ("WARNING", False)])
@on_both
async def test_the_last_words_of_a_server_are_understood_before_it_has_closed_the_socket(
    side, lakebase_local, severity, is_the_end
):
    heard = []

    async def configure(conn):
        conn.add_notice_handler(lambda notice: heard.append(notice.severity_nonlocalized))

    async with Pools(side, lakebase_local) as pools:
        pools.dsn = f"host={lakebase_local.socket_directory} user=postgres dbname={lakebase_local.database}"
        pool = await pools.open(max_size=1, kwargs={"autocommit": True}, configure=configure)
        async with connection(pool) as conn:
            before, ours = conn.info.backend_pid, conn.fileno()
        fields = b"".join(name + value + b"\0" for name, value in ((b"S", b"ENDE"), (b"V", severity.encode()))) + b"\0"
        kind = b"E" if is_the_end else b"N"
        server, client = socket.socketpair()
        with server, client, socket.fromfd(ours, socket.AF_UNIX, socket.SOCK_STREAM) as kept:
            os.dup2(client.fileno(), ours)
            server.sendall(kind + struct.pack("!I", 4 + len(fields)) + fields)
            async with connection(pool) as conn:
                assert (conn.info.backend_pid != before) is is_the_end
                if not is_the_end:
                    os.dup2(kept.fileno(), ours)
                assert await ask(conn, "select 1") == 1
        assert heard == [severity]


@on_both
async def test_notifications_do_not_make_an_idle_connection_look_dead(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        heard = []

        async def configure(conn):
            conn.add_notify_handler(heard.append)

        pool = await pools.open(max_size=1, kwargs={"autocommit": True}, configure=configure)
        notifier = await pools.open(max_size=1, kwargs={"autocommit": True})
        async with connection(pool) as conn:
            listening = conn.info.backend_pid
            await wait(conn.execute("listen news"))
        for number in range(300):
            async with connection(notifier) as conn:
                await wait(conn.execute("select pg_notify('news', %s)", [f"{number} {'x' * 500}"]))
        async with connection(pool) as conn:
            assert conn.info.backend_pid == listening
            await wait(conn.execute("select 1"))
        assert len(heard) == 300, "what was read while idle is not lost"


@on_asyncio
async def test_after_a_cancelled_query_no_borrower_gets_the_half_used_connection(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool, watcher = await pools.open(max_size=1), await pools.open(max_size=1)

        async def sleeps():
            async with pool.connection() as conn:
                await conn.execute("select 'stale', pg_sleep(60)")

        active = "select count(*) from pg_stat_activity where state = 'active' and query like 'select ''stale%%'"
        for _ in range(3):
            task = side.go(sleeps)
            async with watcher.connection() as conn:
                await conn.set_autocommit(True)
                while not await ask(conn, active):
                    pass
                await conn.set_autocommit(False)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task.result()
            async with pool.connection(timeout=10) as conn:
                assert conn.info.transaction_status == IDLE
                assert await ask(conn, "select 'mine'") == "mine"
        assert len(pool._pool) == pool._nconns == 1


@on_both
async def test_a_login_that_cannot_succeed_is_told_at_once_with_the_servers_words(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        wrong = pools.kind(
            pools.dsn.replace("password='", "password='not "), min_size=0, max_size=1, timeout=30, open=False
        )
        pools.opened.append(wrong)
        await wait(wrong.open())
        with pytest.raises(LoginError, match="authentication failed"):
            await wait(wrong.getconn())


@on_threads
async def test_an_idle_pool_has_no_threads(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        before = threading.active_count()
        for _ in range(20):
            await pid(await pools.open(max_size=1))
        assert threading.active_count() <= before + 4


@on_asyncio
async def test_an_idle_pool_has_no_tasks(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        for _ in range(20):
            await pid(await pools.open(max_size=1))
        await side.until(lambda: len(asyncio.all_tasks()) == 1)


@on_asyncio
async def test_a_cancelled_return_to_a_closed_pool_stays_a_cancellation(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1)
        conn = await pool.getconn()
        await pool.close()
        returning = asyncio.ensure_future(pool.putconn(conn))
        await asyncio.sleep(0)  # it waits for the connection to be closed
        returning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await returning
        await side.until(lambda: conn.closed)
