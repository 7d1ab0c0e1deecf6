"""Whether the simulation in this process is to be given up, as another process says."""

from __future__ import annotations

from collections.abc import Callable


def _never() -> bool:
    return False


is_wanted: Callable[[], bool] = _never


def check() -> None:
    """
    Go on, unless it is to be given up.

    Raises:
        KeyboardInterrupt: It is.
    """
    if is_wanted():
        raise KeyboardInterrupt
