"""Pools of an event loop under signals whose handler raises while the pool's code runs."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Coroutine
from functools import partial
from typing import Any

import pytest

from pooling import AsyncPoolingService
from pooling._engine.audit import AUDIT_EVERY

from .signals import KINDS, MARKS, Clock, Made, Signals

pytestmark = MARKS
SIGNALS = int(os.environ.get("INTERRUPTS", "60"))
LIMIT = 20.0


class Once:
    """One use of a pool after the other, until a signal has been raised somewhere in the loop."""

    def __init__(self, pool: AsyncPoolingService[Made], signals: Signals) -> None:
        self.pool = pool
        self.signals = signals
        self.before = signals.raised
        self.held: Made | None = None

    async def acquire_and_release(self) -> None:
        while self.signals.raised == self.before:
            self.held = await self.pool.acquire(timeout=LIMIT)
            assert not self.held.is_unmade
            await self.pool.release(self.held)
            self.held = None

    async def acquire_and_destroy(self) -> None:
        while self.signals.raised == self.before:
            self.held = await self.pool.acquire(timeout=LIMIT)
            assert not self.held.is_unmade
            await self.pool.destroy(self.held)
            self.held = None

    async def lease(self) -> None:
        while self.signals.raised == self.before:
            async with self.pool.lease(timeout=LIMIT) as value:
                assert not value.is_unmade

    async def give_back(self) -> None:
        if self.held is not None and self.pool.is_borrowed(self.held):
            await self.pool.release(self.held)


async def is_whole(pool: AsyncPoolingService[Made], clock: Clock, once: Once, size: int) -> None:
    await once.give_back()
    for _ in range(2):
        clock.ahead += AUDIT_EVERY
        pool.sweep()
    values = [await pool.acquire(timeout=LIMIT) for _ in range(size)]
    assert len(set(map(id, values))) == size, "a resource with two holders"
    assert not any(value.is_unmade for value in values)
    for value in values:
        await pool.release(value)


def run_until_a_signal(loop: asyncio.AbstractEventLoop, signals: Signals, work: Coroutine[Any, Any, None]) -> None:
    """Run `work`; what it has raised is dropped here, for its traceback keeps what the work had."""
    task = loop.create_task(work)
    signals.interrupt_until(partial(loop.run_until_complete, task), task.done)
    if not task.cancelled():
        task.exception()
    del task
    gc.collect(1)  # the loop keeps a cycle of exception, traceback and future


async def create() -> Made:
    await asyncio.sleep(0)
    return Made()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("use", ["acquire_and_release", "acquire_and_destroy", "lease"])
@pytest.mark.parametrize("factory", [Made, create])
def test_after_a_signal_at_any_bytecode_the_capacity_of_a_loops_pool_is_whole(factory, use, kind):
    clock = Clock()
    pool: AsyncPoolingService[Made] = AsyncPoolingService(factory, max_size=2, clock=clock)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # what is raised in a callback is told there
    try:
        with Signals(kind, only_inside=True) as signals:
            while signals.raised < SIGNALS:
                once = Once(pool, signals)
                run_until_a_signal(loop, signals, getattr(once, use)())
                loop.run_until_complete(is_whole(pool, clock, once, 2))
        loop.run_until_complete(pool.stop())
    finally:
        loop.close()
    assert pool.stats().size == 0
