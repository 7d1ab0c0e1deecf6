"""
Borrowers that go away: interrupted, cancelled, out of time.

Interrupts between two bytecodes are in `tests/interrupts`, and one at each `await` is in `tests/operations`.
"""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from pooling import CreateError, PoolExhaustedError, PoolTimeoutError
from tests.contract.harness import finish, on_asyncio, on_both, on_threads, raising, whole
from tests.contract.workshop import Workshop


@on_both
async def test_a_create_that_ends_just_as_its_borrower_times_out_is_there_for_the_next(side):
    for attempt in range(40):

        async def create(attempt=attempt):
            for _ in range(attempt // 2):
                await side.turn()

        workshop = Workshop(side, create=create)
        pool = side.pool(workshop, max_size=1)
        try:
            value = await pool.acquire(timeout=attempt * 10e-6)
        except PoolTimeoutError:
            pass
        else:
            await pool.release(value)
        await whole(pool)
        assert workshop.calls["create"] == 1, "a resource that was created for a cancelled borrower is kept"
        assert pool.pending == 0


@pytest.mark.parametrize("seed", range(20))
@on_asyncio
async def test_a_queue_of_waiters_is_cancelled_in_any_order_and_nothing_is_lost(side, seed):
    rng = random.Random(seed)
    pool = side.pool(Workshop(side), max_size=2)
    held = [await pool.acquire(), await pool.acquire()]
    served = []

    async def borrow(number):
        async with pool.lease():
            served.append(number)
            await side.turn()

    waiters = [side.go(borrow, number) for number in range(12)]
    await side.until(lambda: pool.pending == 12)
    leaving = rng.sample(range(12), rng.randint(1, 12))
    for number in leaving:
        waiters[number].cancel()
        if held and rng.random() < 0.2:
            await pool.release(held.pop())
        if rng.random() < 0.5:
            await side.turn()
    for value in held:
        await pool.release(value)
    for number, waiter in enumerate(waiters):
        await waiter.ended()
        assert waiter.task.cancelled() or number in served
        assert number in leaving or number in served
    assert served == sorted(served), "those that stayed were served in their order"
    assert pool.pending == 0
    await whole(pool)


@on_both
async def test_waiters_time_out_in_any_order_and_nothing_is_lost(side):
    pool = side.pool(Workshop(side), max_size=1)
    held = await pool.acquire()

    async def waits(seconds):
        await pool.acquire(timeout=seconds)

    waiters = [side.go(waits, seconds) for seconds in (0.06, 0.02, 0.05, 0.01, 0.04, 0.03)]
    for waiter in waiters:
        with pytest.raises(PoolTimeoutError):
            await waiter.result()
    assert pool.pending == 0
    await pool.release(held)
    await whole(pool)


@on_both
async def test_a_waiter_interrupted_just_as_it_is_handed_a_resource_sees_it_and_the_next_is_served(side):
    for _ in range(20):
        pool = side.pool(Workshop(side), max_size=1)
        held = await pool.acquire()
        others = []

        async def holds(pool=pool):
            async with pool.lease():
                await side.gate()()

        async def borrows(pool=pool):
            async with pool.lease() as value:
                return value

        def handed(pool=pool, held=held, borrows=borrows, others=others):
            if not others and pool.pending == 1:
                others.append(side.go(borrows))
            if pool.pending < 2:
                return False
            finish(pool.release(held))
            return True

        await side.interrupted(holds, when=handed)
        assert await others[0].result() is not None
        await whole(pool)


HOOKS = ("create", "validate", "acquire", "release", "destroy")


@pytest.mark.parametrize("step", HOOKS)
@on_both
async def test_an_interrupt_inside_a_hook_leaves_the_capacity_whole(side, step):
    gate = side.gate()

    async def hook(*_):
        await gate()
        return True

    workshop = Workshop(side, **{step: hook})
    pool = side.pool(workshop, max_size=2, validate_on_acquire=True)

    async def borrows():
        value = await pool.acquire()
        if step == "destroy":
            await pool.destroy(value)
        else:
            await pool.release(value)

    await side.interrupted(borrows, when=lambda: gate.arrived)
    assert pool.borrowed == 0
    gate.open()
    await whole(pool)


@on_asyncio
async def test_a_second_cancel_while_the_release_hook_runs_leaves_the_capacity_whole(side):
    in_use, resetting = side.gate(), side.gate()
    closing = side.gate()

    async def release(_):
        await resetting()

    async def destroy(_):
        await closing()

    workshop = Workshop(side, release=release, destroy=destroy)
    pool = side.pool(workshop, max_size=1)

    async def borrows():
        async with pool.lease():
            await in_use()

    borrower = side.go(borrows)
    await in_use.reached()
    borrower.cancel()
    await resetting.reached()
    borrower.cancel()
    with pytest.raises(asyncio.CancelledError):
        await borrower.result()
    # It is unknown how far the reset came, so that resource is not lent again.
    await closing.reached()
    assert pool.borrowed == 0
    resetting.open()
    closing.open()
    first = workshop.made[0]
    assert first not in await whole(pool)


@on_threads
async def test_a_second_interrupt_while_the_release_hook_runs_leaves_the_capacity_whole(side):
    in_use, resetting = side.gate(), side.gate()

    async def release(_):
        await resetting()

    workshop = Workshop(side, release=release)
    pool = side.pool(workshop, max_size=1)
    reached = iter([lambda: in_use.arrived, lambda: resetting.arrived])
    now = [next(reached)]

    def when():
        if not now[0]():
            return False
        now[0] = next(reached, None)
        return True

    async def borrows():
        async with pool.lease():
            await in_use()

    await side.interrupted(borrows, when=when, times=2)
    assert pool.borrowed == 0
    resetting.open()
    assert workshop.made[0] not in await whole(pool)


@on_both
async def test_a_validation_that_blocks_does_not_outlive_the_timeout(side):
    gate = side.gate()

    async def validate(_):
        await gate()
        return True

    pool = side.pool(Workshop(side, validate=validate), max_size=1, validate_on_acquire=True)
    with raising(PoolTimeoutError, "timeout=0.05", "step: validating") as caught:
        await pool.acquire(timeout=0.05)
    assert caught.value.step == "validating"
    gate.open()
    await whole(pool)


@on_both
async def test_a_validation_that_always_fails_ends_at_the_timeout_after_few_calls(side):
    # Every replacement is as invalid: a clock begun anew for each would never end, and no pause would keep a core busy.
    async def validate(_):
        return False

    workshop = Workshop(side, validate=validate)
    pool = side.pool(workshop, max_size=2, validate_on_acquire=True)
    began = time.monotonic()
    with pytest.raises(PoolTimeoutError) as caught:
        await pool.acquire(timeout=0.4)
    assert time.monotonic() - began >= 0.4
    assert isinstance(caught.value.__cause__, CreateError)
    assert 1 <= workshop.calls["validate"] <= 10
    assert workshop.calls["create"] <= 12
    assert pool.pending == pool.borrowed == 0


@on_both
async def test_an_invalid_resource_handed_to_a_waiter_does_not_restart_its_clock(side):
    spoiled = []
    more = side.gate(is_open=True)

    async def validate(thing):
        return thing not in spoiled

    workshop = Workshop(side, create=more, validate=validate)
    pool = side.pool(workshop, max_size=3, validate_on_acquire=0.0)
    held = [await pool.acquire() for _ in range(3)]
    more.close()  # from now on the waiter depends on what is handed to it
    spoiled += held
    workshop.calls.clear()

    async def waits():
        await pool.acquire(timeout=1.0)

    began = time.monotonic()
    waiter = side.go(waits)
    await side.until(lambda: pool.pending == 1)
    for times, value in enumerate(held, 1):
        await pool.release(value)
        await side.until(lambda times=times: workshop.calls["validate"] == times or waiter.is_done)
    with pytest.raises(PoolTimeoutError):
        await waiter.result()
    assert workshop.calls["validate"] == 3, "each was looked at, and the waiter kept its place"
    assert 1.0 <= time.monotonic() - began < 15
    more.open()
    await whole(pool)


@on_both
async def test_what_else_happens_to_a_pool_does_not_change_a_waiters_clock(side):
    pool = side.pool(Workshop(side), max_size=1)
    held = await pool.acquire()
    began = time.monotonic()

    async def waits():
        await pool.acquire(timeout=0.2)

    waiter = side.go(waits)
    await side.until(lambda: pool.pending == 1)
    while not waiter.is_done:
        pool.suspend()
        pool.resume()
        pool.resize(0, 1)
        pool.sweep()
        await side.breathe()
    with pytest.raises(PoolTimeoutError):
        await waiter.result()
    assert 0.2 <= time.monotonic() - began < 15
    await pool.release(held)
    await whole(pool)


@on_both
async def test_the_next_borrower_never_sees_what_was_interrupted_in_the_middle_of_its_use(side):
    in_use = side.gate()
    workshop = Workshop(side)
    pool = side.pool(workshop, max_size=1)

    async def uses():
        async with pool.lease() as thing:
            thing.notes.append("half a message")
            await in_use()

    await side.interrupted(uses, when=lambda: in_use.arrived)
    async with pool.lease() as thing:
        assert thing.notes == []
    assert workshop.unmade == workshop.made[:1]


@on_both
async def test_a_release_hook_resets_what_was_interrupted_in_the_middle_of_its_use(side):
    in_use = side.gate()

    async def release(thing):
        thing.notes.clear()

    workshop = Workshop(side, release=release)
    pool = side.pool(workshop, max_size=1)

    async def uses():
        async with pool.lease() as thing:
            thing.notes.append("half a message")
            await in_use()

    await side.interrupted(uses, when=lambda: in_use.arrived)
    async with pool.lease() as thing:
        assert thing.notes == []
    assert workshop.made == [thing], "the same one, reset"


@on_both
async def test_a_stop_interrupted_half_way_and_called_again_destroys_each_resource_once(side):
    gate = side.gate()

    async def destroy(_):
        await gate()

    workshop = Workshop(side, destroy=destroy)
    pool = side.pool(workshop, max_size=4)
    await whole(pool)

    async def stops():
        await pool.stop(20)

    await side.interrupted(stops, when=lambda: gate.arrived == 4)
    gate.open()
    await pool.stop(20)
    assert pool.size == 0
    assert workshop.calls["destroy"] == 4
    assert workshop.is_even()


@on_both
async def test_waiters_that_timed_out_no_longer_count_toward_max_waiting(side):
    pool = side.pool(Workshop(side), max_size=1, max_waiting=2)
    held = await pool.acquire()

    async def waits(seconds):
        return await pool.acquire(timeout=seconds)

    for _ in range(3):
        waiters = [side.go(waits, 0.02) for _ in range(2)]
        for waiter in waiters:
            with pytest.raises(PoolTimeoutError):
                await waiter.result()
    waiters = [side.go(borrows, pool) for _ in range(2)]
    await side.until(lambda: pool.pending == 2)
    with raising(PoolExhaustedError, "max_waiting=2"):
        await pool.acquire()
    await pool.release(held)
    for waiter in waiters:
        await waiter.result()
    await whole(pool)


async def borrows(pool):
    async with pool.lease():
        pass
