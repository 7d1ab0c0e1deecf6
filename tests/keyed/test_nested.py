"""A budget within a budget: some pools have a lower limit of their own."""

from __future__ import annotations

import math
import os

import pytest

from pooling import ConfigurationError, KeyedPoolingService, PoolBudget, PoolingService, PoolTimeoutError
from tests.contract.harness import on_both, raising
from tests.contract.workshop import Workshop
from tests.keyed.drivers import keyed


def pools(side, *limits, max_total=10, max_size=3, count=2):
    """One workshop for each limit, with pools that count in a budget of that limit, all within one."""
    outer = PoolBudget(max_total)
    made = []
    for limit in limits:
        workshop, budget = Workshop(side), PoolBudget(limit, within=outer)
        made.append((workshop, budget, [side.pool(workshop, budget=budget, max_size=max_size) for _ in range(count)]))
    return outer, made


@on_both
async def test_pools_of_a_nested_budget_keep_its_limit_together(side):
    outer, [(workshop, budget, (first, second))] = pools(side, 3)
    held = [await first.acquire(), await second.acquire(), await second.acquire()]
    with pytest.raises(PoolTimeoutError):
        await first.acquire(timeout=0.05)
    assert (budget.used, outer.used, workshop.most) == (3, 3, 3)
    await second.release(held.pop())
    held.append(await first.acquire(timeout=5))
    assert (first.borrowed, second.borrowed, workshop.most) == (2, 1, 3)
    for pool, value in zip((first, second, first), held, strict=True):
        await pool.release(value)
    assert budget.used == outer.used == 3


@on_both
async def test_one_pool_can_use_the_whole_limit_while_the_others_are_idle(side):
    _, [(workshop, _, (first, second))] = pools(side, 3)
    for pool in (first, second, first):
        held = [await pool.acquire(timeout=5) for _ in range(3)]
        for value in held:
            await pool.release(value)
    assert workshop.most == 3


@on_both
async def test_pools_that_are_both_busy_take_turns(side):
    _, [(workshop, _, (first, second))] = pools(side, 1, max_size=1)
    order = []

    async def borrow(pool, name):
        async with pool.lease():
            order.append(name)
            await side.turn()

    held = await first.acquire()
    waiters = [side.go(borrow, first, "first") for _ in range(30)]
    await side.until(lambda: first.pending == 30)
    waiters.append(side.go(borrow, second, "second"))
    await side.until(lambda: second.pending == 1)
    await first.release(held)
    for waiter in waiters:
        await waiter.result()
    assert order.index("second") <= 20, "it does not queue behind all of them"
    assert workshop.most == 1


@on_both
async def test_the_outer_limit_holds_over_all_nested_ones(side):
    outer, made = pools(side, 2, 2, max_total=2)
    (one, _, (ann, _)), (other, _, (bob, _)) = made
    held = [await ann.acquire(), await ann.acquire()]
    waiter = side.go(bob.acquire)
    await side.until(lambda: bob.pending == 1)
    await ann.release(held.pop())
    got = await waiter.result()
    assert (outer.used, one.most, other.most) == (2, 2, 1)
    await ann.release(held.pop())
    await bob.release(got)


@on_both
async def test_a_pool_is_counted_in_a_nested_budget_from_some_moment_on(side):
    outer, workshop = PoolBudget(10), Workshop(side)
    early, late = side.pool(workshop, budget=outer, max_size=3), Workshop(side)
    held = [await early.acquire(), await early.acquire()]
    await early.release(held.pop())
    budget = PoolBudget(2, within=outer)
    early.count_in(budget)
    early.count_in(budget)  # which changes nothing
    assert (budget.used, outer.used) == (2, 2)
    other = side.pool(late, budget=budget, max_size=3)
    held.append(await other.acquire(timeout=5))
    assert (early.size, other.size, budget.used, outer.used) == (1, 1, 2, 2)
    with pytest.raises(PoolTimeoutError):
        await early.acquire(timeout=0.05)
    await early.release(held[0])
    await other.release(held[1])
    await early.stop()
    await other.stop()
    assert (budget.used, outer.used) == (0, 0)


@on_both
async def test_a_nested_budget_that_is_raised_serves_waiters_at_once(side):
    outer, [(_, budget, (first, second))] = pools(side, 1)
    held = await first.acquire()
    waiter = side.go(second.acquire)
    await side.until(lambda: second.pending == 1)
    budget.resize(2)
    await second.release(await waiter.result())
    budget.resize(1)
    await side.until(lambda: outer.used == 1)
    assert (budget.max_total, first.borrowed, second.size) == (1, 1, 0)
    await first.release(held)


@on_both
async def test_keys_of_a_keyed_service_have_a_limit_in_common(side):
    workshop = Workshop(side)
    pool = keyed(side, workshop, max_total=5)
    budget = PoolBudget(2, within=pool.budget)
    for key in ("a", "b"):
        pool.service.add_pool(key, pool.service.make_pool(key, workshop.factory, budget=budget))
    held = [await pool.acquire(key) for key in ("a", "b", "other")]
    with pytest.raises(PoolTimeoutError):
        await pool.acquire("a", timeout=0.05)
    assert (budget.used, pool.budget.used) == (2, 3)
    for value in held:
        await pool.release(value)


def test_budgets_that_cannot_be_nested_are_refused():
    outer = PoolBudget(math.inf)
    inner = PoolBudget(2, within=outer)
    assert (inner.within, outer.within) == (outer, None)
    with raising(ConfigurationError, "within=3", "expected a PoolBudget"):
        PoolBudget(2, within=3)
    with raising(ConfigurationError, "unknown argument 'withn' of a budget: did you mean 'within'?"):
        PoolBudget(2, withn=outer)
    with raising(ConfigurationError, "within another itself"):
        PoolBudget(2, within=inner)
    for given in (3, PoolBudget(2), PoolBudget(2, within=PoolBudget(3))):
        with raising(ConfigurationError, "expected one within this pool's budget"):
            PoolingService(object, budget=outer).count_in(given)
        with raising(ConfigurationError, "expected one within this service's budget"):
            KeyedPoolingService(max_total=3).make_pool("key", object, budget=given)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_nested_budgets_of_its_own():
    outer = PoolBudget(3)
    budget = PoolBudget(2, within=outer)
    first, second = PoolingService(object, budget=budget), PoolingService(object, budget=budget)
    held = [first.acquire(), second.acquire()]
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        outcome = b"failed"
        try:
            first.acquire(timeout=5)
            second.acquire(timeout=5)
            try:
                first.acquire(timeout=0.05)
            except PoolTimeoutError:
                outcome = b"worked" if (budget.used, outer.used) == (2, 2) else b"miscounted"
        finally:
            os.write(writer, outcome)
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as outcome:
        assert outcome.read() == b"worked"
    os.waitpid(child, 0)
    assert (budget.used, outer.used) == (2, 2)
    first.release(held[0])
    second.release(held[1])
