"""Who gets in: minted credentials and native passwords, over TLS, and what the others are told."""

import asyncio
import contextlib
import math
import socket
import ssl
import struct
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import sql

from lakebase.local import LocalLakebaseError
from tests.local.conftest import connection_settings

ACTIVE = "select 1 from pg_stat_activity where usename = %s and state = 'active'"


def refusal(settings, **changes):
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect(**{**settings, **changes})
    return str(caught.value)


def test_a_minted_credential_is_the_password_of_its_own_role(connection, user):
    assert connection.execute("select current_user, session_user").fetchone() == (user, user)


def test_the_connection_is_encrypted_and_the_servers_name_verified(settings):
    with psycopg.connect(**settings) as connection:
        assert connection.pgconn.ssl_in_use
    with psycopg.connect(**{**settings, "host": "localhost"}) as connection:
        assert connection.pgconn.ssl_in_use


def test_a_client_that_trusts_another_authority_does_not_connect(settings, tmp_path):
    from lakebase.local._tls import Certificates

    other = Certificates(tmp_path, ("localhost",)).ca_file
    assert "certificate verify failed" in refusal(settings, sslrootcert=str(other))


@pytest.mark.parametrize("mode", ["disable", "allow"])
def test_a_plain_connection_is_refused_or_upgraded(settings, mode):
    if mode == "disable":
        assert "connection is insecure" in refusal(settings, sslmode="disable")
    else:
        with psycopg.connect(**{**settings, "sslmode": "allow"}) as connection:
            assert connection.pgconn.ssl_in_use


def test_a_workspace_token_is_no_password(lake, user, settings):
    text = refusal(settings, password=lake.token(user))
    assert f'FATAL:  password authentication failed for user "{user}"' in text
    assert lake.token(user) not in text


def test_another_users_credential_is_no_password(lake, user, settings):
    text = refusal(settings, password=lake.mint(lake.admin_user))
    assert f'password authentication failed for user "{user}"' in text


@pytest.mark.parametrize(
    "change", [lambda token: token[:-1], lambda token: token + "x", lambda token: "", lambda token: "x"]
)
def test_anything_but_the_very_token_is_refused(settings, change):
    password = change(settings["password"])
    expected = "no password supplied" if not password else "password authentication failed"
    assert expected in refusal(settings, password=password)


def test_a_rejected_login_carries_the_sqlstate_on_the_wire(lake, user):
    """libpq does not hand it on, so it is read from the socket."""
    with raw_connection(lake, user) as sock:
        assert receive(sock) == (b"R", struct.pack("!I", 3))
        sock.sendall(b"p" + struct.pack("!I", 4 + 6) + b"wrong\0")
        kind, body = receive(sock)
        assert kind == b"E"
        assert {b"SFATAL", b"VFATAL", b"C28P01"} < set(body.split(b"\0"))
        assert sock.recv(1) == b""


def test_several_credentials_are_good_at_once(lake, user, settings):
    passwords = [lake.mint(user) for _ in range(3)]
    for password in passwords:
        psycopg.connect(**{**settings, "password": password}).close()


def test_expiry_counts_at_login_only(lake, user, connection, settings):
    lake.expire_tokens(user)
    assert connection.execute("select 1").fetchone() == (1,)
    assert "password authentication failed" in refusal(settings)
    psycopg.connect(**connection_settings(lake, user)).close()


def test_expiry_of_one_users_credentials_leaves_others_alone(lake, user, admin):
    settings = connection_settings(lake, lake.admin_user)
    lake.expire_tokens(user)
    psycopg.connect(**settings).close()


def test_a_credential_ends_by_itself(lake, user, settings):
    assert "password authentication failed" in refusal(settings, password=lake.mint(user, lifetime=0.0))


def test_a_revoked_user_cannot_log_in_and_keeps_the_open_connection(lake, user, connection, settings):
    lake.revoke(user)
    assert "password authentication failed" in refusal(settings)
    assert connection.execute("select 1").fetchone() == (1,)


def test_a_password_role_logs_in_with_its_password_only(lake, settings):
    lake.add_password_role("reporting", "s3cret, with 'quotes' and ü")
    with psycopg.connect(**{**settings, "user": "reporting", "password": "s3cret, with 'quotes' and ü"}) as connection:
        assert connection.execute("select current_user").fetchone() == ("reporting",)
    assert 'password authentication failed for user "reporting"' in refusal(
        settings, user="reporting", password="wrong"
    )
    lake.add_password_role("reporting", "changed")
    refusal(settings, user="reporting", password="s3cret, with 'quotes' and ü")
    psycopg.connect(**{**settings, "user": "reporting", "password": "changed"}).close()


def test_a_password_role_made_by_sql_logs_in_at_once(lake, settings, admin):
    admin.execute("create role by_sql login password 'first'")
    mine = {**settings, "user": "by_sql", "password": "first"}
    psycopg.connect(**mine).close()
    admin.execute("alter role by_sql valid until '2020-01-01'")
    assert "password authentication failed" in refusal(mine)
    admin.execute("alter role by_sql valid until 'infinity' nologin")
    assert "is not permitted to log in" in refusal(mine)


def test_a_plain_role_takes_no_token_until_it_is_made_for_an_identity(lake, admin, settings):
    name = "carol@corp.example"
    admin.execute(sql.SQL("create role {} login").format(sql.Identifier(name)))
    mine = {**settings, "user": name}
    assert "password authentication failed" in refusal(mine, password=lake.mint(lake.admin_user))
    lake.add_user(name)
    psycopg.connect(**{**mine, "password": lake.mint(name)}).close()


def test_the_superuser_of_the_server_is_nobodys(lake, settings):
    assert 'password authentication failed for user "postgres"' in refusal(settings, user="postgres")


def test_an_unknown_role_and_an_unknown_database_get_postgres_words(lake, settings):
    assert 'password authentication failed for user "nobody@corp.example"' in refusal(
        settings, user="nobody@corp.example"
    )
    assert 'database "missing" does not exist' in refusal(settings, dbname="missing")


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
            running.result(30)


def test_large_results_and_large_parameters_pass_unchanged(connection):
    size = 5_000_000
    (text,) = connection.execute("select repeat('x', %s::int)", (size,)).fetchone()
    assert len(text) == size
    assert connection.execute("select length(%s::text)", ("y" * size,)).fetchone() == (size,)


def test_a_slow_reader_does_not_fill_the_gateways_memory(connection):
    """Backpressure: the server waits while nobody reads, and everything arrives in the end."""
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
    free = 100 - lake.stats().open
    # A server process outlives its client by a moment.
    while admin.execute("select count(*) from pg_stat_activity where usename like '%@%'").fetchone()[0] > 100 - free:
        pass
    with contextlib.ExitStack() as stack:
        for _ in range(free):
            stack.enter_context(psycopg.connect(**settings))
        text = refusal(settings)
        assert "remaining connection slots are reserved" in text or "too many clients" in text
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


def test_sql_makes_the_role_of_an_identity(lake, settings, admin):
    if lake.postgres_version >= 18:
        admin.execute("create extension if not exists databricks_auth")
    admin.execute("select databricks_create_role('dora@corp.example', 'USER')")
    lake.add_user("dora@corp.example")
    mine = {**settings, "user": "dora@corp.example", "password": lake.mint("dora@corp.example")}
    psycopg.connect(**mine).close()
    with pytest.raises(psycopg.errors.DuplicateObject):
        admin.execute("select databricks_create_role('dora@corp.example', 'USER')")
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        admin.execute("select databricks_create_role('eve@corp.example', 'ROBOT')")


def test_only_who_may_create_roles_makes_one_for_an_identity(lake, settings, admin):
    if lake.postgres_version >= 18:
        admin.execute("create extension if not exists databricks_auth")
    with psycopg.connect(**settings) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("select databricks_create_role('mallory@corp.example', 'USER')")


# What no libpq sends


@contextlib.contextmanager
def raw_connection(lake, user):
    with socket.create_connection((lake.host, lake.port), timeout=10) as plain:
        plain.sendall(struct.pack("!II", 8, 80877103))
        assert plain.recv(1) == b"S"
        context = ssl.create_default_context(cafile=str(lake.ca_file))
        with context.wrap_socket(plain, server_hostname=lake.host) as sock:
            body = b"user\0" + user.encode() + b"\0database\0databricks_postgres\0\0"
            sock.sendall(struct.pack("!II", len(body) + 8, 196608) + body)
            yield sock


def receive(sock):
    head = b""
    while len(head) < 5:
        head += sock.recv(5 - len(head))
    size = struct.unpack("!I", head[1:])[0] - 4
    body = b""
    while len(body) < size:
        body += sock.recv(size - len(body))
    return head[:1], body


def test_bytes_sent_before_tls_are_not_taken_for_encrypted(lake, user):
    with socket.create_connection((lake.host, lake.port), timeout=10) as sock:
        body = b"user\0" + user.encode() + b"\0\0"
        sock.sendall(struct.pack("!II", 8, 80877103) + struct.pack("!II", len(body) + 8, 196608) + body)
        assert sock.recv(1) in (b"", b"S")
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) == b""


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64, b"\xff" * 64])
def test_junk_is_let_go_and_harms_nobody(lake, settings, junk):
    with socket.create_connection((lake.host, lake.port), timeout=10) as sock:
        sock.sendall(junk)
        with contextlib.suppress(ConnectionResetError):
            while sock.recv(1000):
                pass
    psycopg.connect(**settings).close()


def test_a_client_that_leaves_during_the_login_is_forgotten(lake, user, settings):
    for _ in range(20):
        with raw_connection(lake, user) as sock:
            assert receive(sock)[0] == b"R"
    psycopg.connect(**settings).close()
    lake.wait_for_connections(0, user)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "'' is no name of a role or user"),
        (7, "7 is no name of a role or user"),
        ("pg_x", "'pg_x' is a name that Postgres or the local Lakebase keeps to itself"),
        ("public", "'public' is a name that"),
        ("postgres", "'postgres' is a name that"),
        ("databricks_superuser", "'databricks_superuser' is a name that"),
        ("a\0b", "has characters that Postgres does not take"),
        ("\udcff", "has characters that Postgres does not take"),
        ("é" * 32, "is too long for a role: Postgres takes 63 bytes"),
    ],
)
def test_a_name_that_no_role_can_have_is_refused_in_words(lake, name, words):
    for make in (lake.add_user, lake.add_service_principal, lambda name: lake.add_password_role(name, "secret")):
        with pytest.raises(LocalLakebaseError, match=words):
            make(name)
    lake.add_user("é" * 31)


def test_a_lifetime_that_is_none_is_refused(lake, user):
    for lifetime in (math.nan, -1, "60"):
        with pytest.raises(ValueError, match="lifetime="):
            lake.mint(user, lifetime=lifetime)
