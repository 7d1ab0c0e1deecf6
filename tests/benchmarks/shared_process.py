"""One of the workers of `shared.py`: reads its settings and the instant to begin at, and prints what it did."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from pooling import AsyncPoolingService, PoolBudget, SharedBudget
from pooling.leases import FileLeases, RedisLeases

CREATE, USE = 0.05, 0.02  # seconds: a login, and a query
BUSY, QUIET = 34, 2  # uses at a time of the worker whose turn it is, and of each other one
TURN = 3.0  # seconds until another worker is the busy one
WORKERS, LIMIT = 4, 20


def make_budget(settings: dict[str, Any]) -> PoolBudget:
    if "files" in settings:
        return SharedBudget(LIMIT, FileLeases(settings["files"]))
    if "redis" in settings:
        return SharedBudget(LIMIT, RedisLeases(settings["redis"]), name=settings["name"], lease_ttl=10.0)
    return PoolBudget(LIMIT // WORKERS)


async def create() -> object:
    await asyncio.sleep(CREATE)
    return object()


async def work(settings: dict[str, Any], budget: PoolBudget, began: float) -> dict[str, float]:
    """All uses of this worker until the end."""
    ends = began + settings["seconds"]
    uses, longest = 0, 0.0

    async def use(number: int) -> None:
        nonlocal uses, longest
        while (now := time.time()) < ends:
            turn = (now - began) // TURN
            if number >= QUIET and turn % WORKERS != settings["number"]:
                await asyncio.sleep(min(began + (turn + 1) * TURN, ends) - now)
                continue
            asked = time.perf_counter()
            async with pool.lease():
                longest = max(longest, time.perf_counter() - asked)
                await asyncio.sleep(USE)
            uses += 1

    async with AsyncPoolingService(create, max_size=LIMIT, timeout=60.0, budget=budget) as pool:
        await asyncio.sleep(began - time.time())
        async with asyncio.TaskGroup() as group:
            for number in range(BUSY):
                group.create_task(use(number))
        claims = budget.claims if isinstance(budget, SharedBudget) else 0
    return {"uses": uses, "longest": longest, "claims": claims}


def main() -> None:
    """The process."""
    settings = json.loads(sys.stdin.readline())
    budget = make_budget(settings)
    print("ready", flush=True)
    began = float(sys.stdin.readline())
    print(json.dumps(asyncio.run(work(settings, budget, began))), flush=True)


if __name__ == "__main__":
    main()
