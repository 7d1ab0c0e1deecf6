"""A spent budget under load: what it costs in creates, in throughput and in waiting."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pooling import AsyncKeyedPoolingService, PoolFactory

from .measure import Figures, Metric, Race, Racer, Scale, Target

CREATE, USE = 0.05, 0.005  # seconds: a login, and a query
AT_A_TIME, PER_USER, USES = 40, 3, 4000

RATE = Metric("rate", "uses per second", "", more_is_better=True)
LOGINS = Metric("logins", "logins", "")
AGAINST_GOAL = Metric("against_goal", "logins ÷ goal", "")
LONGEST = Metric("longest", "longest wait ÷ (create + use)", "")


@dataclass(frozen=True)
class Load:
    """
    One row of the table.

    Args:
        users: Among whom the uses are drawn.
        max_total: Resources at most, of all users together; `None` is no limit.
        goal: Logins to come close to.
        share: The part of the throughput without a limit that is to be kept.
        longest: The longest wait to allow, in lives of a resource that serves one use: create and use.
        is_skewed: Whether the n-th user asks 1/n as often as the first.
    """

    users: int
    max_total: int | None
    goal: int | None = None
    share: float | None = None
    longest: float | None = 3.0
    is_skewed: bool = False

    @property
    def name(self) -> str:
        limit = "no limit" if self.max_total is None else f"max_total={self.max_total}"
        return f"{self.users:,} users, {limit}{', skewed' if self.is_skewed else ''}"

    def draw(self, uses: int) -> list[int]:
        """The user of each use: the same in every run."""
        weights = [1 / (user + 1) for user in range(self.users)] if self.is_skewed else None
        return random.Random(1).choices(range(self.users), weights, k=uses)

    def targets(self) -> Iterator[Target]:
        if self.goal is not None:
            yield Target(AGAINST_GOAL.key, self.name, 1.3)
        if self.share is not None:
            yield Target(RATE.key, self.name, self.share, UNLIMITED.name)
        if self.longest is not None:
            yield Target(LONGEST.key, self.name, self.longest)


UNLIMITED = Load(20, None)
LOADS = (
    UNLIMITED,
    Load(20, 50, goal=57, share=0.85),
    Load(20, 40, goal=61, share=0.6),
    Load(20, 30, goal=67, share=0.55),
    Load(100, 80, goal=998),
    Load(100, 80, goal=600, is_skewed=True),
    Load(1000, 100, goal=3614, longest=None),
)


class Creates:
    """Makes resources as slowly as a login is, and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def factory(self, key: int) -> PoolFactory[object]:
        return PoolFactory.of(self.create)

    async def create(self) -> object:
        self.count += 1
        await asyncio.sleep(CREATE)
        return object()


async def serve(load: Load, uses: int) -> Figures:
    """All uses, a few at a time, each by the next task that is free."""
    creates = Creates()
    users = iter(load.draw(uses))
    longest = 0.0

    async def work() -> None:
        nonlocal longest
        for user in users:
            asked = time.perf_counter()
            async with pool.lease(user):
                longest = max(longest, time.perf_counter() - asked)
                await asyncio.sleep(USE)

    async with AsyncKeyedPoolingService(
        creates.factory, max_total=load.max_total, max_size=PER_USER, timeout=60.0
    ) as pool:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_A_TIME):
                group.create_task(work())
        seconds = time.perf_counter() - began
    figures = {RATE.key: uses / seconds, LOGINS.key: creates.count, LONGEST.key: longest / (CREATE + USE)}
    if load.goal is not None:
        figures[AGAINST_GOAL.key] = creates.count / load.goal
    return figures


def serving(runner: asyncio.Runner, load: Load) -> Callable[[int], Figures]:
    """A racer's `run`."""
    return lambda uses: runner.run(serve(load, uses))


@contextmanager
def budget(scale: Scale) -> Iterator[Race]:
    """Loads that are larger than the budget."""
    with asyncio.Runner() as runner:
        yield Race(
            "budget",
            f"{AT_A_TIME} uses at a time under one budget",
            f"An AsyncKeyedPoolingService with at most {PER_USER} resources per user; {USES:,} uses of "
            f"{USE * 1e3:g} ms by users drawn at random. A create takes {CREATE * 1e3:g} ms and stands for a login.",
            [Racer(load.name, serving(runner, load), is_ours=True) for load in LOADS],
            metrics=(RATE, LOGINS, AGAINST_GOAL, LONGEST),
            reference=UNLIMITED.name,
            drawn=AGAINST_GOAL.key,
            in_order=True,
            repetitions=scale.pick(USES, USES, 2 * AT_A_TIME),
            rounds=scale.pick(3, 1, 1),
            targets=[target for load in LOADS for target in load.targets()],
        )
