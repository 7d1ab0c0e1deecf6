"""Leases in a table of a Postgres database, such as the Lakebase whose connections are limited."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from contextlib import ExitStack
from math import inf
from typing import Any

from .._backends.fork import keep_forever
from ..errors import ConfigurationError
from ._store import DocumentSession, LeaseSession, LeaseStore

CREATE = "CREATE TABLE IF NOT EXISTS {table} (budget text PRIMARY KEY, version text NOT NULL, book text NOT NULL)"
GRANT = "GRANT SELECT, INSERT, UPDATE ON {table} TO {role}"
LOAD = """
    SELECT version, book, extract(epoch FROM clock_timestamp())::float8
    FROM (SELECT 1) AS one LEFT JOIN {table} ON budget = %s
"""
INSERT = "INSERT INTO {table} (budget, version, book) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
UPDATE = "UPDATE {table} SET version = %s, book = %s WHERE budget = %s AND version = %s"

_PART = r'(?:[a-z_][a-z0-9_$]*|"(?:[^"]|"")+")'


class PostgresLeases(LeaseStore):
    """
    Leases in a table of a Postgres database: for replicas, where no Redis is at hand.

    Each claim is two statements without a transaction around them, no lock outlives a statement, and nothing listens:
    it works through a pooler, too. The server's clock counts. Each process has one connection of this kind while it has
    places, and none else; count it in beside the limit. Since no process is rung, one that waits for another's idle
    resource waits until that one claims again: each second while it grows and for `idle_after`, then each third of
    `lease_ttl`.

    Args:
        connect: Returns a new DB-API connection (psycopg's, for example). It should have a `connect_timeout`.
        table: Where the leases are, perhaps with its schema. `create_sql` creates it.

    Raises:
        ConfigurationError: `connect` cannot be called, or `table` is no name of a table.
    """

    def __init__(self, connect: Callable[[], Any], *, table: str = "pooling_leases") -> None:
        if not callable(connect):
            raise ConfigurationError(
                f"connect is of type {type(connect).__name__}: expected a callable that returns a new connection",
                field="connect",
            )
        if not isinstance(table, str) or not re.fullmatch(rf"{_PART}(?:\.{_PART})?", table):
            raise ConfigurationError(
                f"table={table!r}: expected the name of a table, as in SQL, perhaps with its schema", field="table"
            )
        self._connect = connect
        self.table = table

    def create_sql(self, *roles: str) -> str:
        """
        Return the statements that create the table, for who may create tables.

        Args:
            *roles: Roles, as in SQL, that `connect` logs in as; they get what they need.

        Raises:
            ConfigurationError: One of them is no name of a role.
        """
        for role in roles:
            if not re.fullmatch(_PART, role):
                raise ConfigurationError(
                    f"{role!r}: expected the name of a role, as in SQL: in double quotes, unless it is a plain word",
                    field="roles",
                )
        statements = [CREATE.format(table=self.table)]
        statements += [GRANT.format(table=self.table, role=role) for role in roles]
        return ";\n".join(statements) + ";\n"

    def open(self, holder: str, budget: str) -> LeaseSession:
        return PostgresSession(self._connect, self.table, budget)

    def __repr__(self) -> str:
        return f"PostgresLeases(table={self.table!r})"


class PostgresSession(DocumentSession):
    """What one process has to do with the table."""

    def __init__(self, connect: Callable[[], Any], table: str, budget: str) -> None:
        self._connect = connect
        self._table = table
        self._budget = budget
        self._connection: Any = None

    def load(self) -> tuple[str | None, str | None, float, float]:
        version, book, now = self._execute(LOAD, (self._budget,)).fetchone()
        return version, book, now, inf

    def swap(self, version: str | None, new_version: str, text: str, ring: tuple[str, ...]) -> bool:
        if version is None:
            cursor = self._execute(INSERT, (self._budget, new_version, text))
        else:
            cursor = self._execute(UPDATE, (new_version, text, self._budget, version))
        return bool(cursor.rowcount == 1)

    def _execute(self, sql: str, arguments: tuple[object, ...]) -> Any:
        if self._connection is None:
            connection = self._connect()
            connection.autocommit = True
            if hasattr(connection, "prepare_threshold"):
                connection.prepare_threshold = None  # the next statement may reach another session of a pooler
            self._connection = connection
        with ExitStack() as undo:
            undo.callback(self.close)
            cursor = self._connection.cursor()
            cursor.execute(sql.format(table=self._table), arguments)
            undo.pop_all()
        return cursor

    def abort(self) -> None:
        connection = self._connection
        try:
            with socket.socket(fileno=os.dup(connection.fileno())) as theirs:
                theirs.shutdown(socket.SHUT_RDWR)  # the statement that waits for an answer sees its end
        except (AttributeError, OSError, TypeError):  # there is no connection, or it has no such number
            pass

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except Exception:  # noqa: BLE001, S110 - it is broken, which is why it is closed
                pass

    def abandon(self) -> None:
        if self._connection is not None:
            keep_forever(self._connection)  # the parent still uses its socket
            self._connection = None
