"""Pools whose hooks the test opens and closes."""

from __future__ import annotations

import asyncio
import threading
from typing import Self

from pooling import PoolFactory, RequestContext
from pooling._request.answer import agive_back, give_back


class Thing:
    """A resource; compared by identity."""


class Gated(PoolFactory):
    """Creates only while its gate is open, and keeps a record."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.asked = threading.Event()
        self.made: list[Thing] = []
        self.ends: list[tuple[Thing, BaseException | None]] = []

    def create(self) -> Thing:
        self.asked.set()
        assert self.gate.wait(20)
        self.made.append(Thing())
        return self.made[-1]

    def release(self, value: Thing, exc: BaseException | None = None) -> None:
        self.ends.append((value, exc))


class AsyncGated(PoolFactory):
    """The same for asyncio."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.asked = asyncio.Event()
        self.made: list[Thing] = []
        self.ends: list[tuple[Thing, BaseException | None]] = []

    async def create(self) -> Thing:
        self.asked.set()
        await self.gate.wait()
        self.made.append(Thing())
        return self.made[-1]

    async def release(self, value: Thing, exc: BaseException | None = None) -> None:
        self.ends.append((value, exc))


async def settle(turns: int = 20) -> None:
    """Let everything that can run in this loop do so."""
    for _ in range(turns):
        await asyncio.sleep(0)


class Calls:
    """A pool-like object that records what was taken and given back, in order."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    def acquire(self, request_ctx):
        self.log.append(f"take {self.name}")
        return Thing()

    def release(self, value, exc=None):
        self.log.append(f"give {self.name}")


class AsyncCalls(Calls):
    """The same for asyncio."""

    async def acquire(self, request_ctx):
        return super().acquire(request_ctx)

    async def release(self, value, exc=None):
        super().release(value, exc)


def in_threads(*functions):
    """Run each function in its own thread; returns what each returned or raised."""
    results: list = [None] * len(functions)

    def run(place, function):
        try:
            results[place] = function()
        except BaseException as error:
            results[place] = error

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(functions)]
    for thread in threads:
        thread.start()
    return threads, results


def join(threads) -> None:
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


class Request:
    """A request of either front end, its methods to be awaited (see tests/contract/harness.py)."""

    def __init__(self, side, *args, **values) -> None:
        self.is_async = side.name == "asyncio"
        self.ctx = args[0] if args and isinstance(args[0], RequestContext) else RequestContext(*args, **values)
        self.side = side

    async def acquire(self, pool, **options):
        pool = getattr(pool, "service", pool)
        return await self.ctx.aacquire(pool, **options) if self.is_async else self.ctx.acquire(pool, **options)

    async def close(self, exc=None) -> None:
        await self.ctx.aclose(exc) if self.is_async else self.ctx.close(exc)

    async def checkpoint(self) -> None:
        await self.ctx.acheckpoint() if self.is_async else self.ctx.checkpoint()

    async def give_back(self, at, default) -> None:
        await agive_back(self.ctx, at, default) if self.is_async else give_back(self.ctx, at, default)

    def child(self, **options) -> Request:
        return Request(self.side, self.ctx.child(**options))

    async def __aenter__(self) -> Self:
        await self.ctx.__aenter__() if self.is_async else self.ctx.__enter__()
        return self

    async def __aexit__(self, *error) -> None:
        await self.ctx.__aexit__(*error) if self.is_async else self.ctx.__exit__(*error)


def calls(side, name: str, log: list[str]) -> Calls:
    """A pool-like object of this front end that records its calls."""
    return (AsyncCalls if side.name == "asyncio" else Calls)(name, log)
