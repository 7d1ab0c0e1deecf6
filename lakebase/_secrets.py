"""
Keeping secrets out of errors: many an error tracker shows the local variables of each frame of a traceback.

Tried on a failed login: a string that hides itself keeps a password out of our frames, and not out of the driver's,
which make a connection string of it; a `passfile` in memory is read on Linux only; a traceback that is cut short hides
where an error comes from. Frames without their variables hide nothing but the secrets.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from ._driver_state import forget_connection

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["HiddenText", "WithoutLocals", "forget_locals"]


class HiddenText(str):
    """A secret that does not show in the `repr` of what holds it, such as a mapping or a frame's variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class WithoutLocals:
    """
    A context manager: an error that leaves the block keeps none of the variables of the functions called in it.

    Those of the function with the block itself stay, since it still runs.
    """

    __slots__ = ("_outer",)

    def __enter__(self) -> None:
        self._outer = sys.exception()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> Literal[False]:
        if error is not None:
            forget_locals(error, self._outer)
        return False


def forget_locals(error: BaseException, outer: BaseException | None = None) -> None:
    """
    Empty the frames that an error and its causes have come through; those that still run stay as they are.

    Args:
        error: Keeps its words, and the lines that it came through.
        outer: An error of the caller's, which was being handled before and stays as it is.
    """
    for one in _chain(error, outer):
        traceback.clear_frames(one.__traceback__)
        forget_connection(one)


def _chain(error: BaseException, outer: BaseException | None) -> Iterator[BaseException]:
    seen = {id(outer)}
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        left += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions
