"""Stopping, and starting again."""

from __future__ import annotations

import logging

import pytest

from pooling import PoolClosedError, PoolTimeoutError
from tests.contract.harness import LIMIT, on_both, raising, whole
from tests.contract.workshop import Workshop


async def borrow(pool):
    async with pool.lease() as value:
        return value


@on_both
async def test_waiters_are_sent_away_by_a_stop_though_a_create_hangs(side):
    gate = side.gate()
    pool = side.pool(Workshop(side, create=gate), max_size=1)

    async def waits():
        with raising(PoolClosedError, pool.name, "is stopped"):
            await pool.acquire()

    waiters = [side.go(waits) for _ in range(3)]
    await side.until(lambda: pool.pending == 3)
    await gate.reached()
    stopping = side.go(pool.stop, LIMIT)
    for waiter in waiters:
        await waiter.result()
    assert not stopping.is_done, "the create still hangs"
    gate.open()
    await stopping.result()
    assert pool.size == 0


@on_both
async def test_what_a_create_makes_during_a_stop_is_destroyed(side):
    gate = side.gate()
    workshop = Workshop(side, create=gate)
    pool = side.pool(workshop, max_size=2)
    waiters = [side.go(borrow, pool) for _ in range(2)]
    await gate.reached(2)
    stopping = side.go(pool.stop, LIMIT)
    for waiter in waiters:
        with pytest.raises(PoolClosedError):
            await waiter.result()
    gate.open()
    await stopping.result()
    assert pool.size == 0
    assert workshop.is_even()


@on_both
async def test_what_comes_back_during_a_stop_is_destroyed_and_ends_it(side):
    workshop = Workshop(side)
    pool = side.pool(workshop, max_size=2)
    held = [await pool.acquire() for _ in range(2)]
    stopping = side.go(pool.stop, LIMIT)
    await side.until(lambda: not pool.is_running)
    await pool.release(held[0])
    await side.until(lambda: pool.size == 1)
    assert not stopping.is_done
    await pool.destroy(held[1])
    await stopping.result()
    assert workshop.is_even()


@on_both
async def test_nothing_is_created_after_a_stop(side):
    workshop = Workshop(side)
    pool = side.pool(workshop, min_size=2, max_size=4)
    await pool.start()
    held = await pool.acquire()
    await pool.stop(0.0)
    made = workshop.calls["create"]
    for _ in range(2):
        with pytest.raises(PoolClosedError):
            await pool.acquire()
        with pytest.raises(PoolClosedError):
            await pool.acquire_nowait()
    pool.resize(3, 4)
    pool.expire()
    pool.resume()
    pool.sweep()
    await pool.release(held)
    await side.until(lambda: pool.size == 0)
    assert workshop.calls["create"] == made


@on_both
async def test_a_failing_create_is_not_tried_again_after_a_stop(side):
    async def create():
        raise OSError

    workshop = Workshop(side, create=create)
    pool = side.pool(workshop, create_backoff=0.001, create_backoff_max=0.002)
    waiter = side.go(borrow, pool)
    await side.until(lambda: workshop.calls["create"] > 3)
    await pool.stop(LIMIT)
    with pytest.raises(PoolClosedError):
        await waiter.result()
    tried = workshop.calls["create"]
    pool.sweep()
    for _ in range(20):
        await side.breathe()
    assert workshop.calls["create"] == tried


@on_both
async def test_a_pool_stopped_before_it_was_started_refuses_and_can_be_started(side):
    workshop = Workshop(side)
    pool = side.pool(workshop)
    await pool.stop()
    with pytest.raises(PoolClosedError):
        await pool.acquire()
    await pool.start()
    await pool.release(await pool.acquire())


@on_both
async def test_a_pool_starts_again_after_a_stop_with_new_resources(side):
    workshop = Workshop(side)
    pool = side.pool(workshop, min_size=1, max_size=2)
    before = []
    for _ in range(3):
        await pool.start()
        assert pool.available == 1
        values = await whole(pool)
        assert not set(map(id, values)) & set(map(id, before))
        before += values
        await pool.stop(LIMIT)
        assert pool.size == 0
    assert workshop.is_even()


@on_both
async def test_what_was_out_over_a_stop_and_a_start_is_destroyed_when_it_comes_back(side):
    workshop = Workshop(side)
    pool = side.pool(workshop, max_size=2)
    old = await pool.acquire()
    await pool.stop(0.0)
    await pool.start()
    assert await borrow(pool) is not old
    await pool.release(old)
    await side.until(lambda: old in workshop.unmade)
    assert old not in await whole(pool)


@on_both
async def test_stopping_twice_and_at_once_is_fine(side):
    gate = side.gate()

    async def destroy(_):
        await gate()

    workshop = Workshop(side, destroy=destroy)
    pool = side.pool(workshop, max_size=3)
    await whole(pool)
    stops = [side.go(pool.stop, LIMIT) for _ in range(3)]
    await gate.reached(3)
    gate.open()
    for stop in stops:
        await stop.result()
    await pool.stop()
    assert workshop.calls["destroy"] == 3


@on_both
async def test_a_lease_that_is_never_returned_does_not_delay_a_stop_which_names_its_borrower(side, caplog):
    pool = side.pool(Workshop(side), max_size=2, name="orders", leak_timeout=300.0)

    async def build_report():
        return await pool.acquire()

    held = await build_report()
    with caplog.at_level(logging.WARNING, logger="pooling"):
        await pool.stop(0.05)
    assert pool.is_borrowed(held)
    (record,) = caplog.records
    text = record.getMessage()
    assert "pool 'orders' was stopped" in text
    assert "timeout=0.05" in text
    assert "1 of max_size=2 borrowed" in text
    assert "test_stopping.py:" in text
    assert "in build_report" in text, "the borrower's stack"
    assert "destroyed when it comes back" in text
    await pool.release(held)


@on_both
async def test_without_leak_timeout_a_stop_still_says_where_each_was_borrowed(side, caplog):
    pool = side.pool(Workshop(side), max_size=2)
    held = await pool.service.acquire() if side.name == "asyncio" else pool.service.acquire()
    with caplog.at_level(logging.WARNING, logger="pooling"):
        await pool.stop(0.0)
    assert "at test_stopping.py:" in caplog.text
    await pool.release(held)


@on_both
async def test_a_stop_gives_a_borrower_time_to_come_back(side, caplog):
    pool = side.pool(Workshop(side), max_size=1)
    held = await pool.acquire()
    stopping = side.go(pool.stop, LIMIT)
    await side.until(lambda: not pool.is_running)
    await pool.release(held)
    await stopping.result()
    assert not caplog.records


@on_both
async def test_leaving_the_block_of_a_pool_stops_it(side):
    workshop = Workshop(side)
    pool = side.pool(workshop, min_size=2, max_size=2)
    async with pool:
        assert pool.available == 2
        await whole(pool)
    assert pool.size == 0
    with pytest.raises(PoolClosedError):
        await pool.acquire()
    assert workshop.is_even()


@on_both
async def test_a_start_that_cannot_fill_the_pool_raises_and_stops_it(side):
    async def create():
        raise OSError("no such host")

    pool = side.pool(Workshop(side, create=create), min_size=1, timeout=0.1)
    with raising(PoolTimeoutError, "step: creating") as caught:
        await pool.start()
    assert isinstance(caught.value.__cause__, OSError)
    assert not pool.is_running
    await side.until(lambda: pool.size == 0)  # one more create may have begun
