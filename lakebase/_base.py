"""What `LakebasePool` and its asyncio twin have in common: construction, settings, numbers, and giving back."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, Unpack, get_origin

from psycopg.pq import TransactionStatus

from pooling import PoolingError, PoolingServiceOptions, ReleaseError

from ._connecting import left_open
from ._driver_state import has_changed, lender_of, noticing_discards, restoring
from ._failover import is_left_behind
from ._minting import minting
from ._pool_arguments import (
    CALLBACKS,
    ServiceArguments,
    changed_options,
    check_budget,
    check_callables,
    check_connect_arguments,
    checked_sizes,
)
from ._pool_errors import LakebasePoolClosed, LakebasePoolTimeout, mint_error, mint_timeout, translated
from ._session_reset import SessionReset, check_session_reset, clearing, take_mark
from ._sessions import UserLimit
from ._warm_up import warm_up_for_pool
from .config import LakebasePoolConfig
from .credentials import credential_source
from .drivers import LivePassword
from .endpoints import note_unknown_host
from .errors import CredentialError

if TYPE_CHECKING:
    from pooling import Holder, Waiting

    from ._connecting import Outage
    from ._steps import Steps
    from .credentials import CredentialSource

__pooling_internal__ = True

__all__ = ["IDLE", "PoolBase"]

C = TypeVar("C")

logger = logging.getLogger("lakebase")

IDLE = TransactionStatus.IDLE
_OPEN = (TransactionStatus.INTRANS, TransactionStatus.INERROR)


def _adjustable(name: str, *, unlimited: Any = None) -> property:
    """An attribute that is an option of the service; `unlimited` is psycopg_pool's word for the service's `None`."""

    def get(pool: Any) -> Any:
        value = getattr(pool.service.options, name)
        return unlimited if value is None else value

    def change(pool: Any, value: Any) -> None:
        pool.service.adjust(**{name: value if unlimited is None else value or None})

    return property(get, change)


def _of_connector(name: str) -> property:
    """An attribute of what makes the connections."""
    return property(
        lambda pool: getattr(pool._connector, name), lambda pool, value: setattr(pool._connector, name, value)
    )


class PoolBase(Generic[C]):
    """
    The construction, the state and the numbers of a pool that looks like psycopg_pool's.

    psycopg_pool's own constructors are not called: they would make queues, locks and a scheduler for workers that do
    not exist.

    Attributes:
        service: The engine's service under the pool.
        usage: Seconds that connections were out, of those borrowed by `connection()`.
    """

    # Of each front end
    _keeps_none: ClassVar[bool] = False
    _is_async: ClassVar[bool]
    _connector_class: ClassVar[type[Any]]
    _service_class: ClassVar[type[Any]]
    _connection_class: ClassVar[type[Any]]
    _of_loans: ClassVar[tuple[Callable[..., Any], ...]]  # methods of a pool that its blocks call
    _of_blocks: ClassVar[tuple[str, ...]]  # methods of a connection that its blocks call

    # Annotated, since psycopg_pool's types are narrower or name other things
    name: str
    close_returns: bool
    timeout: float
    reconnect_timeout: float
    num_workers: int
    conninfo: Any
    kwargs: Any
    connection_class: Any
    max_waiting: int
    max_lifetime: float
    max_idle: float
    service: Any
    session_reset: SessionReset | None
    check_handles: bool
    _check: Any
    _configure: Any
    _reset: Any
    _reconnect_failed: Any
    _renewal = "create another one"  # how the user of a closed pool gets an open one

    # Class attributes until something happens: most pools of many users are looked up and never used.
    usage: float = 0.0
    _closed = True
    _opened = False
    _returned_bad = 0
    _base_stats: Mapping[str, int] = MappingProxyType({})

    def __init__(
        self,
        conninfo: Any = "",
        *,
        config: LakebasePoolConfig | Mapping[str, Any] | None = None,
        credentials: CredentialSource | Callable[[LakebasePoolConfig], CredentialSource] | None = None,
        connection_class: type[C] | None = None,
        kwargs: Any = None,
        min_size: int | None = None,
        max_size: int | None = None,
        open: bool | None = True,  # noqa: A002
        configure: Callable[[C], Any] | None = None,
        check: Callable[[C], Any] | None = None,
        reset: Callable[[C], Any] | None = None,
        session_reset: SessionReset | None = None,
        check_handles: bool = False,
        name: str | None = None,
        key: Any = None,
        close_returns: bool = False,
        timeout: float | None = None,
        max_waiting: int | None = None,
        max_lifetime: float | None = None,
        max_idle: float | None = None,
        reconnect_timeout: float = 5 * 60.0,
        reconnect_failed: Callable[[Any], Any] | None = None,
        num_workers: int = 3,
        on_crowded: Callable[[], Any] | None = None,
        outage: Outage | None = None,
        renewal: str | None = None,
        service_class: Callable[..., Any] | None = None,
        **service: Unpack[ServiceArguments],
    ) -> None:
        self.connection_class = connection_class or self._connection_class
        self.close_returns = close_returns
        self.num_workers = num_workers
        self._configure = configure
        self._check = check
        self._reset = reset
        self.session_reset = session_reset
        self.check_handles = check_handles
        self._looks_closer = self._keeps_none or reset is not None or session_reset is not None
        self.is_direct = not check_handles and self._has_plain_blocks()
        self._reconnect_failed = reconnect_failed
        self._renewal = renewal or self._renewal
        budget = service.get("budget")
        self._check_arguments(conninfo, kwargs, budget)
        self.config = None if config is None else LakebasePoolConfig.of(config).resolved()
        sizes = {"min_size": min_size, "max_size": max_size, "max_waiting": max_waiting}
        options = self._options({**sizes, "timeout": timeout, "max_lifetime": max_lifetime, "max_idle": max_idle})
        if on_crowded is None and budget is not None:
            on_crowded = budget.squeeze
        self._connector = self._make_connector(
            conninfo, kwargs, credentials, patience=reconnect_timeout, on_crowded=on_crowded, outage=outage
        )
        make_service = service_class or self._service_class
        self.service = make_service(self._connector, options=options, name=name, key=key, **service)
        self.name = self.service.name
        self._key = key
        if open is None or open:
            self._open()

    def _has_plain_blocks(self) -> bool:
        """Whether neither the class of the pool nor that of its connections changes what a block calls."""
        kind = get_origin(self.connection_class) or self.connection_class  # of `Connection[DictRow]`
        return all(getattr(type(self), method.__name__) is method for method in self._of_loans) and all(
            getattr(kind, name) is getattr(self._connection_class, name) for name in self._of_blocks
        )

    def _check_arguments(self, conninfo: object, kwargs: object, budget: object) -> None:
        """Refuse what this constructor, and no other, can tell."""
        if self.num_workers < 1:
            raise ValueError("num_workers must be at least 1")
        check_connect_arguments(conninfo, kwargs)
        given = {name: getattr(self, f"_{name}") for name in CALLBACKS}
        # These two may be values as well.
        given |= {name: value for name, value in (("conninfo", conninfo), ("kwargs", kwargs)) if callable(value)}
        check_callables(given, is_async=self._is_async)
        check_session_reset(self.session_reset)
        check_budget(budget)

    def _options(self, given: dict[str, Any]) -> PoolingServiceOptions:
        """The service's options, from psycopg_pool's arguments and the configuration."""
        if self.config is not None:
            options = self.config.options()
            if given["max_waiting"] is None:
                given["max_waiting"] = options.max_waiting or 0
        else:
            minimum, maximum = checked_sizes(4 if given["min_size"] is None else given["min_size"], given["max_size"])
            given["min_size"], given["max_size"] = minimum, maximum
            defaults = {"timeout": 30.0, "max_waiting": 0, "max_lifetime": 3600.0, "max_idle": 600.0}
            given.update({name: value for name, value in defaults.items() if given[name] is None})
            options = PoolingServiceOptions()
        changes = {name: value for name, value in given.items() if value is not None and name != "max_waiting"}
        if "min_size" in changes and "max_size" not in changes:
            changes["max_size"] = max(options.max_size, changes["min_size"])
        # psycopg_pool's 0 is no limit.
        changes["max_waiting"] = given["max_waiting"] or None
        if self._check is not None:
            changes["validate_on_acquire"] = True
        changed = changed_options if isinstance(options.validate_on_acquire, bool) else PoolingServiceOptions.replaced
        return changed(options, inline_hooks=not self._is_async, **changes)

    def _make_connector(self, conninfo: Any, kwargs: Any, credentials: Any, **given: Any) -> Any:
        """What makes this pool's connections; with a configuration it needs no other credentials."""
        config = self.config
        if config is not None:
            note_unknown_host(config)
            if credentials is None:
                warm_up_for_pool(config)
                credentials = credential_source(config, is_async=self._is_async)
        return self._connector_class(
            self.connection_class,
            conninfo,
            kwargs,
            credentials=credentials,
            configure=self._configure,
            check=self._check,
            settings=config,
            owner=weakref.ref(self),
            is_guarded=config is not None and config.transaction_mode_guard,
            **given,
        )

    if not TYPE_CHECKING:  # there, they are psycopg_pool's
        # Attributes there, and read and set at any time.
        timeout = _adjustable("timeout")
        max_waiting = _adjustable("max_waiting", unlimited=0)
        max_lifetime = _adjustable("max_lifetime")
        max_idle = _adjustable("max_idle")
        reconnect_timeout = _of_connector("patience")
        conninfo = _of_connector("conninfo")

        @property
        def kwargs(self):
            """The driver's arguments as they were given; those of a configuration have a password that stays fresh."""
            connector = self._connector
            if connector.settings is None or callable(connector.kwargs):
                return connector.kwargs
            return {
                **connector.arguments(connector.kwargs),
                "password": LivePassword(connector.settings, connector.credentials),
            }

        @kwargs.setter
        def kwargs(self, value):
            check_connect_arguments("", value)
            self._connector.kwargs = value

        # Private there, and read by its users all the same.
        _sched_runner = None
        _workers = ()

        @property
        def _pool(self) -> list[Any]:
            return self.service.idle  # type: ignore[no-any-return]

        @property
        def _waiting(self) -> tuple[None, ...]:
            return (None,) * self.service.pending

        @property
        def _nconns(self) -> int:
            return self.service.size

    @property
    def min_size(self) -> int:
        """Connections kept open."""
        return self.service.options.min_size  # type: ignore[no-any-return]

    @property
    def max_size(self) -> int:
        """Most connections at once."""
        return self.service.options.max_size  # type: ignore[no-any-return]

    @property
    def host(self) -> str | None:
        """The server's host; `None` before the workspace was asked, or where a connection string has it."""
        settings = self._connector.settings
        return None if settings is None else settings.server_host

    @property
    def username(self) -> str | None:
        """The role that connections log in as; `None` as with `host`."""
        settings = self._connector.settings
        return None if settings is None else settings.user

    @property
    def schema(self) -> str | None:
        """The schema that sessions look in first; `None` if the settings name none."""
        settings = self._connector.settings
        return None if settings is None else settings.schema

    @property
    def closed(self) -> bool:
        """`True` before `open()` and after `close()`."""
        return self._closed

    def holders(self) -> list[Holder]:
        """Who holds connections, longest first: call site, request, task or thread. Does not block."""
        return self.service.holders()  # type: ignore[no-any-return]

    def waiters(self) -> list[Waiting]:
        """Who waits for a connection, longest first. Does not block."""
        return self.service.waiters()  # type: ignore[no-any-return]

    def get_stats(self) -> dict[str, int]:
        """
        The pool's numbers under psycopg_pool's names; those that count do so since the last `pop_stats`.

        A count that is zero may be missing, as there.
        """
        counted = self._counted()
        base = self._base_stats
        numbers = {name: value - base.get(name, 0) for name, value in counted.items()}
        return {**{name: value for name, value in numbers.items() if value}, **self._measured()}

    def pop_stats(self) -> dict[str, int]:
        """As `get_stats`; the counts begin anew."""
        numbers = self.get_stats()
        self._base_stats = self._counted()
        return numbers

    def _counted(self) -> dict[str, int]:
        stats = self.service.stats()
        return {
            "requests_num": stats.requested,
            "requests_queued": stats.queued,
            "requests_wait_ms": round((stats.wait_time.sum + stats.waited_in_vain) * 1000),
            "requests_errors": stats.timeouts + stats.rejected + stats.cancelled + stats.dismissed,
            "usage_ms": round(self.usage * 1000),
            "returns_bad": self._returned_bad,
            "connections_num": stats.created + stats.create_failures,
            "connections_ms": round(stats.create_time.sum * 1000),
            "connections_errors": stats.create_failures,
            "connections_lost": stats.destroyed_by.get("invalid", 0),
        }

    def _measured(self) -> dict[str, int]:
        stats = self.service.stats()
        return {
            "pool_min": stats.min_size,
            "pool_max": stats.max_size,
            "pool_size": stats.size - stats.closing,
            "pool_available": stats.available,
            "requests_waiting": stats.pending,
        }

    def _check_timeout(self, timeout: float) -> None:
        """
        Refuse a borrower's timeout that is not above zero, as psycopg_pool does.

        Raises:
            LakebasePoolTimeout: It is not.
        """
        if not timeout > 0:
            raise LakebasePoolTimeout(
                f"{self._title}: no connection within timeout={timeout} s, which is no time at all, also where one is "
                f"idle. Give a timeout above 0, or None for the pool's timeout={self.timeout} s",
                timeout=timeout,
                pool=self.name,
                key=self._key,
            )

    def _translated(self, error: PoolingError) -> Exception:
        return translated(error, title=self._title, renewal=self._renewal, doing=self._connector.doing)

    @property
    def _title(self) -> str:
        return f"pool {self.name!r}" if self._key is None else f"pool {self.name!r} of key {self._key!r}"

    def _minting_first(self, timeout: float | None) -> Steps[float]:
        """While it is on probation: mint a password, within a borrower's timeout, of which what is left is returned."""
        seconds = self.timeout if timeout is None else timeout
        deadline = monotonic() + seconds
        facts: dict[str, Any] = {"pool": self.name, "key": self._key}
        try:
            yield from minting(self._connector, deadline, is_async=self._is_async)
        except CredentialError as error:
            if not error.is_transient:
                raise mint_error(error, **facts) from error.__cause__
            raise mint_timeout(error, title=self._title, timeout=seconds, **facts) from error
        self._connector.mints_first = False
        return max(deadline - monotonic(), 0.001)

    def retire(self) -> None:
        """
        Refuse new borrowers, serve those who wait, close connections that are idle or come back. Does not block.

        For a pool that another one replaces; a manager does this to the pool of a user with a new token.
        """
        self._closed = True
        self.service.retire()

    def _returning(self, conn: Any) -> Steps[None]:
        """Give back a connection that is not as it was left: it is made so first, and closed if that is impossible."""
        service = self.service
        if conn.__dict__.get("lakebase_is_in_reset"):  # `reset` closes it, where `close_returns`
            yield conn.close
            return
        is_clean = False
        try:
            if self._is_wanted():
                is_clean = yield from self._cleaning(conn)
                self._returned_bad += not is_clean
        finally:
            # Once this has begun, the connection may be another borrower's.
            try:
                yield partial(service.release if is_clean else service.destroy, conn)
            except ReleaseError as error:  # two threads gave it back at once
                raise self._translated(error) from None

    def _is_as_left(self, conn: Any) -> bool:
        """Whether a connection that comes back needs nothing: no transaction is open, and its state is as before."""
        return not (self._looks_closer or self._closed or conn.pgconn.transaction_status != IDLE or has_changed(conn))

    def _is_wanted(self) -> bool:
        """Whether a connection that comes back is kept; a closed pool has a borrower for it only if one waits."""
        return not self._closed or self.service.pending > 0

    def _change_sizes(self, minimum: int, maximum: int | None) -> None:
        self.service.resize(*checked_sizes(minimum, maximum))
        if isinstance(self.service.budget, UserLimit):
            self.service.budget.fit()

    def _cleaning(self, conn: Any) -> Steps[bool]:
        """Bring a connection back to idle; whether that worked."""
        status = conn.pgconn.transaction_status
        reads_only = self.config is not None and self.config.read_only
        if status == TransactionStatus.INERROR and not reads_only and is_left_behind(conn):
            logger.warning("closing returned connection, whose server takes no more writes: %s", conn)
            self._connector.doubt_host()
            return False
        if status in _OPEN:
            logger.warning("rolling back returned connection: %s", conn)
            try:
                yield conn.rollback
            except Exception as error:  # noqa: BLE001 - it is closed, as every broken one
                logger.warning("rollback failed: %s: %s. Closing connection %s", type(error).__name__, error, conn)
                return False
        elif status != IDLE:
            level = logging.DEBUG if conn.closed and not conn.broken else logging.WARNING  # meant, or not
            logger.log(level, "closing returned connection, which is broken or in use: %s", conn)
            return False
        try:
            return (yield from self._resetting(conn))
        except Exception as error:  # noqa: BLE001 - a connection that cannot be reset is replaced
            logger.warning("error resetting connection: %s: %s. It is closed", type(error).__name__, error)
            return False

    def _resetting(self, conn: Any) -> Steps[bool]:
        """Bring an idle connection back to what `configure` left, and call `reset`; whether that worked."""
        if self.session_reset is not None:
            if not take_mark(conn):
                yield from clearing(conn, end="COMMIT")
            if not (yield from self._configuring_again(conn)):
                return False
        if has_changed(conn) and not (yield from restoring(conn)):
            logger.warning("closing returned connection, on which a transaction or pipeline has not ended: %s", conn)
            return False
        if self._reset is None:
            return True
        conn.lakebase_is_in_reset = True
        try:
            with noticing_discards(conn):
                yield from self._connector.calling(self._reset, conn)
        finally:
            del conn.lakebase_is_in_reset
        if conn.pgconn.transaction_status != IDLE:
            logger.warning("%s", left_open(conn, "reset", self._reset))
            return False
        return not has_changed(conn) or (yield from restoring(conn))

    def _configuring_again(self, conn: Any) -> Steps[bool]:
        """Call `configure` with a connection whose session has been cleared; whether it leaves it idle."""
        if self._configure is None:
            return True
        yield from restoring(conn)
        yield from self._connector.calling(self._configure, conn)
        if conn.pgconn.transaction_status == IDLE:
            return True
        logger.warning("%s", left_open(conn, "configure", self._configure))
        return False

    def _checking(self, conn: Any) -> Steps[None]:
        """The look of `check` at one connection."""
        try:
            yield from self._connector.calling(self.check_connection, conn)  # type: ignore[attr-defined]
        except Exception:
            logger.warning("discarding broken connection: %s", conn)
            raise

    def _is_still_out(self, conn: Any) -> bool:
        """Whether an interrupt has ended an earlier `putconn` before this connection was given back."""
        return getattr(conn, "_pool", self) is None and self.service.is_borrowed(conn)

    def _refuse_return(self, conn: Any) -> None:
        """
        Say why a connection cannot be given back here.

        Raises:
            ValueError: Always.
        """
        pool = lender_of(conn)
        if pool:
            where = f"it comes from {pool._title if isinstance(pool, PoolBase) else f'pool {pool.name!r}'}"
        else:
            where = "it doesn't come from any pool"
        raise ValueError(f"can't return connection to {self._title}, {where}: {conn}")

    def _open(self) -> None:
        if not self._closed:
            return
        if self._opened:
            raise LakebasePoolClosed(
                f"the {self._title} has already been opened/closed and cannot be reused; {self._renewal}",
                pool=self.name,
                key=self._key,
            )
        self._closed = False
        self._opened = True

    def _check_open(self) -> None:
        if self._closed:
            advice = f"is already closed; {self._renewal}" if self._opened else "is not open yet; call open()"
            raise LakebasePoolClosed(f"the {self._title} {advice}", pool=self.name, key=self._key)

    def __repr__(self) -> str:
        key = "" if self._key is None else f" of key {self._key!r}"
        state = "closed" if self._closed else "open"
        return f"<{type(self).__name__} {self.name!r}{key} {state}: {self.service!r}>"
