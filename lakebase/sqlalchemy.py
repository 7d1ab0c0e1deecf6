"""
SQLAlchemy engines whose connections are a Lakebase pool's.

The engine keeps no connections: each checkout borrows from the pool, and with
a `RoutingPool` from the pool of the request's user. What SQLAlchemy sets on a
connection while it has it (isolation level, autocommit, read-only, adapters) is
undone before another borrower gets it.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from psycopg.adapt import AdaptersMap
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from pooling.extras import Extra

with Extra("sqlalchemy"):
    import sqlalchemy
    from sqlalchemy import event, exc
    from sqlalchemy.dialects import registry
    from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg, PGDialectAsync_psycopg
    from sqlalchemy.pool import NullPool
    from sqlalchemy.util import await_only

from ._checkpoint import has_to_commit
from ._driver_state import drop_socket, lender_of, put_adapters_back, remember, replace_adapters, restoring
from ._failover import note_refused_write
from ._pool_errors import LakebasePoolTimeout, LakebaseTooManyRequests
from ._steps import arun, run
from .errors import ConfigurationError
from .pool import AsyncLakebasePool, LakebasePool

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
    from sqlalchemy.orm import Session

    from pooling import RequestContext

    from ._steps import Steps
    from .routing import AsyncRoutingPool, RoutingPool

__pooling_internal__ = True

__all__ = ["AsyncSessions", "Sessions", "create_async_lakebase_engine", "create_lakebase_engine"]

# SQLAlchemy's own logger for what the server tells.
logger: logging.Logger = logging.getLogger("sqlalchemy.dialects.postgresql")

_POOLS = "the connections are the pool's: set that there"
_CONNECTS = "the pool connects: set that in its configuration, or in its kwargs"
_NOT_THE_ENGINES = {
    "poolclass": _POOLS,
    "pool": _POOLS,
    "pool_use_lifo": _POOLS,
    "pool_reset_on_return": "the pool brings every connection back to idle",
    "creator": _CONNECTS,
    "async_creator": _CONNECTS,
    "connect_args": _CONNECTS,
    "client_encoding": _CONNECTS,
}
_SQLALCHEMYS_OVERFLOW = 10  # what `max_overflow` is where only `pool_size` is given
_SQLALCHEMYS_SIZE = 5


def create_lakebase_engine(pool: LakebasePool[Any] | RoutingPool[Any], **options: Any) -> Engine:
    """
    An engine on a pool. Does no I/O; `dispose()` leaves the pool open, since it is the caller's.

    A pool that is exhausted raises `sqlalchemy.exc.TimeoutError`.

    Args:
        pool: Open, or opened before the first checkout. With a `RoutingPool`, each checkout gets a connection of the
            user whose request it is made in.
        **options: Those of `sqlalchemy.create_engine` that do not concern connecting. Of those that concern pooling,
            `pool_size` and `max_overflow` resize the pool to their sum, `pool_timeout` is each checkout's,
            `pool_recycle` becomes the pool's `max_lifetime`, and `pool_pre_ping` asks the server at each checkout.

    Raises:
        ConfigurationError: An option that is the pool's.
    """
    borrowing = _set_up(pool, options)
    return sqlalchemy.create_engine(
        "postgresql+lakebase://", creator=lambda: run(borrowing()), poolclass=NullPool, **options
    )


def create_async_lakebase_engine(pool: AsyncLakebasePool[Any] | AsyncRoutingPool[Any], **options: Any) -> AsyncEngine:
    """Like `create_lakebase_engine`, for asyncio. Needs `greenlet`, as all of SQLAlchemy's asyncio does."""
    from sqlalchemy.ext.asyncio import create_async_engine

    borrowing = _set_up(pool, options)
    return create_async_engine(
        "postgresql+lakebase://", async_creator=lambda: arun(borrowing()), poolclass=NullPool, **options
    )


class Sessions:
    """
    The ORM's sessions, one for each request: `session: Pooled[Session] = Pooled(sessions)` in a container.

    A session borrows a connection for its first statement. It commits before the request's answer goes out. If that
    fails, so does the answer, also where a statement had failed and the handler went on: the server keeps nothing then.
    At the request's end a session commits what came later, or rolls back after an error.

    Args:
        engine: Its sessions' engine.
        **options: Those of `sqlalchemy.orm.sessionmaker`. `expire_on_commit` is `False` by default here, since
            a request goes on after the commit.
    """

    def __init__(self, engine: Engine, **options: Any) -> None:
        from sqlalchemy.orm import sessionmaker

        own = engine.execution_options()  # the same engine, with events of its own
        event.listen(own, "commit", _refuse_failed)
        self._make = sessionmaker(own, **{"expire_on_commit": False, **options})

    def acquire(self, request_ctx: RequestContext | None = None) -> Session:
        """A new session."""
        made: Session = self._make()
        return made

    def checkpoint(self, session: Session) -> None:
        """Commit, before a request's answer goes out."""
        session.commit()

    def release(self, session: Session, exc: BaseException | None = None) -> None:
        """Close a session, after a commit unless there was an error."""
        with session:
            if exc is None:
                session.commit()


class AsyncSessions:
    """`Sessions` for asyncio."""

    def __init__(self, engine: AsyncEngine, **options: Any) -> None:
        from sqlalchemy.ext.asyncio import async_sessionmaker

        own = engine.execution_options()
        event.listen(own.sync_engine, "commit", _refuse_failed)
        self._make = async_sessionmaker(own, **{"expire_on_commit": False, **options})

    async def acquire(self, request_ctx: RequestContext | None = None) -> AsyncSession:
        """As `Sessions.acquire`."""
        made: AsyncSession = self._make()
        return made

    async def checkpoint(self, session: AsyncSession) -> None:
        """As `Sessions.checkpoint`."""
        await session.commit()

    async def release(self, session: AsyncSession, exc: BaseException | None = None) -> None:
        """As `Sessions.release`."""
        async with session:
            if exc is None:
                await session.commit()


def _refuse_failed(connection: Connection) -> None:
    """
    Let no commit look as if it were one, of a transaction that the server rolls back.

    Raises:
        InFailedSqlTransaction: A statement of it failed.
    """
    has_to_commit(connection.connection.driver_connection)


def _set_up(pool: Any, options: dict[str, Any]) -> partial[Steps[Any]]:
    """Take the options that concern pooling out of these, and set the pool by them; how a checkout borrows."""
    for name in options:
        if name in _NOT_THE_ENGINES:
            raise ConfigurationError(f"{name}= is not the engine's here: {_NOT_THE_ENGINES[name]}", field=name)
    timeout, pings = options.pop("pool_timeout", None), bool(options.pop("pool_pre_ping", False))
    given = {name: options.pop(name) for name in ("pool_size", "max_overflow", "pool_recycle") if name in options}
    if given:
        _set_limits(pool, **given)
    return partial(_borrowing, pool, timeout, pings)


def _set_limits(
    pool: Any,
    pool_size: int = _SQLALCHEMYS_SIZE,
    max_overflow: int = _SQLALCHEMYS_OVERFLOW,
    pool_recycle: float | None = None,
) -> None:
    if not isinstance(pool, (LakebasePool, AsyncLakebasePool)):
        raise ConfigurationError(
            f"pool_size=, max_overflow= and pool_recycle= cannot be set through a {type(pool).__name__}: each user's "
            "pool has its own. Set max_size= and max_lifetime= of the app's pool and of the manager",
            field="pool_size",
        )
    if (pool_size, max_overflow) != (_SQLALCHEMYS_SIZE, _SQLALCHEMYS_OVERFLOW):
        if pool_size < 1 or max_overflow < 0:
            raise ConfigurationError(
                f"pool_size={pool_size} with max_overflow={max_overflow} is no limit: the pool needs one, such as the "
                "endpoint's. Give both as numbers, or neither",
                field="pool_size" if pool_size < 1 else "max_overflow",
            )
        pool.service.resize(min(pool.min_size, pool_size + max_overflow), pool_size + max_overflow)
    if pool_recycle is not None and pool_recycle >= 0:
        pool.max_lifetime = pool_recycle


def _borrowing(pool: Any, timeout: float | None, pings: bool) -> Steps[Any]:
    """A connection for a checkout."""
    while True:
        try:
            connection = yield partial(pool.getconn, timeout)
        except (LakebasePoolTimeout, LakebaseTooManyRequests) as error:
            # After failed connects it is the driver's error, of which SQLAlchemy makes an `OperationalError`.
            if error.__cause__ is not None:
                raise
            raise exc.TimeoutError(str(error)) from error
        if not pings or (yield from _answers(connection)):
            if _is_foreign(lender_of(connection)):
                remember(connection)
            return connection


def _answers(connection: Any) -> Steps[bool]:
    """Whether the server answers on a connection; one on which it does not is given back, closed."""
    pool = lender_of(connection)
    kind = ConnectionPool if isinstance(pool, ConnectionPool) else AsyncConnectionPool
    try:
        yield partial(kind.check_connection, connection)
    except Exception:  # noqa: BLE001 - whatever it is, another one is tried
        drop_socket(connection)
        yield partial(pool.putconn, connection)
        return False
    return True


def _is_foreign(pool: Any) -> bool:
    """Whether a pool, such as the app's behind a `RoutingPool`, is one that does not put the driver's state back."""
    return pool is not None and not isinstance(pool, (LakebasePool, AsyncLakebasePool))


def _log_notice(diagnostic: Any) -> None:
    logger.info("%s: %s", diagnostic.severity, diagnostic.message_primary)


class _OnPool:
    """What the two dialects have in common: they prepare a connection at each checkout, since the pool keeps it."""

    supports_statement_cache = True
    _hstore: Any = None
    # Of SQLAlchemy's dialect, from the engine's options
    _native_inet_types: Any
    _json_deserializer: Any
    _json_serializer: Any

    def on_connect(self) -> Any:
        """What SQLAlchemy calls with each connection that it was given."""
        dialect: Any = self

        def prepare(connection: Any) -> None:
            connection.add_notice_handler(_log_notice)
            self._adapt(dialect.get_driver_connection(connection))
            if dialect.isolation_level is not None:
                dialect.set_isolation_level(connection, dialect.isolation_level)

        return prepare

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        """Whether a connection is of no more use; so it is after a failover to another server."""
        dialect: Any = super()
        if dialect.is_disconnect(e, connection, cursor):
            return True
        if connection is None:
            return False
        driver = getattr(connection, "driver_connection", connection)  # SQLAlchemy's own has one
        pool = lender_of(driver)
        return isinstance(pool, (LakebasePool, AsyncLakebasePool)) and note_refused_write(pool, driver, e)

    def _adapt(self, driver: Any) -> None:
        """Have a connection convert values as the engine's options say, on top of what the pool's `configure` did."""
        is_plain = self._native_inet_types is not False and self._hstore is None
        if is_plain and not self._json_deserializer and not self._json_serializer:
            return
        adapters = AdaptersMap(driver.adapters)
        if self._native_inet_types is False:
            from psycopg.types.string import TextLoader

            adapters.register_loader("inet", TextLoader)
            adapters.register_loader("cidr", TextLoader)
        if self._json_deserializer:
            from psycopg.types.json import set_json_loads

            set_json_loads(self._json_deserializer, adapters)
        if self._json_serializer:
            from psycopg.types.json import set_json_dumps

            set_json_dumps(self._json_serializer, adapters)
        if self._hstore is not None:
            from psycopg.types.hstore import register_hstore

            register_hstore(self._hstore, adapters)
        replace_adapters(driver, adapters)

    def _type_info_fetch(self, connection: Any, name: str) -> Any:
        info = super()._type_info_fetch(connection, name)  # type: ignore[misc]
        if name == "hstore":
            self._hstore = info
        return info


def _giving_back(driver: Any) -> Steps[None]:
    """Give a connection back to the pool that lent it."""
    put_adapters_back(driver)
    pool = lender_of(driver)
    if _is_foreign(pool) and not driver.closed:
        yield driver.rollback
        yield from restoring(driver)
    yield driver.close if pool is None else partial(pool.putconn, driver)


class _LakebaseDialect(_OnPool, PGDialect_psycopg):
    supports_statement_cache = True

    @classmethod
    def get_async_dialect_cls(cls, url: Any) -> Any:  # noqa: ARG003
        return _AsyncLakebaseDialect

    def do_close(self, dbapi_connection: Any) -> None:
        run(_giving_back(dbapi_connection))

    def do_terminate(self, dbapi_connection: Any) -> None:
        drop_socket(dbapi_connection)
        self.do_close(dbapi_connection)


class _AsyncLakebaseDialect(_OnPool, PGDialectAsync_psycopg):
    supports_statement_cache = True
    has_terminate = True

    def do_close(self, dbapi_connection: Any) -> None:
        await_only(arun(_giving_back(dbapi_connection.driver_connection)))

    def do_terminate(self, dbapi_connection: Any) -> None:
        driver = dbapi_connection.driver_connection
        if _in_greenlet():
            await_only(arun(_giving_back(driver)))
        else:
            # The garbage collector found it. Nothing can be awaited here: close it, and free its place soon.
            drop_socket(driver)
            _give_back_later(driver)


_returning: set[asyncio.Task[None]] = set()


def _give_back_later(driver: Any) -> None:
    try:
        task = asyncio.get_running_loop().create_task(arun(_giving_back(driver)))
    except RuntimeError:  # no loop runs any more, nor does the pool
        return
    _returning.add(task)
    task.add_done_callback(_returning.discard)


def _in_greenlet() -> bool:
    from greenlet import getcurrent  # type: ignore[import-untyped]

    return getattr(getcurrent(), "__sqlalchemy_greenlet_provider__", False) is True


registry.register("postgresql.lakebase", __name__, "_LakebaseDialect")
