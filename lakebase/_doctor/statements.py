"""SQL to copy: statements of `_role_sql` and a few of the doctor's own, laid out for a terminal. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from psycopg import sql

from .._access import Access
from .._role_sql import laid_out
from .finding import Fix

if TYPE_CHECKING:
    from .._access import IdentityKind

__all__ = [
    "as_sql",
    "connection_limit",
    "create_schema",
    "drop_role",
    "identity_kind",
    "idle_in_transaction_timeout",
    "security_invoker",
]

_WIDTH = 72  # of a line, before which a report has some spaces


def as_sql(statements: Iterable[str], where: str = "") -> Fix:
    """
    Statements as text to copy, each with its semicolon, and in lines that fit a terminal.

    Args:
        statements: Without semicolons.
        where: Who runs them.
    """
    return Fix("sql", "\n".join(f"{laid_out(statement, _WIDTH)};" for statement in statements), where)


def identity_kind(name: str) -> IdentityKind:
    """What an identity of the workspace is, told by the form of its name, which is a configuration's role."""
    return Access(name).identity_kind


def drop_role(role: str) -> str:
    """The statement that removes a role which owns nothing and may do nothing."""
    return sql.SQL("DROP ROLE {}").format(sql.Identifier(role)).as_string()


def connection_limit(role: str, limit: int) -> str:
    """The statement that sets how many connections a role may have."""
    template = sql.SQL("ALTER ROLE {} CONNECTION LIMIT {}")
    return template.format(sql.Identifier(role), sql.Literal(limit)).as_string()


def create_schema(schema: str) -> str:
    """The statement that makes a schema. Not as another role's own: on Lakebase few roles may give things away."""
    return sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)).as_string()


def security_invoker(schema: str, view: str) -> str:
    """The statement that has a view read its tables with the rights of who asks it."""
    return sql.SQL("ALTER VIEW {} SET (security_invoker = true)").format(sql.Identifier(schema, view)).as_string()


def idle_in_transaction_timeout(role: str, minutes: int) -> str:
    """The statement that has the server end a role's sessions that idle in a transaction."""
    template = sql.SQL("ALTER ROLE {} SET idle_in_transaction_session_timeout = {}")
    return template.format(sql.Identifier(role), sql.Literal(f"{minutes}min")).as_string()
