"""What the local Lakebase itself tells and asks Postgres, as the superuser, over the private socket."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from ._postgres import SUPERUSER, Address

__all__ = ["DATABASE", "IDENTITY_GROUP", "SUPERUSER_GROUP", "Control", "Inquiry", "RoleFacts"]

DATABASE = "databricks_postgres"
#: Members may log in with a minted token. Lakebase keeps this fact in an extension of its own.
IDENTITY_GROUP = "databricks_identity"
#: What the owner of a Lakebase project belongs to: https://docs.databricks.com/aws/en/oltp/projects/postgres-roles
SUPERUSER_GROUP = "databricks_superuser"


@dataclass(frozen=True, slots=True)
class RoleFacts:
    """What a login depends on, as Postgres has it at that moment."""

    is_identity: bool
    password_verifier: str | None


_ROLE_FACTS = """
    select exists (select from pg_auth_members m join pg_roles g on g.oid = m.roleid
                    where m.member = r.oid and g.rolname = 'databricks_identity'),
           case when r.rolvaliduntil < now() then null else r.rolpassword end
      from pg_authid r where r.rolname = %s
"""

_IDLE = """
    select extract(epoch from clock_timestamp()
                              - max(case when state = 'idle' then state_change else clock_timestamp() end))
      from pg_stat_activity where backend_type = 'client backend' and usename <> %s
"""

_TERMINATE_ALL = """
    select count(pg_terminate_backend(pid)) from pg_stat_activity
     where backend_type = 'client backend' and usename <> %s
"""


class Control:
    """Statements on a connection each. Its methods block for some milliseconds, and may be called from any thread."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        """A new connection as the superuser, in autocommit mode."""
        return psycopg.connect(**self._address.superuser_settings(database), autocommit=True)

    def prepare(self, admin: str, functions: str) -> None:
        """Make the database, the groups, the admin's role and the SQL functions, where they are missing."""
        with self.connect() as connection:
            for group in (IDENTITY_GROUP, SUPERUSER_GROUP):
                self._ensure_role(connection, group, sql.SQL("nologin"))
            connection.execute(
                sql.SQL("grant pg_read_all_data, pg_write_all_data, pg_monitor, pg_signal_backend to {}").format(
                    sql.Identifier(SUPERUSER_GROUP)
                )
            )
            self._ensure_role(connection, admin, sql.SQL("login createdb createrole bypassrls"))
            for group in (IDENTITY_GROUP, SUPERUSER_GROUP):
                self._grant(connection, group, admin)
            if not connection.execute("select 1 from pg_database where datname = %s", (DATABASE,)).fetchone():
                connection.execute(
                    sql.SQL("create database {} owner {}").format(sql.Identifier(DATABASE), sql.Identifier(admin))
                )
        with self.connect(DATABASE) as connection:
            connection.execute(functions.encode())

    def ensure_identity(self, name: str) -> None:
        """Make the role of a workspace identity, where it is missing, and let it log in with tokens."""
        with self.connect() as connection:
            self._ensure_role(connection, name, sql.SQL("login"))
            self._grant(connection, IDENTITY_GROUP, name)

    def grant_creation(self, role: str) -> None:
        """Let a role make schemas and tables, as Databricks does for an app that has the database as a resource."""
        with self.connect(DATABASE) as connection:
            for privileges in ("connect, create on database {0}", "usage, create on schema public"):
                statement = sql.SQL("grant " + privileges + " to {1}")
                connection.execute(statement.format(sql.Identifier(DATABASE), sql.Identifier(role)))

    def ensure_password_role(self, name: str, password: str) -> None:
        """Make the role, where it is missing, and set its native password. Postgres is told the digest only."""
        with self.connect() as connection:
            self._ensure_role(connection, name, sql.SQL("login"))
            verifier = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
            connection.execute(sql.SQL("alter role {} password {}").format(sql.Identifier(name), sql.Literal(verifier)))

    def _ensure_role(self, connection: psycopg.Connection[Any], name: str, attributes: sql.SQL) -> None:
        if not connection.execute("select 1 from pg_roles where rolname = %s", (name,)).fetchone():
            try:
                connection.execute(sql.SQL("create role {} {}").format(sql.Identifier(name), attributes))
            except psycopg.errors.DuplicateObject:
                pass  # somebody else made it meanwhile

    def _grant(self, connection: psycopg.Connection[Any], group: str, member: str) -> None:
        connection.execute(sql.SQL("grant {} to {}").format(sql.Identifier(group), sql.Identifier(member)))


class Inquiry:
    """What the gateway asks Postgres, from its own loop: at each login, so that changes by SQL count at once."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._lock = asyncio.Lock()
        self._connection: psycopg.AsyncConnection[tuple[Any, ...]] | None = None

    async def role_facts(self, name: str) -> RoleFacts | None:
        """What a login of that role depends on; `None` if there is no such role."""
        row = await self._row(_ROLE_FACTS, (name,))
        return RoleFacts(*row) if row else None

    async def idle_seconds(self) -> float | None:
        """For how long no client has run a statement: 0 while one does, `None` if none is connected."""
        row = await self._row(_IDLE, (SUPERUSER,))
        return None if row is None or row[0] is None else float(row[0])

    async def terminate(self, pids: list[int]) -> None:
        """End the sessions of those server processes."""
        await self._row("select count(pg_terminate_backend(pid)) from unnest(%s::int[]) as pid", (pids,))

    async def terminate_all(self) -> None:
        """End the sessions of all clients, a pooler's too."""
        await self._row(_TERMINATE_ALL, (SUPERUSER,))

    async def close(self) -> None:
        """Close the connection; the next question opens another."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _row(self, query: str, parameters: tuple[Any, ...]) -> tuple[Any, ...] | None:
        async with self._lock:
            try:
                return await self._execute(query, parameters)
            except psycopg.OperationalError:
                # The server was restarted since; a second failure is its present state.
                await self.close()
                return await self._execute(query, parameters)

    async def _execute(self, query: str, parameters: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._connection is None or self._connection.closed:
            settings = self._address.superuser_settings()
            self._connection = await psycopg.AsyncConnection.connect(**settings, autocommit=True)
        return await (await self._connection.execute(query.encode(), parameters)).fetchone()
