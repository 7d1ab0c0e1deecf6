"""A guarded connection refuses to send what the pooler would break."""

from __future__ import annotations

import psycopg
import pytest

from lakebase.drivers import lakebase_pg_config
from lakebase.transaction_mode import Restriction, TransactionModeError, guard_connection


def test_a_guarded_connection_refuses_before_the_server_sees_it(lakebase_user) -> None:
    with psycopg.connect(**lakebase_pg_config(lakebase_user.config())) as connection:
        guard_connection(connection)
        assert connection.execute("SELECT %s::int", [1]).fetchone() == (1,)
        assert connection.execute("SELECT %s" + "+1" * 300, [1]).fetchone() == (301,)
        cursor = connection.cursor()
        held = connection.cursor("held", withhold=True)
        for refused in (
            lambda: connection.execute("SET search_path = a"),
            lambda: cursor.execute("LISTEN x"),
            lambda: cursor.executemany("SELECT pg_advisory_lock(%s)", [[1], [2]]),
            lambda: next(cursor.stream("SELECT pg_advisory_lock(1)")),
            lambda: held.execute("SELECT 1"),
        ):
            with pytest.raises(TransactionModeError) as caught:
                refused()
            assert isinstance(caught.value, psycopg.NotSupportedError)
            assert caught.value.violations
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        held.close()
        with connection.cursor("c") as named:
            assert named.execute("SELECT 1").fetchall() == [(1,)]


async def test_a_guarded_asyncio_connection_does_too(lakebase_user) -> None:
    settings = lakebase_pg_config(lakebase_user.config())
    async with await psycopg.AsyncConnection.connect(**settings) as connection:
        guard_connection(connection)
        assert await (await connection.execute("SELECT 1")).fetchone() == (1,)
        with pytest.raises(TransactionModeError, match="direct_config"):
            await connection.execute("LISTEN x")
        with pytest.raises(TransactionModeError):
            async for _ in connection.cursor().stream("SELECT pg_advisory_lock(1)"):
                pass


def test_what_is_allowed_passes_and_what_is_wrong_is_the_servers_to_tell(lakebase_user) -> None:
    with psycopg.connect(**lakebase_pg_config(lakebase_user.config())) as connection:
        guard_connection(connection, allow=[Restriction.SESSION_SETTING])
        guard_connection(connection, allow=[Restriction.SESSION_SETTING])
        connection.execute("SET search_path = public")
        with pytest.raises(psycopg.errors.SyntaxError):
            connection.execute("SELEC 1")


def test_the_configuration_switches_the_guard_on(lakebase_user) -> None:
    settings = lakebase_pg_config(lakebase_user.config(transaction_mode_guard=True))
    with psycopg.connect(**settings) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(TransactionModeError):
            connection.execute("LISTEN x")
        with connection.cursor("held", withhold=True) as held, pytest.raises(TransactionModeError):
            held.execute("SELECT 1")


async def test_the_configuration_switches_the_guard_on_for_asyncio(lakebase_user) -> None:
    settings = lakebase_pg_config(lakebase_user.config(transaction_mode_guard=True))
    async with await psycopg.AsyncConnection.connect(**settings) as connection:
        assert await (await connection.execute("SELECT 1")).fetchone() == (1,)
        with pytest.raises(TransactionModeError):
            await connection.execute("LISTEN x")


def test_through_a_pool_the_guard_is_on_too(lakebase_user) -> None:
    from lakebase import create_lakebase_pool

    with create_lakebase_pool(lakebase_user.config(transaction_mode_guard=True)) as pool:
        with pool.connection() as connection, pytest.raises(TransactionModeError):
            connection.execute("SET search_path = a")
        with pool.connection() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
