"""
Alarms of real pools: one that is due and changes nothing does not delay other pools.

Two kinds: alarms of what a ledger must keep still about, and one planted in it, for the guard that both timers have.
"""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from pooling import PoolingService
from pooling._backends.alarms import PAUSE
from pooling._backends.threads import ThreadBackend
from pooling._engine.ledger import Ledger
from tests.contract.harness import LIMIT, on_both, whole
from tests.contract.workshop import Workshop


@on_both
async def test_a_resource_whose_lifetime_ends_while_it_is_being_destroyed_delays_no_borrower(side):
    gate = side.gate()

    async def destroy(thing):
        await gate()

    workshop = Workshop(side, destroy=destroy)
    pool = side.pool(workshop, max_size=1, max_lifetime=0.05, max_idle=0.05)
    other = side.pool(Workshop(side), max_size=1, max_idle=0.05)
    await whole(other)
    destroying = side.go(pool.destroy, await pool.acquire())
    ends = time.monotonic() + 0.1
    await side.until(lambda: workshop.unmade and time.monotonic() > ends and other.size == 0)
    assert pool.size == 1
    gate.open()
    await destroying.result()
    assert pool.stats().destroyed_by == {"destroyed": 1}


@on_both
async def test_a_resource_whose_lifetime_ends_in_a_hook_is_replaced_after_it_and_delays_no_borrower(side):
    gate = side.gate()

    async def linger(*_):
        await gate()

    workshop = Workshop(side, release=linger)
    pool = side.pool(workshop, max_size=1, max_lifetime=0.05)
    other = side.pool(Workshop(side), max_size=1, max_idle=0.05)
    await whole(other)
    releasing = side.go(pool.release, await pool.acquire())
    ends = time.monotonic() + 0.1
    await side.until(lambda: workshop.calls["release"] and time.monotonic() > ends and other.size == 0)
    assert not workshop.unmade
    gate.open()
    await releasing.result()
    await side.until(lambda: len(workshop.unmade) == 1)
    assert pool.stats().destroyed_by == {"max_lifetime": 1}


@on_both
async def test_a_callback_that_raises_takes_no_other_alarm_with_it(side, caplog):
    seen, rung = [], []
    error = SystemExit("of a callback") if side.name == "threads" else ValueError("of a callback")
    if side.name == "asyncio":
        asyncio.get_running_loop().set_exception_handler(lambda _, told: seen.append(told["exception"]))

    def fails():
        raise error

    pool = side.pool(Workshop(side))
    await whole(pool)
    backend = pool.service.engine.backend
    for callback in (fails, lambda: rung.append(1)):
        backend.at(0.0, callback)
    await side.until(lambda: rung)
    backend.at(0.0, lambda: rung.append(2))
    await side.until(lambda: len(rung) == 2)
    seen += [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert seen == [error]


class Restless(Ledger):
    """Leaves an alarm at its own instant or before it, after every sweep, as no ledger may."""

    __slots__ = ()
    ahead = 0.0  # of the sweep's own instant, in seconds
    sweeps = 0

    def sweep(self, now):
        super().sweep(now)
        self.alarm = now + Restless.ahead
        Restless.sweeps += 1


@pytest.fixture
def restless(monkeypatch):
    monkeypatch.setattr(Restless, "sweeps", 0)
    return Restless


@pytest.mark.parametrize("ahead", [-1.0, 0.0, 1e-9])
@pytest.mark.parametrize("clock", [time.monotonic, time.perf_counter])
@on_both
async def test_an_alarm_without_effect_is_reported_slowed_down_and_delays_no_other_pool(
    side, restless, monkeypatch, caplog, clock, ahead
):
    monkeypatch.setattr(restless, "ahead", ahead)
    pool = side.pool(Workshop(side), max_size=1, max_idle=0.05, name="restless", clock=clock)
    other = side.pool(Workshop(side), max_size=1, max_idle=0.05, name="well")
    await whole(other)
    ledger = pool.service.engine.ledger
    ledger.__class__ = restless
    try:
        await whole(pool)
        began = time.monotonic()
        await side.until(lambda: other.size == 0)
        await side.until(lambda: "at once" in caplog.text)
        await side.until(lambda: time.monotonic() > began + 0.3)
        lasted = time.monotonic() - began
    finally:
        ledger.__class__ = Ledger  # it would go on in the timer that tests for threads share
    # Each pause is twice as long as the last. Where the machine is busy elsewhere between two lines, the pauses
    # begin again with the shortest; without any, there would be tens of thousands.
    assert restless.sweeps <= 20 + lasted / PAUSE
    reports = [text for text in caplog.messages if "at once" in text]
    assert all(text.startswith("<pool 'restless'>") for text in reports)
    assert len(reports) == 1 or ahead > -1.0
    await whole(pool)


class KeptWaiting(ThreadBackend):
    """The thread that sets an alarm goes on only after the alarm has rung, as if another one had had its processor."""

    def at(self, when, callback):
        rung = threading.Event()

        def ring():
            callback()
            rung.set()

        super().at(when, ring)
        if threading.current_thread() is threading.main_thread():
            assert rung.wait(LIMIT)


def test_an_alarm_that_rings_before_it_was_noted_is_followed_by_others():
    pool = PoolingService(object, max_size=1, max_idle=0.05)
    pool.engine.backend = KeptWaiting(lock=pool.engine.backend.lock)
    pool.release(pool.acquire())
    ends = time.monotonic() + LIMIT
    while pool.size:
        assert time.monotonic() < ends, "the pool waits for an alarm that has rung"
        time.sleep(0.001)  # sleeps: until the timer has called
