"""Where a resource was borrowed: cheap to record, turned into text only for an error or a warning."""

from __future__ import annotations

import traceback
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType


_PACKAGE = __name__.partition(".")[0]
_PREFIX = f"{_PACKAGE}."


#: Returns a text for the current request, or `None` if it has no name. Set by `_request.current`.
named_request: Callable[[], str | None] | None = None

#: Modules that borrow for a request. The code that asked may be a framework's or another task's, so name the request.
_FOR_REQUESTS = {f"{_PREFIX}_request.pooled", f"{_PREFIX}_adapters"}


class CallSite(NamedTuple):
    """A place in the code, or the name of a request; `stack` only if it was asked for."""

    code: CodeType | str | None
    lasti: int
    stack: traceback.StackSummary | None


def note(frame: FrameType | None, *, whole_stack: bool) -> CallSite:
    """
    Find the borrower's call site, given its frame or one that it called.

    Skips frames of this package and of modules that set `__pooling_internal__`. For a resource that is borrowed for a
    request with a name, the request's name is the call site.
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
    """` at report.py:88 in build`, ` for request 'GET /'`, or an empty text if nothing was recorded."""
    if code is None:
        return ""
    if isinstance(code, str):
        return f" for {code}"
    line = next((line for start, end, line in code.co_lines() if start <= lasti < end), None) or code.co_firstlineno
    return f" at {PurePath(code.co_filename).name}:{line} in {code.co_name}"
