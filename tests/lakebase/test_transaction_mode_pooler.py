"""Each restriction is real: what the reader finds, a PgBouncer in transaction mode breaks."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import errors

from lakebase import LakebasePoolConfig
from lakebase.transaction_mode import Restriction, transaction_mode_violations


@pytest.fixture
def clients(lakebase_local) -> Iterator[tuple[psycopg.Connection, psycopg.Connection]]:
    """Two clients of the pooler, logged in with a native password."""
    if lakebase_local.pooled_host is None:
        pytest.skip("no PgBouncer on this machine")
    lakebase_local.add_password_role("pooled_role", "p00led-pw")
    config = LakebasePoolConfig(
        host=lakebase_local.pooled_host,
        port=lakebase_local.pooled_port,
        database=lakebase_local.database,
        user="pooled_role",
        password="p00led-pw",
        pooled=True,
        ssl_root_cert=lakebase_local.ca_file,
    ).resolved({})
    settings = {**config.connect_kwargs(), "password": "p00led-pw", "autocommit": True}
    with psycopg.connect(**settings) as one, psycopg.connect(**settings) as other:
        yield one, other
        other.rollback()
        one.execute("DISCARD ALL")


def moved(clients: tuple[psycopg.Connection, psycopg.Connection]) -> tuple[psycopg.Connection, psycopg.Connection]:
    """Have the other client take the server connection that the first one used last."""
    one, other = clients
    other.execute("BEGIN")
    other.execute("SELECT 1")
    return one, other


def found(sql: str) -> Restriction:
    (violation,) = transaction_mode_violations(sql)
    return violation.restriction


def test_a_session_setting_is_lost_and_leaks(clients) -> None:
    sql = "SET search_path = leaked"
    clients[0].execute(sql)
    one, other = moved(clients)
    assert one.execute("SHOW search_path").fetchone() != ("leaked",)
    assert other.execute("SHOW search_path").fetchone() == ("leaked",)
    other.execute("RESET search_path")
    assert found(sql) is Restriction.SESSION_SETTING


def test_a_followed_setting_stays_with_its_client(clients) -> None:
    sql = "SET timezone = 'Asia/Tokyo'"
    clients[0].execute(sql)
    one, other = moved(clients)
    assert one.execute("SHOW timezone").fetchone() == ("Asia/Tokyo",)
    assert other.execute("SHOW timezone").fetchone() != ("Asia/Tokyo",)
    assert transaction_mode_violations(sql) == []


def test_a_prepared_statement_is_gone(clients) -> None:
    sql = "PREPARE gone AS SELECT 1"
    clients[0].execute(sql)
    one, other = moved(clients)
    with pytest.raises(errors.InvalidSqlStatementName):
        one.execute("EXECUTE gone")
    other.execute("DEALLOCATE ALL")
    assert found(sql) is found("EXECUTE gone") is Restriction.PREPARED_STATEMENT


def test_a_temporary_table_is_gone(clients) -> None:
    sql = "CREATE TEMP TABLE gone (a int)"
    clients[0].execute(sql)
    one, other = moved(clients)
    with pytest.raises(errors.UndefinedTable):
        one.execute("SELECT * FROM gone")
    other.execute("DROP TABLE gone")
    other.execute("COMMIT")
    assert found(sql) is Restriction.TEMPORARY_TABLE


def test_a_held_cursor_is_gone(clients) -> None:
    sql = "DECLARE gone CURSOR WITH HOLD FOR SELECT 1"
    with clients[0].transaction():
        clients[0].execute(sql)
    one, other = moved(clients)
    with pytest.raises(errors.InvalidCursorName):
        one.execute("FETCH gone")
    other.execute("CLOSE ALL")
    assert found(sql) is Restriction.HELD_CURSOR


def test_an_advisory_lock_stays_with_another_session(clients) -> None:
    sql = "SELECT pg_advisory_lock(815)"
    clients[0].execute(sql)
    one, other = moved(clients)
    assert one.execute("SELECT pg_advisory_unlock(815)").fetchone() == (False,)
    assert other.execute("SELECT pg_advisory_unlock(815)").fetchone() == (True,)
    assert found(sql) is Restriction.SESSION_LOCK


def test_a_notification_does_not_arrive(clients) -> None:
    one, other = clients
    one.execute("LISTEN news")
    other.execute("NOTIFY news, 'lost'")
    assert list(one.notifies(timeout=0.2, stop_after=1)) == []
    one.execute("UNLISTEN *")
    assert found("LISTEN news") is Restriction.NOTIFICATION


def test_what_is_recommended_instead_works(clients) -> None:
    one, _ = clients
    with one.transaction():
        one.execute("SET LOCAL search_path = mine")
        one.execute("SELECT set_config('app.user', 'ann', true), pg_advisory_xact_lock(815)")
        one.execute("CREATE TEMP TABLE here ON COMMIT DROP AS SELECT 42 AS a")
        with one.cursor("named") as cursor:
            assert cursor.execute("SELECT a, current_setting('app.user') FROM here").fetchall() == [(42, "ann")]
    for _ in range(20):
        assert one.execute("SELECT %s::int", [7]).fetchone() == (7,)
    assert one.execute("SHOW search_path").fetchone() != ("mine",)


def test_a_minted_token_is_refused_by_the_pooler(lakebase_user) -> None:
    lake = lakebase_user.lake
    if lake.pooled_host is None:
        pytest.skip("no PgBouncer on this machine")
    from lakebase.errors import ConnectFailure, classify_connect_error

    settings = {**lakebase_user.config().connect_kwargs(), "host": lake.pooled_host, "port": lake.pooled_port}
    with pytest.raises(psycopg.OperationalError, match="SASL") as caught:
        psycopg.connect(**settings, password=lake.mint(lakebase_user.name))
    assert classify_connect_error(caught.value) is ConnectFailure.LOGIN_REJECTED
