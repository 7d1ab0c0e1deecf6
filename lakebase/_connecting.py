"""How a pool's connections are made, looked at and unmade; the engine does the rest."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import select
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from inspect import isawaitable, iscoroutine
from time import monotonic
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import ConnStatus, TransactionStatus

from pooling import PoolFactory

from .config import read_only_options
from .errors import (
    ConfigurationError,
    ConnectError,
    ConnectFailure,
    CredentialError,
    TooManyConnectionsError,
    classify_connect_error,
    connect_error,
)
from .hosts import is_host_to_be_found, with_read_only_host

if TYPE_CHECKING:
    from psycopg import AsyncConnection, Connection

    from .config import LakebasePoolConfig
    from .credentials import CredentialSource

_OK = ConnStatus.OK
_POLL = getattr(select, "poll", None)
_OF_ONE = re.compile(r"too many connections for (role|database)", re.IGNORECASE)

MINTING, CONNECTING, CONFIGURING = "minting a credential", "connecting", "configure()"
LONGEST_PAUSE = 60.0  # seconds between two failed attempts of one series of them

logger = logging.getLogger("lakebase")


class Outage:
    """A series of failing connects, of all the pools that share this."""

    def __init__(self) -> None:
        self._failed_at = -math.inf
        self._lock = threading.Lock()

    def is_known(self, now: float) -> bool:
        """Note a failed attempt; whether one failed not long before."""
        with self._lock:
            is_known = now - self._failed_at <= LONGEST_PAUSE
            self._failed_at = now
        return is_known


class _Connector(PoolFactory[Any]):
    """
    What the two front ends have in common.

    Args:
        connection_class: Of the driver's connections.
        conninfo: A connection string, or what returns it, called for each connection.
        kwargs: The driver's further arguments, or what returns them.
        credentials: Where the password is had from, or what gives that for `settings` at the first connect; `None` if
            it is in the arguments.
        configure: Called with each new connection; must leave no transaction open.
        settings: A complete configuration, for arguments that `kwargs` does not give, and for error texts.
        check: Called with a connection before it is handed out; raises if that should not be.
        owner: Gives the pool, or `None` if that has gone.
        patience: Seconds of failing connects after which the pool's `reconnect_failed()` is called.
        on_crowded: Called where the server takes no more connections, from anybody.
    """

    # Of the class where nothing has happened yet: most pools of many users are looked up, and not used.
    _failing_since: float | None = None
    _failed_at = -math.inf
    _is_misfit_known = False
    is_checking = False  # whether dead connections are told of in the log
    doing = CONNECTING  # the latest attempt, in words
    outage: Outage | None = None  # shared with other pools of the same server

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
    ) -> None:
        self.connection_class = connection_class
        self.conninfo = conninfo
        self.kwargs = kwargs
        self._credentials = credentials
        self.configure = configure
        self.settings = settings
        self.check = check
        self.owner = owner
        self.patience = patience
        self.on_crowded = on_crowded
        self.is_guarded = is_guarded

    @property
    def credentials(self) -> CredentialSource | None:
        """Where the password is had from."""
        source = self._credentials
        if callable(source):
            source = self._credentials = source(self.settings)
        return source

    def arguments(self, kwargs: Any) -> dict[str, Any]:
        """The driver's arguments for one more connection."""
        settings = self.settings
        if settings is None:
            return dict(kwargs or {})
        arguments = {**settings.connect_kwargs(), **(kwargs or {})}
        if settings.read_only and "options" in (kwargs or {}) and not settings.is_through_pooler:
            arguments["options"] = read_only_options(arguments["options"])
        return arguments

    @property
    def begins_read_only(self) -> bool:
        """Whether the driver begins read-only transactions: the pooler takes no option that has the server do it."""
        settings = self.settings
        return settings is not None and settings.read_only and settings.is_through_pooler

    @property
    def is_host_to_be_found(self) -> bool:
        """Whether `find_host` is to be called before the next connection."""
        return self.settings is not None and is_host_to_be_found(self.settings)

    def find_host(self) -> None:
        """Have the workspace asked for the host. Blocks for a request."""
        assert self.settings is not None
        self.settings = with_read_only_host(self.settings)

    def is_final(self, error: BaseException) -> bool:
        """A login that cannot succeed is told at once; a server that wakes up, or is full, is asked again."""
        if isinstance(error, ConnectError):
            return error.failure.is_final
        if isinstance(error, CredentialError):
            return not error.is_transient
        return super().is_final(error)

    def is_alive(self, value: Any) -> bool:
        """
        Whether the server has closed an idle connection: seen from the socket, without a round trip.

        What the server sends to an idle connection is read here, so that a notice is not mistaken for the end.
        """
        pgconn = value.pgconn
        if pgconn.status == _OK:
            poll = value.__dict__.get("_idle_poll")
            if poll is None:
                if _POLL is None:  # Windows
                    poll = _SelectPoll(pgconn.socket)
                else:
                    poll = _POLL()
                    poll.register(pgconn.socket, select.POLLIN)
                value._idle_poll = poll
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
            failure = connect_error(error, user=settings.user, target=target)
        # A role's or a database's own limit says nothing about the others.
        if isinstance(failure, TooManyConnectionsError) and self.on_crowded and not _OF_ONE.search(str(error)):
            self.on_crowded()
        return failure

    def is_impatient(self, error: Exception) -> bool:
        """Note a failed attempt; whether attempts have failed for another `patience` seconds."""
        now = monotonic()
        # What is final, or a role's own limit, is this pool's alone.
        is_shared = self.outage is not None and not self.is_final(error) and not _OF_ONE.search(str(error))
        is_told = is_shared and self.outage is not None and self.outage.is_known(now)
        if self._failing_since is None or now - self._failed_at > max(self.patience, LONGEST_PAUSE):
            self._failing_since = now
            # The first only: attempts go on, and an outage concerns every pool of a manager.
            level = logging.DEBUG if is_told else logging.WARNING
            logger.log(level, "connecting failed with %s: %s", type(error).__name__, error)
        self._failed_at = now
        if now - self._failing_since < self.patience:
            return False
        self._failing_since = now
        return True

    def _is_first_misfit(self) -> bool:
        """Whether `configure` has failed for the first time; said once, since every connection meets it."""
        is_first, self._is_misfit_known = not self._is_misfit_known, True
        return is_first

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

    def left_open(self, connection: Any) -> psycopg.ProgrammingError:
        return psycopg.ProgrammingError(left_open(connection, "configure", self.configure))


def left_open(connection: Any, name: str, callback: Any) -> str:
    """What is said of a callback that leaves a connection in the middle of something."""
    status = TransactionStatus(connection.pgconn.transaction_status).name
    return f"connection left in status {status} by {name} function {callback}: discarded"


def _reads_on(pgconn: Any, poll: Any) -> bool:
    try:
        while poll.poll(0):
            pgconn.consume_input()
            if pgconn.status != _OK:
                return False
    except psycopg.Error:
        return False
    return True


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
        if self.is_host_to_be_found:
            self.find_host()
        conninfo: Any = self.conninfo() if callable(self.conninfo) else self.conninfo or ""
        kwargs = self.arguments(self.kwargs() if callable(self.kwargs) else self.kwargs)
        try:
            connection = self._connect(conninfo, kwargs)
        except Exception as error:
            if self.is_impatient(error) and (pool := self.owner()) is not None:
                try:
                    pool.reconnect_failed()
                except Exception:
                    logger.exception("reconnect_failed() failed")
            raise
        connection._pool = None  # a pool's, and idle: the driver does not mind if it is dropped with the pool
        self._failing_since = None
        try:
            if self.begins_read_only:
                connection.read_only = True
            self.guard(connection)
            if self.configure is not None:
                self.doing = CONFIGURING
                self.call(self.configure, connection)
                if connection.pgconn.transaction_status != TransactionStatus.IDLE:
                    raise self.left_open(connection)
        except BaseException as error:
            connection.close()
            if self._is_first_misfit():
                logger.warning("configure() failed, the connection is closed: %s", error)
            raise
        return connection

    def _connect(self, conninfo: str, kwargs: dict[str, Any]) -> Connection[Any]:
        source = self.credentials
        for may_mint_again in (True, False):
            self.doing = MINTING
            password = None if source is None else source.password()
            if password is not None:
                kwargs["password"] = password
            self.doing = CONNECTING
            try:
                return self.connection_class.connect(conninfo, **kwargs)  # type: ignore[no-any-return]
            except psycopg.Error as error:
                rejected = classify_connect_error(error) is ConnectFailure.LOGIN_REJECTED
                if may_mint_again and rejected and source is not None and source.invalidate(password or ""):
                    continue
                raise self.failed(error) from error
        raise AssertionError("unreachable")

    def validate(self, value: Connection[Any]) -> bool:
        """As the pool's `check` sees it, and the socket after that."""
        if self.check is not None:
            self.call(self.check, value)
            return self.is_alive(value)
        return True

    def call(self, callback: Callable[[Any], Any], connection: Connection[Any]) -> None:
        """
        Run a callback of the pool's.

        Meanwhile the connection belongs to the pool, so that `with connection:` ends a transaction and does not close
        it. An idle one belongs to nobody: else it and its pool would keep each other.
        """
        connection._pool = self.owner()
        try:
            got = callback(connection)
        finally:
            connection._pool = None
        if iscoroutine(got):
            got.close()
            raise ConfigurationError(f"{callback!r} returned a coroutine, which a pool for threads does not run")

    def destroy(self, value: Connection[Any]) -> None:
        """Say goodbye to the server and close the socket; does not wait for the server."""
        value._pool = None  # what the driver asks before it warns of a connection left open
        value.close()


class AsyncConnector(_Connector):
    """Makes connections for an `AsyncLakebasePool`."""

    async def create(self) -> AsyncConnection[Any]:
        """As `Connector.create`, without blocking the loop."""
        if self.is_host_to_be_found:
            await asyncio.to_thread(self.find_host)
        conninfo = await awaited(self.conninfo() if callable(self.conninfo) else self.conninfo or "")
        kwargs = self.arguments(await awaited(self.kwargs()) if callable(self.kwargs) else self.kwargs)
        try:
            connection = await self._connect(conninfo, kwargs)
        except Exception as error:
            if self.is_impatient(error) and (pool := self.owner()) is not None:
                try:
                    await awaited(pool.reconnect_failed())
                except Exception:
                    logger.exception("reconnect_failed() failed")
            raise
        connection._pool = None
        self._failing_since = None
        try:
            if self.begins_read_only:
                await connection.set_read_only(True)
            self.guard(connection)
            if self.configure is not None:
                self.doing = CONFIGURING
                await self.call(self.configure, connection)
                if connection.pgconn.transaction_status != TransactionStatus.IDLE:
                    raise self.left_open(connection)
        except BaseException as error:
            await connection.close()
            if self._is_first_misfit():
                logger.warning("configure() failed, the connection is closed: %s", error)
            raise
        return connection

    async def _connect(self, conninfo: str, kwargs: dict[str, Any]) -> AsyncConnection[Any]:
        source = self.credentials
        for may_mint_again in (True, False):
            self.doing = MINTING
            password = None if source is None else await source.apassword()
            if password is not None:
                kwargs["password"] = password
            self.doing = CONNECTING
            try:
                return await self.connection_class.connect(conninfo, **kwargs)  # type: ignore[no-any-return]
            except psycopg.Error as error:
                rejected = classify_connect_error(error) is ConnectFailure.LOGIN_REJECTED
                if may_mint_again and rejected and source is not None and source.invalidate(password or ""):
                    continue
                raise self.failed(error) from error
        raise AssertionError("unreachable")

    async def validate(self, value: AsyncConnection[Any]) -> bool:
        """As `Connector.validate`."""
        if self.check is not None:
            await self.call(self.check, value)
            return self.is_alive(value)
        return True

    async def call(self, callback: Callable[[Any], Any], connection: AsyncConnection[Any]) -> None:
        """As `Connector.call`; the callback may be a plain function."""
        connection._pool = self.owner()
        try:
            await awaited(callback(connection))
        finally:
            connection._pool = None

    async def destroy(self, value: AsyncConnection[Any]) -> None:
        """As `Connector.destroy`."""
        value._pool = None
        await value.close()


async def awaited(value: Any | Awaitable[Any]) -> Any:
    """The value, or what awaiting it gives."""
    return await value if isawaitable(value) else value
