"""Clocks, ages, eviction, resources that break while idle, leak reports and observers."""

from __future__ import annotations

import asyncio
import gc
import logging
import time

import pytest

from pooling import PoolObserver, PoolTimeoutError
from tests.contract.harness import on_both, on_threads, raising, whole
from tests.contract.workshop import Clock, Watch, Workshop

DAY = 24 * 3600.0


async def borrow(pool):
    async with pool.lease() as value:
        return value


@on_both
async def test_after_25_hours_idle_a_pool_still_works(side):
    clock = Clock()
    workshop = Workshop(side)
    pool = side.pool(workshop, min_size=1, max_size=2, max_idle=600.0, max_lifetime=3600.0, clock=clock)
    await pool.start()
    before = await whole(pool)
    clock.move(25 * 3600.0, pool)
    await side.until(lambda: pool.available == 1 and pool.size == 1)
    after = await whole(pool)
    assert not set(map(id, before)) & set(map(id, after)), "all were too old"


@on_both
async def test_a_pool_still_works_after_25_hours_without_use(side):
    clock = Clock()
    pool = side.pool(Workshop(side), max_size=2, clock=clock)
    await whole(pool)
    clock.move(25 * 3600.0)
    await whole(pool)


@on_both
async def test_eviction_never_touches_a_resource_in_use(side):
    clock = Clock()
    workshop = Workshop(side)
    pool = side.pool(workshop, max_size=3, max_idle=10.0, max_lifetime=1000.0, clock=clock)
    held = await pool.acquire()
    for seconds in (11, 11, 2000, DAY):
        clock.move(seconds, pool)
    assert pool.is_borrowed(held)
    assert workshop.unmade == []
    await pool.release(held)
    await side.until(lambda: workshop.unmade == [held])
    assert pool.stats().destroyed_by == {"max_lifetime": 1}, "too old when it came back"


@on_both
async def test_time_in_use_is_not_idle_time(side):
    clock = Clock()
    workshop = Workshop(side)
    pool = side.pool(workshop, max_size=2, max_idle=10.0, clock=clock)
    held = await pool.acquire()
    clock.move(DAY, pool)
    await pool.release(held)
    clock.move(0, pool)  # the look that sees it came back
    clock.move(9, pool)
    assert workshop.unmade == []
    clock.move(2, pool)
    await side.until(lambda: workshop.unmade == [held])


@on_both
async def test_idle_resources_above_min_size_end_and_those_below_stay(side):
    clock = Clock()
    workshop = Workshop(side)
    pool = side.pool(workshop, min_size=2, max_size=5, max_idle=10.0, clock=clock)
    held = [await pool.acquire() for _ in range(5)]
    for value in held[:4]:
        await pool.release(value)
    clock.move(0, pool)
    clock.move(9, pool)
    assert pool.size == 5
    clock.move(2, pool)
    await side.until(lambda: pool.size == 2)
    assert pool.stats().destroyed_by == {"max_idle": 3}
    assert pool.is_borrowed(held[4])
    await pool.release(held[4])
    for _ in range(5):
        clock.move(11, pool)
    assert pool.size == 2


@on_both
async def test_idle_times_are_looked_at_without_being_asked(side):
    workshop = Workshop(side)
    pool = side.pool(workshop, max_size=3, max_idle=0.02)
    await whole(pool)
    await side.until(lambda: pool.size == 0)
    assert pool.stats().destroyed_by == {"max_idle": 3}


@on_both
async def test_lifetimes_end_without_being_asked_and_min_size_is_filled_again(side):
    workshop = Workshop(side)
    pool = side.pool(workshop, min_size=1, max_size=3, max_lifetime=0.02)
    await pool.start()
    await side.until(lambda: len(workshop.unmade) >= 3)
    await side.until(lambda: pool.available == 1)


@on_both
async def test_a_hundred_born_together_do_not_end_together(side):
    clock = Clock()
    workshop = Workshop(side)
    pool = side.pool(workshop, min_size=100, max_size=100, max_lifetime=1000.0, max_creating=100, clock=clock)
    await pool.start()
    most = 0
    for _ in range(100):  # from 900 to 1000
        before = len(workshop.unmade)
        clock.move(900.0 if clock.now == 1000.0 else 1.0, pool)
        await side.until(lambda: pool.available == 100)
        most = max(most, len(workshop.unmade) - before)
        if len(workshop.unmade) >= 100:
            break
    assert len(workshop.unmade) >= 90
    assert most <= 15, "about one in each second"


@on_both
async def test_the_wall_clock_jumping_a_day_changes_nothing(side, monkeypatch):
    workshop = Workshop(side)
    pool = side.pool(workshop, max_size=2, max_idle=600.0, max_lifetime=3600.0, leak_timeout=60.0)
    before = await whole(pool)
    held = await pool.acquire()
    waits = side.go(borrow_all, pool, 2)
    await side.until(lambda: pool.pending == 1)
    real = time.time
    for jump in (DAY, -DAY):
        monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
        pool.sweep()
    assert not waits.is_done
    await pool.release(held)
    await waits.result()
    assert {id(value) for value in await whole(pool)} == set(map(id, before))


async def borrow_all(pool, count):
    values = [await pool.acquire() for _ in range(count)]
    for value in values:
        await pool.release(value)


@on_both
async def test_a_resource_killed_from_outside_while_idle_is_never_handed_out(side):
    dead = set()
    workshop = Workshop(side, plain={"is_alive": lambda thing: thing not in dead})
    pool = side.pool(workshop, max_size=3)
    values = await whole(pool)
    dead |= set(values)
    after = await whole(pool)
    assert not set(after) & dead
    await side.until(lambda: set(workshop.unmade) == dead)
    assert pool.stats().destroyed_by == {"invalid": 3}


@on_both
async def test_a_waiter_uses_no_processor_time(side):
    pool = side.pool(Workshop(side), max_size=1)
    held = await pool.acquire()
    used = time.thread_time()
    with pytest.raises(PoolTimeoutError):
        await pool.acquire(timeout=0.5)
    assert time.thread_time() - used < 0.1
    await pool.release(held)


@on_both
async def test_while_suspended_a_borrowers_timeout_holds_and_the_error_says_so(side):
    pool = side.pool(Workshop(side), max_size=2)
    await whole(pool)
    pool.suspend()
    with raising(PoolTimeoutError, "The pool is suspended: call resume()"):
        await pool.acquire(timeout=0.02)
    waiter = side.go(borrow, pool)
    await side.until(lambda: pool.pending == 1)
    pool.resume()
    await waiter.result()
    await whole(pool)


# -- the garbage collector and the pool's lock -----------------------------------


@on_threads
async def test_a_lease_finalised_while_the_pools_lock_is_held_does_not_deadlock(side):
    lock = None
    collected = []

    def clock():  # the pool reads it, also with its lock held
        if lock is not None and lock.locked():
            collected.append(gc.collect())
        return time.monotonic()

    workshop = Workshop(side)
    pool = side.pool(workshop, max_size=2, clock=clock)
    abandoned = pool.service.lease()
    lost = abandoned.__enter__()
    cycle = [abandoned]
    cycle.append(cycle)
    del abandoned, cycle
    gc.disable()
    try:
        lock = pool.service.engine.backend.lock
        waiter = side.go(borrow_all, pool, 2)
        await waiter.result()
        lock = None
    finally:
        gc.enable()
    assert collected
    assert lost in workshop.unmade
    await whole(pool)


@on_both
async def test_a_lease_dropped_while_open_frees_its_place_for_a_waiter(side):
    workshop = Workshop(side)
    pool = side.pool(workshop, max_size=1)
    lease = pool.lease()
    lost = await lease.__aenter__()
    waiter = side.go(borrow, pool)
    await side.until(lambda: pool.pending == 1)
    del lease
    gc.collect()
    assert await waiter.result() is not lost
    assert pool.stats().destroyed_by == {"abandoned": 1}
    assert workshop.unmade == [lost]


# -- observers -------------------------------------------------------------------


class Meddler(PoolObserver):
    """Acquires from the pool it watches, logs, and raises."""

    def __init__(self, side):
        self.side = side
        self.pool = None
        self.seen = 0

    def on_created(self, event):
        self.meddle()

    on_acquired = on_released = on_destroyed = on_timeout = on_created

    def meddle(self):
        self.seen += 1
        logging.getLogger("meddler").info("something happened in %r: %s", self.pool.service, self.pool.stats())
        if self.seen % 3 == 1:
            if self.side.name == "threads":
                try:
                    self.pool.service.release(self.pool.service.acquire(timeout=0))
                except PoolTimeoutError:
                    pass
            else:
                self.side.go(borrow, self.pool)
        raise RuntimeError("an observer that fails")


@on_both
async def test_an_observer_that_acquires_logs_and_raises_neither_blocks_nor_loses_anything(side, caplog):
    observer = Meddler(side)
    pool = side.pool(Workshop(side), max_size=2, observer=observer)
    observer.pool = pool
    with caplog.at_level(logging.CRITICAL, logger="pooling"):
        for _ in range(5):
            await pool.release(await pool.acquire())
            await pool.destroy(await pool.acquire())
        held = [await pool.acquire() for _ in range(2)]
        with pytest.raises(PoolTimeoutError):
            await pool.acquire(timeout=0.01)
        for value in held:
            await pool.release(value)
        for borrower in list(side.borrowers):
            await borrower.result()
        observer.seen = -(10**9) * 3  # from now on it only fails
        await whole(pool)
        await pool.stop(20)
    assert pool.borrowed == pool.pending == 0


@on_both
async def test_an_observer_is_told_what_happened_how_long_it_took_and_why(side):
    clock, watch = Clock(), Watch()

    async def create():
        clock.now += 2.0

    pool = side.pool(Workshop(side, create=create), max_size=1, clock=clock, observer=watch, name="orders", max_uses=2)
    value = await pool.acquire()
    with pytest.raises(PoolTimeoutError):
        await pool.acquire(timeout=0.01)
    clock.now += 5.0
    await pool.release(value)
    assert [(event.value, event.duration) for event in watch.named("created")] == [(value, 2.0)]
    assert [(event.pool, event.value, event.duration) for event in watch.named("acquired")] == [("orders", value, 2.0)]
    assert [(event.value, event.duration) for event in watch.named("released")] == [(value, 5.0)]
    assert [(event.reason, event.duration) for event in watch.named("timeout")] == [("queueing", 0.01)]
    await pool.release(await pool.acquire())
    await side.until(lambda: watch.named("destroyed"))
    assert [(event.value, event.reason) for event in watch.named("destroyed")] == [(value, "max_uses")]


@on_both
async def test_an_observer_is_told_of_failed_creates(side):
    watch = Watch()
    failure = OSError("refused")

    async def create():
        raise failure

    pool = side.pool(Workshop(side, create=create), observer=watch)
    with pytest.raises(PoolTimeoutError):
        await pool.acquire(timeout=0.02)
    await side.until(lambda: watch.named("create_failed"))
    assert watch.named("create_failed")[0].error is failure


# -- loops -------------------------------------------------------------------------


@on_both
async def test_a_pool_built_before_it_is_used_anywhere_works(side):
    # Construction starts nothing and needs no loop: this one is done in a thread that has none.
    built = await asyncio.to_thread(side.pool, Workshop(side)) if side.name == "asyncio" else side.pool(Workshop(side))
    await whole(built)
