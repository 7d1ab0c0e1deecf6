"""How a pool's connections are made, checked and closed; the engine does the rest."""

from __future__ import annotations

import logging
import math
import re
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import iscoroutine
from time import monotonic
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import ConnStatus, DiagnosticField, TransactionStatus

from pooling import PoolFactory, telemetry
from pooling.locks import make_lock

from ._checkpoint import committing
from ._conninfo import conninfo_problem
from ._driver_state import beginning_with, note_lender, remember
from ._failover import is_standby, note_writability
from ._secrets import WithoutLocals
from ._session_settings import beginning_statements, quoted_name
from ._steps import Steps, arun, run
from ._telemetry import LOGIN, POOL_NAME
from .endpoints import (
    acheck_host,
    acompleted,
    check_host,
    completed,
    doubt_host,
    is_host_to_be_found,
    is_incomplete,
    known_host_problem,
)
from .errors import (
    ConfigurationError,
    ConnectError,
    ConnectFailure,
    CredentialError,
    LoginError,
    TooManyConnectionsError,
    classify_connect_error,
    connect_error,
)

if TYPE_CHECKING:
    from types import TracebackType

    from psycopg import AsyncConnection, Connection

    from .config import LakebasePoolConfig
    from .credentials import CredentialSource

_OK = ConnStatus.OK
_POLL = getattr(select, "poll", None)
_OF_STATEMENTS = (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError, psycopg.InterfaceError)
_OF_ONE = re.compile(r"too many connections for (role|database)", re.IGNORECASE)

PREPARING, MINTING, CONNECTING = "conninfo() or kwargs()", "minting a credential", "connecting"
ASKING = "asking the workspace for the host and the role"
CREATING_SCHEMA = "creating the schema"
CONFIGURING, CHECKING = "configure()", "check()"
# What a host is met with that is not the endpoint's any more.
_OF_HOST = (ConnectFailure.UNREACHABLE, ConnectFailure.NO_ENDPOINT, ConnectFailure.TLS, ConnectFailure.LOST)
LONGEST_PAUSE = 60.0  # seconds between two failed attempts of one series of them

logger = logging.getLogger("lakebase")


class Outage:
    """A series of failing connects, of all the pools that share this."""

    def __init__(self) -> None:
        self._failed_at = -math.inf
        self._lock = make_lock()

    def is_known(self, now: float) -> bool:
        """Note a failed attempt; whether one failed not long before, and none has succeeded since."""
        with self._lock:
            is_known = now - self._failed_at <= LONGEST_PAUSE
            self._failed_at = now
        return is_known

    def end(self) -> None:
        """Note that an attempt has succeeded: the next failure begins another outage."""
        with self._lock:
            self._failed_at = -math.inf

    def after_fork(self) -> None:
        """In the child of a fork: another thread of the parent may have held the lock."""
        self._lock = make_lock()


class _Connector(PoolFactory[Any]):
    """
    What the two front ends have in common: all but the calls that block in one and are awaited in the other.

    Args:
        connection_class: Of the driver's connections.
        conninfo: A connection string, or a function that returns one, called for each connection.
        kwargs: The driver's further arguments, or a function that returns them.
        credentials: The source of passwords, or a function that returns it for `settings`, called at the first
            connect; `None` if the password is in the arguments.
        configure: Called with each new connection; must leave no transaction open.
        settings: A complete configuration, for arguments that `kwargs` does not give, and for error texts.
        check: Called with a connection before it is handed out; raises if the connection is to be replaced.
        owner: Returns the pool, or `None` if the pool has been collected.
        patience: Seconds of failing connects after which the pool's `reconnect_failed()` is called.
        on_crowded: Called when the server takes no more connections from any pool.
        outage: Shared with other pools of the same server, so that one outage is logged once.
    """

    noun = "connection"  # what the engine's messages call a resource
    metric_prefix = "db.client.connection"
    notes_borrowers = True
    logs_failures = True  # once for all pools that an outage concerns

    # Class attributes until something happens: most pools of many users are looked up and never used.
    _failing_since: float | None = None
    _failed_at = -math.inf
    _is_given_up = False
    _has_schema = False
    on_login: Callable[[], None] | None = None  # called after each login
    mints_first = False  # whether a password has to be minted before a connection is asked for
    _doubts_host = False
    is_checking = False  # whether dead connections are logged
    doing = CONNECTING  # what the latest attempt was doing

    def __init__(
        self,
        connection_class: Any,
        conninfo: Any,
        kwargs: Any,
        *,
        credentials: CredentialSource | Callable[[Any], CredentialSource] | None,
        configure: Callable[[Any], Any] | None,
        settings: LakebasePoolConfig | None,
        check: Callable[[Any], Any] | None = None,
        owner: Callable[[], Any] = lambda: None,
        patience: float = math.inf,
        on_crowded: Callable[[], Any] | None = None,
        is_guarded: bool = False,
        outage: Outage | None = None,
    ) -> None:
        self.connection_class = connection_class
        self.conninfo = conninfo
        self.kwargs = kwargs
        self._credentials = credentials
        self.configure = configure
        self.settings = self.given = settings
        self.check = check
        self.owner = owner
        self.patience = patience
        self.on_crowded = on_crowded
        self.is_guarded = is_guarded
        self.outage = outage

    @property
    def credentials(self) -> CredentialSource | None:
        """The source of passwords."""
        source = self._credentials
        if callable(source):
            source = self._credentials = source(self.settings)
        return source

    def forget_credentials(self, source: Callable[[Any], CredentialSource]) -> None:
        """Let go of the source of passwords and of what it has minted; a further connect takes one of `source`."""
        if self._credentials is not None:
            self._credentials = source

    def put_on_probation(self, on_login: Callable[[], None]) -> None:
        """
        Ask for no connection before a password was minted, and call `on_login` after each login.

        For a manager, whose users' tokens are not known before: a connection that is asked for may cost another pool
        an idle one.
        """
        self.mints_first = True
        self.on_login = on_login

    def arguments(self, kwargs: Any) -> dict[str, Any]:
        """The driver's arguments for one more connection."""
        settings = self.settings
        if settings is None:
            return dict(kwargs or {})
        arguments = {**settings.connect_kwargs(), **(kwargs or {})}
        if "options" in (kwargs or {}):
            arguments["options"] = settings.session_options(arguments["options"])
        return arguments

    def driver_class(self) -> Any:
        """The class of a new connection: of one that begins transactions with settings, through the pooler."""
        settings = self.settings
        if settings is None or not settings.is_through_pooler:
            return self.connection_class
        statements = beginning_statements(settings)
        return beginning_with(self.connection_class, statements) if statements else self.connection_class

    @property
    def begins_read_only(self) -> bool:
        """Whether the driver begins read-only transactions: the pooler takes no option that has the server do it."""
        settings = self.settings
        return settings is not None and settings.read_only and settings.is_through_pooler

    # These block, or are coroutine functions.

    def completed(self, given: LakebasePoolConfig) -> Any:
        """The settings with the host and the role that they lack, of which the workspace is asked."""
        raise NotImplementedError

    def check_host(self, settings: LakebasePoolConfig) -> Any:
        """Find out whether the host is the endpoint's, after a connect that failed for good."""
        raise NotImplementedError

    def password(self, source: CredentialSource) -> Any:
        """The password for a connection that is made now."""
        raise NotImplementedError

    def begin_read_only(self, connection: Any) -> Any:
        """Have the driver begin each transaction as a read-only one."""
        raise NotImplementedError

    def check_result(self, callback: Callable[..., Any], result: Any) -> None:
        """Refuse what a callback returned, if this front end cannot run it."""

    # Steps

    def creating(self) -> Steps[Any]:
        """`create`."""
        try:
            with WithoutLocals():
                connection = yield from self.logging_in()
            yield from self.preparing(connection)
        except Exception as error:
            yield from self.noting(error)
            raise
        self._failing_since = None
        if self.outage is not None:
            self.outage.end()
        if self.on_login is not None:
            self.on_login()
        return connection

    def noting(self, error: Exception) -> Steps[None]:
        """Log a failed attempt, and tell the pool that attempts have failed for long; each once in a series."""
        if self.is_impatient(error) and (pool := self.owner()) is not None:
            try:
                yield pool.reconnect_failed
            except Exception:
                logger.exception("reconnect_failed() failed")

    def logging_in(self) -> Steps[Any]:
        """A connection with the arguments of this moment."""
        conninfo, kwargs = yield from self.finding_arguments()
        if conninfo and (problem := conninfo_problem(conninfo)) is not None:
            failure = ConnectFailure.BAD_CONNINFO
            raise LoginError(f"conninfo cannot be read: {problem}. {failure.value}.", failure=failure, step="creating")
        return (yield from self.connecting(conninfo, kwargs))

    def finding_arguments(self) -> Steps[tuple[str, dict[str, Any]]]:
        """The connection string and the driver's arguments of this moment, without a minted password."""
        yield from self.finding_host()
        self.doing = PREPARING
        with _StepNoted(PREPARING):
            conninfo: Any = (yield self.conninfo) if callable(self.conninfo) else self.conninfo or ""
            return conninfo, self.arguments((yield self.kwargs) if callable(self.kwargs) else self.kwargs)

    def finding_host(self) -> Steps[None]:
        """Ask the workspace for what the settings lack; for a host that it gave, again after a connect in vain."""
        given, known = self.given, self.settings
        if given is None or known is None or not (self._doubts_host or is_incomplete(known)):
            return
        self.doing = ASKING
        try:
            self.settings = yield partial(self.completed, given)
        except (CredentialError, ConfigurationError) as error:
            if is_incomplete(known):
                raise
            logger.debug("the host of %s is not asked for again: %s", given.endpoint or given.instance_name, error)
        self._doubts_host = False
        pool = self.owner()
        found = self.settings
        if pool is not None and found is not None and known is not given and known.server_host != found.server_host:
            target = given.endpoint or given.instance_name
            logger.warning("%s has moved from %s to %s", target, known.server_host, found.server_host)
            pool.service.expire()

    def doubt_host(self) -> None:
        """Ask the workspace again for the host before the next connect, if it was the workspace that gave it."""
        given = self.given
        if given is not None and self.settings is not given and (given.host is None or is_host_to_be_found(given)):
            self._doubts_host = True
            doubt_host(given)

    def preparing(self, connection: Any) -> Steps[None]:
        """Make a new connection ready for its first borrower; one that cannot be is closed."""
        note_lender(connection, None)
        try:
            self.refuse_standby(connection)
            if self.begins_read_only:
                yield partial(self.begin_read_only, connection)
            if self.creates_schema:
                yield from self.creating_schema(connection)
            self.guard(connection)
            if self.configure is not None:
                self.doing = CONFIGURING
                with _StepNoted(CONFIGURING):
                    yield from self.calling(self.configure, connection)
                    if connection.pgconn.transaction_status != TransactionStatus.IDLE:
                        raise psycopg.ProgrammingError(left_open(connection, "configure", self.configure))
            note_writability(connection)
            remember(connection)
        except BaseException:
            yield connection.close
            raise

    def refuse_standby(self, connection: Any) -> None:
        """Refuse the former primary: after a failover, the name of the endpoint's host may lead there for a while."""
        settings = self.settings
        if settings is None or settings.read_only or settings.endpoint_hosts is None or not is_standby(connection):
            return
        self.doubt_host()
        failure = ConnectFailure.STANDBY
        target = f"{settings.server_host}/{settings.database}"
        raise ConnectError(f"{target} takes no writes. {failure.value}.", failure=failure, step="creating")

    @property
    def creates_schema(self) -> bool:
        """Whether the schema of the settings is to be made, and has not been yet."""
        return self.settings is not None and self.settings.create_schema and not self._has_schema

    def creating_schema(self, connection: Any) -> Steps[None]:
        """Make the schema of the settings, if there is none. A role that may not make one may use one that is there."""
        settings = self.settings
        assert settings is not None
        assert settings.schema is not None
        self.doing = CREATING_SCHEMA
        try:
            found = yield partial(connection.execute, "SELECT FROM pg_namespace WHERE nspname = %s", [settings.schema])
            if not found.pgresult.ntuples:
                name = quoted_name(settings.schema)
                yield partial(connection.execute, f"CREATE SCHEMA IF NOT EXISTS {name}".encode())
            yield connection.commit
        except (psycopg.errors.DuplicateSchema, psycopg.errors.UniqueViolation):  # another connection was faster
            yield connection.rollback
        except psycopg.errors.InsufficientPrivilege as error:
            raise ConfigurationError(
                f"create_schema=True: there is no schema {settings.schema!r}, and {settings.user!r} may not make one "
                f"({error.diag.message_primary}). GRANT CREATE ON DATABASE {quoted_name(settings.database or '')} TO "
                f"{quoted_name(settings.user or '')}, or have another role make it",
                field="create_schema",
            ) from error
        self._has_schema = True

    def connecting(self, conninfo: str, kwargs: dict[str, Any]) -> Steps[Any]:
        """Log in, with a new password once more if the first is rejected."""
        source = self.credentials
        for may_mint_again in (True, False):
            self.doing = MINTING
            password = None if source is None else (yield partial(self.password, source))
            if password is not None:
                kwargs["password"] = password
            self.doing = CONNECTING
            try:
                with telemetry.timed(LOGIN, self.named()):
                    return (yield partial(self.driver_class().connect, conninfo, **kwargs))
            except psycopg.Error as error:
                rejected = classify_connect_error(error) is ConnectFailure.LOGIN_REJECTED
                if may_mint_again and rejected and source is not None and source.invalidate(password or ""):
                    continue
                if self.settings is not None and classify_connect_error(error).is_final:
                    yield partial(self.check_host, self.settings)
                raise self.failed(error) from error
        raise AssertionError("unreachable")

    def named(self) -> dict[str, str]:
        """The pool's name, for what is counted."""
        pool = self.owner()
        return {} if pool is None else {POOL_NAME: pool.name}

    def resolving(self) -> Steps[dict[str, Any]]:
        """The driver's arguments of this moment, with the password."""
        with WithoutLocals():
            return (yield from self.finding_all_arguments())

    def finding_all_arguments(self) -> Steps[dict[str, Any]]:
        """`resolving`, apart: an error keeps the variables of this frame from showing."""
        _, kwargs = yield from self.finding_arguments()
        if (source := self.credentials) is not None:
            kwargs["password"] = yield partial(self.password, source)
        return kwargs

    def checking_one(self, connection: Any) -> Steps[bool]:
        """`validate`."""
        assert self.check is not None
        yield from self.calling(self.check, connection)
        return self.is_alive(connection)

    def calling(self, callback: Callable[[Any], Any], connection: Any) -> Steps[None]:
        """
        Run one of the pool's callbacks with a connection.

        Meanwhile the connection refers to its pool, so that `with connection:` ends a transaction and does not close
        the connection. Idle connections hold no reference to their pool, so an unused pool can be collected.
        """
        note_lender(connection, self.owner())
        try:
            result = yield partial(callback, connection)
        finally:
            note_lender(connection, None)
        self.check_result(callback, result)

    def is_final(self, error: BaseException) -> bool:
        """A login that cannot succeed is told at once; a server that wakes up, or is full, is asked again."""
        if isinstance(error, ConnectError):
            return error.failure.is_final
        if isinstance(error, CredentialError):
            return not error.is_transient
        # Of `configure`: a statement that the server does not accept, or a transaction left open. What another
        # session's statement may have caused is tried again, and so is a lost connection.
        return isinstance(error, _OF_STATEMENTS) or super().is_final(error)

    def is_alive(self, value: Any) -> bool:
        """
        Whether the server has closed an idle connection: seen from the socket, without a round trip.

        What the server sends to an idle connection is read here, so that a notice is not mistaken for the end.
        """
        pgconn = value.pgconn
        if pgconn.status == _OK:
            poll = value.__dict__.get("lakebase_poll")
            if poll is None:
                if _POLL is None:  # Windows
                    poll = _SelectPoll(pgconn.socket)
                else:
                    poll = _POLL()
                    poll.register(pgconn.socket, select.POLLIN)
                value.lakebase_poll = poll
            # An end that arrived together with a last message shows at the second look only.
            if not poll.poll(0) or _reads_on(pgconn, poll):
                return True
        if self.is_checking:
            logger.warning("discarding broken connection: %s", value)
        return False

    def failed(self, error: Exception) -> ConnectError:
        """A failed connect, classified."""
        settings = self.settings
        if settings is None:
            failure = connect_error(error)
        else:
            target = f"{settings.server_host}/{settings.database}"
            hint = known_host_problem(settings)
            if hint is None and settings.token and classify_connect_error(error) is ConnectFailure.LOGIN_REJECTED:
                hint = "a name and a token of two people, if both came with a request"
            failure = connect_error(error, user=settings.user, target=target, hint=hint)
            if failure.failure in _OF_HOST:
                self.doubt_host()
        # A role's or a database's own limit says nothing about the others.
        if isinstance(failure, TooManyConnectionsError) and self.on_crowded and not _OF_ONE.search(str(error)):
            self.on_crowded()
        return failure

    def is_impatient(self, error: Exception) -> bool:
        """Note a failed attempt; whether attempts have failed for `patience` seconds, once in a series of them."""
        now = monotonic()
        is_first = is_news = False
        if self._failing_since is None or now - self._failed_at > max(self.patience, LONGEST_PAUSE):
            is_first = is_news = True
            self._failing_since = now
            self._is_given_up = False
        # What is final, a callback's, or a role's own limit, is this pool's alone. An outage concerns every pool.
        is_shared = isinstance(error, ConnectError) and not self.is_final(error) and not _OF_ONE.search(str(error))
        if is_shared and self.outage is not None:
            is_news = not self.outage.is_known(now)
        if is_news or is_first:  # the others are no news: attempts go on
            level = logging.WARNING if is_news else logging.DEBUG
            # The words of a callback may hold anything: its borrowers get them.
            words = f": {error}" if isinstance(error, (ConnectError, CredentialError, psycopg.Error)) else ""
            logger.log(level, "%s failed with %s%s", step_of(error, self.doing), type(error).__name__, words)
        self._failed_at = now
        if self._is_given_up or now - self._failing_since < self.patience:
            return False
        self._is_given_up = True
        return True

    @contextmanager
    def checking(self) -> Iterator[None]:
        """Meanwhile, tell in the log of each dead connection that is found."""
        self.is_checking = True
        try:
            yield
        finally:
            self.is_checking = False

    def guard(self, connection: Any) -> None:
        """Have a connection refuse what the pooler would break, where the configuration says so."""
        if self.is_guarded:
            from .transaction_mode import guard_connection

            guard_connection(connection)


class _StepNoted:
    """A block whose error keeps what the attempt was doing: another attempt may do something else by then."""

    __slots__ = ("_step",)

    def __init__(self, step: str) -> None:
        self._step = step

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            error.lakebase_step = self._step  # type: ignore[attr-defined]


def step_of(error: BaseException | None, default: str) -> str:
    """What the attempt that failed with this error was doing, if that was noted."""
    return getattr(error, "lakebase_step", default)


def left_open(connection: Any, name: str, callback: Any) -> str:
    """What is said of a callback that leaves a connection in the middle of something."""
    status = TransactionStatus(connection.pgconn.transaction_status).name
    return f"connection left in status {status} by {name} function {callback}: discarded"


def _reads_on(pgconn: Any, poll: Any) -> bool:
    """Whether what there is to read leaves the session as it was; notices and notifications go where they always go."""
    has_ended = False

    def note(result: Any) -> None:
        nonlocal has_ended
        # While no query runs, libpq takes an error for a notice. The server closes its socket only after the last one.
        if result.error_field(DiagnosticField.SEVERITY_NONLOCALIZED) in (b"FATAL", b"PANIC"):
            has_ended = True
        if handler is not None:
            handler(result)

    handler = pgconn.notice_handler
    pgconn.notice_handler = note
    try:
        while poll.poll(0):
            pgconn.consume_input()
            pgconn.is_busy()  # has libpq understand what it has read
            if pgconn.status != _OK:
                return False
    except psycopg.Error:
        return False
    finally:
        pgconn.notice_handler = handler
    return not has_ended


class _SelectPoll:
    """`select.poll` where there is none."""

    def __init__(self, socket: int) -> None:
        self._socket = [socket]

    def poll(self, _timeout: int) -> list[int]:
        return select.select(self._socket, [], [], 0)[0]


class Connector(_Connector):
    """Makes connections for a `LakebasePool`."""

    def create(self) -> Connection[Any]:
        """
        One more connection, configured.

        A login that is rejected is tried once more with a new password, since the one at hand may have expired.
        """
        connection: Connection[Any] = run(self.creating())
        connection.lock = make_lock()  # on Python 3.14 an interrupt may leave the driver's own one locked for ever
        return connection

    def validate(self, value: Connection[Any]) -> bool:
        """As the pool's `check` sees it, and the socket after that."""
        return self.check is None or run(self.checking_one(value))

    def checkpoint(self, value: Connection[Any]) -> None:
        """Commit, before a request's answer goes out."""
        run(committing(value))

    def completed(self, given: LakebasePoolConfig) -> LakebasePoolConfig:
        return completed(given)

    def check_host(self, settings: LakebasePoolConfig) -> None:
        check_host(settings)

    def password(self, source: CredentialSource) -> str:
        return source.password()

    def begin_read_only(self, connection: Connection[Any]) -> None:
        connection.read_only = True

    def check_result(self, callback: Callable[..., Any], result: Any) -> None:
        if iscoroutine(result):
            result.close()
            raise ConfigurationError(f"{callback!r} returned a coroutine, which a pool for threads does not run")

    def destroy(self, value: Connection[Any]) -> None:
        """Say goodbye to the server and close the socket; does not wait for the server."""
        note_lender(value, None)
        value.close()


class AsyncConnector(_Connector):
    """Makes connections for an `AsyncLakebasePool`."""

    async def create(self) -> AsyncConnection[Any]:
        """As `Connector.create`, without blocking the loop."""
        return await arun(self.creating())

    async def validate(self, value: AsyncConnection[Any]) -> bool:
        """As `Connector.validate`."""
        return self.check is None or await arun(self.checking_one(value))

    async def checkpoint(self, value: AsyncConnection[Any]) -> None:
        """As `Connector.checkpoint`."""
        await arun(committing(value))

    async def completed(self, given: LakebasePoolConfig) -> LakebasePoolConfig:
        return await acompleted(given)

    async def check_host(self, settings: LakebasePoolConfig) -> None:
        await acheck_host(settings)

    async def password(self, source: CredentialSource) -> str:
        return await source.apassword()

    async def begin_read_only(self, connection: AsyncConnection[Any]) -> None:
        await connection.set_read_only(True)

    async def destroy(self, value: AsyncConnection[Any]) -> None:
        """As `Connector.destroy`."""
        note_lender(value, None)
        await value.close()
