"""A failover is survived: nobody is left with a server that takes no more writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.errors import ReadOnlySqlTransaction
from psycopg_pool import PoolTimeout

from lakebase import (
    ConnectError,
    create_async_lakebase_pool,
    create_lakebase_pool,
    with_endpoint_host,
)
from lakebase.errors import ConnectFailure
from lakebase.local import LocalLakebase

WRITE = "CREATE TEMPORARY TABLE IF NOT EXISTS written (a int)"
SIDES = pytest.mark.parametrize("is_async", [False, True], ids=["threads", "asyncio"])


# The local Lakebase has one server, and no other host for readers.
READING: dict[str, Any] = {"libpq_params": {"options": "-c default_transaction_read_only=on"}}


class Server:
    """A Postgres that fails over."""

    def __init__(self, lake: LocalLakebase) -> None:
        self.lake = lake

    def tell(self, *statements: str) -> None:
        with psycopg.connect(host=str(self.lake.socket_directory), user="postgres", autocommit=True) as superuser:
            for statement in statements:
                superuser.execute(statement.encode())

    def become_standby(self) -> None:
        assert self.lake.socket_directory is not None
        (self.lake.socket_directory.parent / "pgdata" / "standby.signal").touch()
        self.lake.restart_postgres()

    def become_primary(self) -> None:
        self.tell("SELECT CASE WHEN pg_is_in_recovery() THEN pg_promote() END")

    def refuse_writes(self) -> None:
        self.tell("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")

    def take_writes(self) -> None:
        self.tell("ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with LocalLakebase(pooler="off") as lake:
        yield Server(lake)


def wait_until_refusing(connection: Any, is_refusing: str = "on") -> None:
    while connection.execute("SHOW default_transaction_read_only").fetchone() != (is_refusing,):
        connection.rollback()
    connection.rollback()


@pytest.fixture
def demoted(server: Server) -> Iterator[Any]:
    """Returns a borrowed connection's server to one that refuses writes; it takes them again after the test."""

    def demote(connection: Any) -> None:
        server.refuse_writes()
        wait_until_refusing(connection)

    yield demote
    server.take_writes()


def fail_to_write(pool: Any, demote: Any) -> Any:
    """Borrow, and write to a server that has just been demoted; the connection."""
    with pytest.raises(ReadOnlySqlTransaction), pool.connection() as connection:
        demote(connection)
        connection.execute(WRITE)
    return connection


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"close_returns": True},
        {"check_handles": True},
        {"session_reset": "discard"},
        {"kwargs": {"autocommit": True}},
    ],
)
def test_the_first_refused_write_costs_the_connection(server, demoted, caplog, given) -> None:
    with create_lakebase_pool(server.lake.config(max_size=2), **given) as pool:
        with pool.connection() as bystander:
            bystander.execute("SELECT 1")
            left = fail_to_write(pool, demoted)
        assert given.get("check_handles") or left.closed
        assert "takes no more writes" in caplog.text
        # One that has refused nothing is not looked at.
        assert pool.get_stats()["pool_size"] == 1
        server.take_writes()
        with pool.connection() as connection:
            wait_until_refusing(connection, "off")
            connection.execute(WRITE)


@pytest.mark.parametrize("autocommit", [False, True])
async def test_so_it_is_in_asyncio(server, demoted, autocommit) -> None:
    with create_lakebase_pool(server.lake.config()) as watching, watching.connection() as watched:
        async with create_async_lakebase_pool(server.lake.config(), kwargs={"autocommit": autocommit}) as pool:
            with pytest.raises(ReadOnlySqlTransaction):
                async with pool.connection() as connection:
                    demoted(watched)
                    await connection.execute("SELECT 1")
                    await connection.rollback()
                    await connection.execute(WRITE)
            assert connection.closed


def test_a_connection_that_comes_back_in_a_failed_transaction_is_looked_at(server, demoted) -> None:
    with create_lakebase_pool(server.lake.config()) as pool:
        connection = pool.getconn()
        demoted(connection)
        with pytest.raises(ReadOnlySqlTransaction):
            connection.execute(WRITE)
        pool.putconn(connection)
        assert connection.closed


def test_an_engine_of_sqlalchemy_drops_it_too(server, demoted) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    from lakebase.sqlalchemy import create_lakebase_engine

    with create_lakebase_pool(server.lake.config()) as pool:
        engine = create_lakebase_engine(pool)
        with pytest.raises(sqlalchemy.exc.InternalError) as caught, engine.connect() as connection:
            driver = connection.connection.driver_connection
            demoted(driver)
            connection.execute(sqlalchemy.text(WRITE))
        assert caught.value.connection_invalidated
        assert driver.closed


def test_a_transaction_that_the_borrower_began_to_read_costs_nothing(server) -> None:
    with create_lakebase_pool(server.lake.config(max_size=1)) as pool:
        with pytest.raises(ReadOnlySqlTransaction), pool.connection() as connection:
            connection.execute("SET TRANSACTION READ ONLY")
            connection.execute(WRITE)
        with pool.connection() as again:
            assert again is connection
        with pytest.raises(psycopg.errors.UndefinedTable), pool.connection() as again:
            again.execute("SELECT 1 FROM nothing")
        assert not again.closed


def test_a_pool_for_reading_and_a_role_that_only_reads_keep_theirs(server) -> None:
    lake = server.lake
    lake.add_user("reader@corp.example")
    server.tell('ALTER ROLE "reader@corp.example" SET default_transaction_read_only = on')
    lake.add_password_role("reader", "native")
    for config in (lake.config("reader@corp.example"), lake.config("reader", password="native", **READING)):
        with create_lakebase_pool(config) as pool:
            with pytest.raises(ReadOnlySqlTransaction), pool.connection() as connection:
                connection.execute(WRITE)
            with pool.connection() as again:
                assert again is connection


@SIDES
async def test_a_standby_under_the_primarys_name_is_not_connected_to(server, is_async) -> None:
    server.become_standby()
    config = with_endpoint_host(server.lake.config(timeout=0.5))
    try:
        with pytest.raises(PoolTimeout, match="takes no writes") as caught:
            if is_async:
                async with create_async_lakebase_pool(config) as apool:
                    await apool.getconn()
            else:
                with create_lakebase_pool(config) as pool:
                    pool.getconn()
        assert isinstance(caught.value.__cause__, ConnectError)
        assert caught.value.__cause__.failure is ConnectFailure.STANDBY
    finally:
        server.become_primary()
    with create_lakebase_pool(config, timeout=20) as pool, pool.connection() as connection:
        connection.execute(WRITE)


def test_a_primary_that_became_a_standby_loses_all_connections(server) -> None:
    server.become_standby()
    try:
        with create_lakebase_pool(server.lake.config(max_size=2)) as pool:  # the host is configured, and believed
            idle = pool.getconn()
            pool.putconn(idle)
            with pytest.raises(ReadOnlySqlTransaction), pool.connection() as other, pool.connection() as connection:
                assert other is idle
                connection.execute(WRITE)
            assert connection.closed
            server.become_primary()
            with pool.connection() as fresh:
                assert fresh is not idle
                fresh.execute(WRITE)
    finally:
        server.become_primary()
