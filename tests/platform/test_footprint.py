"""What idle pools cost: memory, threads, tasks, time."""

from __future__ import annotations

import threading
import time

import pytest

from pooling import PoolingService
from tests.platform.programs import heap_of, run

MOST = 4096  # bytes for a pool
FIRST = 2048  # bytes for its first resource: the slot, and the containers that were empty until then


@pytest.mark.parametrize("kind", ["PoolingService", "AsyncPoolingService"])
def test_an_idle_pool_takes_at_most_4_kib(kind):
    each = heap_of(f"""
        from pooling import {kind} as kind

        kind(object)  # what is made once, and not for each pool
        before = traced()
        pools = [kind(object, max_size=4, name=f"pool of tenant {{number}}") for number in range(200)]
        print((traced() - before) / len(pools))
    """)
    assert 512 < each <= MOST


def test_the_first_idle_resource_of_a_pool_takes_at_most_2_kib_more():
    each = heap_of("""
        from pooling import PoolingService

        pools = []
        for number in range(220):
            if number == 20:
                before = traced()
            pool = PoolingService(object, max_size=4, name=f"pool of tenant {number}")
            pool.release(pool.acquire())
            pools.append(pool)
        print((traced() - before) / 200)
    """)
    assert 512 < each <= MOST + FIRST


def test_the_first_idle_resource_of_an_async_pool_takes_at_most_2_kib_more_and_no_task():
    each = heap_of("""
        import asyncio
        from pooling import AsyncPoolingService

        async def main():
            pools = []
            for number in range(220):
                if number == 20:
                    before = traced()
                pool = AsyncPoolingService(object, max_size=4, name=f"pool of tenant {number}")
                await pool.release(await pool.acquire())
                pools.append(pool)
            await asyncio.sleep(0)
            print((traced() - before) / 200)
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(main())
    """)
    assert 512 < each <= MOST + FIRST


def pooling_threads():
    """Workers and timers that exist: `enumerate` may go on listing one whose start was interrupted."""
    names = ("pooling-worker-", "pooling-timer")
    return [thread for thread in threading.enumerate() if thread.name.startswith(names) and thread.is_alive()]


def test_a_thousand_idle_pools_share_a_few_threads_and_their_workers_end():
    pools = [PoolingService(object, max_size=2) for _ in range(1000)]
    for pool in pools:
        pool.release(pool.acquire())
    assert all(pool.available == 1 for pool in pools)
    assert len(pooling_threads()) < 20
    ends = time.monotonic() + 60
    while len(pooling_threads()) > 1:  # a timer without alarms may be ending just as the next begins
        assert time.monotonic() < ends, "workers without work end, and there is one timer for all"
        time.sleep(0.05)  # sleeps: between two looks
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
