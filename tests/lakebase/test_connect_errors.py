"""What the words of a failed connect mean."""

from __future__ import annotations

import pickle
import socket

import psycopg
import pytest

from lakebase.errors import (
    ConnectError,
    ConnectFailure,
    CredentialError,
    LoginError,
    TooManyConnectionsError,
    classify_connect_error,
    connect_error,
)
from pooling.errors import CreateError, PoolingError

PREFIX = 'connection failed: connection to server at "127.0.0.1", port 5432 failed: '


def test_lines_of_libpqs_that_are_sentences_get_a_stop() -> None:
    refused = connect_error(psycopg.OperationalError("port 1 failed: Connection refused\n\tIs the server running?"))
    assert "Connection refused. Is the server running? " in str(refused)
    lost = connect_error(psycopg.OperationalError("it ended abnormally\n\tbefore or while processing the request."))
    assert "it ended abnormally before or while processing the request. " in str(lost)


@pytest.mark.parametrize(
    ("words", "failure"),
    [
        ('FATAL:  password authentication failed for user "ann"', ConnectFailure.LOGIN_REJECTED),
        ("FATAL:  SASL authentication failed", ConnectFailure.LOGIN_REJECTED),
        ("fe_sendauth: no password supplied", ConnectFailure.LOGIN_REJECTED),
        ('FATAL:  no pg_hba.conf entry for host "1.2.3.4", user "ann"', ConnectFailure.LOGIN_REJECTED),
        ('FATAL:  role "timeout" does not exist', ConnectFailure.NO_ROLE),
        ('FATAL:  database "nope" does not exist', ConnectFailure.NO_DATABASE),
        ('FATAL:  permission denied for database "app"', ConnectFailure.NO_PERMISSION),
        ('FATAL:  role "ann" is not permitted to log in', ConnectFailure.NO_PERMISSION),
        ("FATAL:  the database system is starting up", ConnectFailure.WAKING_UP),
        ("FATAL:  the database system is shutting down", ConnectFailure.WAKING_UP),
        ("FATAL:  the database system is not yet accepting connections", ConnectFailure.WAKING_UP),
        ("FATAL:  sorry, too many clients already", ConnectFailure.TOO_MANY_CONNECTIONS),
        ('FATAL:  too many connections for role "ann"', ConnectFailure.TOO_MANY_CONNECTIONS),
        (
            "FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute",
            ConnectFailure.TOO_MANY_CONNECTIONS,
        ),
        ("FATAL:  no more connections allowed (max_client_conn)", ConnectFailure.TOO_MANY_CONNECTIONS),
        ("ERROR:  The requested endpoint could not be found, or you don't have access", ConnectFailure.NO_ENDPOINT),
        ("ERROR:  connection is insecure (try using `sslmode=require`)", ConnectFailure.TLS),
        ("FATAL:  query_wait_timeout", ConnectFailure.POOLER_BUSY),
        ("Connection refused\n\tIs the server running on that host?", ConnectFailure.UNREACHABLE),
        ("timeout expired", ConnectFailure.UNREACHABLE),
        ("No route to host", ConnectFailure.UNREACHABLE),
        ("server does not support SSL, but SSL was required", ConnectFailure.TLS),
        ("SSL error: certificate verify failed", ConnectFailure.TLS),
        ('server certificate for "a" does not match host name "b"', ConnectFailure.TLS),
        ('root certificate file "/root/.postgresql/root.crt" does not exist', ConnectFailure.TLS),
        ('FATAL:  no pg_hba.conf entry for host "::1", user "a", no encryption', ConnectFailure.TLS),
        ("FATAL:  unsupported startup parameter: options", ConnectFailure.BAD_PARAMETER),
        ("server closed the connection unexpectedly", ConnectFailure.LOST),
        ("SSL SYSCALL error: EOF detected", ConnectFailure.LOST),
        ("FATAL:  something unknown", ConnectFailure.UNKNOWN),
    ],
)
def test_the_servers_words_say_what_kind_of_failure_it_is(words: str, failure: ConnectFailure) -> None:
    error = psycopg.OperationalError(PREFIX + words)
    assert classify_connect_error(error) is failure
    ours = connect_error(error, user="ann", target="db.example/app")
    assert ours.failure is failure
    assert isinstance(ours, CreateError) is failure.is_final
    assert isinstance(ours, psycopg.OperationalError)
    assert words.splitlines()[0] in str(ours)
    assert "'ann'" in str(ours)


def test_a_servers_answer_outweighs_another_address_that_refused() -> None:
    error = psycopg.OperationalError(
        PREFIX + "Connection refused\nMultiple connection attempts failed. All failures were:\n"
        "- host: 'x', port: 1, hostaddr: '::1': FATAL:  password authentication failed for user \"ann\"\n"
        "- host: 'x', port: 1, hostaddr: '127.0.0.1': Connection refused"
    )
    assert classify_connect_error(error) is ConnectFailure.LOGIN_REJECTED


def test_a_sqlstate_is_believed_in_any_language() -> None:
    assert classify_connect_error(psycopg.errors.InvalidPassword("Passwort falsch")) is ConnectFailure.LOGIN_REJECTED
    assert classify_connect_error(psycopg.errors.CannotConnectNow("…")) is ConnectFailure.WAKING_UP
    assert classify_connect_error(psycopg.errors.TooManyConnections("…")) is ConnectFailure.TOO_MANY_CONNECTIONS
    assert classify_connect_error(psycopg.errors.ConnectionTimeout("…")) is ConnectFailure.UNREACHABLE


def test_the_drivers_own_errors_are_understood() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(psycopg.OperationalError) as refused:
            psycopg.connect(host="127.0.0.1", port=port, dbname="x", user="y", connect_timeout=2)
    assert classify_connect_error(refused.value) is ConnectFailure.UNREACHABLE
    with pytest.raises(psycopg.OperationalError) as unknown:
        psycopg.connect(host="no-such-host.invalid", dbname="x", user="y", connect_timeout=2)
    assert classify_connect_error(unknown.value) is ConnectFailure.UNREACHABLE
    with pytest.raises(psycopg.ProgrammingError) as option:
        psycopg.connect("no_such_option=1")
    assert classify_connect_error(option.value) is ConnectFailure.BAD_PARAMETER


def test_the_kinds_fit_into_the_drivers_and_the_engines_trees() -> None:
    login = connect_error(psycopg.errors.InvalidPassword("no"))
    full = connect_error(psycopg.errors.TooManyConnections("full"))
    assert isinstance(login, (LoginError, CreateError, PoolingError))
    assert isinstance(full, TooManyConnectionsError)
    assert full.sqlstate == "53300"
    assert not isinstance(full, CreateError)
    assert issubclass(CredentialError, CreateError)
    assert issubclass(CredentialError, psycopg.OperationalError)
    again = pickle.loads(pickle.dumps(login))
    assert isinstance(again, LoginError)
    assert str(again) == str(login)
    assert classify_connect_error(ConnectError("x", failure=ConnectFailure.TLS)) is ConnectFailure.TLS


# The same on a real server, gateway and pooler


def failure_of(config, password: str) -> ConnectFailure:
    with pytest.raises(psycopg.Error) as caught:
        psycopg.connect(**config.connect_kwargs(), password=password)
    return classify_connect_error(caught.value)


def test_a_real_servers_refusals_are_told_apart(lakebase_user) -> None:
    lake, config = lakebase_user.lake, lakebase_user.config()
    good = lake.mint(lakebase_user.name)
    assert failure_of(config, "not-a-token") is ConnectFailure.LOGIN_REJECTED
    assert failure_of(config, lakebase_user.token) is ConnectFailure.LOGIN_REJECTED
    assert failure_of(config.merged({"user": "nobody@corp.example"}), good).is_final
    assert failure_of(config.merged({"database": "no_such"}), good) is ConnectFailure.NO_DATABASE
    assert failure_of(config.merged({"ssl_mode": "disable", "allow_plaintext": True}), good) is ConnectFailure.TLS
    assert failure_of(config.merged({"ssl_root_cert": "system"}), good) is ConnectFailure.TLS
    parameter = config.merged({"libpq_params": {"options": "-c nosuch=1"}})
    assert failure_of(parameter, good) is ConnectFailure.BAD_PARAMETER


def test_a_real_servers_troubles_are_told_apart(lakebase_user) -> None:
    lake, config = lakebase_user.lake, lakebase_user.config(connect_timeout=2)
    good = lake.mint(lakebase_user.name)
    for fault, failure in (
        (lambda: lake.refuse("refused"), ConnectFailure.UNREACHABLE),
        (lambda: lake.refuse("reset"), ConnectFailure.LOST),
        (lambda: lake.refuse("57P03"), ConnectFailure.WAKING_UP),
        (lambda: lake.too_many_connections(), ConnectFailure.TOO_MANY_CONNECTIONS),
        (lambda: lake.hang(), ConnectFailure.UNREACHABLE),
    ):
        with fault():
            assert failure_of(config, good) is failure
        assert not failure.is_final


def test_the_roles_own_limit_is_too_many_connections(lakebase_local) -> None:
    lake, name = lakebase_local, "limited@corp.example"
    settings = lake.config().connect_kwargs()
    with psycopg.connect(**settings, password=lake.mint(lake.admin_user), autocommit=True) as connection:
        connection.execute(f'CREATE ROLE "{name}" LOGIN CONNECTION LIMIT 0')
    lake.add_user(name)
    assert failure_of(lake.config(name), lake.mint(name)) is ConnectFailure.TOO_MANY_CONNECTIONS


def test_nothing_of_the_password_is_in_the_error(lakebase_user) -> None:
    config = lakebase_user.config()
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect(**config.connect_kwargs(), password="s3cret-pw")
    ours = connect_error(caught.value, user=config.user, target=f"{config.host}/{config.database}")
    assert "s3cret-pw" not in f"{ours!r} {ours} {caught.value!r}"
    assert lakebase_user.name in str(ours)
