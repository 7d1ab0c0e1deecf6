"""
A user's sessions: one for each token that the user comes with, as from two browsers.

Each session has its own pool, since a token is trusted only for the connections that it has logged in itself. A
session is proven once it has logged in, or if the app vouches for it. Until then it is on probation: it asks for no
connection before its token has minted a password, displaces no pool, and does not count.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ._connecting import MINTING
from ._pool_errors import mint_error, mint_timeout
from ._secrets import WithoutLocals
from .errors import CredentialError

if TYPE_CHECKING:
    from pooling import PoolBudget

    from ._steps import Steps

__pooling_internal__ = True

#: Most proven sessions of one user; for one more, the least recently used is dropped.
MOST_SESSIONS = 32
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds between two attempts to mint that may succeed later


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
        self.limit: PoolBudget | None = None

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


def minting_first(pool: Any, timeout: float | None) -> Steps[float]:
    """
    Have a pool's token mint a password before a connection is asked for; the seconds left of a borrower's timeout.

    A failure that may pass is tried again within the timeout, as the engine does with a failed connect.
    """
    connector = pool._connector
    seconds = pool.timeout if timeout is None else timeout
    deadline = time.monotonic() + seconds
    pause = _FIRST_PAUSE
    mint, sleep = (_amint, asyncio.sleep) if pool._is_async else (_mint, time.sleep)
    while pool.mints_first:
        try:
            with WithoutLocals():
                yield from connector.finding_host()
                connector.doing = MINTING
                yield partial(mint, connector.credentials, deadline - time.monotonic())
        except CredentialError as error:
            yield from connector.noting(error)
            if not error.is_transient:
                raise mint_error(error, pool=pool.name, key=pool._key) from error.__cause__
            if time.monotonic() + pause >= deadline:
                raise mint_timeout(error, title=pool._title, timeout=seconds, pool=pool.name, key=pool._key) from error
            yield partial(sleep, pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            pool.mints_first = False
    left: float = deadline - time.monotonic()
    return max(left, 0.001)


def _mint(source: Any, seconds: float) -> None:
    source.password(max(seconds, 0.0))


async def _amint(source: Any, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await source.apassword()
    except TimeoutError:
        raise CredentialError(
            f"no credential within {seconds:.3g} s. It is still being waited for, and serves later connections",
            is_transient=True,
            step="creating",
        ) from None
