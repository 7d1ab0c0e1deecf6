"""
What is left behind by a failover: connections to a server that takes no more writes.

A server tells its clients when it becomes a standby, or its sessions read-only: both settings are reported with the
answer to any statement (Postgres 14 and later), so that looking takes no round trip.
"""

from __future__ import annotations

import logging
from typing import Any

__all__ = ["is_left_behind", "is_standby", "note_refused_write", "note_writability"]

logger = logging.getLogger("lakebase")

_STANDBY, _READ_ONLY = b"in_hot_standby", b"default_transaction_read_only"
_SQLSTATE = "25006"  # read_only_sql_transaction


def _is_refused_write(error: BaseException | None) -> bool:
    """Whether a server has refused to write, in a transaction or session that may only read."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if getattr(error, "sqlstate", None) == _SQLSTATE:
            return True
        error = error.__cause__ or error.__context__
    return False


def note_writability(connection: Any) -> None:
    """Remember of a new connection whether its sessions are read-only: those of a role may be."""
    connection.lakebase_began_read_only = connection.pgconn.parameter_status(_READ_ONLY) == b"on"


def is_standby(connection: Any) -> bool:
    """Whether the server says that it is a standby."""
    return not connection.closed and connection.pgconn.parameter_status(_STANDBY) == b"on"


def is_left_behind(connection: Any) -> bool:
    """
    Whether the server has refused to write, and not only to a transaction that its borrower began as a read-only one.

    Where a pooler in between reports neither setting, it is taken to be so: another connection costs little there.
    """
    if connection.closed:
        return False
    sessions = connection.pgconn.parameter_status(_READ_ONLY)
    if sessions is None:
        return connection.read_only is not True
    return is_standby(connection) or (sessions == b"on" and not connection.lakebase_began_read_only)


def note_refused_write(pool: Any, connection: Any, error: BaseException) -> bool:
    """
    Whether an error of a borrower shows that a failover has left the connection behind, which is to be closed then.

    If the server has become a standby, the pool's other connections are closed as well.
    """
    reads_only = pool.config is not None and pool.config.read_only
    if reads_only or not _is_refused_write(error) or not is_left_behind(connection):
        return False
    logger.warning("discarding a connection whose server takes no more writes: %s", connection)
    pool.service.factory.doubt_host()
    if is_standby(connection):
        pool.service.expire()
    return True
