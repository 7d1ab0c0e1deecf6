"""What there is in Postgres: its roles and databases, listed, made and dropped as the superuser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import psycopg
from psycopg import sql

from .address import SUPERUSER
from .roles import IDENTITY_GROUP, SUPERUSER_GROUP, check_role_name, comment_on_identity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .address import Address

__all__ = ["Catalog", "DatabaseRow", "Login", "RoleRow"]

#: How a role logs in: with a minted token, with a password of its own, or not at all.
Login = Literal["token", "password", "none"]

_ROLES = """
    select r.rolname, r.rolcreatedb, r.rolcreaterole, r.rolbypassrls,
           case when not r.rolcanlogin then 'none'
                when pg_has_role(r.oid, %(identity)s, 'member') then 'token'
                when r.rolpassword is not null then 'password' else 'none' end,
           pg_has_role(r.oid, %(owner)s, 'member')
      from pg_authid r
     where not r.rolsuper and r.rolname !~ '^pg_' and r.rolname <> all (%(hidden)s) order by 1
"""
_ATTRIBUTES = {
    "createdb": sql.SQL("createdb"),
    "createrole": sql.SQL("createrole"),
    "bypassrls": sql.SQL("bypassrls"),
}
_DATABASES = """
    select datname, pg_get_userbyid(datdba) from pg_database
     where not datistemplate and datname <> 'postgres' order by 1
"""


@dataclass(frozen=True, slots=True)
class RoleRow:
    """A role, and the attributes that Lakebase tells of it."""

    name: str
    createdb: bool
    createrole: bool
    bypassrls: bool
    login: Login
    is_superuser_member: bool


@dataclass(frozen=True, slots=True)
class DatabaseRow:
    """A database and its owner."""

    name: str
    owner: str


class Catalog:
    """Each method opens its own connection and blocks for some milliseconds. Callable from any thread."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def list_roles(self) -> list[RoleRow]:
        """All roles but those of Postgres and of the local Lakebase itself."""
        parameters = {"identity": IDENTITY_GROUP, "owner": SUPERUSER_GROUP, "hidden": [IDENTITY_GROUP, SUPERUSER_GROUP]}
        with self._connect() as connection:
            return [RoleRow(*row) for row in connection.execute(_ROLES.encode(), parameters)]

    def create_role(
        self,
        name: str,
        *,
        login: Login,
        password: str,
        attributes: Sequence[str],
        is_superuser_member: bool,
        manager: str,
        kind: str = "user",
    ) -> None:
        """
        Make a role.

        Args:
            name: Of a role that does not exist.
            login: How it logs in.
            password: For those that log in with one; Postgres gets the digest only.
            attributes: Of `createdb`, `createrole` and `bypassrls`.
            is_superuser_member: Whether it becomes a member of the project owner's group.
            manager: The role that may grant it, as one that had made it by SQL.
            kind: For a token, the kind of the identity.
        """
        check_role_name(name)
        role = sql.Identifier(name)
        with self._connect() as connection, connection.transaction():
            words = [*(_ATTRIBUTES[each] for each in attributes), sql.SQL("nologin" if login == "none" else "login")]
            connection.execute(sql.SQL("create role {} {}").format(role, sql.SQL(" ").join(words)))
            if login == "password":
                verifier = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256")
                connection.execute(sql.SQL("alter role {} password {}").format(role, sql.Literal(verifier.decode())))
            groups = [IDENTITY_GROUP] if login == "token" else []
            if login == "token":
                connection.execute(comment_on_identity(name, kind))
            for group in groups + [SUPERUSER_GROUP] * is_superuser_member:
                connection.execute(sql.SQL("grant {} to {}").format(sql.Identifier(group), role))
            # Before Postgres 16 whoever may create roles may grant each of them.
            if connection.info.server_version >= 160000:
                grant = sql.SQL("grant {} to {} with admin true, inherit false, set false")
                connection.execute(grant.format(role, sql.Identifier(manager)))

    def drop_role(self, name: str, reassign_to: str | None) -> None:
        """
        Drop a role.

        Args:
            name: The role.
            reassign_to: The role that gets what it owns; `None` drops a role that owns nothing.
        """
        role = sql.Identifier(name)
        if reassign_to is not None:
            for database in self.list_databases():
                with self._connect(database.name) as connection, connection.transaction():
                    new = sql.Identifier(reassign_to)
                    connection.execute(sql.SQL("reassign owned by {} to {}").format(role, new))
                    connection.execute(sql.SQL("drop owned by {}").format(role))
        with self._connect() as connection:
            connection.execute(sql.SQL("drop role {}").format(role))

    def list_databases(self) -> list[DatabaseRow]:
        """All databases but those of Postgres itself."""
        with self._connect() as connection:
            return [DatabaseRow(*row) for row in connection.execute(_DATABASES.encode())]

    def create_database(self, name: str, owner: str) -> None:
        """Make a database."""
        with self._connect() as connection:
            statement = sql.SQL("create database {} owner {}")
            connection.execute(statement.format(sql.Identifier(name), sql.Identifier(owner)))

    def drop_database(self, name: str) -> None:
        """Drop a database, whose sessions end."""
        with self._connect() as connection:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))

    def _connect(self, database: str = SUPERUSER) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(**self._address.superuser_settings(database), autocommit=True)
