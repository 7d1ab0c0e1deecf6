"""What the server keeps for a session, cleared in the round trip that ends a transaction."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import psycopg
from psycopg.pq import TransactionStatus

from ._driver_state import is_under_way
from .errors import ConfigurationError

if TYPE_CHECKING:
    from ._steps import Steps

__all__ = [
    "SessionReset",
    "check_session_reset",
    "clearing",
    "ending_block",
    "ending_clean_block",
    "plain_cursor",
    "take_mark",
]

logger = logging.getLogger("lakebase")

#: How the session of a connection is reset: not at all, or all that it has is discarded.
SessionReset = Literal["discard"]

# `DISCARD ALL` does not run together with other statements, and would deallocate the driver's prepared statements. The
# last statement lists those that a borrower has made by `PREPARE`.
_CLEAR = """
SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; RESET ALL;
CLOSE ALL; UNLISTEN *; SELECT pg_catalog.pg_advisory_unlock_all();
DISCARD TEMP; DISCARD SEQUENCES;
SELECT pg_catalog.format('DEALLOCATE %I', name) FROM pg_catalog.pg_prepared_statements WHERE from_sql
"""


def check_session_reset(given: object) -> None:
    """Refuse what is no way to reset a session."""
    if given is not None and given not in get_args(SessionReset):
        raise ConfigurationError(
            f"session_reset={given!r}: expected 'discard', which clears the server's session state, or None",
            field="session_reset",
        )


def ending_block(connection: Any, error: BaseException | None, *, clears: bool = True) -> Steps[None]:
    """
    Commit, or roll back after an error, and clear the session in the same round trip.

    As at the end of the driver's own block, a failed commit is raised, and a failed rollback is logged. A connection
    whose session cannot be cleared is closed.
    """
    if connection.closed:
        return
    try:
        if not clears or is_under_way(connection):  # in the latter case the driver says what is wrong
            yield connection.commit if error is None else connection.rollback
        else:
            yield from clearing(connection, end="COMMIT" if error is None else "ROLLBACK")
    except Exception as failure:
        if clears:
            yield from _clearing_or_closing(connection)
        if error is None:
            raise
        logger.warning("rollback failed: %s: %s, on %s", type(failure).__name__, failure, connection)
    except BaseException:
        if clears:
            connection.pgconn.finish()
        raise


def ending_clean_block(
    pool: Any, connection: Any, error: BaseException | None, *, was_autocommit: bool, clears: bool = True
) -> Steps[None]:
    """
    End a block of SQL that must leave no trace in the session, and put the connection into the state it had before.

    A pool that clears sessions itself does so when the connection comes back.
    """
    yield from ending_block(connection, error, clears=clears and getattr(pool, "session_reset", None) is None)
    if not connection.closed:
        configure = getattr(pool, "_configure", None)  # the name is psycopg_pool's
        if take_mark(connection) and configure is not None:
            yield partial(configure, connection)
        yield partial(connection.set_autocommit, was_autocommit)


def _clearing_or_closing(connection: Any) -> Steps[None]:
    """Clear the session of a connection whose commit has failed."""
    try:
        yield from clearing(connection, end="ROLLBACK")
    except BaseException as error:
        connection.pgconn.finish()
        if not isinstance(error, Exception):
            raise


def clearing(connection: Any, *, end: Literal["COMMIT", "ROLLBACK"]) -> Steps[None]:
    """
    End the transaction, if one is open, and clear the session, in one round trip.

    Leaves a mark for `take_mark`, and `autocommit` on if no transaction was open: setting it takes no round trip.
    """
    text = _CLEAR
    if connection.pgconn.transaction_status == TransactionStatus.IDLE:
        yield partial(connection.set_autocommit, True)
    else:
        text = f"{end}; {_CLEAR}"
    cursor = plain_cursor(connection)
    yield partial(cursor.execute, text, prepare=False)
    while cursor.nextset():
        pass
    if deallocations := [cursor.pgresult.get_value(row, 0).decode() for row in range(cursor.pgresult.ntuples)]:
        yield partial(connection.set_autocommit, True)
        yield partial(cursor.execute, "; ".join(deallocations), prepare=False)
    connection.lakebase_is_cleared = True


def plain_cursor(connection: Any) -> Any:
    """A cursor of the driver's own class: the connection's may be guarded, or its borrower's."""
    kind: Any = psycopg.AsyncCursor if isinstance(connection, psycopg.AsyncConnection) else psycopg.Cursor
    return kind(connection)


def take_mark(connection: Any) -> bool:
    """Whether the session has just been cleared; forgets it."""
    return connection.__dict__.pop("lakebase_is_cleared", False)  # type: ignore[no-any-return]
