"""What idle pools take: memory, threads, tasks."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from pooling import AsyncPoolingService, PoolingService

from . import peers
from .measure import Figures, Metric, Race, Racer, Scale, Target
from .peers import OURS, OURS_ASYNC, PSYCOPG, PSYCOPG_ASYNC

EMPTY = Metric("empty", "idle pool", "KiB", 1 / 1024)
USED = Metric("used", "with one resource", "KiB", 1 / 1024)
RESOURCE = Metric("resource", "each further one", "bytes")
THREADS = Metric("threads", "threads of all", "")
TASKS = Metric("tasks", "tasks of all", "")


class Memory:
    """Bytes of Python's heap that are in use; thread stacks are not among them."""

    def __enter__(self) -> Self:
        tracemalloc.start()
        return self

    def __exit__(self, *_: object) -> None:
        tracemalloc.stop()

    def now(self) -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]


def ours(pools: int, patience: float) -> Callable[[int], Figures]:
    """A racer's `run` over that many pools for threads."""

    def run(_: int) -> Figures:
        warm(PoolingService(bytearray))
        with Memory() as memory:
            before = memory.now()
            all_of_them = [PoolingService(bytearray, max_size=50) for _ in range(pools)]
            for pool in all_of_them:
                pool.start()
            empty = (memory.now() - before) / pools
            for pool in all_of_them:
                pool.release(pool.acquire())
            used = (memory.now() - before) / pools
            in_use = threads_of_pools(patience)
            few = all_of_them[: max(pools // 50, 1)]
            before = memory.now()
            for pool in few:
                for value in [pool.acquire() for _ in range(21)]:
                    pool.release(value)
            further = (memory.now() - before) / len(few) / 20
            del value
        for pool in all_of_them:
            pool.stop()
        return {"empty": empty, "used": used, "resource": further, "threads": in_use, "tasks": 0}

    return run


def warm(pool: PoolingService[Any]) -> None:
    """Create the shared timer, the workers and all caches first, so that no racer is charged for them."""
    pool.release(pool.acquire())
    pool.stop()


def threads_of_pools(patience: float) -> int:
    """How many threads all our pools of the process keep; workers without work end after a while, and are given it."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if not any(thread.name.startswith("pooling-worker") for thread in threading.enumerate()):
            break
        time.sleep(0.1)
    return sum(thread.name.startswith("pooling-") for thread in threading.enumerate())


def ours_async(pools: int, runner: asyncio.Runner) -> Callable[[int], Figures]:
    async def measure() -> Figures:
        threads, tasks = set(threading.enumerate()), len(asyncio.all_tasks())
        with Memory() as memory:
            before = memory.now()
            all_of_them = [AsyncPoolingService(bytearray, max_size=50) for _ in range(pools)]
            for pool in all_of_them:
                await pool.start()
            empty = (memory.now() - before) / pools
            for pool in all_of_them:
                await pool.release(await pool.acquire())
            await asyncio.sleep(0)
            used = (memory.now() - before) / pools
            in_use, of_loop = len(set(threading.enumerate()) - threads), len(asyncio.all_tasks()) - tasks
            few = all_of_them[: max(pools // 50, 1)]
            before = memory.now()
            for pool in few:
                for value in [await pool.acquire() for _ in range(21)]:
                    await pool.release(value)
            await asyncio.sleep(0)
            further = (memory.now() - before) / len(few) / 20
            del value
        for pool in all_of_them:
            await pool.stop()
        return {"empty": empty, "used": used, "resource": further, "threads": in_use, "tasks": of_loop}

    return lambda _: runner.run(measure())


def psycopg(pools: int, of: int) -> Callable[[int], Figures]:
    """A racer's `run` over fewer of psycopg's pools, whose threads are counted up to `of`."""
    from psycopg_pool import ConnectionPool

    from .fakes import FakeConnection

    def run(_: int) -> Figures:
        threads = set(threading.enumerate())
        with Memory() as memory:
            before = memory.now()
            all_of_them: list[Any] = [
                ConnectionPool("", connection_class=FakeConnection, min_size=0, max_size=50, open=True)
                for _ in range(pools)
            ]
            empty = (memory.now() - before) / pools
            in_use = len(set(threading.enumerate()) - threads)
            for pool in all_of_them:
                pool.putconn(pool.getconn())
            used = (memory.now() - before) / pools
        for pool in all_of_them:
            pool.close()
        return {"empty": empty, "used": used, "threads": in_use * of / pools, "tasks": 0}

    return run


def psycopg_async(pools: int, of: int, runner: asyncio.Runner) -> Callable[[int], Figures]:
    from psycopg_pool import AsyncConnectionPool

    from .fakes import FakeAsyncConnection

    async def measure() -> Figures:
        tasks = len(asyncio.all_tasks())
        with Memory() as memory:
            before = memory.now()
            all_of_them: list[Any] = [
                AsyncConnectionPool("", connection_class=FakeAsyncConnection, min_size=0, max_size=50, open=False)
                for _ in range(pools)
            ]
            for pool in all_of_them:
                await pool.open()
            empty = (memory.now() - before) / pools
            in_use = len(asyncio.all_tasks()) - tasks
            for pool in all_of_them:
                await pool.putconn(await pool.getconn())
            used = (memory.now() - before) / pools
        for pool in all_of_them:
            await pool.close()
        return {"empty": empty, "used": used, "threads": 0, "tasks": in_use * of / pools}

    return lambda _: runner.run(measure())


@contextmanager
def footprint(scale: Scale) -> Iterator[Race]:
    """Many idle pools in one process."""
    pools = scale.pick(1000, 300, 20)
    fewer = scale.pick(50, 20, 2)
    with asyncio.Runner() as runner:
        racers = [
            Racer(OURS, ours(pools, scale.pick(5, 5, 0)), is_ours=True),
            Racer(OURS_ASYNC, ours_async(pools, runner), is_ours=True),
        ]
        missing = []
        if peers.is_installed("psycopg_pool"):
            racers += [
                Racer(PSYCOPG, psycopg(fewer, pools)),
                Racer(PSYCOPG_ASYNC, psycopg_async(fewer, pools, runner)),
            ]
        else:
            missing.append(f"{PSYCOPG}: not installed")
        yield Race(
            "footprint",
            f"{pools:,} idle pools",
            "Bytes of Python's heap by `tracemalloc`, without the stacks of threads and without the pooled objects' "
            f"own contents. The threads and tasks of psycopg's are those of {fewer} pools, times {pools // fewer}.",
            racers,
            metrics=(EMPTY, USED, RESOURCE, THREADS, TASKS),
            drawn=USED.key,
            repetitions=1,
            is_exact=True,
            targets=[
                Target("empty", OURS, 4096, unit="KiB"),
                Target("empty", OURS_ASYNC, 4096, unit="KiB"),
                Target("threads", OURS, 1, unit=f"threads for {pools:,} pools (the shared timer)"),
            ],
            missing=missing,
        )
