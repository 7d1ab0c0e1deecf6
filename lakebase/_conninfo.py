"""What is wrong with a connection string, told without a piece of it: any piece may be one of the password."""

from __future__ import annotations

import re

import psycopg
from psycopg.conninfo import conninfo_to_dict

__all__ = ["conninfo_problem"]

_DRIVERS = ("psycopg", "psycopg2", "psycopg_async", "asyncpg", "pg8000", "psycopg2cffi", "lakebase")
_DRIVER = re.compile(rf"\s*postgres(?:ql)?\+({'|'.join(_DRIVERS)})://", re.IGNORECASE)
_SCHEME = re.compile(r"postgres(ql)?://")
# libpq's words, without what it quotes.
_WORDS = (
    (
        r"percent-encoded",
        "it has a % without two hexadecimal digits after it: write %25 for a % of the password",
    ),
    (r'missing "="', "a value with a space in it needs quotes, as in password='…'"),
    (r"unterminated quoted", "a quote is not closed: write \\' for a quote inside of quotes"),
    (r'parameter: "ssl"', "it is asyncpg's: write sslmode= for ssl="),
    (r"invalid (connection option|URI query parameter)", "it has a parameter that libpq does not know"),
    (r"IPv6|matching", "an IPv6 address needs its closing bracket"),
)


def conninfo_problem(conninfo: str) -> str | None:
    """Why libpq cannot read a connection string, or would read it wrongly; `None` if it is fine."""
    if driver := _DRIVER.match(conninfo):
        return f"it is a SQLAlchemy URL: drop `+{driver[1]}`"
    if _SCHEME.match(conninfo):
        if _has_bare_separator(conninfo.partition("://")[2]):
            return "a @ or / of the password is not percent-encoded: write %40 or %2F"
    elif "://" in conninfo.partition("=")[0]:
        return "it is a URL of another kind: write postgresql://"
    try:
        conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError as error:
        said = str(error)
    else:
        return None
    return next((words for pattern, words in _WORDS if re.search(pattern, said)), "libpq cannot read it")


def _has_bare_separator(rest: str) -> bool:
    """Whether the password in a URL without its scheme has a `@` or `/` that libpq takes for its end."""
    path, _, _ = rest.partition("?")
    authority, _, others = path.partition("/")
    if authority.count("@") > 1:
        return True
    # A `/` in the password ends what libpq takes for the host, so that the password's first half becomes the port.
    port = authority.rpartition(":")[2]
    return "@" not in authority and "@" in others and ":" in authority and not port.isdigit()
