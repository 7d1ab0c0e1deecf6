"""
What can go wrong between a pool and Lakebase, and what a failed connect means.

The driver gives no SQLSTATE for a connection that was never made, so
`classify_connect_error` reads the words of the server, libpq and PgBouncer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, Self, TypeAlias

import psycopg

from pooling.errors import ConfigurationError, CreateError, PoolingError, UnauthenticatedError

__all__ = [
    "CallbackError",
    "ConfigurationError",
    "ConnectError",
    "ConnectFailure",
    "CredentialError",
    "IdentityError",
    "LakebaseError",
    "LoginError",
    "TooManyConnectionsError",
    "classify_connect_error",
    "connect_error",
]


class LakebaseError(PoolingError):
    """Root of the errors that only a pool of Lakebase connections has."""


class IdentityError(LakebaseError, UnauthenticatedError, ValueError):
    """
    A request carries no user identity, or does not prove it. The web integrations answer it with status 401.

    Attributes:
        header: The header concerned, or `None`.
    """

    def __init__(self, message: str, *, header: str | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.header = header


#: What the workspace has against a user's token; see `CredentialError`.
Refusal: TypeAlias = Literal["token", "scope", "permission"]


class CredentialError(LakebaseError, CreateError, psycopg.OperationalError):
    """
    There is no password: the workspace refused to mint one, did not answer, or the password callable failed. Or there
    is no proof of a token's user, since the workspace could not be asked.

    `__cause__` is what the client of the workspace or the callable raised. It is raised at once,
    since its own retries are behind it.

    Attributes:
        is_transient: Whether the same request may work later, with nothing changed.
        retry_after: Seconds before which a workspace that throttles wants no other request; `None` if it did not say.
        refusal: Why the workspace refused a user's token: `"token"`, it is not valid; `"scope"`, it lacks the scope for
            databases; `"permission"`, its owner may not use the endpoint. `None` if it refused none.
    """

    def __init__(
        self,
        message: str,
        *,
        is_transient: bool = False,
        retry_after: float | None = None,
        refusal: Refusal | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(message, **facts)
        self.is_transient = is_transient
        self.retry_after = retry_after
        self.refusal: Refusal | None = refusal

    def again(self, **facts: Any) -> Self:
        """The same error as another object, for another caller, with these facts instead of its own."""
        return type(self)(
            str(self), is_transient=self.is_transient, retry_after=self.retry_after, refusal=self.refusal, **facts
        )


class CallbackError(LakebaseError, CreateError, psycopg.OperationalError):
    """
    One of the pool's callbacks failed, and another call would fail the same way: `__cause__` is what it raised.

    The callbacks are `configure`, `check`, and `conninfo` or `kwargs` where they are functions. What may pass, such as
    a lost connection, is tried again instead, within the borrower's timeout.
    """


class ConnectFailure(Enum):
    """
    What a failed connect means for the next attempt.

    A value is the sentence that advises a person.
    """

    LOGIN_REJECTED = (
        "Check that user= is the role that the credential belongs to and that the role exists; the built-in pooler "
        "takes native passwords only"
    )
    NO_ROLE = "Create the role: an identity of the workspace by databricks_create_role, any other by CREATE ROLE"
    NO_DATABASE = "Check database= or PGDATABASE"
    NO_ENDPOINT = "Check host=: the name resolves, but no enabled endpoint has it"
    NO_PERMISSION = "Grant the role CONNECT on the database, and LOGIN"
    TLS = "Check ssl_mode= and ssl_root_cert=, and that host= is the name in the server's certificate"
    BAD_PARAMETER = "Remove the parameter from libpq_params="
    BAD_CONNINFO = "Correct conninfo="
    EVENT_LOOP = "Run the app on an event loop that the driver works with"
    NO_FILES = "Raise the limit on open files (ulimit -n), or lower max_size= and whatever else keeps files open"
    WAKING_UP = "The endpoint wakes from scale-to-zero within seconds; raise timeout= if it needs longer"
    TOO_MANY_CONNECTIONS = "Lower max_size= or the number of replicas, enlarge the compute, or use the built-in pooler"
    POOLER_BUSY = "The pooler had no server connection to give within its 120 s; shorten transactions"
    STANDBY = "The server is a standby. After a failover, the host's name leads to the former primary for a while"
    UNREACHABLE = "Check host= and port=, and that this network may reach the endpoint"
    LOST = "The server closed the connection while it was being made"
    UNKNOWN = "The server's words are all that is known"

    @property
    def is_final(self) -> bool:
        """Whether another attempt with the same settings and a new credential would fail the same way."""
        return self in _FINAL


_FINAL = frozenset(
    {
        ConnectFailure.LOGIN_REJECTED,
        ConnectFailure.NO_ROLE,
        ConnectFailure.NO_DATABASE,
        ConnectFailure.NO_ENDPOINT,
        ConnectFailure.NO_PERMISSION,
        ConnectFailure.TLS,
        ConnectFailure.BAD_PARAMETER,
        ConnectFailure.BAD_CONNINFO,
        ConnectFailure.EVENT_LOOP,
    }
)


class ConnectError(LakebaseError, psycopg.OperationalError):
    """
    A connection could not be made.

    Attributes:
        failure: What kind of failure it was.
    """

    def __init__(self, message: str, *, failure: ConnectFailure = ConnectFailure.UNKNOWN, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.failure = failure


class LoginError(ConnectError, CreateError):
    """
    The server answers and refuses this connection; another attempt would fail the same way.

    The login was rejected with a new credential too, or the role or database
    does not exist, or TLS could not be agreed on: `failure` says which.
    """


class TooManyConnectionsError(ConnectError):
    """The endpoint's or the role's connection limit is reached; one that closes makes room."""

    sqlstate: str | None = "53300"


# https://www.postgresql.org/docs/current/errcodes-appendix.html
_BY_SQLSTATE = {
    "28P01": ConnectFailure.LOGIN_REJECTED,
    "28000": ConnectFailure.LOGIN_REJECTED,
    "3D000": ConnectFailure.NO_DATABASE,
    "42501": ConnectFailure.NO_PERMISSION,
    "53300": ConnectFailure.TOO_MANY_CONNECTIONS,
    "57P03": ConnectFailure.WAKING_UP,
    "57P01": ConnectFailure.LOST,
    "57P02": ConnectFailure.LOST,
}


@dataclass(frozen=True, slots=True)
class _Words:
    failure: ConnectFailure
    pattern: re.Pattern[str]


def _words(failure: ConnectFailure, *alternatives: str) -> _Words:
    return _Words(failure, re.compile("|".join(alternatives), re.IGNORECASE))


# The first that is found wins, so what a server says comes before what only libpq noticed: with several addresses
# behind one name, one answer from a server tells more than a refusal by another address. The words of Postgres are in
# its auth.c, postinit.c, postmaster.c and backend_startup.c; of libpq, in fe-connect.c and fe-secure-openssl.c; of
# PgBouncer, in client.c and objects.c. Those of the proxy before an endpoint are seen in reports of its users.
_READ = (
    # Of this machine: it keeps certificates from being read, and sockets from being made.
    _words(ConnectFailure.NO_FILES, r"too many open files"),
    _words(ConnectFailure.EVENT_LOOP, r"cannot use the '?ProactorEventLoop"),
    _words(
        ConnectFailure.TOO_MANY_CONNECTIONS,
        r"too many clients",
        r"too many connections",
        r"remaining connection slots are reserved",
        r"no more connections allowed",
        r"too many database connection attempts",
        r"max_client_conn",
    ),
    _words(
        ConnectFailure.WAKING_UP,
        r"the database system is (starting up|shutting down|in recovery mode|not yet accepting connections)",
        r"not accept(ing)? connections",
        r"could(n't| not) connect to compute",
        r"(endpoint|compute)\b.*\b(is )?(starting|waking|suspend|idle|initializing)",
    ),
    _words(ConnectFailure.POOLER_BUSY, r"query_wait_timeout", r"client_login_timeout", r"server_login_retry"),
    _words(ConnectFailure.NO_ENDPOINT, r"endpoint could not be found", r"endpoint (has been|is) disabled"),
    _words(ConnectFailure.NO_ROLE, r"role \".*\" does not exist", r"no such user"),
    _words(ConnectFailure.NO_DATABASE, r"database \".*\" does not exist", r"no such database"),
    _words(
        ConnectFailure.NO_PERMISSION,
        r"permission denied for database",
        r"is not permitted to log in",
        r"does not have CONNECT privilege",
        r"is not currently accepting connections",
    ),
    # An end in the middle of the handshake means that the server goes away, not that it refuses TLS.
    _words(ConnectFailure.LOST, r"SSL error: unexpected eof"),
    _words(
        ConnectFailure.TLS,
        r"server does not support SSL",
        r"connection is insecure",
        r"certificate verify failed",
        r"server certificate for",
        r"does not match host name",
        r"root certificate file",
        r"SSL error",
        r"SSL SYSCALL error.*certificate",
        r"no pg_hba\.conf entry.*(no encryption|SSL off)",
        r"SSL (connection )?(is )?required",
        r"could not load (system )?root certificate",
    ),
    _words(
        ConnectFailure.BAD_PARAMETER,
        r"unsupported startup parameter",
        r"unrecognized configuration parameter",
        r"invalid connection option",
        r"invalid (value for parameter|integer value|\w+ value:)",
        r"parameter \".*\" cannot be (set|changed)",
        r"channel[ _]binding",
        r"authentication method requirement",
        r"GSSAPI encryption required",
        r"definition of service",
        r"servname not supported",
    ),
    _words(
        ConnectFailure.LOGIN_REJECTED,
        r"authentication failed",
        r"no password supplied",
        r"password (has )?expired",
        r"token (is |has )?(expired|invalid)",
        r"invalid (authorization|token|credential)",
        r"no pg_hba\.conf entry",
        r"auth(entication)? (query )?failed",
        r"server rejected SCRAM",
    ),
    _words(
        ConnectFailure.UNREACHABLE,
        r"connection refused",
        r"could not translate host name",
        r"(failed|unable) to resolve host",
        r"name or service not known",
        r"nodename nor servname",
        r"name resolution",
        r"no such host",
        r"no address associated",
        r"no route to host",
        r"network is unreachable",
        r"host is (down|unreachable)",
        r"time(d )?-?out",
        r"is the server running",
    ),
    _words(
        ConnectFailure.LOST,
        r"server closed the connection",
        r"connection reset by peer",
        r"SSL connection has been closed",
        r"SSL SYSCALL error",
        r"broken pipe",
        r"unexpected(ly)? (EOF|closed)",
        r"terminating connection",
        r"connection (to server )?was lost",
        r"could not (send|receive)",
    ),
)


_VALUE = re.compile(r'((?:value|number):? )"[^"]*"')


def classify_connect_error(error: BaseException) -> ConnectFailure:
    """
    What a failed `psycopg.connect` means.

    By SQLSTATE where there is one; by the words otherwise. A server that speaks
    another language is understood as far as libpq can tell: a password that
    was demanded and not given.
    """
    if isinstance(error, ConnectError):
        return error.failure
    sqlstate = getattr(error, "sqlstate", None)
    if isinstance(sqlstate, str) and sqlstate in _BY_SQLSTATE:
        return _BY_SQLSTATE[sqlstate]
    if isinstance(error, (psycopg.errors.ConnectionTimeout, TimeoutError)):
        return ConnectFailure.UNREACHABLE
    text = str(error)
    for words in _READ:
        if words.pattern.search(text):
            return words.failure
    if isinstance(error, psycopg.ProgrammingError):
        return ConnectFailure.BAD_PARAMETER
    if isinstance(error, OSError):
        return ConnectFailure.UNREACHABLE
    pgconn = getattr(error, "pgconn", None)
    if pgconn is not None and pgconn.needs_password:
        return ConnectFailure.LOGIN_REJECTED
    return ConnectFailure.UNKNOWN


def connect_error(
    error: BaseException, *, user: str | None = None, target: str | None = None, hint: str | None = None
) -> ConnectError:
    """
    A failed connect as one of this package's errors, with the server's words and what to do.

    Raise it `from` the driver's error.

    Args:
        error: What `psycopg.connect` raised.
        user: The role that was to log in.
        target: Host and database, for the message.
        hint: What else is known to be wrong.
    """
    failure = classify_connect_error(error)
    who = f" as {user!r}" if user else ""
    where = f" to {target}" if target else ""
    message = f"could not connect{where}{who}: {_first_lines(error)} {failure.value}.{_case_advice(failure, user)}"
    if hint:
        message += f" Likely cause: {hint}."
    if failure is ConnectFailure.TOO_MANY_CONNECTIONS:
        return TooManyConnectionsError(message, failure=failure, step="creating")
    kind = LoginError if failure.is_final else ConnectError
    return kind(message, failure=failure, step="creating")


def _case_advice(failure: ConnectFailure, user: str | None) -> str:
    """What to say of a role that is an e-mail address, which a header and the database may write differently."""
    if failure not in (ConnectFailure.LOGIN_REJECTED, ConnectFailure.NO_ROLE) or user is None or "@" not in user:
        return ""
    lower = user.lower()
    check = "how the role is spelled" if user == lower else f"that the role is spelled {user!r}, and not {lower!r}"
    return f" Postgres tells upper from lower case: check {check}."


def _first_lines(error: BaseException) -> str:
    # psycopg repeats every address it tried; the first paragraph has the reason.
    lines = [line.strip() for line in str(error).partition("Multiple connection attempts failed")[0].splitlines()]
    text = ""
    for line in filter(None, lines):  # libpq ends a sentence at the end of a line, without a stop
        stop = ". " if text[-1:].isalnum() and line[0].isupper() else " "
        text += f"{stop}{line}" if text else line
    text = text or type(error).__name__
    text = _VALUE.sub(r'\1"…"', text)  # a piece of a connection string, perhaps of a password in it
    return text if text.endswith((".", "!", "?")) else f"{text}."
