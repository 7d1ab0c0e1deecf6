"""The errors of borrowers if the budget, rather than the key's own limit, leaves no room."""

from __future__ import annotations

import pytest

from pooling import PoolBudget, PoolExhaustedError, PoolTimeoutError
from tests.contract.harness import on_both, raising
from tests.contract.workshop import Workshop
from tests.keyed.drivers import keyed


@on_both
async def test_who_may_not_wait_is_refused_at_once_where_the_budget_is_spent(side):
    pool = keyed(side, Workshop(side), max_size=3, max_total=2, name="db")
    held = [await pool.acquire("a"), await pool.acquire("b")]
    with raising(PoolExhaustedError, "no room for one more under max_total=2", "raise max_total") as caught:
        await pool.acquire_nowait("c")
    assert caught.value.limit == "acquire_nowait"
    assert (caught.value.counts.total, caught.value.counts.pools) == (2, 2)
    for value in held:
        await pool.release(value)


@on_both
async def test_no_waiting_at_all_holds_for_the_budget_too(side):
    pool = keyed(side, Workshop(side), max_size=3, max_total=2, max_waiting=0)
    held = [await pool.acquire("a"), await pool.acquire("b")]
    with raising(PoolExhaustedError, "max_waiting=0", "max_total=2"):
        await pool.acquire("c")
    await pool.release(held.pop())
    held.append(await pool.acquire("c"))  # in the place of what is idle now
    for value in held:
        await pool.release(value)


@on_both
async def test_who_may_not_wait_takes_the_place_of_another_keys_idle_resource(side):
    workshop = Workshop(side)
    pool = keyed(side, workshop, max_size=3, max_total=2)
    values = [await pool.acquire("a"), await pool.acquire("a")]
    for value in values:
        await pool.release(value)
    held = [await pool.acquire_nowait("b"), await pool.acquire_nowait("c")]
    with pytest.raises(PoolExhaustedError):
        await pool.acquire_nowait("d")
    assert workshop.most == 2
    for value in held:
        await pool.release(value)


@on_both
async def test_a_place_that_another_borrower_waits_for_is_not_free(side):
    gate = side.gate()

    async def destroy(_):
        await gate()

    pool = keyed(side, Workshop(side, destroy=destroy), max_size=3, max_total=1)
    await pool.release(await pool.acquire("a"))
    waiter = side.go(pool.acquire, "b")
    await gate.reached()
    with pytest.raises(PoolExhaustedError):
        await pool.acquire_nowait("c")
    gate.open()
    await pool.release(await waiter.result())


@on_both
async def test_a_timeout_under_a_spent_budget_names_the_budget_and_its_largest_user(side):
    pool = keyed(side, Workshop(side), max_size=3, max_total=2, name="db")
    held = [await pool.acquire("ann"), await pool.acquire("bob")]
    with raising(
        PoolTimeoutError,
        "pool 'db' key 'cyd'",
        "(step: queueing)",
        "2 of max_total=2 used by 2 pools",
        "oldest of all borrowed from pool 'db' key 'ann'",
        "test_spent_budget.py:",
        "Raise max_total",
    ) as caught:
        await pool.acquire("cyd", timeout=0.01)
    error = caught.value
    assert error.limit == "max_total=2"
    assert (error.counts.max_total, error.counts.total, error.counts.pools) == (2, 2, 2)
    for value in held:
        await pool.release(value)


@on_both
async def test_a_timeout_of_a_key_at_its_own_limit_names_that(side):
    pool = keyed(side, Workshop(side), max_size=1, max_total=2)
    held = [await pool.acquire("ann"), await pool.acquire("bob")]
    with raising(PoolTimeoutError, "raise max_size") as caught:
        await pool.acquire("ann", timeout=0.01)
    assert caught.value.limit == "max_size=1"
    for value in held:
        await pool.release(value)


@on_both
async def test_a_timeout_under_a_squeezed_budget_says_so(side):
    pool = keyed(side, Workshop(side), max_total=5)
    held = await pool.acquire("ann")
    pool.budget.squeeze(60.0)
    with raising(PoolTimeoutError, "1 of max_total=5 (squeezed to 1 for now) used by 1 pool;"):
        await pool.acquire("bob", timeout=0.01)
    await pool.release(held)


@on_both
async def test_a_pool_that_cannot_be_filled_within_its_budget_says_so(side):
    pool = side.pool(Workshop(side), min_size=3, max_size=3, budget=PoolBudget(2), timeout=0.05)
    with raising(
        PoolTimeoutError, "min_size=3 was not reached", "2 of max_total=2", "(step: queueing)", "lower min_size"
    ) as caught:
        await pool.start()
    assert caught.value.limit == "max_total=2"


@on_both
async def test_a_pool_whose_budget_others_idle_resources_have_says_so_as_well(side):
    budget = PoolBudget(1)
    other = side.pool(Workshop(side), budget=budget)
    await other.release(await other.acquire())
    pool = side.pool(Workshop(side), min_size=1, budget=budget, timeout=0.05)
    with raising(PoolTimeoutError, "min_size=1 was not reached", "1 of max_total=1", "Raise max_total"):
        await pool.start()
