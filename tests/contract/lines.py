"""Acts between two lines of the package under test, wherever that may be."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Self

import pooling

PACKAGE = str(Path(pooling.__file__).parent)


_LOAD_CONST = dis.opmap["LOAD_CONST"]


class BeforeLine:
    """
    Calls `act` before the n-th line of the package that this thread runs inside the `with` block.

    Args:
        number: Which line, counted from 1.
        act: What to do there, as another thread might at that moment.
    """

    def __init__(self, number: int, act: Callable[[], Any]) -> None:
        self.number = number
        self.act = act
        self.seen = 0
        self.where = ""

    @property
    def has_acted(self) -> bool:
        return self.seen >= self.number

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line" and not self.has_acted and not _leaves_a_with_block(frame):
            self.seen += 1
            if self.has_acted:
                self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} in {frame.f_code.co_name}"
                self.act()
        return self._trace

    def __enter__(self) -> Self:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)


def _leaves_a_with_block(frame: FrameType) -> bool:
    """
    Whether the line is that of a `with` statement, reached again at the end of its block to call `__exit__`.

    CPython looks for signals and for other threads at calls and at jumps back only. So an exception here, which would
    leave a lock locked, can come from a test alone.
    """
    code, at = frame.f_code.co_code, frame.f_lasti
    return code[at : at + 2] == code[at + 2 : at + 4] == code[at + 4 : at + 6] and code[at] == _LOAD_CONST
