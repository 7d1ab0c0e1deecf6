"""Checks of arguments: each raises a ValueError that names the argument, its value and what is allowed."""

from __future__ import annotations

import os
from typing import Any

__all__ = ["check_path", "check_seconds", "check_whole", "check_yes_or_no"]

# The longest lifetime that `datetime` can add to the present.
_MOST_SECONDS = 1e9


def check_whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Raise ValueError unless the value is a whole number within these bounds."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not (is_whole and least <= value and (most is None or value <= most)):
        allowed = f"{least} or more" if most is None else f"{least} to {most}"
        raise ValueError(f"{name}={value!r}: expected {allowed}, a whole number")


def check_seconds(name: str, value: Any, *, least: str = "0 or more", none: str = "") -> None:
    """
    Raise ValueError unless the value is a duration.

    Args:
        name: The argument's name.
        value: The argument's value.
        least: `0 or more`, or `more than 0`.
        none: What `None` means; empty if `None` is not allowed.
    """
    if value is None and none:
        return
    # A NaN compares as false with everything, and so is refused too.
    is_duration = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _MOST_SECONDS
    if not is_duration or (value == 0 and least == "more than 0"):
        otherwise = f", or None for {none}" if none else ""
        raise ValueError(f"{name}={value!r}: expected seconds, {least} and at most {_MOST_SECONDS:.0f}{otherwise}")


def check_yes_or_no(name: str, value: Any) -> None:
    """Raise ValueError unless the value is a bool."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r}: expected True or False")  # noqa: TRY004


def check_path(name: str, value: Any) -> None:
    """Raise ValueError unless the value is a path, or a word that stands for one."""
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ValueError(f"{name}={value!r}: expected a path, or what the documentation lists")
