"""
Who follows acquisitions and creates step by step: exporters of traces, and the timings of a request.

Nothing here is asked on the fast path. Until a follower is added, an acquisition with all its steps only looks whether
there is one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .pool import Pool
    from .slots import Slot

log = logging.getLogger("pooling")

_NOTHING = nullcontext()


class Acquisition(Protocol):
    """
    An acquisition, as followers see it.

    Attributes:
        pool: Where.
        began: When, by the pool's clock.
        slot: What was acquired, or `None`.
        marks: Its steps with their instants; `None` if it began before there were followers.
    """

    pool: Pool
    began: float
    slot: Slot | None
    marks: list[tuple[str, float]] | None


class Follower:
    """Follows what pools do. What its methods raise is logged."""

    def here(self) -> Any:
        """What the running code is part of, such as a span, for `creating`; `None` for nothing."""

    def ended(self, take: Acquisition, now: float, error: BaseException | None) -> None:
        """An acquisition with all its steps has ended; it is the borrower's task or thread that calls."""

    def creating(self, pool: Pool, waiting: list[Any]) -> AbstractContextManager[Any]:
        """Around one create. `waiting` is what `here` returned to borrowers that wait for one."""
        return _NOTHING


class Followers:
    """All followers of the process."""

    __slots__ = ("_every", "are_there")

    def __init__(self) -> None:
        self._every: tuple[Follower, ...] = ()
        self.are_there = False

    def add(self, follower: Follower) -> None:
        """Have this one follow, too; once, however often it is added."""
        self._every = (*(one for one in self._every if one is not follower), follower)
        self.are_there = True

    def remove(self, follower: Follower) -> None:
        """Have it follow no more."""
        self._every = tuple(one for one in self._every if one is not follower)
        self.are_there = bool(self._every)

    def here(self) -> dict[Follower, Any]:
        """What each of them says of the running code."""
        found = {}
        for follower in self._every:
            try:
                if (place := follower.here()) is not None:
                    found[follower] = place
            except Exception:
                log.exception("a follower of acquisitions failed")
        return found

    def ended(self, take: Acquisition, now: float, error: BaseException | None) -> None:
        """Tell each of an acquisition that has ended."""
        for follower in self._every:
            try:
                follower.ended(take, now, error)
            except Exception:
                log.exception("a follower of acquisitions failed")

    def creating(self, pool: Pool) -> AbstractContextManager[Any]:
        """Around a create; does nothing without followers."""
        return self._creating(pool) if self._every else _NOTHING

    @contextmanager
    def _creating(self, pool: Pool) -> Iterator[None]:
        places = [getattr(waiter.operation, "places", None) or {} for waiter in pool.ledger.waiters()]
        with ExitStack() as entered:
            for follower in self._every:
                try:
                    block = follower.creating(pool, [place[follower] for place in places if follower in place])
                    block.__enter__()
                    entered.push(partial(_leave, block))
                except Exception:
                    log.exception("a follower of creates failed")
            yield


def _leave(block: AbstractContextManager[Any], *error: Any) -> None:
    """Leave a follower's block with the error of the create, if there is one; what it raises is logged."""
    try:
        block.__exit__(*error)
    except Exception:
        log.exception("a follower of creates failed")


FOLLOWERS = Followers()
