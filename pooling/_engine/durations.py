"""Waits and uses that exporters have not read yet: one append for a borrower, the rest when somebody reads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .pool import Pool

WAIT, USE = "wait_time", "use_time"
MOST = 4096  # unread durations at which `is_full` is called


class Duration(NamedTuple):
    """How long a borrower of a pool waited, or was served."""

    prefix: str
    pool: str
    key: object
    what: str
    seconds: float


class Durations:
    """
    The durations of all pools of the process.

    Attributes:
        are_wanted: Whether anybody reads them.
        is_full: Called when many are unread, in the thread of a borrower; must not block.
    """

    __slots__ = ("_unread", "are_wanted", "is_full")

    def __init__(self) -> None:
        self._unread: deque[Duration] = deque()
        self.are_wanted = False
        self.is_full: Callable[[], None] = lambda: None

    def add(self, pool: Pool, what: str, seconds: float) -> None:
        """Keep a duration until it is read. Takes no lock."""
        unread = self._unread
        unread.append(Duration(pool.hooks.metric_prefix, pool.name, pool.key, what, seconds))
        if len(unread) % MOST == 0:
            self.is_full()

    def read(self) -> list[Duration]:
        """Those that were not read yet."""
        found = []
        unread = self._unread
        try:
            while True:
                found.append(unread.popleft())
        except IndexError:
            return found


DURATIONS = Durations()
