"""Acts between two lines of the package under test, wherever that may be."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Self

import pooling

PACKAGE = str(Path(pooling.__file__).parent)


class BeforeLine:
    """
    Calls `act` before the n-th line of the package that this thread runs inside the `with` block.

    Args:
        number: Which line, counted from 1.
        act: What to do there; it may raise.
        is_ours: Whether lines run now are to be counted.
        skips: Name of a function whose lines are not.
    """

    def __init__(
        self, number: int, act: Callable[[], Any], is_ours: Callable[[], bool] = lambda: True, skips: str = ""
    ) -> None:
        self.skips = skips
        self.number = number
        self.act = act
        self.is_ours = is_ours
        self.seen = 0
        self.where = ""

    @property
    def has_acted(self) -> bool:
        return self.seen >= self.number

    @staticmethod
    def _is_leaving_a_with(frame: FrameType) -> bool:
        """
        Whether the line is that of a `with` whose block has just ended.

        The interpreter looks at signals and asynchronous exceptions after calls and backward jumps, and there is none
        between the block's last call and the `__exit__`; only a trace function could raise there.
        """
        line, code = frame.f_lineno, frame.f_code
        if not linecache.getline(code.co_filename, line).lstrip().startswith(("with ", "async with ")):
            return False
        return frame.f_lasti > min(start for start, _, number in code.co_lines() if number == line)

    @staticmethod
    def _is_in_a_finaliser(frame: FrameType | None) -> bool:
        """Whether nobody would see an exception raised here: Python only reports those of `__del__`."""
        while frame is not None:
            if frame.f_code.co_name == "__del__":
                return True
            frame = frame.f_back
        return False

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if (
            event == "line"
            and not self.has_acted
            and self.is_ours()
            and frame.f_code.co_name.lstrip("_") != self.skips
            and not self._is_leaving_a_with(frame)
            and not self._is_in_a_finaliser(frame)
        ):
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
