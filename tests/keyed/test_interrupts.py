"""An interrupt between any two lines of a keyed pool for threads; in a loop it can come at an `await` only."""

from __future__ import annotations

import itertools

import pytest

from pooling import PoolTimeoutError
from tests.contract.harness import InterruptedBySignal, on_threads
from tests.contract.test_any_line import raises, tracing
from tests.contract.workshop import Workshop
from tests.keyed.doors import keyed

# An interrupt between making a coroutine and running it leaves one that never ran.
pytestmark = pytest.mark.filterwarnings(
    "ignore:coroutine .* was never awaited:RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


async def is_whole(pool, where):
    """The whole budget can be had by one key after the other."""
    for key in ("whole", "other"):
        held = []
        try:
            while len(held) < 2:
                held.append(await pool.acquire(key, timeout=5))
        except PoolTimeoutError as error:
            raise AssertionError(f"interrupted before {where}: {error}") from error
        for value in held:
            await pool.release(value)
    assert pool.pending == 0, where
    assert pool.service._out == {}, where


@pytest.mark.parametrize("start", ["idle", "nothing", "another's", "unknown key"])
@on_threads
async def test_an_interrupt_before_any_line_of_acquire_loses_nothing(side, start):
    pool = keyed(side, Workshop(side), max_total=2, max_size=2)
    for number in itertools.count(1):
        if start == "idle":
            await pool.release(await pool.acquire("key"))
        elif start == "another's":
            held = [await pool.acquire("rich") for _ in range(2)]
            for value in held:
                await pool.release(value)
        elif start == "nothing":
            pool.expire("key")
        key = f"key {number}" if start == "unknown key" else "key"
        value = None
        with tracing(side, number, raises) as line:
            try:
                value = await pool.acquire(key)
            except InterruptedBySignal:
                pass
        if value is not None:
            assert not line.has_acted, f"the interrupt before {line.where} was swallowed"
            await pool.release(value)
        await is_whole(pool, line.where)
        if not line.has_acted:
            break
    assert number > 10


@pytest.mark.parametrize("how", ["release", "destroy"])
@pytest.mark.parametrize("somebody_waits", [False, True])
@on_threads
async def test_an_interrupt_before_any_line_of_giving_back_loses_nothing(side, how, somebody_waits):
    pool = keyed(side, Workshop(side), max_total=2, max_size=2)
    for number in itertools.count(1):
        value, other = await pool.acquire("key"), await pool.acquire("key")
        waiter = None
        if somebody_waits:
            waiter = side.go(pool.acquire, "hungry")
            await side.until(lambda: pool.pending == 1)
        with tracing(side, number, raises) as line:
            try:
                await getattr(pool, how)(value)
            except InterruptedBySignal:
                pass
            else:
                assert not line.has_acted, f"the interrupt before {line.where} was swallowed"
        if pool.is_borrowed(value):  # it had not begun: who was interrupted has it still
            await pool.release(value)
        await pool.release(other)
        if waiter is not None:
            await pool.release(await waiter.result())
        await is_whole(pool, line.where)
        if not line.has_acted:
            break
    assert number > 5
