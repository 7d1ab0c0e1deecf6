"""Hooks for asyncio that go on although they were cancelled, because their time was up."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from pooling import PoolTimeoutError, ReleaseError
from tests.contract.harness import LIMIT, on_asyncio, raising
from tests.contract.workshop import Workshop


def stubborn(gate, how="swallows"):
    """A hook that ends when the gate is opened, whoever cancels it."""

    async def waits():
        while True:
            try:
                await gate()
            except asyncio.CancelledError:
                continue
            return True

    async def hook(*_):
        if how == "swallows":
            return await waits()
        if how == "in a task":
            return await asyncio.create_task(waits())
        if how == "turns":
            while not gate.is_opened:
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    pass
            return True
        try:
            await gate()
        finally:
            await waits()
        return True

    return hook


@pytest.fixture
def gates():
    """Makes a gate that tells whether it is open."""

    def make(side):
        gate = side.gate()
        gate.is_opened = False
        opens = gate.open

        def remembering():
            gate.is_opened = True
            opens()

        gate.open = remembering
        return gate

    return make


@pytest.mark.parametrize("how", ["swallows", "in a task", "turns", "cleans up"])
@pytest.mark.parametrize("step", ["validate", "acquire"])
@on_asyncio
async def test_a_hook_that_ignores_its_cancellation_does_not_hold_its_borrower(side, step, how, gates, caplog):
    gate = gates(side)
    workshop = Workshop(side, **{step: stubborn(gate, how)})
    pool = side.pool(workshop, max_size=1, validate_on_acquire=True, name="orders")
    with raising(PoolTimeoutError, "validating" if step == "validate" else "acquire hook"):
        await asyncio.wait_for(pool.acquire(timeout=0.03), LIMIT)
    assert "left behind" in caplog.text
    await side.until(lambda: len(workshop.unmade) == 1)
    with pytest.raises(PoolTimeoutError):
        await asyncio.wait_for(pool.acquire(timeout=0.03), LIMIT)
    assert caplog.text.count("left behind") == 1, "said once for each pool"
    gate.open()
    await pool.release(await pool.acquire())
    await side.until(lambda: len(asyncio.all_tasks()) == 1)


@on_asyncio
async def test_a_destroy_that_ignores_its_cancellation_frees_its_place(side, gates):
    gate = gates(side)
    pool = side.pool(Workshop(side, destroy=stubborn(gate)), max_size=1, destroy_timeout=0.03)
    await pool.destroy(await pool.acquire())
    value = await pool.acquire()
    gate.open()
    await pool.release(value)
    await side.until(lambda: len(asyncio.all_tasks()) == 1)


@on_asyncio
async def test_a_release_hook_that_ignores_its_cancellation_is_given_up(side, gates):
    gate = gates(side)
    pool = side.pool(Workshop(side, release=stubborn(gate)), max_size=1, destroy_timeout=0.03)
    value = await pool.acquire()
    with raising(ReleaseError, "did not end within destroy_timeout=0.03 s"):
        await asyncio.wait_for(pool.release(value), LIMIT)
    again = await pool.acquire()
    gate.open()
    await pool.release(again)
    await side.until(lambda: len(asyncio.all_tasks()) == 1)


@on_asyncio
async def test_a_borrower_cancelled_in_a_hook_that_keeps_that_to_itself_sees_it_at_the_deadline(side, gates):
    gate = gates(side)
    pool = side.pool(Workshop(side, acquire=stubborn(gate)), max_size=1)
    borrower = side.go(pool.acquire, timeout=0.05)
    await gate.reached()
    borrower.cancel()
    with pytest.raises(asyncio.CancelledError):
        await borrower.result()
    gate.open()
    await pool.release(await pool.acquire())
    await side.until(lambda: len(asyncio.all_tasks()) == 1)


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
async def test_a_hooks_own_timeout_and_own_errors_stay_its_own(side):
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
