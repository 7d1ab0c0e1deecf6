"""A process that never stops its pools ends at once, and silently."""

from __future__ import annotations

import pytest

from tests.platform.programs import exit_of

PROGRAMS = {
    "an idle pool for threads": """
        import pooling
        pool = pooling.PoolingService(object, min_size=3, max_idle=1.0, name="forgotten")
        pool.start()
        pool.release(pool.acquire())
    """,
    "resources out, with an open lease": """
        import pooling
        pool = pooling.PoolingService(object, max_size=3, leak_timeout=60.0)
        value = pool.acquire()
        lease = pool.lease()
        lease.__enter__()
    """,
    "a create that hangs": """
        import threading, pooling
        begun = threading.Event()
        def create():
            begun.set()
            threading.Event().wait()
        pool = pooling.PoolingService(create)
        try:
            pool.acquire(timeout=0.01)
        except pooling.PoolTimeoutError:
            pass
        begun.wait()
    """,
    "a destroy that hangs": """
        import threading, pooling
        begun = threading.Event()
        def destroy(value):
            begun.set()
            threading.Event().wait()
        pool = pooling.PoolingService(pooling.PoolFactory.of(object, destroy=destroy), min_size=1)
        pool.start()
        pool.expire()
        begun.wait()
    """,
    "a waiter in a daemon thread": """
        import threading, time, pooling
        pool = pooling.PoolingService(object, max_size=1)
        value = pool.acquire()
        threading.Thread(target=pool.acquire, daemon=True).start()
        while not pool.pending:
            pass
    """,
    "a pool of asyncio": """
        import asyncio, pooling
        pool = pooling.AsyncPoolingService(object, min_size=3, max_idle=1.0)
        async def main():
            await pool.start()
            await pool.release(await pool.acquire())
        asyncio.run(main())
    """,
    "a pool of asyncio with an open lease": """
        import asyncio, pooling
        pool = pooling.AsyncPoolingService(object, leak_timeout=60.0)
        leases = []
        async def main():
            leases.append(pool.lease())
            await leases[0].__aenter__()
        asyncio.run(main())
    """,
    "a create of asyncio that hangs": """
        import asyncio, pooling
        async def create():
            await asyncio.Event().wait()
        pool = pooling.AsyncPoolingService(pooling.PoolFactory.of(create))
        async def main():
            try:
                await pool.acquire(timeout=0.01)
            except pooling.PoolTimeoutError:
                pass
        asyncio.run(main())
    """,
    "more waiters than creates under way in a loop that ends": """
        import asyncio, pooling
        async def create():
            await asyncio.Event().wait()
        pool = pooling.AsyncPoolingService(create, max_size=8)
        waiters = []
        async def main():
            waiters.extend(asyncio.ensure_future(pool.acquire()) for _ in range(7))
            while pool.pending < 7:
                await asyncio.sleep(0)
        asyncio.run(main())
        waiters.clear()
    """,
    "pools that are garbage": """
        import asyncio, gc, pooling
        for _ in range(10):
            pool = pooling.PoolingService(object, min_size=1)
            pool.start()
            del pool
        async def main():
            for _ in range(10):
                pool = pooling.AsyncPoolingService(object, min_size=1)
                await pool.start()
                del pool
        asyncio.run(main())
        gc.collect()
    """,
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_process_with_unclosed_pools_ends_within_a_second_and_says_nothing(program):
    took = []
    for _ in range(10):  # a busy machine may be slow now and then; a process that waits for something always is
        outcome, seconds = exit_of(PROGRAMS[program])
        assert outcome.status == 0, outcome
        assert outcome.err == ""
        took.append(seconds)
        if seconds < 1:
            break
    assert min(took) < 1


@pytest.mark.parametrize("is_while_finalizing", [True, False])
@pytest.mark.parametrize("is_idle", [True, False])
def test_code_that_runs_at_the_end_of_the_process_can_still_take_and_create(is_while_finalizing, is_idle):
    outcome, _ = exit_of(
        f"""
        import atexit, sys, pooling
        pool = pooling.PoolingService(dict, max_size=2, timeout=2.0, max_idle=1.0)
        value = pool.acquire() if {is_idle} else None
        if value is not None:
            pool.release(value)
        class Late:
            def save(self):
                first, second = pool.acquire(), pool.acquire()
                pool.destroy(first)
                pool.release(second)
                print("saved", sys.is_finalizing())
        class AtTeardown(Late):
            __del__ = Late.save
        if {is_while_finalizing}:
            late = AtTeardown()
        else:
            atexit.register(Late().save)
        """
    )
    assert (outcome.status, outcome.err) == (0, "")
    assert f"saved {is_while_finalizing}" in outcome.out
