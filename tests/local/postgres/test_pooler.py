"""The built-in pooler: who may use it, what transaction mode does to a session, and which PgBouncer is taken."""

import contextlib
import os
import shutil
import stat
import subprocess
from pathlib import Path

import psycopg
import pytest

from lakebase.local import LocalLakebase, LocalLakebaseError
from tests.local.clients import connection_settings, refusal

PASSWORD = "native secret"


@pytest.fixture
def pooled(lake):
    """Keyword arguments of `psycopg.connect` for a password role, through the pooler."""
    if lake.pooled_host is None:
        pytest.skip(reason=lake.why_no_pooler)
    lake.add_password_role("through_the_pooler", PASSWORD)
    settings = connection_settings(lake, "through_the_pooler", PASSWORD)
    return {**settings, "host": lake.pooled_host, "port": lake.pooled_port, "autocommit": True}


def test_a_password_role_comes_through(lake, pooled):
    assert (lake.pooled_host, lake.pooled_port) != (lake.host, lake.port)
    with psycopg.connect(**pooled) as connection:
        user, pid = connection.execute("select current_user, pg_backend_pid()").fetchone()
        assert user == "through_the_pooler"
        assert pid != connection.info.backend_pid


def test_a_minted_credential_is_refused_with_the_poolers_message(lake, user, pooled):
    password = lake.mint(user)
    text = refusal(pooled, user=user, password=password)
    assert "SASL authentication failed" in text
    assert password not in text


def test_a_wrong_password_and_an_unknown_role_get_the_same_answer(pooled):
    assert "SASL authentication failed" in refusal(pooled, password="wrong")
    assert "SASL authentication failed" in refusal(pooled, user="nobody")


def test_a_plain_connection_is_refused(pooled):
    assert "connection is insecure" in refusal(pooled, sslmode="disable")


def test_two_clients_take_turns_on_one_server_connection(pooled):
    with psycopg.connect(**pooled) as one, psycopg.connect(**pooled) as two:
        pids = {connection.execute("select pg_backend_pid()").fetchone() for connection in (one, two, one, two)}
        assert len(pids) == 1
        with one.transaction(), two.transaction():
            pids = {connection.execute("select pg_backend_pid()").fetchone() for connection in (one, two)}
            assert len(pids) == 2


def test_prepared_statements_of_the_driver_work(pooled):
    with psycopg.connect(**pooled, prepare_threshold=0) as one, psycopg.connect(**pooled, prepare_threshold=0) as two:
        for i in range(5):
            for connection in (one, two):
                assert connection.execute("select %s::int + 1", (i,)).fetchone() == (i + 1,)


def test_a_session_setting_leaks_to_the_next_client(pooled):
    with psycopg.connect(**pooled) as one, psycopg.connect(**pooled) as two:
        one.execute("set statement_timeout = '77s'")
        assert two.execute("show statement_timeout").fetchone() == ("77s",)
        one.execute("reset statement_timeout")


def test_a_temporary_table_is_not_there_in_the_next_transaction(pooled):
    with psycopg.connect(**pooled) as one, psycopg.connect(**pooled) as two:
        one.execute("create temp table passing (i int)")
        with two.transaction():
            two.execute("select 1")  # takes the server connection that has the table
            with pytest.raises(psycopg.errors.UndefinedTable):
                one.execute("select * from passing")
        one.execute("drop table if exists passing")


def test_notifications_do_not_arrive(pooled):
    with psycopg.connect(**pooled) as one, psycopg.connect(**pooled) as two:
        one.execute("listen news")
        two.execute("notify news")
        assert list(one.notifies(timeout=0.2)) == []
        one.execute("unlisten news")


def test_startup_options_are_refused(pooled):
    assert "unsupported startup parameter" in refusal(pooled, options="-c work_mem=5MB")


def test_a_running_statement_can_be_cancelled(pooled, admin):
    from concurrent.futures import ThreadPoolExecutor

    active = "select 1 from pg_stat_activity where usename = 'through_the_pooler' and query like '%%pg_sleep%%'"
    with psycopg.connect(**pooled) as connection, ThreadPoolExecutor(1) as threads:
        running = threads.submit(connection.execute, "select pg_sleep(60)")
        while not admin.execute(active).fetchone():
            pass
        connection.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            running.result(60)


def test_its_clients_are_dropped_and_counted_like_direct_ones(lake, pooled):
    with psycopg.connect(**pooled) as connection:
        connection.execute("select 1")
        assert lake.stats().user("through_the_pooler").open == 1
        assert lake.drop_connections("through_the_pooler") == 1
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
    assert lake.stats().user("through_the_pooler").open == 0


def test_suspending_takes_the_poolers_server_connections_too(lake, pooled, admin):
    with psycopg.connect(**pooled) as connection:
        before = connection.execute("select pg_backend_pid()").fetchone()
        lake.suspend(wake_after=0)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
    lake.resume()
    after = None
    while after is None:
        # PgBouncer may lend the connection that was ended, as long as it has not seen its end.
        with contextlib.suppress(psycopg.errors.AdminShutdown), psycopg.connect(**pooled) as connection:
            after = connection.execute("select pg_backend_pid()").fetchone()
    assert after != before


def test_after_a_restart_its_clients_are_lost_and_new_ones_connect(lake, pooled):
    with psycopg.connect(**pooled) as connection:
        connection.execute("select 1")
        lake.restart_pooler()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
    with psycopg.connect(**pooled) as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_it_survives_a_restart_of_postgres(lake, pooled):
    with psycopg.connect(**pooled) as connection:
        connection.execute("select 1")
    lake.restart_postgres()
    with psycopg.connect(**pooled) as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_a_configuration_for_the_pooler_has_its_address(lake, pooled):
    config = lake.config("through_the_pooler", password=PASSWORD, pooled=True)
    assert (config.server_host, config.port, config.pooled) == (lake.pooled_host, lake.pooled_port, True)


@pytest.fixture
def program(tmp_path):
    def written(name, output):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\necho '{output}'\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return written


def test_switched_off_there_is_none():
    with LocalLakebase(pooler="off") as lake:
        assert (lake.pooled_host, lake.pooled_port) == (None, None)
        assert "switched off" in lake.why_no_pooler
        with pytest.raises(LocalLakebaseError, match="no pooler"):
            lake.config("app", password=PASSWORD, pooled=True)
        with pytest.raises(LocalLakebaseError, match="no pooler"):
            lake.restart_pooler()


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("PgBouncer 1.18.0", r"it is PgBouncer 1\.18; before 1\.21 prepared statements fail"),
        ("something else", "does not say that it is PgBouncer"),
    ],
)
def test_a_named_one_that_cannot_be_used_is_refused(program, output, words):
    with pytest.raises(LocalLakebaseError, match=words):
        LocalLakebase(pooler=program("pgbouncer", output)).start()


def test_one_that_is_missing_is_refused(tmp_path):
    with pytest.raises(LocalLakebaseError, match="does not run here"):
        LocalLakebase(pooler=tmp_path / "missing").start()


def test_an_old_one_on_the_path_is_not_taken_and_the_reason_is_given(program, monkeypatch, tmp_path):
    from lakebase.local.postgres import find_pooler

    old = program("pgbouncer", "PgBouncer 1.18.0")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    monkeypatch.delenv("LAKEBASE_LOCAL_PGBOUNCER", raising=False)
    found = find_pooler()
    if found.path is None:
        assert f"{old}: it is PgBouncer 1.18" in found.why_not
    else:
        assert found.path != old


def test_one_in_the_cache_wins_over_the_path(program, monkeypatch, tmp_path):
    from lakebase.local.postgres import find_pooler

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("LAKEBASE_LOCAL_PGBOUNCER", raising=False)
    place = tmp_path / "cache" / "lakebase-pooling" / "pgbouncer"
    place.mkdir(parents=True)
    cached = program("cache/lakebase-pooling/pgbouncer/pgbouncer", "PgBouncer 1.24.1")
    assert find_pooler().path == cached
    monkeypatch.setenv("LAKEBASE_LOCAL_PGBOUNCER", str(program("other", "PgBouncer 1.21.0")))
    assert find_pooler().path == tmp_path / "other"


def get_pooler(directory, path):
    from lakebase.local.postgres import GET_POOLER_SCRIPT

    command = [shutil.which("bash"), str(GET_POOLER_SCRIPT), str(directory)]
    ended = subprocess.run(command, env={"PATH": path, "HOME": str(directory)}, capture_output=True, text=True)
    return ended.returncode, ended.stdout + ended.stderr


def test_none_is_fetched_where_there_is_one(program, tmp_path):
    program("pgbouncer", "PgBouncer 1.25.1")
    status, text = get_pooler(tmp_path, os.environ["PATH"])
    assert (status, text) == (0, f"there is one: {tmp_path}/pgbouncer, PgBouncer 1.25.1\n")


def test_where_none_can_be_fetched_the_reason_is_given(tmp_path):
    for name in ("sed", "head", "dirname"):
        (tmp_path / name).symlink_to(shutil.which(name))
    if Path("/usr/sbin/pgbouncer").exists():
        pytest.skip(reason="there is a PgBouncer in the system's own directory")
    status, text = get_pooler(tmp_path / "none", str(tmp_path))
    assert (status, text) == (1, "no pgbouncer fetched: 'apt-get' is missing, this is no Debian\n")
