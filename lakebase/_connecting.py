"""How a pool's connections are made, looked at and unmade; the engine does the rest."""

from __future__ import annotations

import math
import select
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from time import monotonic
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import ConnStatus, TransactionStatus

from pooling import PoolFactory

from .errors import ConnectError, ConnectFailure, CredentialError, classify_connect_error, connect_error

if TYPE_CHECKING:
    from psycopg import AsyncConnection, Connection

    from .credentials import CredentialSource

_OK = ConnStatus.OK
_POLL = getattr(select, "poll", None)


class _Connector(PoolFactory[Any]):
    """
    What the two front ends have in common.

    Args:
        connection_class: Of the driver's connections.
        conninfo: A connection string, or what returns it, called for each connection.
        kwargs: The driver's further arguments, or what returns them.
        credentials: Where the password is had from; `None` if it is in the arguments.
        configure: Called with each new connection; must leave no transaction open.
        user: For error texts.
        target: Host and database, for error texts.
        check: Called with a connection before it is handed out; raises if that should not be.
        patience: Seconds of failing connects after which `on_impatience` is called, once.
        on_impatience: Without arguments.
    """

    def __init__(
        self,
        connection_class: Any,
        conninfo: Any,
        kwargs: Any,
        *,
        credentials: CredentialSource | None,
        configure: Callable[[Any], Any] | None,
        user: str | None,
        target: str | None,
        check: Callable[[Any], Any] | None = None,
        patience: float = math.inf,
        on_impatience: Callable[[], Any] | None = None,
    ) -> None:
        self.connection_class = connection_class
        self.conninfo = conninfo
        self.kwargs = kwargs
        self.credentials = credentials
        self.configure = configure
        self.user = user
        self.target = target
        self.check = check
        self.patience = patience
        self.on_impatience = on_impatience
        self._failing_since: float | None = None

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
        if pgconn.status != _OK:
            return False
        poll = value.__dict__.get("_idle_poll")
        if poll is None:
            if _POLL is None:  # Windows
                poll = _SelectPoll(pgconn.socket)
            else:
                poll = _POLL()
                poll.register(pgconn.socket, select.POLLIN)
            value._idle_poll = poll
        if not poll.poll(0):
            return True
        try:
            pgconn.consume_input()
        except psycopg.Error:
            return False
        # An end that arrived together with a last message shows at the second look only.
        return pgconn.status == _OK and (not poll.poll(0) or _reads_on(pgconn, poll))

    def failed(self, error: Exception) -> ConnectError:
        """A failed connect, classified."""
        return connect_error(error, user=self.user, target=self.target)

    def is_impatient(self) -> bool:
        """Note a failed attempt; whether it is the first after `patience`."""
        if self.on_impatience is None:
            return False
        now = monotonic()
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since < self.patience:
            return False
        self._failing_since = math.inf
        return True

    def left_open(self, connection: Any) -> psycopg.ProgrammingError:
        status = TransactionStatus(connection.pgconn.transaction_status).name
        return psycopg.ProgrammingError(
            f"connection left in status {status} by configure function {self.configure}: discarded"
        )


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
        conninfo = self.conninfo() if callable(self.conninfo) else self.conninfo or ""
        kwargs = dict(self.kwargs() if callable(self.kwargs) else self.kwargs or {})
        try:
            connection = self._connect(conninfo, kwargs)
        except Exception:
            if self.is_impatient() and self.on_impatience is not None:
                self.on_impatience()
            raise
        self._failing_since = None
        try:
            if self.configure is not None:
                self.configure(connection)
                if connection.pgconn.transaction_status != TransactionStatus.IDLE:
                    raise self.left_open(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self, conninfo: str, kwargs: dict[str, Any]) -> Connection[Any]:
        source = self.credentials
        for may_mint_again in (True, False):
            password = None if source is None else source.password()
            if password is not None:
                kwargs["password"] = password
            try:
                return self.connection_class.connect(conninfo, **kwargs)  # type: ignore[no-any-return]
            except psycopg.Error as error:
                rejected = classify_connect_error(error) is ConnectFailure.LOGIN_REJECTED
                if may_mint_again and rejected and source is not None and source.invalidate(password or ""):
                    continue
                raise self.failed(error) from error
        raise AssertionError("unreachable")

    def validate(self, value: Connection[Any]) -> bool:
        """As the pool's `check` sees it."""
        if self.check is not None:
            self.check(value)
        return True

    def destroy(self, value: Connection[Any]) -> None:
        """Say goodbye to the server and close the socket; does not wait for the server."""
        value._pool = None  # what the driver asks before it warns of a connection left open
        value.close()


class AsyncConnector(_Connector):
    """Makes connections for an `AsyncLakebasePool`."""

    async def create(self) -> AsyncConnection[Any]:
        """As `Connector.create`, without blocking the loop."""
        conninfo = await _awaited(self.conninfo() if callable(self.conninfo) else self.conninfo or "")
        kwargs = dict(await _awaited(self.kwargs() if callable(self.kwargs) else self.kwargs or {}))
        try:
            connection = await self._connect(conninfo, kwargs)
        except Exception:
            if self.is_impatient() and self.on_impatience is not None:
                await _awaited(self.on_impatience())
            raise
        self._failing_since = None
        try:
            if self.configure is not None:
                await self.configure(connection)
                if connection.pgconn.transaction_status != TransactionStatus.IDLE:
                    raise self.left_open(connection)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _connect(self, conninfo: str, kwargs: dict[str, Any]) -> AsyncConnection[Any]:
        source = self.credentials
        for may_mint_again in (True, False):
            password = None if source is None else await source.apassword()
            if password is not None:
                kwargs["password"] = password
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
            await self.check(value)
        return True

    async def destroy(self, value: AsyncConnection[Any]) -> None:
        """As `Connector.destroy`."""
        value._pool = None
        await value.close()


async def _awaited(value: Any | Awaitable[Any]) -> Any:
    return await value if isawaitable(value) else value
