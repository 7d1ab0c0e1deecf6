"""Where a resource was borrowed: cheap to note, turned into text only when somebody must be told."""

from __future__ import annotations

import traceback
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType


_PACKAGE = __name__.partition(".")[0]
_PREFIX = f"{_PACKAGE}."


#: Gives the text for the current request, if it has a name; whoever has requests sets it.
named_request: Callable[[], str | None] | None = None

#: What takes resources for a request. Who asked for the request's value may be a framework, or another task.
_FOR_REQUESTS = {f"{_PREFIX}_request.pooled", f"{_PREFIX}_adapters"}


class CallSite(NamedTuple):
    """A place in the code, or the request it was for; `stack` only where the whole way there was asked for."""

    code: CodeType | str | None
    lasti: int
    stack: traceback.StackSummary | None


def note(frame: FrameType | None, *, whole_stack: bool) -> CallSite:
    """
    The borrower's place, given a frame at or below it.

    Frames of this package, and of modules that set `__pooling_internal__`, are not the borrower.
    A request that has a name is, where the resource is taken for it.
    """
    request = None
    if named_request is not None and frame is not None and frame.f_globals.get("__name__") in _FOR_REQUESTS:
        request = named_request()
    while frame is not None and frame.f_back is not None and is_internal(frame.f_globals):
        frame = frame.f_back
    if frame is None:
        return CallSite(None, 0, None)
    stack = None
    if whole_stack:
        stack = traceback.StackSummary.extract(traceback.walk_stack(frame), limit=16, lookup_lines=False)
        stack.reverse()
    return CallSite(request or frame.f_code, frame.f_lasti, stack)


def is_internal(module: dict[str, Any]) -> bool:
    name = module.get("__name__", "")
    return name.startswith(_PREFIX) or name == _PACKAGE or "__pooling_internal__" in module


def describe(code: CodeType | str | None, lasti: int) -> str:
    """` at report.py:88 in build`, ` for request 'GET /'`, or an empty text where nothing was noted."""
    if code is None:
        return ""
    if isinstance(code, str):
        return f" for {code}"
    line = next((line for start, end, line in code.co_lines() if start <= lasti < end), None) or code.co_firstlineno
    return f" at {PurePath(code.co_filename).name}:{line} in {code.co_name}"
