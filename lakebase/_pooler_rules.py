"""What transaction mode cannot do, and the names it goes by."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum


class Restriction(Enum):
    """What transaction mode cannot do. A value is what to use instead."""

    PREPARED_STATEMENT = "leave preparing to the driver: psycopg prepares at protocol level, which the pooler follows"
    SESSION_SETTING = "SET LOCAL (or set_config(…, true)) inside a transaction, or ALTER ROLE … SET for always"
    TEMPORARY_TABLE = "a CTE, an ordinary (unlogged) table, or ON COMMIT DROP with all its uses in one transaction"
    HELD_CURSOR = "a cursor without hold, read to its end inside one transaction"
    SESSION_LOCK = "pg_advisory_xact_lock and its kin, which end with the transaction"
    SEQUENCE_STATE = "RETURNING, or nextval()'s own result: what currval() and lastval() remember is the session's"
    TWO_PHASE = "a direct connection for two-phase commits: direct_config()"
    NOTIFICATION = "a direct connection, for LISTEN and NOTIFY alike: direct_config()"
    SCHEMA_CHANGE = "a direct connection for migrations and pg_dump: direct_config()"


@dataclass(frozen=True, slots=True)
class Violation:
    """
    A place in the SQL that the pooler would break.

    Args:
        restriction: Which of them it is.
        what: The statement or function, in Postgres' spelling.
        line: Of the statement, counted from 1.
    """

    restriction: Restriction
    what: str
    line: int

    @property
    def instead(self) -> str:
        """What to use instead."""
        return self.restriction.value

    def __str__(self) -> str:
        return f"line {self.line}: {self.what} does not work through the pooler; use {self.instead}"


# PgBouncer follows these for each client and restores them on whichever server connection it gets.
# https://www.pgbouncer.org/config.html#track_extra_parameters
FOLLOWED = frozenset(
    {"application_name", "client_encoding", "datestyle", "intervalstyle", "standard_conforming_strings", "timezone"}
)
#: Functions that read or set what a session remembers.
SESSION_CALLS = {
    "pg_notify": Restriction.NOTIFICATION,
    "currval": Restriction.SEQUENCE_STATE,
    "lastval": Restriction.SEQUENCE_STATE,
    "setseed": Restriction.SESSION_SETTING,
}
#: Statements that begin so are the documented way to settings that last; the server keeps them, not a session.
LASTING_SETTINGS = ("role", "user", "database", "system")
_FALSE = re.compile(r"\s*(f|fa|fal|fals|false|n|no|of|off|0)\s*", re.IGNORECASE)


def is_false_text(text: str) -> bool:
    """Whether Postgres reads a text as the boolean `false`: by any unique beginning of a word for it."""
    return _FALSE.fullmatch(text) is not None


LOCKS = re.compile(r"pg_(try_)?advisory_(un)?lock(_shared|_all)?")
