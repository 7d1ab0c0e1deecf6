"""Which names a Postgres role can have, so that one user never acts as another, or as the app."""

from __future__ import annotations

__all__ = ["LONGEST", "role_name_problem"]

#: Bytes. NAMEDATALEN, less its last zero: https://www.postgresql.org/docs/current/sql-syntax-lexical.html
LONGEST = 63
# No role has the first two names: `SET ROLE none` is back to the role that logged in. The others mean a role, if they
# are not quoted: https://www.postgresql.org/docs/current/sql-grant.html. They are refused however they are written.
_RESERVED = frozenset({"none", "public", "current_role", "current_user", "session_user"})


def role_name_problem(name: str) -> str | None:
    """Why no role has this name, or why another name is the same role; `None` if it is a name like any other."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # bytes that were not UTF-8, kept as surrogates
        return "it has characters that UTF-8 does not have"
    if "\0" in name:
        return "it has a zero byte, which no name of Postgres has"
    if name.lower() in _RESERVED or name.startswith("pg_"):
        return "Postgres keeps this name to itself"
    if size > LONGEST:
        return f"it has {size} bytes, and Postgres keeps the first {LONGEST} of a role's name, which may be another's"
    return None
