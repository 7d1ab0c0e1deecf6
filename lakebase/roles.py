"""
Roles of identities, and what they may do: looked at, and granted where it is missing.

`check` and `apply` need an open connection, to tell what is there. `create_role_statements`, `grant_statements`,
`revoke_statements` and `row_security_statements` only write SQL, for what says what to run, as `lakebase doctor` does.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg

from ._access import Access, IdentityKind, Level
from ._role_facts import finding_facts
from ._role_plan import Missing, find_missing
from ._role_sql import create_role_statements, grant_statements, revoke_statements, row_security_statements
from ._session_reset import plain_cursor
from ._steps import arun, run
from .errors import LakebaseError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._steps import Steps

__all__ = [
    "Access",
    "GrantError",
    "IdentityKind",
    "Level",
    "Missing",
    "aapply",
    "acheck",
    "apply",
    "check",
    "create_role_statements",
    "grant_statements",
    "revoke_statements",
    "row_security_statements",
]

# Two that grant on one object at a time would fail with "tuple concurrently updated". The number is this module's.
_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(5476116237)"
_WHO_MAY = (
    " Have it run by the owner of what is concerned, or a member of databricks_superuser; roles are created by the "
    "project's owner, or a role with CREATEROLE."
)


class GrantError(LakebaseError):
    """
    Something that is missing cannot be given on this connection. Nothing was changed.

    Attributes:
        missing: What cannot be given, each with advice.
    """

    def __init__(self, message: str, *, missing: Sequence[Missing] = (), **facts: Any) -> None:
        super().__init__(message, **facts)
        self.missing: tuple[Missing, ...] = tuple(missing)


def check(connection: psycopg.Connection[Any], access: Access) -> list[Missing]:
    """
    What is missing of what should be allowed, in the order in which it can be given; empty if nothing is.

    Asks the catalogue and changes nothing. What the role may do as a member of others, or like everybody, counts as
    allowed. Blocks for about ten statements, in the transaction of the connection, if there is one.

    Args:
        connection: Open, as any role: the catalogue is for all to read.
        access: What should be allowed.
    """
    with connection.transaction():
        return run(_checking(connection, access))


async def acheck(connection: psycopg.AsyncConnection[Any], access: Access) -> list[Missing]:
    """As `check`, for asyncio."""
    async with connection.transaction():
        return await arun(_checking(connection, access))


def apply(connection: psycopg.Connection[Any], access: Access) -> list[Missing]:
    """
    Give what is missing, all of it or nothing, and return it. A second call finds nothing to do.

    Everything is one transaction, or one savepoint of the connection's, and in the end the catalogue is asked again.
    Calls at the same time take turns.

    Args:
        connection: Open, as a role that may grant: the owner of what is concerned, or a member of
            `databricks_superuser`. To create roles it needs CREATEROLE, as the project's owner has it.
        access: What should be allowed.

    Raises:
        GrantError: The role that is connected may not do all of it, or SQL cannot.
    """
    with connection.transaction():
        return run(_applying(connection, access))


async def aapply(connection: psycopg.AsyncConnection[Any], access: Access) -> list[Missing]:
    """As `apply`, for asyncio."""
    async with connection.transaction():
        return await arun(_applying(connection, access))


def _checking(connection: Any, access: Access) -> Steps[list[Missing]]:
    return find_missing(access, (yield from finding_facts(connection, access)))


def _applying(connection: Any, access: Access) -> Steps[list[Missing]]:
    cursor = plain_cursor(connection)
    yield partial(cursor.execute, _ONE_AT_A_TIME)
    missing = yield from _checking(connection, access)
    _refuse([each for each in missing if each.advice], "cannot be given. Nothing was changed")
    for statement in [statement for each in missing for statement in each.statements]:
        try:
            yield partial(cursor.execute, statement)
        except psycopg.Error as error:
            if not error.sqlstate or cursor.connection.closed:
                raise
            hint = _WHO_MAY if isinstance(error, psycopg.errors.InsufficientPrivilege) else ""
            reason = error.diag.message_primary or str(error)
            raise GrantError(f"{statement}: {reason}. Nothing was changed.{hint}", missing=missing) from error
    if missing:
        # Postgres only warns of a privilege that it has not granted.
        left = yield from _checking(connection, access)
        _refuse(left, "is missing still, though no statement failed. Nothing was changed")
    return missing


def _refuse(missing: Sequence[Missing], why: str) -> None:
    if missing:
        lines = "".join(f"\n- {each.what}{f': {each.advice}' if each.advice else ''}" for each in missing)
        raise GrantError(f"{len(missing)} of what is missing {why}:{lines}", missing=missing)
