"""
SQLAlchemy engines whose connections are a Lakebase pool's.

The engine keeps no connections: each checkout borrows from the pool, and with
a `RoutingPool` from the pool of the request's user. What SQLAlchemy sets on a
connection while it has it (isolation level, autocommit, read-only) is undone
before another borrower gets it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg, PGDialectAsync_psycopg
from sqlalchemy.pool import NullPool
from sqlalchemy.util import await_only

from .errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from .pool import AsyncLakebasePool, LakebasePool
    from .routing import AsyncRoutingPool, RoutingPool

__all__ = ["create_async_lakebase_engine", "create_lakebase_engine"]

# SQLAlchemy's own logger for what the server tells.
logger = logging.getLogger("sqlalchemy.dialects.postgresql")

_POOLS = "size and life of connections are the pool's: set them there"
_CONNECTS = "the pool connects: set that in its configuration"
_NOT_THE_ENGINES = {
    "poolclass": _POOLS,
    "pool": _POOLS,
    "pool_size": _POOLS,
    "max_overflow": _POOLS,
    "pool_timeout": _POOLS,
    "pool_recycle": _POOLS,
    "pool_pre_ping": _POOLS,
    "pool_use_lifo": _POOLS,
    "pool_reset_on_return": "the pool brings every connection back to idle",
    "creator": _CONNECTS,
    "async_creator": _CONNECTS,
    "connect_args": _CONNECTS,
}


def create_lakebase_engine(pool: LakebasePool[Any] | RoutingPool[Any], **options: Any) -> Engine:
    """
    An engine on a pool. Does no I/O; `dispose()` leaves the pool open, since it is the caller's.

    Args:
        pool: Open, or opened before the first checkout. With a `RoutingPool`, each checkout gets a connection of the
            user whose request it is made in.
        **options: Those of `sqlalchemy.create_engine` that do not concern connecting and pooling.

    Raises:
        ConfigurationError: An option that is the pool's.
    """
    _check(options)

    def borrow() -> Any:
        connection = pool.getconn()
        _remember(connection)
        return connection

    return sqlalchemy.create_engine("postgresql+lakebase://", creator=borrow, poolclass=NullPool, **options)


def create_async_lakebase_engine(pool: AsyncLakebasePool[Any] | AsyncRoutingPool[Any], **options: Any) -> AsyncEngine:
    """Like `create_lakebase_engine`, for asyncio. Needs `greenlet`, as all of SQLAlchemy's asyncio does."""
    from sqlalchemy.ext.asyncio import create_async_engine

    _check(options)

    async def borrow() -> Any:
        connection = await pool.getconn()
        _remember(connection)
        return connection

    return create_async_engine("postgresql+lakebase://", async_creator=borrow, poolclass=NullPool, **options)


def _check(options: dict[str, Any]) -> None:
    for name in options:
        if name in _NOT_THE_ENGINES:
            raise ConfigurationError(f"{name}= is not the engine's here: {_NOT_THE_ENGINES[name]}", field=name)


_STATE = ("autocommit", "isolation_level", "read_only", "deferrable")


def _remember(connection: Any) -> None:
    connection._lakebase_before = {name: getattr(connection, name) for name in _STATE}


def _changed(connection: Any) -> list[tuple[str, Any]]:
    before = connection.__dict__.pop("_lakebase_before", None) or {}
    if connection.broken or connection.closed:
        return []
    return [(name, value) for name, value in before.items() if getattr(connection, name) != value]


def _log_notice(diagnostic: Any) -> None:
    logger.info("%s: %s", diagnostic.severity, diagnostic.message_primary)


def _on_connect(dialect: Any) -> Any:
    # Called at each checkout of the same connection: handlers must not pile up.
    def prepare(connection: Any) -> None:
        driver = dialect.get_driver_connection(connection)
        if "_lakebase_notices" not in driver.__dict__:
            driver._lakebase_notices = True
            connection.add_notice_handler(_log_notice)
        if dialect.isolation_level is not None:
            dialect.set_isolation_level(connection, dialect.isolation_level)

    return prepare


class _LakebaseDialect(PGDialect_psycopg):
    supports_statement_cache = True

    @classmethod
    def get_async_dialect_cls(cls, url: Any) -> Any:  # noqa: ARG003
        return _AsyncLakebaseDialect

    def on_connect(self) -> Any:
        return _on_connect(self)

    def do_close(self, dbapi_connection: Any) -> None:
        pool = getattr(dbapi_connection, "_pool", None)
        if pool is None:
            dbapi_connection.close()
            return
        try:
            if changed := _changed(dbapi_connection):
                dbapi_connection.rollback()
                for name, value in changed:
                    setattr(dbapi_connection, name, value)
        except BaseException:
            # Not as it was, so no other borrower may get it. The pool sees that it is closed.
            dbapi_connection.pgconn.finish()
            raise
        finally:
            pool.putconn(dbapi_connection)

    def do_terminate(self, dbapi_connection: Any) -> None:
        dbapi_connection.pgconn.finish()
        self.do_close(dbapi_connection)


class _AsyncLakebaseDialect(PGDialectAsync_psycopg):
    supports_statement_cache = True
    has_terminate = True

    def on_connect(self) -> Any:
        return _on_connect(self)

    def do_close(self, dbapi_connection: Any) -> None:
        await_only(_give_back(dbapi_connection.driver_connection))

    def do_terminate(self, dbapi_connection: Any) -> None:
        driver = dbapi_connection.driver_connection
        if _in_greenlet():
            await_only(_give_back(driver))
        else:
            # The garbage collector found it. Nothing can be awaited here: close it, and free its place soon.
            driver.pgconn.finish()
            _give_back_later(driver)


async def _give_back(driver: Any) -> None:
    pool = getattr(driver, "_pool", None)
    if pool is None:
        await driver.close()
        return
    try:
        if changed := _changed(driver):
            await driver.rollback()
            for name, value in changed:
                await getattr(driver, f"set_{name}")(value)
    except BaseException:
        driver.pgconn.finish()
        raise
    finally:
        await pool.putconn(driver)


_returning: set[asyncio.Task[None]] = set()


def _give_back_later(driver: Any) -> None:
    try:
        task = asyncio.get_running_loop().create_task(_give_back(driver))
    except RuntimeError:  # no loop runs any more, nor does the pool
        return
    _returning.add(task)
    task.add_done_callback(_returning.discard)


def _in_greenlet() -> bool:
    from greenlet import getcurrent  # type: ignore[import-untyped]

    return getattr(getcurrent(), "__sqlalchemy_greenlet_provider__", False) is True


registry.register("postgresql.lakebase", __name__, "_LakebaseDialect")
