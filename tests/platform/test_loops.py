"""An asyncio pool and its loop."""

from __future__ import annotations

import asyncio

import pytest

from pooling import AsyncKeyedPoolingService, AsyncPoolingService, PoolFactory, PoolingError, di


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


@pytest.mark.parametrize("how", ["use", "start", "stop", "acquire_nowait", "check"])
def test_after_its_loop_was_closed_a_pool_forgets_its_resources_and_goes_on(how, caplog):
    pool = pool_of(name="orders", max_size=2)
    kept = []

    async def first():
        kept.append(await pool.acquire())
        await use(pool)

    async def second():
        if how == "use":
            await use(pool)
        else:
            await getattr(pool, how)()
        async with pool:
            things = [await pool.acquire() for _ in range(2)]
            assert kept[0] not in things
            with pytest.raises(PoolingError, match="is not out"):
                await pool.release(kept[0])
            for thing in things:
                await pool.release(thing)
        assert pool.size == 0

    asyncio.run(first())
    assert pool.size == 2
    asyncio.run(second() if how != "acquire_nowait" else third(pool))
    (warning,) = caplog.records
    for text in (
        "pool 'orders' has 2 resources",
        "has been closed: they are forgotten",
        "Stop the pool before its loop",
    ):
        assert text in warning.message
    assert pool.stats().destroyed_by["forgotten"] == 2


async def third(pool):
    value = await pool.acquire_nowait()
    await pool.release(value)
    await pool.stop()


def test_a_pool_whose_loop_was_closed_keeps_min_size_in_the_next():
    pool = pool_of(min_size=2, max_size=2)

    async def main(stops):
        await pool.start()
        assert pool.available == 2
        await use(pool)
        if stops:
            await pool.stop()

    for stops in (False, False, True):
        asyncio.run(main(stops))
    assert pool.size == 0


def test_borrowers_that_waited_in_a_closed_loop_are_forgotten():
    pool = pool_of(max_size=1)
    loop = asyncio.new_event_loop()

    async def waiting():
        await pool.acquire()
        task = asyncio.ensure_future(pool.acquire())
        while not pool.pending:
            await asyncio.sleep(0)
        return task

    task = loop.run_until_complete(waiting())
    loop.close()  # as after a crash: nothing was cancelled
    asyncio.run(third(pool))
    assert (pool.pending, pool.size) == (0, 0)
    task.get_coro().close()
    assert (pool.pending, pool.size) == (0, 0)


def test_a_budget_gets_back_the_places_of_a_closed_loop():
    keyed = AsyncKeyedPoolingService(lambda key: PoolFactory.of(make), max_size=2, max_total=2)

    async def main(keys):
        for key in keys:
            async with keyed.lease(key) as thing:
                assert thing.loop is asyncio.get_running_loop()

    for keys in ("ab", "ab", "cd", "ba"):
        asyncio.run(main(keys))
    asyncio.run(keyed.stop())
    assert keyed.budget.used == 0


def test_a_container_whose_loop_was_closed_is_stopped_and_started_in_the_next():
    class App(di.Container):
        things = di.AsyncPool(PoolFactory.of(make), min_size=1)
        thing = di.Pooled(things)

    app = App()

    async def serve():
        await app.astart()
        async with app.request():
            assert (await app.thing.aget()).loop is asyncio.get_running_loop()

    async def end():
        await app.astop()
        assert not app.is_running

    for run in (serve, serve, end, serve, end):
        asyncio.run(run())
    assert app.things().size == 0


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
