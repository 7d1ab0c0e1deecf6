"""The database and the roles of a local Lakebase: the names that are taken, and the statements that make them."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from ..._role_names import role_name_problem
from ..errors import LocalLakebaseError
from .address import SUPERUSER, Address

__all__ = [
    "CREATE_ROLE_OBJECTS",
    "DATABASE",
    "IDENTITY_GROUP",
    "SUPERUSER_GROUP",
    "Roles",
    "check_role_name",
    "comment_on_identity",
]

DATABASE = "databricks_postgres"
#: Members may log in with a minted token. Lakebase keeps this fact in an extension.
IDENTITY_GROUP = "databricks_identity"
#: The group of a Lakebase project's owner: https://docs.databricks.com/aws/en/oltp/projects/postgres-roles
SUPERUSER_GROUP = "databricks_superuser"

_TAKEN = frozenset({SUPERUSER, IDENTITY_GROUP, SUPERUSER_GROUP})

# What a role's comment says after this is the kind of its identity.
_KIND_MARK = "databricks identity: "

# https://docs.databricks.com/aws/en/oltp/projects/postgres-roles
CREATE_ROLE_OBJECTS = f"""
create or replace function databricks_create_role(identity_name text, identity_type text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if upper(identity_type) not in ('USER', 'SERVICE_PRINCIPAL', 'GROUP') then
        raise exception 'identity type must be USER, SERVICE_PRINCIPAL or GROUP, not "%"', identity_type
            using errcode = 'invalid_parameter_value';
    end if;
    if not exists (select from pg_roles where rolname = session_user and (rolcreaterole or rolsuper)) then
        raise exception 'permission denied to create role' using errcode = 'insufficient_privilege';
    end if;
    execute format('create role %I login', identity_name);
    execute format('grant {IDENTITY_GROUP} to %I', identity_name);
    execute format('comment on role %I is %L', identity_name, '{_KIND_MARK}' || lower(identity_type));
    if current_setting('server_version_num')::int >= 160000 then
        execute format('grant %I to %I with admin true, inherit false, set false', identity_name, session_user);
    end if;
end
$$;

create or replace view databricks_list_roles as
select r.rolname::text as role_name,
       coalesce(substring(shobj_description(r.oid, 'pg_authid') from '^{_KIND_MARK}(.*)$'), 'user') as identity_type
  from pg_roles r join pg_auth_members m on m.member = r.oid join pg_roles g on g.oid = m.roleid
 where g.rolname = '{IDENTITY_GROUP}';
grant select on databricks_list_roles to public;
"""  # noqa: S608 - of constants


def check_role_name(name: Any) -> None:
    """
    Return if Postgres accepts a role of that name, and neither Postgres nor the local Lakebase reserves it.

    Raises:
        LocalLakebaseError: The name cannot be used.
    """
    if not isinstance(name, str) or not name:
        why = "expected text"
    elif name in _TAKEN:
        why = "the local Lakebase keeps this name to itself"
    elif (problem := role_name_problem(name)) is not None:
        why = problem
    elif not name.isprintable():
        why = "it has control or other invisible characters"
    else:
        return
    raise LocalLakebaseError(f"{name!r} is no name of a role or user: {why}")


def comment_on_identity(name: str, kind: str) -> sql.Composed:
    """The statement that notes of which kind a role's identity is, for `databricks_list_roles`."""
    return sql.SQL("comment on role {} is {}").format(sql.Identifier(name), sql.Literal(_KIND_MARK + kind))


class Roles:
    """
    Makes the database and its roles, as the superuser.

    Each method opens its own connection and blocks for some milliseconds. Callable from any thread.
    """

    def __init__(self, address: Address) -> None:
        self._address = address

    def prepare(self, admin: str, *, with_function: bool) -> None:
        """
        Make the database, the groups and the admin's role, where they are missing.

        Args:
            admin: The role that owns the database.
            with_function: Whether `databricks_create_role` is made at once, for a server without the extension.
        """
        with self._connect() as connection:
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
            connection.execute(comment_on_identity(admin, "user"))
            if not connection.execute("select 1 from pg_database where datname = %s", (DATABASE,)).fetchone():
                connection.execute(
                    sql.SQL("create database {} owner {}").format(sql.Identifier(DATABASE), sql.Identifier(admin))
                )
        if with_function:
            with self._connect(DATABASE) as connection:
                connection.execute(CREATE_ROLE_OBJECTS.encode())

    def ensure_identity(self, name: str, kind: str) -> None:
        """Make the role of a workspace identity, where it is missing, and let it log in with tokens."""
        with self._connect() as connection:
            self._ensure_role(connection, name, sql.SQL("login"))
            self._grant(connection, IDENTITY_GROUP, name)
            connection.execute(comment_on_identity(name, kind))

    def grant_creation(self, role: str) -> None:
        """Let a role make schemas and tables, as Databricks does for an app that has the database as a resource."""
        with self._connect(DATABASE) as connection:
            for privileges in ("connect, create on database {0}", "usage, create on schema public"):
                statement = sql.SQL("grant " + privileges + " to {1}")
                connection.execute(statement.format(sql.Identifier(DATABASE), sql.Identifier(role)))

    def ensure_password_role(self, name: str, password: str) -> None:
        """Make the role, where it is missing, and set its native password. Postgres gets the digest only."""
        with self._connect() as connection:
            self._ensure_role(connection, name, sql.SQL("login"))
            verifier = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
            connection.execute(sql.SQL("alter role {} password {}").format(sql.Identifier(name), sql.Literal(verifier)))

    def _connect(self, database: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(**self._address.superuser_settings(database), autocommit=True)

    def _ensure_role(self, connection: psycopg.Connection[Any], name: str, attributes: sql.SQL) -> None:
        if not connection.execute("select 1 from pg_roles where rolname = %s", (name,)).fetchone():
            try:
                connection.execute(sql.SQL("create role {} {}").format(sql.Identifier(name), attributes))
            except psycopg.errors.DuplicateObject:
                pass  # another client has just made it

    def _grant(self, connection: psycopg.Connection[Any], group: str, member: str) -> None:
        connection.execute(sql.SQL("grant {} to {}").format(sql.Identifier(group), sql.Identifier(member)))
