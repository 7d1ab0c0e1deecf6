"""Whether a given value can be meant; the error names it and what is allowed."""

from __future__ import annotations

import os
from typing import Any, get_args

from ._control import IDENTITY_GROUP, SUPERUSER_GROUP
from ._postgres import SUPERUSER
from ._scale import WhileWaking
from .errors import LocalLakebaseError

__all__ = ["check_new_role", "check_path", "check_seconds", "check_while_waking", "check_whole", "check_yes_or_no"]

# A lifetime, too, that datetime can add to the present.
_MOST_SECONDS = 1e9
# NAMEDATALEN, less its last zero: https://www.postgresql.org/docs/current/sql-syntax-lexical.html
_LONGEST_NAME = 63
_RESERVED = frozenset({"public", "none", SUPERUSER, IDENTITY_GROUP, SUPERUSER_GROUP})


def check_whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Raise ValueError unless it is a whole number within these."""
    good = isinstance(value, int) and not isinstance(value, bool)
    if not (good and least <= value and (most is None or value <= most)):
        allowed = f"{least} or more" if most is None else f"{least} to {most}"
        raise ValueError(f"{name}={value!r}: expected {allowed}, a whole number")


def check_seconds(name: str, value: Any, *, least: str = "0 or more", none: str = "") -> None:
    """
    Raise ValueError unless it is a time.

    Args:
        name: Of the argument.
        value: Given.
        least: `0 or more`, or `more than 0`.
        none: What `None` means, if it means anything.
    """
    if value is None and none:
        return
    # A NaN compares with nothing, and so is refused too.
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _MOST_SECONDS
    if not good or (value == 0 and least == "more than 0"):
        otherwise = f", or None for {none}" if none else ""
        raise ValueError(f"{name}={value!r}: expected seconds, {least} and at most {_MOST_SECONDS:.0f}{otherwise}")


def check_while_waking(value: Any) -> None:
    """Raise ValueError unless it is one of the ways to meet a compute that wakes."""
    if value not in get_args(WhileWaking):
        raise ValueError(f"while_waking={value!r}: expected '57P03', 'refused' or 'wait'")


def check_yes_or_no(name: str, value: Any) -> None:
    """Raise ValueError unless it is a bool."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r}: expected True or False")  # noqa: TRY004


def check_path(name: str, value: Any) -> None:
    """Raise ValueError unless it is a path, or the word that stands for one."""
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ValueError(f"{name}={value!r}: expected a path, or what the documentation lists")


def check_new_role(name: Any) -> None:
    """
    Return if Postgres takes a role of that name, and it is none of its own or ours.

    Raises:
        LocalLakebaseError: It is not.
    """
    if not isinstance(name, str) or not name:
        why = "is no name of a role or user: expected text"
    elif name in _RESERVED or name.startswith("pg_"):
        why = "is a name that Postgres or the local Lakebase keeps to itself: choose another"
    elif "\0" in name or not _is_text(name):
        why = "is no name of a role or user: it has characters that Postgres does not take"
    elif len(name.encode()) > _LONGEST_NAME:
        why = f"is too long for a role: Postgres takes {_LONGEST_NAME} bytes"
    else:
        return
    raise LocalLakebaseError(f"{name!r} {why}")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # what a terminal gives for bytes that are not UTF-8
        return False
    return True
