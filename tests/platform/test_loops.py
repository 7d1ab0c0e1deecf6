"""An asyncio pool and its loop."""

from __future__ import annotations

import asyncio

import pytest

from pooling import AsyncPoolingService, PoolFactory, PoolingError


class Thing:
    def __init__(self):
        self.loop = asyncio.get_running_loop()


async def make():
    return Thing()


def pool_of(**options):
    return AsyncPoolingService(PoolFactory.of(make), **options)


async def use(pool):
    async with pool.lease() as thing:
        assert thing.loop is asyncio.get_running_loop()
        return thing


def test_a_pool_that_was_to_fill_up_before_its_loop_ran_does_so_in_it():
    pool = pool_of(min_size=1, timeout=10.0)
    pool.suspend()
    pool.resume()

    async def main():
        await use(pool)
        await pool.stop()

    asyncio.run(main())


def test_a_pool_built_before_its_loop_works_in_it():
    pool = pool_of(min_size=1)

    async def main():
        async with pool:
            await use(pool)

    asyncio.run(main())


def test_after_a_stop_a_pool_works_in_a_second_run():
    pool = pool_of(min_size=1, max_idle=0.5)
    seen = []

    async def main():
        async with pool:
            seen.append(await use(pool))

    for _ in range(3):
        asyncio.run(main())
    assert len(set(map(id, seen))) == 3


def test_a_second_run_without_a_stop_says_what_to_do():
    pool = pool_of(name="orders")
    asyncio.run(use(pool))
    for attempt in (use, AsyncPoolingService.start, AsyncPoolingService.stop, AsyncPoolingService.acquire_nowait):

        async def main(attempt=attempt):
            await attempt(pool)

        with pytest.raises(PoolingError) as caught:
            asyncio.run(main())
        for text in (
            "pool 'orders'",
            "has been closed",
            "Stop the pool before its loop ends",
            "one pool for each loop",
        ):
            assert text in str(caught.value)


def test_use_from_another_loop_that_runs_at_the_same_time_says_so():
    pool = pool_of(name="orders")

    async def main():
        await use(pool)
        with pytest.raises(PoolingError) as caught:
            await asyncio.to_thread(asyncio.run, use(pool))
        assert "is not the running one" in str(caught.value)
        await use(pool)
        await pool.stop()

    asyncio.run(main())


def test_giving_back_in_another_loop_says_so_also_where_that_takes_no_waiting():
    pool = pool_of(name="orders")

    async def main():
        value = await pool.acquire()
        with pytest.raises(PoolingError) as caught:
            await asyncio.to_thread(asyncio.run, pool.release(value))
        assert "has 1 resource of the event loop it was first used in, and that loop is not the running one" in str(
            caught.value
        )
        assert pool.is_borrowed(value)
        await pool.release(value)
        await pool.stop()

    asyncio.run(main())


def test_a_pool_with_nothing_in_it_may_change_its_loop():
    pool = pool_of(max_size=1)

    async def main():
        thing = await pool.acquire()
        await pool.destroy(thing)

    asyncio.run(main())
    asyncio.run(main())


def test_timers_of_a_loop_that_ended_are_set_anew_in_the_next():
    pool = pool_of(max_idle=0.01)

    async def main():
        await use(pool)
        for _ in range(10_000):
            if pool.size == 0:
                return
            await asyncio.sleep(0.001)  # sleeps: between two looks
        raise AssertionError("the pool did not look for idle resources")

    asyncio.run(main())
    asyncio.run(main())


def test_pools_of_two_loops_in_two_threads_do_not_know_of_each_other():
    async def main():
        async with pool_of(min_size=1, max_size=2) as pool:
            for _ in range(100):
                await asyncio.gather(*(use(pool) for _ in range(5)))

    async def both():
        await asyncio.gather(asyncio.to_thread(asyncio.run, main()), main())

    asyncio.run(both())
