"""The end of a request races with takes in it: in every order, nothing stays out."""

from __future__ import annotations

import asyncio
import random
import sys
import threading

import pytest

from pooling import AsyncPoolingService, PoolFactory, PoolingService, RequestContext, RequestContextError, di
from tests.context.parts import Thing, settle


@pytest.fixture
def hasty_threads():
    """Threads take turns as often as the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_threads_that_ask_while_the_request_ends_leave_nothing_out(hasty_threads):
    class App(di.Container):
        things = di.Pool(Thing, max_size=4)
        thing = di.Pooled(things)

    app = App()
    with app.running():
        for _ in range(150):
            ctx, ready, results = app.request(), threading.Barrier(4), []

            def ask(ctx=ctx, ready=ready, results=results):
                with ctx.active():
                    ready.wait(20)
                    try:
                        results.append(app.thing())
                    except RequestContextError:
                        results.append(None)
                    try:
                        app.thing()
                    except RequestContextError:
                        results.append("ended")

            threads = [threading.Thread(target=ask) for _ in range(3)]
            for thread in threads:
                thread.start()
            ready.wait(20)
            ctx.close()
            for thread in threads:
                thread.join(20)
            things = {result for result in results if isinstance(result, Thing)}
            assert len(things) <= 1
            with ctx.active(), pytest.raises(RequestContextError):
                app.thing()
            assert app.things().borrowed == 0


@pytest.mark.parametrize("seed", range(25))
async def test_tasks_cancelled_and_requests_ended_in_any_order_leave_nothing_out(seed):
    chance = random.Random(seed)

    class Moody(PoolFactory):
        """Hooks that take a turn of the loop or not, and fail now and then."""

        async def create(self):
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            return Thing()

        async def acquire(self, value, request_ctx):
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            if chance.random() < 0.1:
                raise OSError("acquire hook")

        async def release(self, value, exc=None):
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)

    async with AsyncPoolingService(Moody(), max_size=2, timeout=20) as pool:
        asked: list[asyncio.Task] = []

        async def serve():
            async with RequestContext() as ctx:

                async def ask():
                    await asyncio.sleep(0)
                    return await ctx.aacquire(pool)

                asking = [asyncio.create_task(ask()) for _ in range(3)]
                asked.extend(asking)
                for _ in range(chance.randrange(8)):
                    await asyncio.sleep(0)
                if chance.random() < 0.5:
                    chance.choice(asking).cancel()
                if chance.random() < 0.5:
                    results = await asyncio.gather(*asking, return_exceptions=True)
                    assert len({result for result in results if isinstance(result, Thing)}) <= 1

        serving = [asyncio.create_task(serve()) for _ in range(8)]
        for task in serving:
            await settle(chance.randrange(4))
            if chance.random() < 0.3:
                task.cancel()
        results = await asyncio.gather(*serving, return_exceptions=True)
        assert all(result is None or isinstance(result, asyncio.CancelledError | OSError) for result in results), (
            results
        )
        for result in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(result, Thing | OSError | RequestContextError | asyncio.CancelledError), result
        await settle(40)
        assert pool.borrowed == 0
        assert pool.pending == 0


def test_threads_and_a_loop_asking_the_same_pool_for_one_request_leave_nothing_out(hasty_threads):
    async def main():
        with PoolingService(Thing, max_size=2) as pool:
            for _ in range(40):
                async with RequestContext() as ctx:
                    results = await asyncio.gather(
                        asyncio.to_thread(ctx.acquire, pool), ctx.aacquire(pool), asyncio.to_thread(ctx.acquire, pool)
                    )
                    assert len(set(results)) == 1
                assert pool.borrowed == 0

    asyncio.run(main())
