"""One of the workers of `shared.py`: reads its settings and the instant to begin at, and prints what it did."""

from __future__ import annotations

import asyncio
import json
import pickle
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from pooling import AsyncPoolingService, Histogram, PoolBudget, SharedBudget
from pooling.leases import FileLeases, RedisLeases

CREATE, USE = 0.05, 0.02  # seconds: a login, and a query
BUSY, QUIET = 34, 2  # uses at a time of the worker whose turn it is, and of each other one
TURN = 3.0  # seconds until another worker is the busy one
WORKERS, LIMIT = 4, 20
REDIS_TTL = 10.0  # seconds


def make_budget(settings: dict[str, Any]) -> PoolBudget:
    if "files" in settings:
        return SharedBudget(LIMIT, FileLeases(settings["files"]))
    if "redis" in settings:
        return SharedBudget(LIMIT, RedisLeases(settings["redis"]), name=settings["name"], lease_ttl=REDIS_TTL)
    return PoolBudget(LIMIT // WORKERS)


@dataclass
class Done:
    """What a worker did, and how long each part took."""

    uses: int = 0
    longest: float = 0.0  # wait, in seconds
    claims: int = 0
    use_time: Histogram = field(default_factory=Histogram)
    create_time: Histogram = field(default_factory=Histogram)
    claim_time: Histogram = field(default_factory=Histogram)


async def work(settings: dict[str, Any], budget: PoolBudget, began: float) -> Done:
    """All uses of this worker until the end."""
    ends = began + settings["seconds"]
    done = Done()

    async def create() -> object:
        begun = time.perf_counter()
        await asyncio.sleep(CREATE)
        done.create_time.record(time.perf_counter() - begun)
        return object()

    async def use(number: int) -> None:
        while (now := time.time()) < ends:
            turn = (now - began) // TURN
            if number >= QUIET and turn % WORKERS != settings["number"]:
                await asyncio.sleep(min(began + (turn + 1) * TURN, ends) - now)
                continue
            asked = time.perf_counter()
            async with pool.lease():
                got = time.perf_counter()
                done.longest = max(done.longest, got - asked)
                await asyncio.sleep(USE)
            done.use_time.record(time.perf_counter() - got)
            done.uses += 1

    async with AsyncPoolingService(create, max_size=LIMIT, timeout=60.0, budget=budget) as pool:
        await asyncio.sleep(began - time.time())
        async with asyncio.TaskGroup() as group:
            for number in range(BUSY):
                group.create_task(use(number))
        if isinstance(budget, SharedBudget):
            done.claims, done.claim_time = budget.claims, budget.claim_time
    return done


def main() -> None:
    """All that the process does."""
    settings = json.loads(sys.stdin.readline())
    budget = make_budget(settings)
    print("ready", flush=True)
    began = float(sys.stdin.readline())
    print(pickle.dumps(asyncio.run(work(settings, budget, began))).hex(), flush=True)
