"""A continuous load of requests: in threads, and on an event loop."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Coroutine
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from lakebase import (
    AsyncLakebasePoolManager,
    AsyncRoutingPool,
    LakebasePoolManager,
    RoutingPool,
    create_async_lakebase_pool,
    create_lakebase_pool,
)
from pooling import RequestContext

from .record import Record, Request

if TYPE_CHECKING:
    from .setup import Setup

# Holds the connection in mid-query for a moment, for kills to find.
SLOW = "select pg_sleep(0.05)"
SEE = "select owner, current_user::text, count(*) from notes group by owner"
# Again is the same: a request whose answer got lost with its connection may have been committed.
WRITE = "insert into journal (request) values (%s) on conflict do nothing"


class Load:
    """
    What both sides share: the requests of each worker, drawn from a seed.

    Args:
        setup: Users and settings.
        record: Records the outcome of requests.
        workers: Requests at once.
        budget: Connections for all of them together.
    """

    side: str
    resolve: Any
    """Gets a request's identity, returns the pool; tests replace it to make it fail."""

    def __init__(self, setup: Setup, *, workers: int, budget: int) -> None:
        self.setup = setup
        self.budget = budget
        self.names = [f"{self.side}-{number}" for number in range(workers)]
        self.record: Record
        self.is_over = False

    def requests(self, worker: str) -> Any:
        """Requests, one after the other, until the load is over."""
        setup = self.setup
        dice = random.Random(f"{setup.seed}/{worker}")
        number = 0
        while not self.is_over:
            number += 1
            draw = dice.random()
            names = [setup.app] if draw < 0.08 else setup.pooled if setup.pooled and draw < 0.2 else setup.users
            yield Request(self.record, worker, number, dice.choice(names), is_slow=dice.random() < 0.25)

    def context(self, request: Request) -> Any:
        """A user's request, with the identity; the app does its own work outside of requests."""
        identity = self.setup.identity(request.user)
        return nullcontext() if identity is None else RequestContext("request", identity=identity)


class ThreadLoad(Load):
    """Workers in threads, on a `LakebasePoolManager`."""

    side = "thread"

    def start(self, record: Record) -> None:
        self.record = record
        self.manager = LakebasePoolManager(self.setup.base, max_total=self.budget, name="proof-threads")
        self.app_pool = create_lakebase_pool(
            self.setup.app_config, min_size=0, max_size=2, budget=self.manager.budget, name="proof-threads"
        )
        self.resolve = self.manager.for_user
        self.routing = RoutingPool(self.app_pool, lambda identity: self.resolve(identity))
        self._threads = [
            threading.Thread(target=self._work, args=(name,), name=name, daemon=True) for name in self.names
        ]
        for thread in self._threads:
            thread.start()

    def _work(self, name: str) -> None:
        try:
            for request in self.requests(name):
                self.serve(request)
        except Exception as error:  # the proof itself is wrong
            self.record.violate(f"{name} ended with {error!r}")

    def serve(self, request: Request) -> None:
        """Have a request answered, however often that takes."""
        while True:
            request.asks()
            try:
                with self.context(request), self._pool(request).connection() as connection:
                    request.got()
                    if request.is_slow:
                        connection.execute(SLOW)
                    request.saw(connection.execute(SEE).fetchall())
                    connection.execute(WRITE, (request.id,))
            except Exception as error:
                if not request.failed(error):
                    return
            else:
                request.served()
                return

    def _pool(self, request: Request) -> Any:
        own = self.setup.pooled_config(request.user)
        return self.routing if own is None else self.manager.get_pool(request.user, own)

    def close_user(self, user: str) -> None:
        self.manager.close_pool(user)

    def join(self) -> None:
        """Have every worker end its request; one that does not hangs."""
        self.is_over = True
        for thread in self._threads:
            thread.join(self.record.patience)
            if thread.is_alive():
                self.record.violate(f"hangs: {thread.name} at the end")

    def close(self, timeout: float) -> None:
        """Close all pools; borrowed connections have `timeout` seconds to come back."""
        self.app_pool.close(timeout)
        self.manager.close_all(timeout)


class LoopLoad(Load):
    """Workers in tasks of a loop in its own thread, on an `AsyncLakebasePoolManager`."""

    side = "task"

    def start(self, record: Record) -> None:
        self.record = record
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proof-loop", daemon=True)
        self._thread.start()
        self._run(self._start())

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(2 * self.record.patience)

    async def _start(self) -> None:
        self.manager = AsyncLakebasePoolManager(self.setup.base, max_total=self.budget, name="proof-tasks")
        self.app_pool = create_async_lakebase_pool(
            self.setup.app_config, min_size=0, max_size=2, budget=self.manager.budget, name="proof-tasks"
        )
        self.resolve = self.manager.for_user
        self.routing = AsyncRoutingPool(self.app_pool, lambda identity: self.resolve(identity))
        self._tasks = [asyncio.create_task(self._work(name), name=name) for name in self.names]

    async def _work(self, name: str) -> None:
        try:
            for request in self.requests(name):
                await self.serve(request)
        except Exception as error:
            self.record.violate(f"{name} ended with {error!r}")

    async def serve(self, request: Request) -> None:
        """As `ThreadLoad.serve`."""
        while True:
            request.asks()
            try:
                async with self.context(request), self._pool(request).connection() as connection:
                    request.got()
                    if request.is_slow:
                        await connection.execute(SLOW)
                    request.saw(await (await connection.execute(SEE)).fetchall())
                    await connection.execute(WRITE, (request.id,))
            except Exception as error:
                if not request.failed(error):
                    return
            else:
                request.served()
                return

    def _pool(self, request: Request) -> Any:
        own = self.setup.pooled_config(request.user)
        return self.routing if own is None else self.manager.get_pool(request.user, own)

    def close_user(self, user: str) -> None:
        self._run(self.manager.close_pool(user))

    def join(self) -> None:
        self.is_over = True
        self._run(self._join())

    async def _join(self) -> None:
        _, late = await asyncio.wait(self._tasks, timeout=self.record.patience)
        for task in late:
            self.record.violate(f"hangs: {task.get_name()} at the end")
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def close(self, timeout: float) -> None:
        """As `ThreadLoad.close`, with the loop."""
        self._run(self._close(timeout))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self, timeout: float) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.app_pool.close(timeout)
        await self.manager.close_all(timeout)
