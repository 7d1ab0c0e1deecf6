"""Who may log in: TLS, minted credentials and native passwords, and what refused clients get."""

import contextlib
import math
import socket
import struct

import psycopg
import pytest
from psycopg import sql

from tests.local.clients import connection_settings, raw_connection, receive, refusal


def test_a_minted_credential_is_the_password_of_its_own_role(connection, user):
    assert connection.execute("select current_user, session_user").fetchone() == (user, user)


def test_the_connection_is_encrypted_and_the_servers_name_verified(settings):
    with psycopg.connect(**settings) as connection:
        assert connection.pgconn.ssl_in_use
    with psycopg.connect(**{**settings, "host": "localhost"}) as connection:
        assert connection.pgconn.ssl_in_use


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


def test_the_credential_of_another_user_is_no_password(lake, user, settings):
    text = refusal(settings, password=lake.mint(lake.admin_user))
    assert f'password authentication failed for user "{user}"' in text


@pytest.mark.parametrize(
    "change", [lambda token: token[:-1], lambda token: token + "x", lambda token: "", lambda token: "x"]
)
def test_a_password_that_differs_from_the_token_is_refused(settings, change):
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


def test_several_credentials_are_valid_at_once(lake, user, settings):
    passwords = [lake.mint(user) for _ in range(3)]
    for password in passwords:
        psycopg.connect(**{**settings, "password": password}).close()


def test_credentials_expire_for_new_logins_only(lake, user, connection, settings):
    lake.expire_tokens(user)
    assert connection.execute("select 1").fetchone() == (1,)
    assert "password authentication failed" in refusal(settings)
    psycopg.connect(**connection_settings(lake, user)).close()


def test_expiry_of_one_users_credentials_leaves_others_alone(lake, user, admin):
    settings = connection_settings(lake, lake.admin_user)
    lake.expire_tokens(user)
    psycopg.connect(**settings).close()


def test_a_credential_expires_after_its_lifetime(lake, user, settings):
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


def test_no_client_logs_in_as_the_superuser_of_the_server(lake, settings):
    assert 'password authentication failed for user "postgres"' in refusal(settings, user="postgres")


def test_an_unknown_role_and_an_unknown_database_get_the_errors_of_postgres(lake, settings):
    assert 'password authentication failed for user "nobody@corp.example"' in refusal(
        settings, user="nobody@corp.example"
    )
    assert 'database "missing" does not exist' in refusal(settings, dbname="missing")


def test_bytes_sent_before_tls_are_not_taken_for_encrypted(lake, user):
    with socket.create_connection((lake.host, lake.port), timeout=10) as sock:
        body = b"user\0" + user.encode() + b"\0\0"
        sock.sendall(struct.pack("!II", 8, 80877103) + struct.pack("!II", len(body) + 8, 196608) + body)
        assert sock.recv(1) in (b"", b"S")
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) == b""


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64, b"\xff" * 64])
def test_a_client_that_sends_junk_is_disconnected_and_the_next_one_connects(lake, settings, junk):
    with socket.create_connection((lake.host, lake.port), timeout=10) as sock:
        sock.sendall(junk)
        with contextlib.suppress(ConnectionResetError):
            while sock.recv(1000):
                pass
    psycopg.connect(**settings).close()


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        (b"user\0USER\0user\0postgres\0\0", b"C08P01"),
        (b"user\0USER\0\0user\0postgres\0\0", b"C08P01"),
        (b"user\0USER\0database\0", b"C08P01"),
        (b"user\0USER\0database\0x", b"C08P01"),
        (b"user\0USER\0database\0\xff\0\0", b"C22021"),
        (b"database\0postgres\0\0", b"C28000"),
        (b"\0", b"C28000"),
    ],
)
def test_a_startup_packet_that_can_be_read_in_two_ways_is_refused(lake, user, parameters, code):
    with raw_connection(lake, body=parameters.replace(b"USER", user.encode())) as sock:
        kind, body = receive(sock)
    assert (kind, code in body.split(b"\0")) == (b"E", True)


def test_a_client_that_sends_no_end_of_data_before_the_login_is_dropped(lake, user, settings):
    with raw_connection(lake, user) as sock, pytest.raises(OSError):
        while True:
            sock.sendall(b"x" * 1_000_000)
    psycopg.connect(**settings).close()


async def test_a_client_that_sends_nothing_has_a_limited_time(lake):
    import asyncio
    import ssl

    from lakebase.local.gateway.login import Login
    from lakebase.local.gateway.wire import Wire

    login = Login(None, None, ssl.create_default_context(), timeout=0.05)
    mine, its = socket.socketpair()
    with its:
        _, wire = await asyncio.get_running_loop().create_connection(Wire, sock=mine)
        its.sendall(struct.pack("!I", 8))
        with pytest.raises(TimeoutError):
            await login.greet(wire)
        with pytest.raises(TimeoutError):
            await login.check_password(wire, "ann", is_pooled=False)
        wire.abort()


def test_a_client_that_leaves_during_the_login_is_forgotten(lake, user, settings):
    for _ in range(20):
        with raw_connection(lake, user) as sock:
            assert receive(sock)[0] == b"R"
    psycopg.connect(**settings).close()
    lake.wait_for_connections(0, user)


def test_a_lifetime_that_is_no_duration_is_refused(lake, user):
    for lifetime in (math.nan, -1, "60"):
        with pytest.raises(ValueError, match="lifetime="):
            lake.mint(user, lifetime=lifetime)
