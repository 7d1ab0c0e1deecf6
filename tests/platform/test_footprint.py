"""What pools cost while nobody uses them: memory, threads, tasks, time."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import tracemalloc

import pytest

from pooling import AsyncPoolingService, PoolingService
from tests.platform.programs import run

MOST = 4096  # bytes for a pool
FIRST = 2048  # bytes for its first resource: the slot, and the books that were empty until then


@pytest.mark.parametrize("kind", [PoolingService, AsyncPoolingService])
def test_an_idle_pool_takes_at_most_4_kib(kind):
    count = 200
    kind(object)  # what is made once, and not for each pool
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        pools = [kind(object, max_size=4, name=f"pool of tenant {number}") for number in range(count)]
        gc.collect()
        each = (tracemalloc.get_traced_memory()[0] - before) / count
    finally:
        tracemalloc.stop()
    assert len(pools) == count
    assert each <= MOST


def test_the_first_idle_resource_of_a_pool_takes_at_most_2_kib_more():
    count = 200
    tracemalloc.start()
    try:
        pools = []
        before = None
        for number in range(-20, count):
            if number == 0:
                gc.collect()
                before = tracemalloc.get_traced_memory()[0]
            pool = PoolingService(object, max_size=4, name=f"pool of tenant {number}")
            pool.release(pool.acquire())
            pools.append(pool)
        gc.collect()
        each = (tracemalloc.get_traced_memory()[0] - before) / count
    finally:
        tracemalloc.stop()
    for pool in pools:
        pool.stop()
    assert each <= MOST + FIRST


def test_the_first_idle_resource_of_an_async_pool_takes_at_most_2_kib_more_and_no_task():
    count = 200

    async def main():
        pools = []
        tracemalloc.start()
        try:
            for number in range(-20, count):
                if number == 0:
                    gc.collect()
                    before = tracemalloc.get_traced_memory()[0]
                pool = AsyncPoolingService(object, max_size=4, name=f"pool of tenant {number}")
                await pool.release(await pool.acquire())
                pools.append(pool)
            await asyncio.sleep(0)
            gc.collect()
            each = (tracemalloc.get_traced_memory()[0] - before) / count
        finally:
            tracemalloc.stop()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        for pool in pools:
            await pool.stop()
        return each

    assert asyncio.run(main()) <= MOST + FIRST


def pooling_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("pooling-")]


def test_a_thousand_idle_pools_share_a_few_threads_and_their_workers_end():
    pools = [PoolingService(object, max_size=2) for _ in range(1000)]
    for pool in pools:
        pool.release(pool.acquire())
    assert all(pool.available == 1 for pool in pools)
    assert len(pooling_threads()) < 20
    ends = time.monotonic() + 60
    while [thread for thread in pooling_threads() if "worker" in thread.name]:
        assert time.monotonic() < ends, "workers without work end"
        time.sleep(0.05)  # sleeps: between two looks
    assert len(pooling_threads()) <= 1, "one timer for all"
    for pool in pools:
        pool.stop()


def test_pools_that_are_not_used_start_no_thread():
    outcome = run("""
import threading, pooling
pools = [pooling.PoolingService(object, max_size=2) for _ in range(1000)]
assert threading.active_count() == 1, threading.enumerate()
""")
    assert (outcome.status, outcome.err) == (0, "")


def test_an_idle_pool_uses_no_processor_time():
    outcome = run("""
import time, pooling
pools = [pooling.PoolingService(object, min_size=1) for _ in range(100)]
for pool in pools:
    pool.start()
used = time.process_time()
time.sleep(1.0)
assert time.process_time() - used < 0.2, time.process_time() - used
""")
    assert (outcome.status, outcome.err) == (0, "")
