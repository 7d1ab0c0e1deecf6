"""Observers of all pools of the process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._engine.observers import EVERYWHERE
from ..service import check_parts

if TYPE_CHECKING:
    from ..events import PoolObserver

__all__ = ["observe", "unobserve"]


def observe(observer: PoolObserver) -> None:
    """
    Tell an observer of the events of all pools of this process, present and future, beside their own observers.

    The fast path tells nobody: `on_acquired` and `on_released` come only from acquisitions and releases for which a
    borrower waited or a hook ran. Adding an observer twice does nothing. After a fork, the child's pools tell it too.

    Raises:
        ConfigurationError: It is no `PoolObserver`.
    """
    check_parts(None, observer)
    EVERYWHERE.add(observer)


def unobserve(observer: PoolObserver) -> None:
    """Tell this observer no more; does nothing if it was not told."""
    EVERYWHERE.remove(observer)
