"""The idle timeout: what keeps the compute awake, and what does not."""

import contextlib

import psycopg
import pytest

from lakebase.local import LocalLakebase, LocalLakebaseError
from tests.local.conftest import connection_settings


@pytest.fixture
def sleepy():
    with LocalLakebase(pooler="off", suspend_timeout=0.3, wake_after=0.1, while_waking="wait") as lake:
        yield lake


def test_open_connections_without_a_statement_do_not_keep_it_awake(sleepy):
    with psycopg.connect(**connection_settings(sleepy, sleepy.admin_user)) as connection:
        connection.execute("select 1")
        connection.commit()
        sleepy.wait_for_connections(0)
        assert sleepy.state == "IDLE"
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")


def test_it_wakes_for_the_next_client_and_falls_asleep_again(sleepy):
    for _ in range(2):
        with contextlib.suppress(psycopg.OperationalError):
            with psycopg.connect(**connection_settings(sleepy, sleepy.admin_user)) as connection:
                assert connection.execute("select 1").fetchone() == (1,)
                connection.commit()
                assert sleepy.state == "ACTIVE"
                sleepy.wait_for_connections(0)
        assert sleepy.state == "IDLE"


def test_a_statement_that_runs_keeps_it_awake(sleepy):
    with psycopg.connect(**connection_settings(sleepy, sleepy.admin_user)) as connection:
        assert connection.execute("select pg_sleep(1)").fetchone() == ("",)
        assert connection.execute("select 1").fetchone() == (1,)


def test_an_open_transaction_keeps_it_awake(sleepy):
    with psycopg.connect(**connection_settings(sleepy, sleepy.admin_user)) as connection:
        connection.execute("select 1")
        with pytest.raises(LocalLakebaseError):
            sleepy.wait_for_connections(0, timeout=1)
        assert connection.execute("select 1").fetchone() == (1,)


def test_with_nobody_there_it_falls_asleep_too(sleepy):
    endpoint = sleepy.workspace_client().postgres
    while endpoint.get_endpoint(sleepy.endpoint).status.current_state.value != "IDLE":
        pass
    psycopg.connect(**connection_settings(sleepy, sleepy.admin_user)).close()


def test_a_small_compute_takes_no_more_than_its_limit():
    with LocalLakebase(pooler="off", compute_units=0.5) as lake:
        with psycopg.connect(**connection_settings(lake, lake.admin_user)) as connection:
            names = ("max_connections", "superuser_reserved_connections")
            most, kept = (int(connection.execute(f"show {name}").fetchone()[0]) for name in names)
            assert most - kept == 104 + 1  # the gateway's own
        endpoint = lake.workspace_client().postgres.get_endpoint(lake.endpoint)
        assert endpoint.status.autoscaling_limit_max_cu == 0.5
