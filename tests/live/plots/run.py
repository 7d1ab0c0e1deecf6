"""One run on a local Lakebase, and the record of it."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Sequence
from time import monotonic
from typing import Any

import psycopg

from lakebase import AsyncLakebasePoolManager, UserIdentity
from lakebase.local import LocalLakebase
from pooling import PoolEvent, PoolObserver

__all__ = ["Run"]

#: Seconds between two looks at the gateway's counts.
LOOK = 0.02


class Run(PoolObserver):
    """
    What is measured. Times are seconds since the beginning.

    Args:
        lake: A local Lakebase that only this run uses.
        users: The users' names.
        max_total: The budget.

    Attributes:
        counts: The server's count of each user's connections, over time.
        waits: When a request got its connection, whose it was, and how long it had waited.
        lost: When a query lost its connection, and whose it was.
        events: When the pools did what for whom.
        turns: When something happened, and what.
    """

    def __init__(self, lake: LocalLakebase, users: Sequence[str], max_total: int) -> None:
        self.lake = lake
        self.users = list(users)
        self.max_total = max_total
        self.tokens = {user: lake.add_user(user) for user in users}
        self.counts: list[tuple[float, list[int]]] = []
        self.waits: list[tuple[float, str, float]] = []
        self.lost: list[tuple[float, str]] = []
        self.events: list[tuple[float, str, str]] = []
        self.turns: list[tuple[float, str]] = []
        self._dice = random.Random(1)
        self._begin = monotonic()

    def now(self) -> float:
        return monotonic() - self._begin

    async def until(self, at: float) -> None:
        await asyncio.sleep(max(at - self.now(), 0.0))  # sleeps: a picture has a time axis

    async def play(self, story: Any) -> None:
        """Run a story to its end."""
        from .story import play

        self._pools: Any = AsyncLakebasePoolManager(
            {
                "host": self.lake.host,
                "port": self.lake.port,
                "database": self.lake.database,
                "endpoint": self.lake.endpoint,
                "workspace_url": self.lake.workspace_url,
                "ssl_mode": "verify-full",
                "ssl_root_cert": str(self.lake.ca_file),
                "timeout": 20.0,
                "max_size": 3,
                "max_idle": 0.8,
            },
            max_total=self.max_total,
            observer=self,
        )
        is_over = threading.Event()
        watch = threading.Thread(target=self._watch, args=(is_over,))
        async with self._pools:
            self._begin = monotonic()
            watch.start()
            try:
                await play(story, self)
            finally:
                is_over.set()
                await asyncio.to_thread(watch.join)

    async def send(self, user: str, begin: float, end: float, *, use: float, pause: float) -> None:
        """Send requests of a user, one after the other."""
        await self.until(begin)
        while self.now() < end:
            headers = {"X-Forwarded-Email": user, "X-Forwarded-Access-Token": self.tokens[user]}
            asked = monotonic()
            try:
                async with self._pools.for_user(UserIdentity.from_headers(headers)).connection() as connection:
                    self.waits.append((self.now(), user, monotonic() - asked))
                    await connection.execute("select pg_sleep(%s)", (use,))
            except psycopg.OperationalError:
                self.lost.append((self.now(), user))
            await asyncio.sleep(self._dice.uniform(0, 2 * pause))  # sleeps: users pause between requests

    def _watch(self, is_over: threading.Event) -> None:
        while not is_over.wait(LOOK):
            stats = self.lake.stats()
            self.counts.append((self.now(), [stats.user(user).open for user in self.users]))

    # What the pools did.

    def on_created(self, event: PoolEvent) -> None:
        self.events.append((self.now(), "created", _user(event)))

    def on_create_failed(self, event: PoolEvent) -> None:
        self.events.append((self.now(), "login failed", _user(event)))

    def on_destroyed(self, event: PoolEvent) -> None:
        self.events.append((self.now(), f"closed: {event.reason}", _user(event)))

    def on_timeout(self, event: PoolEvent) -> None:
        self.events.append((self.now(), "borrower timed out", _user(event)))


def _user(event: PoolEvent) -> str:
    key = event.key
    return str(key[0] if isinstance(key, tuple) else key)
