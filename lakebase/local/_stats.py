"""Counts of what clients did with a local Lakebase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["LocalStats", "UserStats"]


@dataclass(frozen=True, slots=True)
class UserStats:
    """
    What one role did.

    Attributes:
        open: Connections that are logged in now.
        peak: The most at once.
        total: All that ever logged in.
        refused: Logins that were refused, by the gateway or by Postgres.
        minted: Credentials minted.
    """

    open: int = 0
    peak: int = 0
    total: int = 0
    refused: int = 0
    minted: int = 0


@dataclass(frozen=True, slots=True)
class LocalStats:
    """
    All of it, at one instant.

    Attributes:
        users: By role; a role that did nothing may be missing: `user(name)` answers for any.
        open: Connections that are logged in now.
        peak: The most at once, of all roles together.
        total: All that ever logged in.
        api_calls: Requests to the workspace API, as `{"POST /api/2.0/postgres/credentials": 3}`.
    """

    users: Mapping[str, UserStats] = field(default_factory=dict)
    open: int = 0
    peak: int = 0
    total: int = 0
    api_calls: Mapping[str, int] = field(default_factory=dict)

    def user(self, name: str) -> UserStats:
        """The role's counts."""
        return self.users.get(name, UserStats())

    @property
    def minted(self) -> int:
        """Credentials minted for all."""
        return sum(user.minted for user in self.users.values())


class Counters:
    """Counts connections as they come and go. Used on the loop alone."""

    def __init__(self) -> None:
        self.open: dict[str, int] = {}
        self.peak: dict[str, int] = {}
        self.total: dict[str, int] = {}
        self.refused: dict[str, int] = {}
        self.open_now = 0
        self.peak_now = 0
        self.total_now = 0

    def came(self, user: str) -> None:
        """A role logged in."""
        self.open[user] = self.open.get(user, 0) + 1
        self.total[user] = self.total.get(user, 0) + 1
        self.peak[user] = max(self.peak.get(user, 0), self.open[user])
        self.open_now += 1
        self.total_now += 1
        self.peak_now = max(self.peak_now, self.open_now)

    def went(self, user: str) -> None:
        """One of its connections ended."""
        self.open[user] -= 1
        self.open_now -= 1

    def turned_away(self, user: str) -> None:
        """A login was refused."""
        self.refused[user] = self.refused.get(user, 0) + 1

    def open_of(self, user: str | None) -> int:
        """Open connections of a role, or of all."""
        return self.open_now if user is None else self.open.get(user, 0)

    def snapshot(self, minted: Mapping[str, int], api_calls: Mapping[str, int]) -> LocalStats:
        """All counts, together with those of the workspace."""
        names = {*self.total, *self.refused, *minted}
        users = {
            name: UserStats(
                self.open.get(name, 0),
                self.peak.get(name, 0),
                self.total.get(name, 0),
                self.refused.get(name, 0),
                minted.get(name, 0),
            )
            for name in sorted(names)
        }
        return LocalStats(users, self.open_now, self.peak_now, self.total_now, dict(api_calls))
