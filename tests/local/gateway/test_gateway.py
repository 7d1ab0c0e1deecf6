"""Connections through the gateway: what passes, what is dropped, and the read-only host."""

import asyncio
import contextlib
import socket
import struct
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from lakebase.local.gateway.wire import message
from tests.local.clients import connect, raw_connection, receive

ACTIVE = "select 1 from pg_stat_activity where usename = %s and state = 'active'"


def test_startup_parameters_reach_the_server(settings):
    with psycopg.connect(**settings, application_name="test app", options="-c work_mem=5MB") as connection:
        found = connection.execute("select current_setting('application_name'), current_setting('work_mem')").fetchone()
    assert found == ("test app", "5MB")


def test_a_running_statement_can_be_cancelled(connection, user, admin):
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(connection.execute, "select pg_sleep(60)")
        while not admin.execute(ACTIVE, (user,)).fetchone():
            pass
        connection.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            running.result(60)


def test_only_the_sessions_own_key_at_its_own_host_cancels_a_statement(lake, user, admin):
    def ask_to_cancel(host, pid_and_key):
        with socket.create_connection((host, lake.port), timeout=60) as sock:
            sock.sendall(struct.pack("!II", 8 + len(pid_and_key), 80877102) + pid_and_key)
            assert sock.recv(1) == b""

    with raw_connection(lake, user) as sock:
        assert receive(sock)[0] == b"R"
        sock.sendall(message(b"p", lake.mint(user).encode() + b"\0"))
        found = {}
        while (answer := receive(sock))[0] != b"Z":
            found[answer[0]] = answer[1]
        key = found[b"K"]
        sock.sendall(message(b"Q", b"select pg_sleep(60)\0"))
        while not admin.execute(ACTIVE, (user,)).fetchone():
            pass
        for host, wrong in (
            (lake.host, key[:4] + bytes(len(key) - 4)),
            (lake.host, key[:4]),
            (lake.host, b""),
            (lake.host, bytes(100)),
            (lake.read_only_host, key),
        ):
            ask_to_cancel(host, wrong)
        assert admin.execute(ACTIVE, (user,)).fetchone()
        ask_to_cancel(lake.host, key)
        while (answer := receive(sock))[0] != b"E":
            pass
        assert b"C57014" in answer[1].split(b"\0")


def test_large_results_and_large_parameters_pass_unchanged(connection):
    size = 5_000_000
    (text,) = connection.execute("select repeat('x', %s::int)", (size,)).fetchone()
    assert len(text) == size
    assert connection.execute("select length(%s::text)", ("y" * size,)).fetchone() == (size,)


def test_a_slow_reader_does_not_fill_the_gateways_memory(connection):
    """Backpressure: the server waits while the client does not read, and everything arrives in the end."""
    with connection.cursor() as cursor:
        rows = cursor.stream("select i, repeat('x', 10000) from generate_series(1, 3000) as i")
        assert sum(row[0] for row in rows) == 3000 * 3001 // 2


async def test_hundreds_of_connections_at_once(lake, user, settings):
    async with contextlib.AsyncExitStack() as stack:

        async def one():
            connection = await psycopg.AsyncConnection.connect(**settings)
            stack.push_async_callback(connection.close)
            return (await (await connection.execute("select 1")).fetchone())[0]

        assert await asyncio.gather(*(one() for _ in range(95))) == [1] * 95
        assert lake.stats().user(user).open == 95
    await asyncio.to_thread(lake.wait_for_connections, 0, user)


def test_postgres_itself_counts_the_connections(lake, user, settings, admin):
    # A server process outlives its client by a moment, so fewer than all may be free.
    with contextlib.ExitStack() as stack:
        opened = 0
        with pytest.raises(psycopg.OperationalError, match=r"remaining connection slots are reserved|too many clients"):
            while opened <= 100:
                stack.enter_context(psycopg.connect(**settings))
                opened += 1
        assert 50 < opened <= 100
    lake.wait_for_connections(0, user)
    psycopg.connect(**settings).close()


def test_the_read_only_host_refuses_to_write(lake, user, settings, admin):
    admin.execute("create table if not exists written (i int)")
    admin.execute("grant all on written to public")
    assert lake.config(user, read_only=True).host == lake.read_only_host
    with psycopg.connect(**{**settings, "host": lake.read_only_host, "port": lake.read_only_port}) as connection:
        assert connection.execute("select current_user").fetchone() == (user,)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("insert into written values (1)")
    with psycopg.connect(**{**settings, "host": lake.read_only_host}, target_session_attrs="read-only"):
        pass
    with psycopg.connect(**settings) as connection:
        connection.execute("insert into written values (1)")


def test_dropped_connections_get_the_message_of_postgres(lake, user, connection, settings):
    assert lake.drop_connections(user) == 1
    with pytest.raises(psycopg.OperationalError, match="terminating connection due to administrator command"):
        connection.execute("select 1")
    assert lake.stats().user(user).open == 0
    assert connect(settings) == user


def test_connections_can_be_dropped_without_a_message(lake, user, connection):
    assert lake.drop_connections(user, silently=True) == 1
    with pytest.raises(psycopg.OperationalError) as caught:
        connection.execute("select 1")
    assert "administrator" not in str(caught.value)
    assert lake.stats().user(user).open == 0


def test_a_running_statement_ends_when_its_connection_is_dropped(lake, user, connection, admin, threads):
    running = threads.submit(connection.execute, "select pg_sleep(60)")
    while not admin.execute(
        "select 1 from pg_stat_activity where usename = %s and state = 'active'", (user,)
    ).fetchone():
        pass
    assert lake.drop_connections(user) == 1
    with pytest.raises(psycopg.OperationalError):
        running.result(60)
    assert admin.execute("select 1").fetchone() == (1,)
