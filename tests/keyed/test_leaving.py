"""A key's pool after its key was evicted or closed, and borrowers that are about to use it."""

from __future__ import annotations

import gc
import itertools
import weakref

import pytest

from pooling import ConfigurationError, PoolClosedError, PoolTimeoutError
from tests.contract.harness import on_both, on_threads, raising
from tests.contract.lines import BeforeLine
from tests.contract.workshop import Clock, Workshop
from tests.keyed.drivers import keyed


@on_both
async def test_a_pool_that_is_used_after_its_key_was_forgotten_is_stopped_with_all_others(side):
    workshop = Workshop(side)
    pool = keyed(side, workshop, max_keys=1)
    looked_up = pool.of("first")
    await pool.release(await pool.acquire("second"))
    assert pool.keys() == ["second"]
    await looked_up.release(await looked_up.acquire())
    del looked_up
    gc.collect()
    assert pool.size == 2
    await pool.stop()
    assert pool.budget.used == 0
    assert workshop.is_even(), workshop.uneven()


@on_both
async def test_a_value_of_an_evicted_pool_without_references_can_be_given_back(side):
    pool = keyed(side, Workshop(side), max_keys=1)
    looked_up = pool.of("first")
    await pool.release(await pool.acquire("second"))
    value = await looked_up.acquire()
    del looked_up
    gc.collect()
    assert pool.service.is_borrowed(value)
    await pool.release(value)
    assert not pool.service.is_borrowed(value)


@on_both
async def test_the_pool_of_a_closed_key_is_not_kept(side):
    pool = keyed(side, Workshop(side))
    closed = weakref.ref(pool.service.pool("key"))
    pool.close_key("key")
    gc.collect()
    assert closed() is None
    again = pool.service.pool("key")
    assert again is pool.service.pool("key")


@on_both
async def test_what_is_out_when_all_are_stopped_can_be_given_back_under_the_stopped_keys(side):
    pool = keyed(side, Workshop(side))
    value = await pool.of("key").acquire()
    await pool.stop(0.0)
    gc.collect()
    await pool.release(value)
    await side.until(lambda: pool.budget.used == 0)
    assert pool.stats().created == 1


@on_both
async def test_what_a_closed_key_creates_for_its_waiters_is_counted(side):
    pool = keyed(side, Workshop(side), max_size=1)
    value = await pool.acquire("key")
    waiter = side.go(pool.acquire, "key")
    await side.until(lambda: pool.pending == 1)
    pool.service.close_key("key")
    await pool.destroy(value)
    await pool.release(await waiter.result())
    assert pool.stats().created == 2


@on_both
async def test_a_forgotten_key_does_not_fill_its_pool_up_again(side):
    workshop = Workshop(side)
    pool = keyed(side, workshop, min_size=1, max_size=2, max_keys=2)
    for key in range(10):
        await pool.release(await pool.acquire(key))
    await side.until(lambda: workshop.standing <= 2)
    assert pool.size <= 2
    await pool.stop()
    assert workshop.is_even(), workshop.uneven()


@on_both
async def test_an_unused_key_is_evicted_with_its_min_size_resources(side):
    clock, workshop = Clock(), Workshop(side)
    pool = keyed(side, workshop, min_size=1, max_key_idle=10.0, max_idle=5.0, clock=clock)
    await pool.release(await pool.acquire("idle"))
    held = await pool.acquire("used")
    view = pool.of("viewed")
    await view.release(await view.acquire())
    clock.move(6, pool)
    await view.release(await view.acquire())  # past the map
    clock.move(6, pool)
    assert pool.keys() == ["viewed", "used"]
    await side.until(lambda: workshop.standing == 2)
    clock.move(11, pool)
    assert pool.keys() == ["used"]
    await pool.release(held)


@pytest.mark.parametrize("how", ["acquire", "lease", "run"])
@on_both
async def test_a_waiter_of_a_closed_and_stopped_key_looks_the_key_up_again(side, how):
    pool = keyed(side, Workshop(side), max_size=1)
    old = pool.of("key")
    held = await old.acquire()
    got = []

    async def borrow():
        if how == "run":
            await pool._call("run", "key", got.append)
        elif how == "lease":
            async with pool.lease("key") as value:
                got.append(value)
        else:
            got.append(await pool.acquire("key"))
            await pool.release(got[0])

    waiter = side.go(borrow)
    await side.until(lambda: old.pending == 1)
    pool.close_key("key")
    await old.stop(0.0)
    await waiter.result()
    assert got != [held]
    await old.release(held)


@pytest.mark.parametrize("how", ["acquire", "lease"])
@on_both
async def test_a_look_up_after_a_closed_key_does_not_start_the_clock_again(side, how):
    clock = Clock()
    pool = keyed(side, Workshop(side), max_size=1, max_total=1, clock=clock)
    old = pool.of("key")
    held = await old.acquire()

    async def borrow():
        if how == "lease":
            async with pool.lease("key", timeout=20.0):
                pass
        else:
            await pool.acquire("key", timeout=20.0)

    waiter = side.go(borrow)
    await side.until(lambda: old.pending == 1)
    clock.move(19.99)
    pool.close_key("key")
    await old.stop(0.0)
    with pytest.raises(PoolTimeoutError) as late:
        await waiter.result()
    assert 0 < late.value.timeout < 0.1, "what was left of its 20 seconds"
    await old.release(held)


@pytest.mark.parametrize("closes", [1, 3])
@on_both
async def test_a_borrower_follows_its_key_through_any_number_of_closed_pools(side, closes):
    pool = keyed(side, Workshop(side), max_size=1, max_total=1)
    held = await pool.acquire("other")
    waiter = side.go(pool.acquire, "key")
    for _ in range(closes):
        await side.until(lambda: pool.pending == 1)
        old = pool.of("key")
        pool.close_key("key")
        await old.stop(0.0)
    await side.until(lambda: pool.of("key").pending == 1)
    await pool.release(held)
    await pool.release(await waiter.result())


@on_both
async def test_a_lease_looks_its_key_up_on_entry(side):
    pool = keyed(side, Workshop(side))
    lease = pool.lease("key")
    assert pool.keys() == []
    pool.of("key")
    pool.close_key("key")
    async with lease as value:
        assert pool.of("key").service.is_borrowed(value)


@pytest.mark.parametrize("how", ["acquire", "acquire_nowait", "lease", "run"])
@on_threads
async def test_a_key_that_is_closed_between_any_two_lines_is_looked_up_again(side, how):
    service = keyed(side, Workshop(side)).service

    async def closes():
        service.close_key("key")

    def interlude():
        side.go(closes)._thread.join(0.01)  # it may be in need of what this thread holds

    for number in itertools.count(1):
        with BeforeLine(number, interlude) as line:
            if how == "run":
                service.run("key", lambda value: value)
            elif how == "lease":
                with service.lease("key"):
                    pass
            else:
                service.release(getattr(service, how)("key"))
        assert service.stats().borrowed == 0, line.where
        if not line.has_acted:
            break
    assert number > 10


@on_both
async def test_a_pool_whose_key_was_closed_refers_to_the_keyed_service(side):
    pool = keyed(side, Workshop(side), name="sessions")
    old = pool.of("db1")
    await old.release(await old.acquire())
    pool.close_key("db1")
    with raising(PoolClosedError, "'sessions' key 'db1'", "its key was closed; ask the keyed service again"):
        await old.acquire()


@on_both
async def test_a_borrower_that_waits_while_all_keys_are_stopped_gets_an_error(side):
    pool = keyed(side, Workshop(side), max_size=1, name="sessions")
    held = await pool.acquire("db1")
    waiter = side.go(pool.acquire, "db1")
    await side.until(lambda: pool.pending == 1)
    await pool.stop(0.0)
    with raising(PoolClosedError, "pool 'sessions' is stopped", "Call start()"):
        await waiter.result()
    await pool.release(held)


@on_both
async def test_after_an_interrupted_stop_and_a_start_each_key_gets_a_new_pool(side):
    pool = keyed(side, Workshop(side), max_size=1)
    held = await pool.acquire("key")
    await side.interrupted(pool.stop, when=lambda: pool.service.pool("key").engine.ledger.watchers)
    assert pool.keys() == []
    await pool.start()
    await pool.release(await pool.acquire("key"))
    await pool.release(held)


@on_both
async def test_a_keys_pool_that_was_stopped_by_itself_stays_stopped(side):
    pool = keyed(side, Workshop(side))
    await pool.of("key").stop()
    with raising(PoolClosedError, "Call start()"):
        await pool.acquire("key")


async def wait(result):
    """What a method of either front end returned, awaited if it is to be."""
    if result is not None:
        await result


@on_both
async def test_closed_pools_are_waited_for_while_their_keys_have_new_ones(side):
    workshop = Workshop(side)
    pool = keyed(side, workshop)
    old = await pool.acquire("key")
    assert pool.close_key("key")

    async def end():
        await wait(pool.stop_closed(20.0))

    ending = side.go(end)
    new = await pool.acquire("key")
    assert new is not old
    await pool.release(old)
    await ending.result()
    assert pool.service.is_borrowed(new)
    await pool.release(new)
    assert pool.stats().per_key["key"].available == 1


@on_both
async def test_a_wait_for_closed_pools_that_cannot_work_stops_nothing(side):
    pool = keyed(side, Workshop(side))
    looked_up = pool.of("key")
    pool.close_key("key")
    with pytest.raises(ConfigurationError, match="timeout=nan"):
        await wait(pool.stop_closed(float("nan")))
    with pytest.raises(PoolClosedError):
        await looked_up.acquire()
