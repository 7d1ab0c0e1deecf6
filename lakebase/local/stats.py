"""Counts of what clients did with a local Lakebase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Counters", "LocalStats", "UserStats"]


@dataclass(frozen=True, slots=True)
class UserStats:
    """
    What one role did.

    Attributes:
        open: Connections that are logged in now.
        peak: The most connections at once.
        total: All connections that ever logged in.
        refused: Logins that the gateway or Postgres refused.
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
    All counts, at one instant.

    Attributes:
        users: By role; a role that did nothing may be missing: `user(name)` answers for every name.
        open: Connections that are logged in now.
        peak: The most connections at once, of all roles together.
        total: All connections that ever logged in.
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
        """Credentials minted for all roles."""
        return sum(user.minted for user in self.users.values())


class Counters:
    """Counts connections as they come and go. Used on the loop alone."""

    def __init__(self) -> None:
        self.open: dict[str, int] = {}
        self.peak: dict[str, int] = {}
        self.total: dict[str, int] = {}
        self.refused: dict[str, int] = {}
        self.open_now: int = 0
        self.peak_now: int = 0
        self.total_now: int = 0

    def add_connection(self, user: str) -> None:
        """Count a role that logged in."""
        self.open[user] = self.open.get(user, 0) + 1
        self.total[user] = self.total.get(user, 0) + 1
        self.peak[user] = max(self.peak.get(user, 0), self.open[user])
        self.open_now += 1
        self.total_now += 1
        self.peak_now = max(self.peak_now, self.open_now)

    def remove_connection(self, user: str) -> None:
        """Count a connection of the role that ended."""
        self.open[user] -= 1
        self.open_now -= 1

    def add_refusal(self, user: str) -> None:
        """Count a login that was refused."""
        self.refused[user] = self.refused.get(user, 0) + 1

    def count_open(self, user: str | None) -> int:
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
