"""
The rows of the benchmarks of a budget and of a shared limit, simulated: without running anything.

`python -m tests.benchmarks.simulated` prints what the rules do in each; `--check-reality` also runs each row for real,
feeds the times that were measured into the simulation, and fails where the two differ by more than a fifth.
`--only budget` or `--only shared` does one of the two.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import sys
import time
from dataclasses import dataclass
from statistics import fmean

from pooling import AsyncKeyedPoolingService, Histogram, PoolFactory
from pooling.simulation import SimulationResult, Workload, simulate

from . import simulated_shared

CREATE_TIME, USE_TIME, WORKERS, MAX_SIZE, REQUESTS = 0.05, 0.005, 40, 3, 4000
MOST_APART = 0.2  # of the real number
RUNS, SIMULATIONS = 2, 6  # logins differ from one to the next: of each row so many


@dataclass(frozen=True)
class Row:
    """Users, the limit of all their pools, and the exponent of their skew."""

    users: int
    max_total: float
    skew: float = 0.0

    def __str__(self) -> str:
        return f"{self.users} users, max_total={self.max_total:g}{', Zipf' if self.skew else ''}"


ROWS = [Row(20, math.inf), Row(20, 50), Row(20, 40), Row(20, 30), Row(100, 80), Row(100, 80, 1.0), Row(1000, 100)]


@dataclass(frozen=True)
class Measured:
    """What a real run gave."""

    created: int
    throughput: float
    create_time: Histogram
    use_time: Histogram


def simulated(
    row: Row, create_time: float | Histogram = CREATE_TIME, use_time: float | Histogram = USE_TIME, seed: int = 1
) -> SimulationResult:
    """The row under a virtual clock."""
    workload = Workload(
        users=row.users, workers=WORKERS, requests=REQUESTS, skew=row.skew, create_time=create_time, use_time=use_time
    )
    return simulate(workload, max_total=row.max_total, max_size=MAX_SIZE, timeout=60.0, seed=seed)


async def measured(row: Row, seed: int) -> Measured:
    """The row for real, on the asyncio service."""
    create_time, use_time = Histogram(), Histogram()

    async def create() -> object:
        began = time.perf_counter()
        await asyncio.sleep(CREATE_TIME)  # sleeps: stands for a login
        create_time.record(time.perf_counter() - began)
        return object()

    weights = [(number + 1) ** -row.skew for number in range(row.users)]
    users = iter(random.Random(seed).choices(range(row.users), weights, k=REQUESTS))
    max_total = None if row.max_total == math.inf else int(row.max_total)
    async with AsyncKeyedPoolingService(
        lambda user: PoolFactory.of(create), max_total=max_total, max_size=MAX_SIZE, timeout=60.0
    ) as pools:

        async def work() -> None:
            for user in users:
                async with pools.lease(user):
                    began = time.perf_counter()
                    await asyncio.sleep(USE_TIME)  # sleeps: stands for a query
                use_time.record(time.perf_counter() - began)

        began = time.perf_counter()
        await asyncio.gather(*[work() for _ in range(WORKERS)])
        seconds = time.perf_counter() - began
        return Measured(pools.stats().created, REQUESTS / seconds, create_time, use_time)


def show(row: Row, result: SimulationResult, free: float) -> None:
    print(
        f"{row!s:32} {result.created:5} logins  {result.throughput:6.0f}/s, {result.throughput / free:.2f} of unlimited"
        f"  wait p99 {result.wait(0.99) * 1e3:4.0f} ms, longest {result.wait(1) * 1e3:4.0f} ms"
    )


def apart(simulated: float, real: float) -> float:
    """By what share of the real number the simulated one differs."""
    return abs(simulated - real) / real


def compare(row: Row) -> bool:
    """Run a row for real and simulate it with the measured times, each more than once; whether the means agree."""
    real = [asyncio.run(measured(row, seed)) for seed in range(RUNS)]
    results = [
        simulated(row, real[seed % RUNS].create_time, real[seed % RUNS].use_time, seed) for seed in range(SIMULATIONS)
    ]
    logins, real_logins = fmean(one.created for one in results), fmean(one.created for one in real)
    rate, real_rate = fmean(one.throughput for one in results), fmean(one.throughput for one in real)
    differences = apart(logins, real_logins), apart(rate, real_rate)
    agrees = max(differences) <= MOST_APART
    print(
        f"{row!s:32} logins {logins:5.0f} for {real_logins:5.0f} ({differences[0]:4.0%})  requests/s "
        f"{rate:6.0f} for {real_rate:6.0f} ({differences[1]:4.0%}){'' if agrees else '  TOO FAR'}"
    )
    return agrees


def show_all() -> None:
    free = 0.0
    for row in ROWS:
        result = simulated(row)
        free = free or result.throughput
        show(row, result, free)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.simulated", description=__doc__)
    parser.add_argument("--check-reality", action="store_true", help="run each row for real, too, and compare")
    parser.add_argument("--only", choices=["budget", "shared"], help="the rows of one benchmark")
    given = parser.parse_args()
    has_budget, has_shared = given.only != "shared", given.only != "budget"
    if not given.check_reality:
        if has_budget:
            show_all()
        if has_shared:
            simulated_shared.show_all()
        return 0
    print("simulated for real:")
    agree = [compare(row) for row in ROWS] if has_budget else []
    if has_shared:
        agree += simulated_shared.compare_all(MOST_APART)
    return 0 if all(agree) else 1


if __name__ == "__main__":
    sys.exit(main())
