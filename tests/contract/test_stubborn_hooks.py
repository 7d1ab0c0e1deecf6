"""Hooks for asyncio at their deadline: they are cancelled, and one that suppresses this delays its borrower."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from pooling import PoolTimeoutError, ReleaseError
from tests.contract.harness import LIMIT, on_asyncio, raising
from tests.contract.workshop import Workshop


def stubborn(gate, seen):
    """A hook that ends when the gate is opened, however often it is cancelled."""

    async def hook(*_):
        while True:
            try:
                await gate()
            except asyncio.CancelledError:
                seen.append("cancelled")
                continue
            return True

    return hook


@pytest.mark.parametrize("step", ["validate", "acquire"])
@on_asyncio
async def test_a_hook_that_ignores_its_cancellation_delays_its_borrower_which_then_times_out(side, step):
    gate, seen = side.gate(), []
    workshop = Workshop(side, **{step: stubborn(gate, seen)})
    pool = side.pool(workshop, max_size=1, validate_on_acquire=True)
    borrower = side.go(pool.acquire, timeout=0.01)
    await side.until(lambda: seen)
    gate.open()
    with raising(PoolTimeoutError, "validating" if step == "validate" else "acquire hook"):
        await borrower.result()
    await side.until(lambda: len(workshop.unmade) == 1)
    await pool.release(await pool.acquire())


@on_asyncio
async def test_a_create_that_ignores_its_cancellation_is_waited_for_and_used(side):
    gate, seen = side.gate(), []
    wait = stubborn(gate, seen)

    async def create():
        await wait()
        return object()

    pool = side.pool(Workshop(side, create=create), max_size=1, create_timeout=0.01)
    borrower = side.go(pool.acquire)
    await side.until(lambda: seen)
    gate.open()
    await pool.release(await borrower.result())
    assert pool.service.stats().create_failures == 0


@on_asyncio
async def test_a_destroy_that_ignores_its_cancellation_does_not_hold_its_caller(side):
    gate, seen = side.gate(), []
    pool = side.pool(Workshop(side, destroy=stubborn(gate, seen)), max_size=1, destroy_timeout=0.01)
    await pool.destroy(await pool.acquire())
    await side.until(lambda: seen)
    gate.open()
    await pool.release(await pool.acquire())


@on_asyncio
async def test_a_release_hook_that_ignores_its_cancellation_delays_the_release_which_then_fails(side):
    gate, seen = side.gate(), []
    pool = side.pool(Workshop(side, release=stubborn(gate, seen)), max_size=1, destroy_timeout=0.01)
    value = await pool.acquire()
    release = side.go(pool.release, value)
    await side.until(lambda: seen)
    gate.open()
    with raising(ReleaseError, "did not end within destroy_timeout=0.01 s"):
        await release.result()
    await pool.release(await pool.acquire())


@on_asyncio
async def test_a_hook_that_cleans_up_when_cancelled_has_ended_before_its_borrower_goes_on(side):
    gate, steps = side.gate(), []

    async def acquire(*_):
        try:
            await gate()
        finally:
            await side.turn()
            steps.append("cleaned up")

    async def destroy(_):
        steps.append("destroyed")

    pool = side.pool(Workshop(side, acquire=acquire, destroy=destroy), max_size=1)
    with pytest.raises(PoolTimeoutError):
        await pool.acquire(timeout=0.02)
    await side.until(lambda: len(steps) == 2)
    assert steps == ["cleaned up", "destroyed"]


@on_asyncio
async def test_a_hook_in_time_runs_in_its_borrowers_task_and_context(side):
    variable = contextvars.ContextVar("variable", default="nothing")
    tasks = []

    async def acquire(*_):
        await side.turn()
        async with asyncio.timeout(LIMIT):
            await side.breathe()
        variable.set("by the hook")
        tasks.append(asyncio.current_task())

    pool = side.pool(Workshop(side, acquire=acquire))
    value = await pool.acquire()
    assert (tasks, variable.get()) == ([asyncio.current_task()], "by the hook")
    await pool.release(value)


@on_asyncio
async def test_a_hooks_timeout_and_errors_are_told_from_the_pools(side):
    gate = side.gate()

    async def acquire(_, ctx):
        if ctx == "times out":
            async with asyncio.timeout(0.01):
                await gate()
        await side.breathe()
        raise LookupError

    pool = side.pool(Workshop(side, acquire=acquire))
    with pytest.raises(TimeoutError) as caught:
        await pool.acquire("times out")
    assert not isinstance(caught.value, PoolTimeoutError)
    with pytest.raises(LookupError):
        await pool.acquire("fails")
    assert asyncio.current_task().cancelling() == 0
