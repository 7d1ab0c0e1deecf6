"""What a connection does before a request's answer goes out: it commits, or says why it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import TransactionStatus

if TYPE_CHECKING:
    from ._steps import Steps

__all__ = ["committing", "has_to_commit"]


def committing(connection: Any) -> Steps[None]:
    """
    Commit what was done so far, so that an answer that tells of it is true. A connection without a transaction is left.

    Raises:
        InFailedSqlTransaction: A statement failed and its error was not raised, so that the server keeps nothing.
        ProgrammingError: A `transaction()` block is open, so what is done in it would be committed later.
        Error: The server refuses the commit, as for a deferred constraint; or the connection is lost.
    """
    if not has_to_commit(connection):
        return
    try:
        yield connection.commit
    except psycopg.ProgrammingError as error:
        if error.sqlstate is not None:
            raise
        raise psycopg.ProgrammingError(
            "what was done cannot be committed before the answer goes out, since a transaction() block or a two-phase "
            "transaction is still open. End it before the handler returns; a FastAPI dependency with yield does so "
            "with Depends(..., scope='function')."
        ) from error


def has_to_commit(connection: Any) -> bool:
    """
    Whether a transaction is open.

    Raises:
        InFailedSqlTransaction: A statement of it failed.
    """
    if connection.closed and not connection.broken:  # the handler has closed it
        return False
    status = connection.pgconn.transaction_status
    if status == TransactionStatus.INERROR:
        raise psycopg.errors.InFailedSqlTransaction(
            "a statement of this transaction failed, so the server keeps nothing of it, and the answer would say "
            "otherwise. Raise the statement's error, or run a statement that may fail in its own block: "
            "with connection.transaction(): ..."
        )
    return bool(status != TransactionStatus.IDLE)
