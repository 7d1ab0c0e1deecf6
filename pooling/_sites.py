"""Where a resource was borrowed: cheap to note, turned into text only when somebody must be told."""

from __future__ import annotations

import traceback
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from types import CodeType, FrameType


_PREFIX = f"{__package__}."


class Site(NamedTuple):
    """A place in the code; `stack` only where the whole way there was asked for."""

    code: CodeType | None
    lasti: int
    stack: traceback.StackSummary | None


def note(frame: FrameType | None, *, whole_stack: bool) -> Site:
    """
    The borrower's place, given a frame at or below it.

    Frames of this package, and of modules that set `__pooling_internal__`, are not the borrower.
    """
    while frame is not None and frame.f_back is not None and is_internal(frame.f_globals):
        frame = frame.f_back
    if frame is None:
        return Site(None, 0, None)
    stack = None
    if whole_stack:
        stack = traceback.StackSummary.extract(traceback.walk_stack(frame), limit=16, lookup_lines=False)
        stack.reverse()
    return Site(frame.f_code, frame.f_lasti, stack)


def is_internal(module: dict[str, Any]) -> bool:
    name = module.get("__name__", "")
    return name.startswith(_PREFIX) or name == __package__ or "__pooling_internal__" in module


def describe(code: CodeType | None, lasti: int) -> str:
    """`report.py:88 in build`, or an empty text where nothing was noted."""
    if code is None:
        return ""
    line = next((line for start, end, line in code.co_lines() if start <= lasti < end), None) or code.co_firstlineno
    return f"{PurePath(code.co_filename).name}:{line} in {code.co_name}"
