"""Where a resource was borrowed: cheap to record, turned into text only for an error or a warning."""

from __future__ import annotations

import traceback
from pathlib import PurePath
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

    Place = CodeType | str | tuple[CodeType, str] | None


_PACKAGE = __name__.partition(".")[0]
_PREFIX = f"{_PACKAGE}."


#: Returns a text for the current request, or `None` if it has no name. Set by `_request.current`.
named_request: Callable[[], str | None] | None = None
#: Returns a text for the current task or thread. Set by `_backends.base`.
named_runner: Callable[[], str] | None = None

#: Modules that borrow for a request. The code that asked may be a framework's or another task's, so name the request.
_FOR_REQUESTS = {f"{_PREFIX}_request.pooled", f"{_PREFIX}_adapters"}
#: Packages whose functions borrow for their caller.
_PASSED_OVER = frozenset({_PACKAGE, "contextlib", "sqlalchemy"})
#: Packages that run a task or a thread: it has no caller.
_RUNNERS = frozenset({"asyncio", "threading", "concurrent"})


class _Packages(dict[str, str]):
    """The package of each module, by name; worked out once, since every borrower asks."""

    def __missing__(self, name: str) -> str:
        package = self[name] = name.partition(".")[0]
        return package


_packages = _Packages()


class CallSite(NamedTuple):
    """
    A place in the code, a text for it, or both; `stack` only if it was asked for.

    The text names the request that borrows, or the task or thread if it has nothing of the user's in its stack.
    """

    code: Place
    lasti: int
    stack: traceback.StackSummary | None


def note(frame: FrameType | None, *, whole_stack: bool) -> CallSite:
    """
    Find the borrower's call site, given its frame or one that it called.

    Skips frames of this package, of libraries that borrow for their caller, and of modules that set
    `__pooling_internal__`. For a resource that is borrowed for a request with a name, the request's name is the call
    site.
    """
    if frame is None:
        return CallSite(None, 0, None)
    request = None if named_request is None else named_request()
    is_for_request = frame.f_globals.get("__name__") in _FOR_REQUESTS
    found: FrameType | None = frame
    package = ""
    while found is not None:
        module = found.f_globals
        package = _packages[module.get("__name__", "")]
        if package not in _PASSED_OVER and "__pooling_internal__" not in module:
            break
        found = found.f_back
    place: Place
    if found is None or package in _RUNNERS:
        found = found or frame
        place = request or (named_runner() if named_runner is not None else None)
    elif request is None:
        place = found.f_code
    else:
        place = request if is_for_request else (found.f_code, request)
    stack = None
    if whole_stack:
        stack = traceback.StackSummary.extract(traceback.walk_stack(found), limit=16, lookup_lines=False)
        stack.reverse()
    return CallSite(place, found.f_lasti, stack)


def describe(place: Place, lasti: int) -> str:
    """` at report.py:88 in build`, ` for request 'GET /'`, both, or an empty text if nothing was recorded."""
    if place is None:
        return ""
    if isinstance(place, str):
        return f" for {place}"
    if isinstance(place, tuple):
        code, request = place
        return f"{describe(code, lasti)} for {request}"
    code = place
    line = next((line for start, end, line in code.co_lines() if start <= lasti < end), None) or code.co_firstlineno
    return f" at {PurePath(code.co_filename).name}:{line} in {code.co_name}"
