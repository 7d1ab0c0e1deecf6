"""Having a transaction act for a user: the statement that does it, the proof that it did, and what keeps it from it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from ._session_reset import plain_cursor
from .errors import ConnectFailure, LoginError

if TYPE_CHECKING:
    from ._steps import Steps

__all__ = ["acting_for", "role_refusal"]

_NAMESAKES = "SELECT rolname FROM pg_catalog.pg_roles WHERE lower(rolname) = lower(%s)"


def acting_for(connection: Any, user: str, *, setting: str | None, as_role: bool) -> Steps[None]:
    """
    Have the open transaction act for a user, and see that it does, in one round trip.

    Args:
        connection: In a transaction, or about to begin one.
        user: The user, and with `as_role` the role.
        setting: What policies read, or `None`.
        as_role: Whether it also takes on the user's role.

    Raises:
        LoginError: It would act for another one. The transaction is still open.
        Error: The server refuses it.
    """
    names = [] if setting is None else [setting]
    names += ["role"] if as_role else []  # last: the role may not be allowed to set the other
    wanted = ["pg_catalog.set_config(%s, %s, true)"] * len(names) + (["current_user"] if as_role else [])
    cursor = plain_cursor(connection)
    yield partial(cursor.execute, f"SELECT {', '.join(wanted)}", [text for name in names for text in (name, user)])
    # The server returns what has taken effect, of a role's name the first 63 bytes.
    encoding = connection.info.encoding
    for column in range(len(wanted)):
        took_effect = cursor.pgresult.get_value(0, column) or b""
        if took_effect != user.encode(encoding):
            raise LoginError(
                f"the transaction would act for {took_effect.decode(encoding, 'replace')!r} in place of {user!r}",
                failure=ConnectFailure.NO_ROLE,
            )


def role_refusal(connection: Any, user: str, error: Exception) -> Steps[LoginError | None]:
    """
    What to say of a role that could not be taken on, or `None` if the error means something else.

    The transaction must have been rolled back; another one is begun to look for the cause.
    """
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        role, app = (sql.Identifier(name).as_string() for name in (user, connection.info.user))
        return LoginError(
            f"the app's role may not act as {user!r}. It may after GRANT {role} TO {app}.",
            failure=ConnectFailure.NO_PERMISSION,
        )
    if not isinstance(error, psycopg.errors.InvalidParameterValue):
        return None
    cursor = plain_cursor(connection)
    yield partial(cursor.execute, _NAMESAKES, [user])
    values = [cursor.pgresult.get_value(row, 0) for row in range(cursor.pgresult.ntuples)]
    found = " and ".join(repr(value.decode(connection.info.encoding, "replace")) for value in values)
    advice = "Create it, and grant it to the app's role."
    if found:
        advice = f"It has {found}: Postgres tells upper from lower case, so the identity needs the role's own spelling."
    return LoginError(f"the database has no role {user!r}. {advice}", failure=ConnectFailure.NO_ROLE)
