"""
An exception between any two lines of the engine, as an asynchronous one could come.

CPython lets one come after a call, at a jump backwards and where a function begins. The line that leaves a `with`
block is no such place: nothing comes between the end of the block and its `__exit__`, or no lock would be safe. Nor is
the line of a `try`, which does nothing.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Self

import pooling

FINALISERS = {"__del__", "_abandoned", "drop"}  # Python itself swallows whatever is raised in there
ENGINE = str(Path(pooling.__file__).parent)


@cache
def quiet_places(code: CodeType) -> frozenset[int]:
    """Where this code begins to call an `__exit__` with three times `None`, and where it does nothing."""
    steps = [step for step in dis.get_instructions(code) if step.opname != "CACHE"]
    exits = {
        first.offset
        for first, *others in zip(steps, steps[1:], steps[2:], strict=False)
        if all(step.opname == "LOAD_CONST" and step.argval is None for step in (first, *others))
    }
    return frozenset(exits | {step.offset for step in steps if step.opname == "NOP"})


class Interruption:
    """
    Raises `KeyboardInterrupt` before the `line`-th line that this thread runs in the engine, within a `with` block.

    Args:
        line: Which line, from 1; 0 for none.
        on_call: Run once, untraced, when the engine calls a function of that name.

    Attributes:
        where: The line it was raised at, or `None` if the block ended before.
    """

    def __init__(self, line: int, on_call: tuple[str, Callable[[], None]] | None = None) -> None:
        self._line = line
        self._on_call = on_call
        self._count = 0
        self.where: str | None = None

    def __enter__(self) -> Self:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(ENGINE):
            return None
        if self._on_call is not None and code.co_name == self._on_call[0]:
            callback, self._on_call = self._on_call[1], None
            callback()
        if self.where is not None or code.co_name in FINALISERS:
            return None
        return self._trace_lines

    def _trace_lines(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line" and frame.f_lasti not in quiet_places(frame.f_code):
            self._count += 1
            if self._count == self._line:
                self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
                raise KeyboardInterrupt(self.where)
        return self._trace_lines
