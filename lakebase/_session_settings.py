"""
Settings of a session, as a configuration has them: a schema and time limits.

A direct connection has them from its start, in libpq's `options`, without a statement. The built-in pooler takes no
options, and what a session sets there another client meets; so there each transaction begins with them, in the round
trip of its `BEGIN`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from pooling.errors import ConfigurationError

__all__ = [
    "beginning_statements",
    "check_session_settings",
    "parsed_options",
    "quoted_name",
    "session_settings",
    "with_options",
]


class Session(Protocol):
    """The fields of a configuration that are a session's."""

    @property
    def schema(self) -> str | None: ...
    @property
    def create_schema(self) -> bool: ...


#: Fields with seconds, and Postgres' names for them.
_TIME_LIMITS = MappingProxyType(
    {
        "statement_timeout": "statement_timeout",
        "idle_in_transaction_timeout": "idle_in_transaction_session_timeout",
        "lock_timeout": "lock_timeout",
    }
)
_MOST_MILLISECONDS = 2**31 - 1
# At spaces Postgres splits what it is given, unless a backslash is before.
_SPLITTING, _ESCAPED = re.compile(r"([\\\s])"), r"\\\1"
_WORD, _ESCAPE = re.compile(r"(?:\\.|[^\s\\])+", re.DOTALL), re.compile(r"\\(.)", re.DOTALL)
_LONGEST_NAME = 63  # bytes; Postgres cuts a longer one, which then may be another's


def check_session_settings(config: Session) -> None:
    """Refuse what Postgres would refuse at the first statement, or take for something else."""
    schema = config.schema
    if schema is not None and (len(schema.encode()) > _LONGEST_NAME or schema.lower().startswith("pg_")):
        raise ConfigurationError(
            f"schema={schema!r}: expected one name of {_LONGEST_NAME} bytes at most, not beginning with pg_",
            field="schema",
        )
    if config.create_schema and schema is None:
        raise ConfigurationError("create_schema=True without schema=: which one is not known", field="create_schema")
    for name in _TIME_LIMITS:
        seconds = getattr(config, name)
        if seconds is None:
            continue
        is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if not is_number or not (0.001 <= seconds <= _MOST_MILLISECONDS / 1000 or seconds == math.inf):
            raise ConfigurationError(
                f"{name}={seconds!r}: expected seconds, from 0.001 on; math.inf is no limit, None the server's own",
                field=name,
            )


def session_settings(config: Session) -> dict[str, str]:
    """Postgres' names of the settings, and their values as it reads them."""
    found = {}
    if config.schema is not None:
        quoted = quoted_name(config.schema)
        found["search_path"] = quoted if config.schema == "public" else f"{quoted}, public"
    for name, postgres in _TIME_LIMITS.items():
        seconds = getattr(config, name)
        if seconds is not None:
            found[postgres] = "0" if seconds == math.inf else str(math.ceil(seconds * 1000))
    return found


def with_options(given: str | None, settings: Mapping[str, str]) -> str:
    """Libpq's `options` that were given, with further settings, which win."""
    added = [f"-c {name}={_SPLITTING.sub(_ESCAPED, value)}" for name, value in settings.items()]
    return " ".join(filter(None, [(given or "").strip(), *added]))


def parsed_options(options: str) -> dict[str, str]:
    """
    The settings in libpq's `options`, as `-c name=value -c …`.

    Raises:
        ConfigurationError: There is something else in it.
    """
    words = [_ESCAPE.sub(r"\1", word) for word in _WORD.findall(options)]
    pairs = [word.removeprefix("-c").removeprefix("--") for word in words if word != "-c"]
    if any("=" not in pair for pair in pairs):
        raise ConfigurationError(
            "libpq_params has options= that are no settings of the form -c name=value, which is all that asyncpg takes",
            field="libpq_params",
        )
    return dict(pair.split("=", 1) for pair in pairs)


def beginning_statements(config: Session) -> tuple[str, ...]:
    """The statements with which a transaction begins where the session's start could not have the settings."""
    # Not `set_config()`: a query before `SET TRANSACTION` would have that refused.
    return tuple(
        f"SET LOCAL {name} TO {value if name == 'search_path' else repr(value)}"
        for name, value in session_settings(config).items()
    )


def quoted_name(name: str) -> str:
    """A name as it stands in SQL."""
    return '"' + name.replace('"', '""') + '"'
