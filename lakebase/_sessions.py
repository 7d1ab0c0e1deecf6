"""
A user's sessions: one for each token that the user comes with, as from two browsers.

Each session has its own pool, since a token is trusted only for the connections that it has logged in itself. A
session is proven once it has logged in, or if the app vouches for it. Until then it is on probation: it asks for no
connection before its token has minted a password, displaces no pool, and does not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from pooling import PoolBudget

__pooling_internal__ = True

#: Most proven sessions of one user; for one more, the least recently used is dropped.
MOST_SESSIONS = 32
_SHARED_BY_SESSIONS = "All sessions of a user share max_size: raise it, or give connections back sooner."


class User:
    """
    What a manager knows of a user who has pools.

    Attributes:
        sessions: One for each token. A tuple, since most of many users have a single one.
        latest: The session that was used last, of the proven ones if there are any.
        limit: What all sessions together may have, once there were two of them at a time.
    """

    __slots__ = ("key", "latest", "limit", "sessions")

    def __init__(self, key: Any) -> None:
        self.key = key
        self.sessions: tuple[Session, ...] = ()
        self.latest: Session | None = None
        self.limit: UserLimit | None = None

    @property
    def proven(self) -> list[Session]:
        """The sessions that have logged in."""
        return [session for session in self.sessions if session.is_proven]

    def find(self, fingerprint: str | None) -> Session | None:
        """The session of this token."""
        return next((session for session in self.sessions if session.fingerprint == fingerprint), None)

    def add(self, session: Session) -> None:
        """Add a session, in place of an earlier one of this token."""
        others = (other for other in self.sessions if other.fingerprint != session.fingerprint)
        self.sessions = (*others, session)
        session.note_use()

    def forget(self, session: Session) -> None:
        """Remove a session."""
        self.sessions = tuple(other for other in self.sessions if other is not session)
        if self.latest is session:
            self.latest = next(reversed(self.proven or self.sessions), None)


class UserLimit(PoolBudget):
    """The limit that all sessions of a user share: the largest `max_size` of one of them."""

    def __init__(self, user: User, max_total: float, *, within: PoolBudget) -> None:
        super().__init__(max_total, within=within, advice=_SHARED_BY_SESSIONS)
        self._user = user

    def fit(self) -> None:
        """Be the largest `max_size` again, after a session's pool was resized."""
        largest = max((session.pool.max_size for session in self._user.sessions), default=self.max_total)
        if largest != self.max_total:
            self.resize(largest)


class Session:
    """
    One token of a user, and its pool.

    Attributes:
        user: Whose session it is.
        fingerprint: Of its token.
        pool: Of the connections that this token has logged in.
        is_proven: Whether it has logged in, or needs no proof.
        place: Its key on the manager's map.
    """

    __slots__ = ("fingerprint", "is_proven", "place", "pool", "user")

    def __init__(self, user: User, fingerprint: str | None, pool: Any, *, is_proven: bool) -> None:
        self.user = user
        self.fingerprint = fingerprint
        self.pool = pool
        self.is_proven = is_proven
        self.place = user.key, fingerprint

    @property
    def connector(self) -> Any:
        """What makes the pool's connections, and knows how they log in."""
        return self.pool.service.factory

    def note_use(self) -> None:
        """Let it be the user's latest session, unless it is unproven and another one is not."""
        user = self.user
        if self.is_proven or user.latest is None or not user.latest.is_proven:
            user.latest = self


def sum_of(stats: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The numbers of all of a user's pools together; the sizes are limits that the pools have in common."""
    total: Counter[str] = Counter()
    sizes = {"pool_min": 0, "pool_max": 0}
    for numbers in stats:
        total.update(numbers)
        sizes = {name: max(size, numbers[name]) for name, size in sizes.items()}
    return {**total, **sizes}
