"""Creating resources: failures, outages, slow hosts, sudden crowds, other sizes."""

from __future__ import annotations

import math

import pytest

from pooling import CreateError, PoolExhaustedError, PoolingError, PoolTimeoutError, ReleaseError
from tests.contract.harness import LIMIT, on_asyncio, on_both, raising, whole
from tests.contract.workshop import Clock, Workshop


class RefusedError(Exception):
    """The host says no, for now."""


async def borrow(pool, **options):
    async with pool.lease(**options) as value:
        return value


@on_both
async def test_a_create_that_always_fails_is_tried_few_times_and_is_the_cause_of_the_timeout(side):
    async def create():
        raise RefusedError("not now")

    workshop = Workshop(side, create=create)
    pool = side.pool(workshop, max_size=4)
    with raising(PoolTimeoutError, "RefusedError", "step: creating") as caught:
        await pool.acquire(timeout=0.5)
    assert isinstance(caught.value.__cause__, RefusedError)
    # Pauses of 50, 100, 200, … ms, a quarter more or less: five attempts fill half a second.
    assert 1 <= workshop.calls["create"] <= 6
    await side.until(lambda: pool.size == 0)  # one attempt may still be under way


@on_both
async def test_the_pause_between_failed_creates_grows_up_to_its_maximum(side):
    async def create():
        raise RefusedError

    workshop = Workshop(side, create=create)
    pool = side.pool(workshop, max_size=1, create_backoff=0.001, create_backoff_max=0.002)
    with pytest.raises(PoolTimeoutError):
        await pool.acquire(timeout=0.5)
    eager = workshop.calls["create"]
    assert eager > 10, "the pause stays below its maximum, however many have failed"


@on_both
async def test_a_create_error_that_cannot_be_cured_reaches_the_waiter_at_once(side):
    async def create():
        raise RefusedError("permanent")

    workshop = Workshop(side, create=create, plain={"is_final": lambda error: "permanent" in str(error)})
    pool = side.pool(workshop)
    with raising(CreateError, "RefusedError", "step: creating", pool.name) as caught:
        await pool.acquire()
    assert isinstance(caught.value.__cause__, RefusedError)
    assert workshop.calls["create"] == 1
    assert pool.size == pool.pending == 0


@pytest.mark.parametrize("mistake", [TypeError, AttributeError, NotImplementedError, CreateError])
@on_both
async def test_a_mistake_in_the_factorys_code_is_not_tried_again(side, mistake):
    async def create():
        raise mistake("create is wrong")

    workshop = Workshop(side, create=create)
    pool = side.pool(workshop)
    with pytest.raises(CreateError) as caught:
        await pool.acquire()
    assert isinstance(caught.value.__cause__, mistake)
    assert workshop.calls["create"] == 1


@pytest.mark.parametrize("is_final", [True, False])
@on_both
async def test_one_borrowers_failing_create_does_not_hold_up_another(side, is_final):
    first, second = side.gate(), side.gate()
    gates = iter([first, second])

    async def create():
        gate = next(gates, None)
        if gate is not None:
            await gate()
        if gate is first:
            raise RefusedError

    workshop = Workshop(side, create=create, plain={"is_final": lambda error: is_final})
    pool = side.pool(workshop, max_size=2, max_creating=2)
    borrowers = [side.go(borrow, pool), side.go(borrow, pool)]
    await first.reached()
    await second.reached()
    first.open()
    await side.until(lambda: workshop.creating == 1)
    second.open()
    outcomes = []
    for borrower in borrowers:
        try:
            outcomes.append(await borrower.result())
        except CreateError as error:
            outcomes.append(error)
    failed = [outcome for outcome in outcomes if isinstance(outcome, CreateError)]
    assert len(failed) == (1 if is_final else 0), outcomes


@on_both
async def test_a_failed_create_does_not_reach_a_waiter_that_a_returned_resource_serves(side):
    refused = side.gate()
    calls = []

    async def create():
        calls.append(None)
        if len(calls) > 1:
            await refused()
            raise RefusedError

    pool = side.pool(Workshop(side, create=create), max_size=2, create_backoff=20.0, create_backoff_max=20.0)
    held = await pool.acquire()
    waiter = side.go(borrow, pool)
    await refused.reached()
    refused.open()
    await side.until(lambda: pool.stats().create_failures == 1)
    await pool.release(held)
    assert await waiter.result() is held


@on_both
async def test_ten_borrowers_on_five_places_finish_though_each_destroys_what_it_had(side):
    workshop = Workshop(side)
    pool = side.pool(workshop, max_size=5)

    async def breaks():
        value = await pool.acquire()
        await side.turn()
        await pool.destroy(value)

    for borrower in [side.go(breaks) for _ in range(10)]:
        await borrower.result()
    assert workshop.most <= 5
    assert pool.size == 0
    assert pool.stats().destroyed_by == {"destroyed": 10}


@on_both
async def test_a_create_that_outlasts_its_callers_serves_the_first_that_comes_after(side):
    gate = side.gate()
    workshop = Workshop(side, create=gate)
    pool = side.pool(workshop, max_size=1)
    for _ in range(2):
        with raising(PoolTimeoutError, "step: creating"):
            await pool.acquire(timeout=0.02)
    third = side.go(borrow, pool)
    await side.until(lambda: pool.pending == 1)
    gate.open()
    assert await third.result() is workshop.made[0]
    assert workshop.calls["create"] == 1


@on_both
async def test_slow_destroying_never_lets_more_exist_than_max_size(side):
    gate = side.gate()

    async def destroy(_):
        await gate()

    workshop = Workshop(side, destroy=destroy)
    pool = side.pool(workshop, max_size=3)

    async def churns():
        for _ in range(3):
            value = await pool.acquire()
            await pool.destroy(value)

    borrowers = [side.go(churns) for _ in range(6)]
    await gate.reached(3)
    with pytest.raises(PoolTimeoutError):
        await pool.acquire(timeout=0.02)
    assert pool.stats().closing == pool.size == 3, "a place is taken until the destroy has ended"
    gate.open()
    for borrower in borrowers:
        await borrower.result()
    assert workshop.most <= 3


@on_both
async def test_after_an_outage_parked_waiters_are_served_and_the_pool_is_filled_again(side):
    is_up = [True]

    async def create():
        if not is_up[0]:
            raise RefusedError

    workshop = Workshop(side, create=create)
    pool = side.pool(workshop, min_size=2, max_size=4, create_backoff=0.005, create_backoff_max=0.02)
    await pool.start()
    is_up[0] = False
    for value in [await pool.acquire(), await pool.acquire()]:
        await pool.destroy(value)
    waiters = [side.go(borrow, pool) for _ in range(6)]
    await side.until(lambda: pool.pending == 6)
    failed = pool.stats().create_failures
    await side.until(lambda: pool.stats().create_failures >= failed + 3)
    assert not any(waiter.is_done for waiter in waiters)
    is_up[0] = True
    for waiter in waiters:
        await waiter.result()
    await side.until(lambda: pool.available >= 2, "back to min_size")
    assert workshop.most <= 4


@on_both
async def test_after_an_outage_without_waiters_the_pool_fills_up_to_min_size(side):
    is_up = [True]

    async def create():
        if not is_up[0]:
            raise RefusedError

    workshop = Workshop(side, create=create)
    pool = side.pool(workshop, min_size=3, max_size=4, create_backoff=0.005, create_backoff_max=0.02)
    await pool.start()
    is_up[0] = False
    pool.expire()
    failed = pool.stats().create_failures
    await side.until(lambda: pool.stats().create_failures >= failed + 4)
    assert pool.available == 0
    is_up[0] = True
    await side.until(lambda: pool.available == 3)
    assert workshop.most <= 4


@on_both
async def test_pools_whose_hosts_never_answer_do_not_delay_a_healthy_one(side):
    never = side.gate()
    stuck = [side.pool(Workshop(side, create=never), max_size=4, max_creating=4) for _ in range(6)]
    for pool in stuck:
        for _ in range(4):
            side.go(borrow, pool)
    await never.reached(24)
    healthy = side.pool(Workshop(side), max_size=1)
    assert await borrow(healthy) is not None
    assert not never._event.is_set()


@on_both
async def test_a_sudden_crowd_does_not_open_one_resource_for_each(side):
    # A create takes as long as 75 uses: resources that are given back serve the waiters before a third pair is open.
    crowd_served = side.gate()
    order = []

    async def create():
        order.append(None)
        if len(order) > 2:
            await crowd_served()

    workshop = Workshop(side, create=create)
    pool = side.pool(workshop, max_size=10)

    async def uses():
        async with pool.lease():
            await side.turn()

    for borrower in [side.go(uses) for _ in range(50)]:
        await borrower.result()
    crowd_served.open()
    assert workshop.calls["create"] < 7
    assert workshop.most_creating <= 2


# What the borrower of a pool sees whose hook always raises.
SEEN = {
    "create": PoolTimeoutError,
    "validate": PoolTimeoutError,
    "acquire": RefusedError,
    "release": ReleaseError,
    "destroy": None,
}


async def seen_by_borrowers(pool):
    """Two borrowers one after the other, and what each got to see."""
    for _ in range(2):
        try:
            value = await pool.acquire(timeout=0.25)
            await pool.release(value)
        except (PoolingError, RefusedError) as error:
            yield error
        else:
            yield None


@pytest.mark.parametrize("broken", SEEN)
@on_both
async def test_a_hook_that_always_raises_hangs_no_borrower_and_loses_nothing(side, broken):
    async def raises(*_):
        raise RefusedError

    workshop = Workshop(side, **{broken: raises})
    pool = side.pool(workshop, max_size=2, validate_on_acquire=True)
    async for error in seen_by_borrowers(pool):
        assert type(error) is (SEEN[broken] or type(None))
        assert error is None or isinstance(error, RefusedError) or isinstance(error.__cause__, RefusedError)
        assert pool.borrowed == pool.pending == 0


@pytest.mark.parametrize("broken", SEEN)
@on_asyncio
async def test_a_plain_hook_that_always_raises_in_the_loop_hangs_no_borrower_and_loses_nothing(side, broken):
    def raises(*_):
        raise RefusedError

    workshop = Workshop(side)
    setattr(workshop.factory, broken, raises)
    if broken == "destroy":
        workshop.is_even = lambda: True  # it does not see its things go
    pool = side.pool(workshop, max_size=2, validate_on_acquire=True)
    async for error in seen_by_borrowers(pool):
        assert type(error) is (SEEN[broken] or type(None))
        assert error is None or isinstance(error, RefusedError) or isinstance(error.__cause__, RefusedError)
        assert pool.borrowed == pool.pending == 0


@on_both
async def test_a_pool_made_smaller_while_all_are_out_shrinks_as_they_come_back(side):
    workshop = Workshop(side)
    pool = side.pool(workshop, max_size=4)
    held = [await pool.acquire() for _ in range(4)]
    pool.resize(0, 1)
    assert (pool.options.max_size, pool.size, pool.borrowed) == (1, 4, 4)
    with pytest.raises(PoolExhaustedError):
        await pool.acquire_nowait()
    for value in held:
        await pool.release(value)
    await side.until(lambda: pool.size == 1)
    assert pool.stats().destroyed_by == {"resized": 3}
    await whole(pool)


@on_both
async def test_a_pool_made_larger_while_all_are_out_serves_its_waiters(side):
    workshop = Workshop(side)
    pool = side.pool(workshop, max_size=1)
    held = await pool.acquire()
    waiters = [side.go(borrow, pool) for _ in range(3)]
    await side.until(lambda: pool.pending == 3)
    pool.resize(2, 4)
    for waiter in waiters:
        await waiter.result()
    await pool.release(held)
    await side.until(lambda: pool.available >= 2)
    assert workshop.most <= 4
    await whole(pool)


@on_both
async def test_a_waiter_behind_a_pool_made_smaller_is_served_once_it_has_shrunk(side):
    pool = side.pool(Workshop(side), max_size=3)
    held = [await pool.acquire() for _ in range(3)]
    waiter = side.go(borrow, pool)
    await side.until(lambda: pool.pending == 1)
    pool.resize(0, 1)
    await pool.release(held[0])
    await pool.release(held[1])
    await side.until(lambda: pool.size == 1)
    assert not waiter.is_done
    await pool.release(held[2])
    assert await waiter.result() is held[2]


class Outage:
    """A server that refuses until it is up; counts."""

    def __init__(self):
        self.is_up = False
        self.refused = 0

    async def create(self):
        if not self.is_up:
            self.refused += 1
            raise ConnectionRefusedError


@on_both
async def test_a_borrower_that_comes_after_an_outage_is_served_although_the_pause_is_longer_than_its_timeout(side):
    clock, outage = Clock(), Outage()
    options = {"create_backoff": 0.05, "create_backoff_max": 500.0, "clock": clock}
    pool = side.pool(Workshop(side, create=outage.create), **options)
    waiter = side.go(pool.acquire, timeout=math.inf)
    for count in range(1, 12):
        await side.until(lambda count=count: pool.stats().create_failures == count)
        clock.move(600.0 if count < 11 else 0.0, pool)
    outage.is_up = True
    clock.move(5.0)
    await pool.release(await pool.acquire(timeout=LIMIT))
    await pool.release(await waiter.result())
    assert outage.refused == 11


@pytest.mark.parametrize("how", ["start", "check"])
@on_both
async def test_starting_and_checking_end_the_pause_after_a_failed_create(side, how):
    outage = Outage()
    options = {"min_size": 1, "create_backoff": 600.0, "create_backoff_max": 600.0}
    pool = side.pool(Workshop(side, create=outage.create), **options)
    await pool._call("start", wait=False)
    await side.until(lambda: pool.stats().create_failures == 1)
    outage.is_up = True
    await pool._call(how)
    await side.until(lambda: pool.available == 1)


@on_both
async def test_a_resource_that_validation_refuses_is_no_failed_create(side):
    refused = []

    async def validate(thing):
        refused.append(thing)
        return len(refused) > 3

    pool = side.pool(Workshop(side, validate=validate), validate_on_acquire=True, create_backoff=0.001)
    await pool.release(await pool.acquire())
    stats = pool.stats()
    assert (stats.created, stats.create_failures, stats.destroyed_by) == (4, 0, {"invalid": 3})
