"""Requests with values of asyncio pools, and of pools for threads inside a loop."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest

from pooling import (
    AsyncPoolingService,
    PoolFactory,
    PoolingService,
    RequestContext,
    RequestContextError,
)
from tests.context.parts import AsyncCalls, AsyncGated, Calls, Gated, Thing, settle


async def test_a_first_waiter_cancelled_does_not_cancel_the_second():
    factory = AsyncGated()
    async with AsyncPoolingService(factory) as pool:
        async with RequestContext() as ctx:
            first = asyncio.create_task(ctx.aacquire(pool))
            second = asyncio.create_task(ctx.aacquire(pool))
            await factory.asked.wait()
            first.cancel()
            await asyncio.wait([first])
            assert first.cancelled()
            factory.gate.set()
            assert await second is factory.made[0]
        assert pool.borrowed == 0
        assert len(factory.made) == 1


async def test_a_first_waiter_cancelled_leaves_the_second_its_place_in_the_queue():
    async with AsyncPoolingService(Thing, max_size=1) as pool:
        value = await pool.acquire()
        async with RequestContext() as ctx:
            first = asyncio.create_task(ctx.aacquire(pool))
            second = asyncio.create_task(ctx.aacquire(pool))
            await settle()
            stranger = asyncio.create_task(pool.acquire())
            await settle()
            first.cancel()
            await settle()
            await pool.release(value)
            assert await second is value
            assert not stranger.done()
        assert await stranger is value
        await pool.release(value)


async def test_when_all_waiters_are_cancelled_the_attempt_ends_and_a_later_one_works():
    async with AsyncPoolingService(Thing, max_size=1) as pool:
        value = await pool.acquire()
        async with RequestContext() as ctx:
            tasks = [asyncio.create_task(ctx.aacquire(pool)) for _ in range(2)]
            await settle()
            assert pool.pending == 1
            for task in tasks:
                task.cancel()
            await settle()
            assert pool.pending == 0
            await pool.release(value)
            assert await ctx.aacquire(pool) is value
        assert pool.borrowed == 0


async def test_a_leader_cancelled_inside_the_acquire_hook_lets_another_try():
    inside = asyncio.Event()
    hang = [True]

    class Hooked(PoolFactory):
        def create(self):
            return Thing()

        async def acquire(self, value, request_ctx):
            if hang[0]:
                inside.set()
                await asyncio.Event().wait()

    async with AsyncPoolingService(Hooked(), min_size=1, max_size=1) as pool:
        async with RequestContext() as ctx:
            first = asyncio.create_task(ctx.aacquire(pool))
            await inside.wait()
            second = asyncio.create_task(ctx.aacquire(pool))
            await settle()
            hang[0] = False
            first.cancel()
            assert isinstance(await second, Thing)
            assert first.cancelled()
            assert pool.borrowed == 1
        assert pool.borrowed == 0


async def test_a_request_that_ends_inside_the_acquire_hook_has_nothing_out_afterwards():
    inside, go = asyncio.Event(), asyncio.Event()

    class Hooked(PoolFactory):
        def create(self):
            return Thing()

        async def acquire(self, value, request_ctx):
            inside.set()
            await go.wait()

    async with AsyncPoolingService(Hooked(), min_size=1) as pool:
        ctx = RequestContext()
        waiting = asyncio.create_task(ctx.aacquire(pool))
        await inside.wait()
        await ctx.aclose()
        go.set()
        with pytest.raises(RequestContextError, match="has ended"):
            await waiting
        assert pool.borrowed == 0


async def test_a_cancelled_request_gives_back_and_tells_the_release_hook():
    factory = AsyncGated()
    factory.gate.set()
    ready = asyncio.Event()

    async with AsyncPoolingService(factory) as pool:

        async def serve():
            async with RequestContext() as ctx:
                await ctx.aacquire(pool)
                ready.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(serve())
        await ready.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pool.borrowed == 0
        assert isinstance(factory.ends[0][1], asyncio.CancelledError)


async def test_callbacks_that_are_awaited_and_values_of_both_kinds_of_pool_unwind_last_in_first_out():
    log: list[str] = []

    async def callback(exc):
        await asyncio.sleep(0)
        log.append("callback")

    async with RequestContext() as ctx:
        await ctx.aacquire(AsyncCalls("a", log))
        ctx.on_close(callback)
        await ctx.aacquire(Calls("b", log))
        ctx.on_close(lambda exc: log.append("plain"))
        log.append("end")
    assert log == ["take a", "take b", "end", "plain", "give b", "callback", "give a"]


async def test_close_of_a_request_that_holds_async_values_says_to_use_aclose_and_changes_nothing():
    async with AsyncPoolingService(Thing) as pool:
        ctx = RequestContext("GET /")
        value = await ctx.aacquire(pool)
        with pytest.raises(RequestContextError, match=r"request 'GET /' holds .* `await ctx.aclose\(\)`"):
            ctx.close()
        assert await ctx.aacquire(pool) is value
        await ctx.aclose()
        assert pool.borrowed == 0


async def test_a_plain_with_around_async_values_is_an_error_and_still_leaks_nothing():
    async with AsyncPoolingService(Thing) as pool:
        with pytest.raises(RequestContextError, match="async with"), RequestContext() as ctx:
            await ctx.aacquire(pool)
        await settle()
        assert pool.borrowed == 0


async def test_closing_again_does_nothing():
    log: list[str] = []
    ctx = RequestContext()
    await ctx.aacquire(AsyncCalls("a", log))
    await asyncio.gather(ctx.aclose(), ctx.aclose())
    await ctx.aclose()
    assert log == ["take a", "give a"]


async def test_a_cancellation_while_closing_still_gives_everything_back():
    inside, log = asyncio.Event(), []

    class Slow(AsyncCalls):
        async def release(self, value, exc=None):
            inside.set()
            await asyncio.Event().wait()

    async def callback(exc):
        log.append("callback")

    ctx = RequestContext()
    await ctx.aacquire(AsyncCalls("a", log))
    ctx.on_close(callback)
    await ctx.aacquire(Slow("slow", log))
    closing = asyncio.create_task(ctx.aclose())
    await inside.wait()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert log == ["take a", "take slow", "callback", "give a"]


async def test_a_cancellation_lets_the_callback_under_way_finish():
    inside, go, log = asyncio.Event(), asyncio.Event(), []

    async def callback(exc):
        inside.set()
        await go.wait()
        log.append("finished")

    ctx = RequestContext()
    ctx.on_close(lambda exc: log.append("other"))
    ctx.on_close(callback)
    closing = asyncio.create_task(ctx.aclose())
    await inside.wait()
    closing.cancel()
    await settle()
    assert not closing.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert log == ["finished", "other"]


async def test_a_second_cancellation_cuts_a_callback_that_does_not_end():
    inside, log = asyncio.Event(), []

    async def callback(exc):
        inside.set()
        try:
            await asyncio.Event().wait()
        finally:
            log.append("cut")

    ctx = RequestContext()
    ctx.on_close(lambda exc: log.append("other"))
    ctx.on_close(callback)
    closing = asyncio.create_task(ctx.aclose())
    await inside.wait()
    closing.cancel()
    await settle()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert log == ["cut", "other"]


async def test_failures_while_closing_come_as_a_group():
    async def first(exc):
        raise OSError("first")

    def second(exc):
        raise LookupError("second")

    ctx = RequestContext()
    ctx.on_close(first)
    ctx.on_close(second)
    with pytest.raises(ExceptionGroup) as caught:
        await ctx.aclose()
    assert [type(error) for error in caught.value.exceptions] == [LookupError, OSError]


async def test_taking_from_an_asyncio_pool_without_await_is_refused():
    async with AsyncPoolingService(Thing, name="reports") as pool, RequestContext() as ctx:
        with pytest.raises(RequestContextError, match=r"'reports' has not been taken .* must be awaited"):
            ctx.acquire(pool)
        assert await ctx.aacquire(pool)


async def test_a_pool_for_threads_is_never_waited_for_in_the_loop():
    with PoolingService(Thing, name="users") as pool:
        async with RequestContext() as ctx:
            with pytest.raises(
                RequestContextError, match=r"'users', a pool for threads, .* would block the event loop"
            ):
                ctx.acquire(pool)
            assert pool.borrowed == 0


async def test_a_pool_for_threads_is_asked_from_a_worker_while_the_loop_goes_on():
    factory = Gated()
    with PoolingService(factory) as pool:
        async with RequestContext() as ctx:
            waiting = [asyncio.create_task(ctx.aacquire(pool)) for _ in range(3)]
            await asyncio.to_thread(factory.asked.wait, 20)
            await settle()  # the loop is not blocked
            assert not any(task.done() for task in waiting)
            factory.gate.set()
            values = await asyncio.gather(*waiting)
            assert set(values) == set(factory.made)
            assert ctx.acquire(pool) is values[0]
        assert pool.borrowed == 0
        assert factory.ends == [(factory.made[0], None)]


async def test_the_release_hook_of_a_pool_for_threads_does_not_run_in_the_loop():
    where = []

    class Hooked(PoolFactory):
        def create(self):
            return Thing()

        def release(self, value):
            where.append(threading.current_thread())

    with PoolingService(Hooked()) as pool:
        async with RequestContext() as ctx:
            await ctx.aacquire(pool)
    assert where
    assert where[0] is not threading.current_thread()


async def test_a_cancelled_wait_for_a_pool_for_threads_gives_back_what_comes_late():
    factory = Gated()
    with PoolingService(factory, max_size=1) as pool:
        async with RequestContext() as ctx:
            waiting = asyncio.create_task(ctx.aacquire(pool))
            await asyncio.to_thread(factory.asked.wait, 20)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        factory.gate.set()
        value = await asyncio.to_thread(pool.acquire, timeout=20)  # the only one there is
        assert value is factory.made[0]
        pool.release(value)


async def test_a_request_closed_by_a_thread_while_a_worker_takes_its_value_has_nothing_out_afterwards():
    factory = Gated()
    with PoolingService(factory) as pool:
        ctx = RequestContext("short")
        waiting = asyncio.create_task(ctx.aacquire(pool))
        while not factory.asked.is_set():
            await asyncio.sleep(0)
        await asyncio.to_thread(ctx.close)
        with pytest.raises(RequestContextError, match="request 'short' has ended"):
            await waiting
        factory.gate.set()
        while pool.available == 0:
            await asyncio.sleep(0)
        assert pool.borrowed == 0


async def test_many_requests_waiting_for_a_pool_for_threads_do_not_keep_the_releases_from_running():
    with PoolingService(Thing, max_size=1, timeout=20) as pool:

        async def serve():
            async with RequestContext() as ctx:
                await ctx.aacquire(pool)
                await asyncio.sleep(0)

        await asyncio.wait_for(asyncio.gather(*(serve() for _ in range(60))), 60)
        assert pool.borrowed == 0


async def test_threads_and_tasks_of_one_request_share_a_value():
    factory = Gated()
    with PoolingService(factory) as pool:
        async with RequestContext() as ctx:
            in_thread = asyncio.create_task(asyncio.to_thread(ctx.acquire, pool))
            await asyncio.to_thread(factory.asked.wait, 20)
            in_loop = asyncio.create_task(ctx.aacquire(pool))
            await settle()
            factory.gate.set()
            assert await in_thread is await in_loop
        assert pool.stats().acquired == 1


async def test_an_async_connection_pool_gives_through_its_connection_method():
    log = []

    class ConnectionPool:
        @asynccontextmanager
        async def connection(self):
            try:
                yield "conn"
            except ValueError:
                log.append("rollback")
                raise
            else:
                log.append("commit")
            finally:
                log.append("back")

    pool = ConnectionPool()
    async with RequestContext() as ctx:
        assert await asyncio.gather(ctx.aacquire(pool), ctx.aacquire(pool)) == ["conn", "conn"]
    with pytest.raises(ValueError, match="x"):
        async with RequestContext() as ctx:
            await ctx.aacquire(pool)
            raise ValueError("x")
    assert log == ["commit", "back", "rollback", "back"]


async def test_an_async_pool_with_getconn_and_putconn_is_enough():
    log = []

    class Old:
        async def getconn(self):
            return "conn"

        async def putconn(self, conn):
            log.append(conn)

    async with RequestContext() as ctx:
        assert await ctx.aacquire(Old()) == "conn"
    assert log == ["conn"]


async def test_giving_a_connection_back_survives_a_cancellation():
    inside, go, log = asyncio.Event(), asyncio.Event(), []

    class Old:
        async def getconn(self):
            return "conn"

        async def putconn(self, conn):
            inside.set()
            await go.wait()
            log.append(conn)

    ctx = RequestContext()
    await ctx.aacquire(Old())
    closing = asyncio.create_task(ctx.aclose())
    await inside.wait()
    closing.cancel()
    await settle()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert log == ["conn"]


async def test_the_loop_shutting_down_in_the_middle_leaves_nothing_out():
    pools = []

    async def main():
        factory = AsyncGated()
        pool = AsyncPoolingService(factory)
        pools.append(pool)
        await pool.start()

        async def serve():
            async with RequestContext() as ctx:
                await ctx.aacquire(pool)

        task = asyncio.create_task(serve())
        await factory.asked.wait()
        assert not task.done()

    def run():
        asyncio.run(main())

    await asyncio.to_thread(run)
    assert pools[0].borrowed == 0
