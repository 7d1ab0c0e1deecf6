"""Starting and stopping: complete, repeatable, and leaving nothing behind."""

import threading

import psycopg
import pytest
from databricks.sdk import WorkspaceClient

from lakebase.local import LocalLakebase, LocalLakebaseError
from lakebase.local.workspace import Issuer
from tests.local.clients import connection_settings
from tests.local.owner import children_of_this_process, temporary_directories


def loop_threads():
    return {thread for thread in threading.enumerate() if thread.name == "local-lakebase"}


def test_nothing_starts_before_it_is_asked_to(own_tempdir):
    before, running = loop_threads(), children_of_this_process()
    lake = LocalLakebase()
    assert (loop_threads(), children_of_this_process(), temporary_directories()) == (before, running, set())
    assert not lake.is_running
    lake.stop()


def test_stopping_leaves_no_process_thread_or_file(own_tempdir):
    before, running = loop_threads(), children_of_this_process()
    with LocalLakebase() as lake:
        assert lake.is_running
        assert len(temporary_directories()) == 1
        assert len(loop_threads()) == len(before) + 1
        with psycopg.connect(**connection_settings(lake, lake.admin_user)) as connection:
            connection.execute("select 1")
    assert (loop_threads(), children_of_this_process(), temporary_directories()) == (before, running, set())


def test_an_exception_in_its_block_leaves_nothing_either(own_tempdir):
    running = children_of_this_process()
    with pytest.raises(ZeroDivisionError), LocalLakebase():
        raise ZeroDivisionError
    assert (children_of_this_process(), temporary_directories()) == (running, set())


def test_start_and_stop_may_be_called_twice_and_again(own_tempdir):
    lake = LocalLakebase()
    lake.start()
    port = lake.port
    assert lake.start() is lake
    assert lake.port == port
    lake.stop()
    lake.stop()
    with lake:
        psycopg.connect(**connection_settings(lake, lake.admin_user)).close()


def test_stopping_with_clients_connected_ends_them(own_tempdir):
    with LocalLakebase() as lake:
        connections = [psycopg.connect(**connection_settings(lake, lake.admin_user)) for _ in range(5)]
    for connection in connections:
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
        connection.close()


def test_stopping_while_faults_hold_clients_does_not_wait_for_them(own_tempdir):
    with LocalLakebase() as lake:
        settings = connection_settings(lake, lake.admin_user)
        fault = lake.hang()
        lake.hold_workspace()
        failed = []

        def connect():
            with pytest.raises(psycopg.OperationalError) as caught:
                psycopg.connect(**settings)
            failed.append(caught.value)

        thread = threading.Thread(target=connect)
        thread.start()
        fault.wait(1)
    thread.join()
    assert len(failed) == 1
    fault.clear()  # too late, and no error


@pytest.mark.parametrize("use", ["port", "workspace_url", "admin_token", "add_user", "stats", "suspend", "refuse"])
def test_using_it_before_the_start_is_an_error_that_says_so(use):
    lake = LocalLakebase()
    with pytest.raises(LocalLakebaseError, match=r"not running: use it as a context manager, or call start\(\)"):
        found = getattr(lake, use)
        found("ann@corp.example") if use == "add_user" else found()


def test_a_representation_shows_no_secret():
    lake = LocalLakebase()
    assert repr(lake) == "<LocalLakebase not running>"
    with lake:
        lake.add_user("ann@corp.example")
        seen = repr(lake) + repr(lake.stats()) + repr(Issuer(60.0).mint("ann@corp.example"))
        assert f"127.0.0.1:{lake.port}" in seen
        assert lake.token("ann@corp.example") not in seen
        assert "eyJ" not in seen


def test_two_at_once_do_not_clash(own_tempdir):
    with LocalLakebase() as one, LocalLakebase() as two:
        assert one.port != two.port
        assert one.workspace_url != two.workspace_url
        one.add_user("ann@corp.example")
        with pytest.raises(LocalLakebaseError, match=r"no user 'ann@corp\.example'"):
            two.token("ann@corp.example")
        password = one.mint("ann@corp.example")
        two.add_user("ann@corp.example")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(**connection_settings(two, "ann@corp.example", password))


def test_its_environment_is_all_that_the_sdk_and_libpq_need(lake, monkeypatch):
    for name, value in lake.environment().items():
        monkeypatch.setenv(name, value)
    token = WorkspaceClient().postgres.generate_database_credential(endpoint=lake.endpoint).token
    with psycopg.connect(password=token) as connection:
        assert connection.execute("select current_user, current_database()").fetchone() == (
            lake.client_id,
            lake.database,
        )


def test_the_admin_is_a_user_of_the_workspace_too(lake):
    assert lake.workspace_client().current_user.me().user_name == lake.admin_user
    assert lake.workspace_client().config.token == lake.admin_token
