"""Scale to zero: on request, by the idle timeout, and what clients meet."""

import contextlib
import time

import psycopg
import pytest

from lakebase.local import LocalLakebase, LocalLakebaseError
from tests.local.clients import connect, connection_settings, connects_eventually, refusal

# Seconds that no test takes: it wakes when the test says so.
LONG = 3600.0


def test_suspending_drops_all_connections_and_the_next_client_wakes_it(lake, user, connection, settings):
    lake.suspend(wake_after=LONG)
    assert lake.state == "IDLE"
    with pytest.raises(psycopg.OperationalError):
        connection.execute("select 1")
    assert "the database system is starting up" in refusal(settings)
    assert lake.state == "INIT"
    lake.resume()
    assert connect(settings) == user
    assert lake.state == "ACTIVE"


def test_it_wakes_by_itself_after_the_first_client(lake, user, settings):
    lake.suspend(wake_after=0.01)
    refusal(settings)
    connects_eventually(settings, user)
    assert lake.state == "ACTIVE"


def test_while_it_wakes_clients_can_be_refused(lake, user, settings):
    lake.suspend(wake_after=LONG, while_waking="refused")
    refusal(settings)
    assert "Connection refused" in refusal(settings)
    lake.resume()
    assert connect(settings) == user


def test_while_it_wakes_clients_can_be_kept_waiting(lake, user, settings):
    lake.suspend(wake_after=0.2, while_waking="wait")
    began = time.monotonic()
    assert connect(settings) == user
    assert time.monotonic() - began >= 0.2


def test_without_a_time_to_wake_it_stays_idle_until_it_is_resumed(lake, user, settings):
    lake.suspend(wake_after=None)
    for _ in range(3):
        refusal(settings)
    assert lake.state == "IDLE"
    lake.resume()
    assert connect(settings) == user


def test_a_suspended_compute_forgets_the_session_state(lake, user, settings):
    with psycopg.connect(**settings, autocommit=True) as connection:
        connection.execute("create temp table mine (i int)")
        lake.suspend(wake_after=0)
        connection.close()
    lake.resume()
    with psycopg.connect(**settings) as connection, pytest.raises(psycopg.errors.UndefinedTable):
        connection.execute("select * from mine")


# The idle timeout


@pytest.fixture
def sleepy():
    with LocalLakebase(pooler="off", suspend_timeout=0.3, wake_after=0.1, while_waking="wait") as lake:
        yield lake


@contextlib.contextmanager
def open_connection(lake, statement="select 1"):
    """
    A connection whose first statement has run.

    Between the login and the statement nothing keeps the compute awake, and a busy machine may take the idle timeout
    for that: then the attempt is repeated.
    """
    for _ in range(100):
        with psycopg.connect(**connection_settings(lake, lake.admin_user)) as connection:
            try:
                connection.execute(statement)
            except psycopg.OperationalError:
                continue
            yield connection
            return
    pytest.fail(f"no connection could run {statement!r} to its end")


def test_open_connections_without_a_statement_do_not_keep_it_awake(sleepy):
    with open_connection(sleepy) as connection:
        connection.commit()
        sleepy.wait_for_connections(0, timeout=60)
        assert sleepy.state == "IDLE"
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")


def test_it_wakes_for_the_next_client_and_is_suspended_again(sleepy):
    for _ in range(2):
        with open_connection(sleepy) as connection:
            assert sleepy.state == "ACTIVE"  # as long as the transaction is open
            connection.commit()
            sleepy.wait_for_connections(0, timeout=60)
        assert sleepy.state == "IDLE"


def test_a_statement_that_runs_keeps_it_awake(sleepy):
    with open_connection(sleepy, "select pg_sleep(1)") as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_an_open_transaction_keeps_it_awake(sleepy):
    with open_connection(sleepy) as connection:
        with pytest.raises(LocalLakebaseError):
            sleepy.wait_for_connections(0, timeout=1)
        assert connection.execute("select 1").fetchone() == (1,)


def test_without_any_client_it_is_suspended_too(sleepy):
    endpoint = sleepy.workspace_client().postgres
    while endpoint.get_endpoint(sleepy.endpoint).status.current_state.value != "IDLE":
        pass
    psycopg.connect(**connection_settings(sleepy, sleepy.admin_user)).close()
