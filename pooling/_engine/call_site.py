"""
Who borrows: the caller's line, its request, its task or thread.

Cheap to record, turned into text only for an error, a warning or `holders()`.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType


_PACKAGE = __name__.partition(".")[0]
_PREFIX = f"{_PACKAGE}."


def _nothing() -> None:
    return None


#: Returns the name of the current request, or `None` if it has none. Set by `_request.current`.
named_request: Callable[[], str | None] = _nothing
#: Returns the current task's name in a tuple, or a text for the current thread. Set by `_backends.base`.
noted_runner: Callable[[], Any] = _nothing

#: Modules that borrow for a request. The code that asked may be a framework's or another task's, so name the request.
_FOR_REQUESTS = {f"{_PREFIX}_request.pooled", f"{_PREFIX}_adapters"}
#: Packages whose functions borrow for their caller.
_PASSED_OVER = frozenset({_PACKAGE, "contextlib", "sqlalchemy"})
#: Packages that run a task or a thread: it has no caller.
_RUNNERS = frozenset({"asyncio", "threading", "concurrent"})

_OWN, _LIBRARY, _RUNNER, _INTERNAL = range(4)
#: What kind of module each name is, of those seen so far.
_kinds: dict[str, int] = {}
_MOST_KINDS = 4096
_DEEPEST = 40  # frames looked at for a line of the caller's own

#: Beginnings of files that are not the user's: frozen modules, the standard library, commands such as `uvicorn`.
_LIBRARIES = (
    "<frozen ",
    *(f"{PurePath(file).parent}{os.sep}" for file in (traceback.__file__, sys.executable) if file),
)
_INSTALLED = ("site-packages", "dist-packages")


class Borrower(NamedTuple):
    """
    Who borrowed a resource.

    Args:
        code: The function of the call site; `None` if there is nothing of the user's in the stack.
        lasti: The instruction in it.
        request: The name of the request, or `None`.
        runner: The task's name in a tuple, or a text for the thread.
        stack: The whole stack, if it was asked for.
    """

    code: CodeType | None
    lasti: int
    request: str | None
    runner: Any
    stack: traceback.StackSummary | None


def note(frame: FrameType, *, whole_stack: bool) -> Borrower:
    """
    Find the borrower, given its frame or one that it called.

    Passes over frames of this package, of libraries that borrow for their caller, and of modules that set
    `__pooling_internal__`. A line of another library, such as a framework, is the call site only if no line of the
    user's own has called it. For a resource that is borrowed for a request, a framework's line says nothing.
    """
    found: FrameType | None = frame
    kind: int | None = _RUNNER
    while found is not None:
        module = found.f_globals
        kind = _kinds.get(module.get("__name__"))  # type: ignore[arg-type]
        if kind is None:
            kind = _find_kind(module, found.f_code)
        if kind is not _INTERNAL:
            break
        found = found.f_back
    else:
        kind = _RUNNER
    request = named_request()
    if kind is _LIBRARY:
        is_for_request = request is not None and frame.f_globals.get("__name__") in _FOR_REQUESTS
        library, found = found, None if is_for_request else _find_own(found)
        if found is None and request is None:
            found = library
    elif kind is _RUNNER:
        found = None
    stack = _whole_stack(found or frame) if whole_stack else None
    if found is None:
        return Borrower(None, 0, request, noted_runner(), stack)
    return Borrower(found.f_code, found.f_lasti, request, noted_runner(), stack)


def _find_kind(module: dict[str, Any], code: CodeType) -> int:
    """What kind of module a function is of; remembered by the module's name."""
    name: str = module.get("__name__") or ""
    top = name.partition(".")[0]
    if top in _PASSED_OVER or "__pooling_internal__" in module:
        kind = _INTERNAL
    elif top in _RUNNERS:
        kind = _RUNNER
    elif code.co_filename.startswith(_LIBRARIES) or any(part in code.co_filename for part in _INSTALLED):
        kind = _LIBRARY
    else:
        kind = _OWN
    if len(_kinds) >= _MOST_KINDS:  # a program that makes modules without end
        _kinds.clear()
    _kinds[name] = kind
    return kind


def _find_own(frame: FrameType | None) -> FrameType | None:
    """The nearest caller of a library's frame that is the user's own, within the task or thread."""
    for _ in range(_DEEPEST):
        frame = None if frame is None else frame.f_back
        if frame is None:
            return None
        kind = _find_kind(frame.f_globals, frame.f_code)
        if kind is _OWN:
            return frame
        if kind is _RUNNER:
            return None
    return None


def _whole_stack(frame: FrameType) -> traceback.StackSummary:
    stack = traceback.StackSummary.extract(traceback.walk_stack(frame), limit=16, lookup_lines=False)
    stack.reverse()
    return stack


def line_of(borrower: Borrower) -> str:
    """`report.py:88 in build`; empty if there is no call site."""
    if borrower.code is None:
        return ""
    code, lasti = borrower.code, borrower.lasti
    line = next((line for start, end, line in code.co_lines() if start <= lasti < end), None) or code.co_firstlineno
    return f"{PurePath(code.co_filename).name}:{line} in {code.co_name}"


def runner_of(borrower: Borrower) -> str:
    """`task 'Task-3'` or `thread 'worker'`."""
    runner = borrower.runner
    return f"task {runner[0]!r}" if isinstance(runner, tuple) else str(runner or "")
