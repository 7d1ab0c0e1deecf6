"""
An interrupt, or another thread, between any two lines of the pool.

The first dozen lines of each call, and then every seventh, in each test others; `LINES_STRIDE=1` tries all.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import threading

import pytest

from pooling import PoolClosedError, PoolExhaustedError, PoolTimeoutError, ReleaseError, get_pooled_value
from tests.contract.harness import InterruptedBySignal, _Entered, on_both, on_threads
from tests.contract.lines import BeforeLine
from tests.contract.workshop import Workshop

# A coroutine made in the line before the interrupt never starts, and Python says so.
pytestmark = pytest.mark.filterwarnings(
    "ignore:coroutine .* was never awaited:RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
STRIDE = int(os.environ.get("LINES_STRIDE", "7"))


def lines_of(number_of_test):
    """Numbers of the lines to stop at: all of a fast path's, then some, in each test others."""
    return itertools.chain(range(1, 13), itertools.count(13 + number_of_test % STRIDE, STRIDE))


@pytest.fixture(autouse=True)
def _quick_collections():
    gc.collect()
    gc.freeze()  # what other tests have left need not be looked at again after each line
    yield
    gc.unfreeze()


async def works(*_):
    return True


WAYS = {
    "plain": ({}, {}),
    "with hooks": ({"validate": works, "acquire": works, "release": works}, {"validate_on_acquire": True}),
    "with every option": (
        {"validate": works, "release": works},
        {"validate_on_release": True, "max_uses": 3, "leak_timeout": 60.0, "use_times": True, "priorities": 2},
    ),
}


def raises():
    raise InterruptedBySignal


async def is_whole(pool, where):
    """As many as there is room for can be had at once."""
    gc.collect()  # a lease that was interrupted before it could say so is garbage by now
    held = []
    try:
        while len(held) < pool.options.max_size:
            held.append(await pool.acquire(timeout=5))
    except PoolTimeoutError as error:
        raise AssertionError(f"interrupted before {where}: {error}") from error
    for value in held:
        await pool.release(value)
    assert pool.pending == 0, where


def tracing(side, number, act):
    if side.name == "threads":
        return BeforeLine(number, act)
    task = asyncio.current_task()
    # A task that has been made runs, whatever happens to its maker.
    return BeforeLine(number, act, is_ours=lambda: asyncio.current_task() is task, skips="spawn")


STARTS = ("idle", "empty", "all out")


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("way", WAYS)
@on_both
async def test_an_interrupt_before_any_line_of_acquire_loses_nothing(side, way, start):
    hooks, options = WAYS[way]
    pool = side.pool(Workshop(side, **hooks), max_size=2, **options)
    for number in lines_of(STARTS.index(start)):
        held = [await pool.acquire() for _ in range(2)]
        if start == "idle":
            await pool.release(held.pop())
        elif start == "empty":
            await pool.destroy(held.pop())
        giver = side.go(gives_back, side, pool, held) if start == "all out" else None
        value = None
        with tracing(side, number, raises) as line:
            try:
                value = await pool.acquire()
            except InterruptedBySignal:
                pass
        if giver is not None:
            await giver.ended()
        if value is not None:
            assert not line.has_acted, f"the interrupt before {line.where} was swallowed"
            await pool.release(value)
        for value in held:
            await pool.release(value)
        await is_whole(pool, line.where)
        if not line.has_acted:
            break
    assert number > 3


async def gives_back(side, pool, held):
    """Release one of two as soon as somebody waits for it, or soon."""
    for _ in range(20):
        if pool.pending:
            break
        await side.breathe()
    await pool.release(held.pop())


@pytest.mark.parametrize("how", ["release", "destroy"])
@pytest.mark.parametrize("way", WAYS)
@on_both
async def test_an_interrupt_before_any_line_of_giving_back_loses_nothing(side, way, how):
    hooks, options = WAYS[way]
    pool = side.pool(Workshop(side, **hooks), max_size=2, **options)
    for number in lines_of(len(way)):
        value = await pool.acquire()
        with tracing(side, number, raises) as line:
            try:
                await getattr(pool, how)(value)
            except InterruptedBySignal:
                pass
            else:
                assert not line.has_acted, f"the interrupt before {line.where} was swallowed"
        if pool.is_borrowed(value):  # it had not begun: who was interrupted has it still
            await pool.release(value)
        await is_whole(pool, line.where)
        if not line.has_acted:
            break
    assert number > 3


@pytest.mark.parametrize("way", WAYS)
@on_both
async def test_an_interrupt_before_any_line_of_a_lease_loses_nothing(side, way):
    hooks, options = WAYS[way]
    pool = side.pool(Workshop(side, **hooks), max_size=2, **options)
    for number in lines_of(len(way)):
        with tracing(side, number, raises) as line:
            try:
                async with pool.lease():
                    pass
            except InterruptedBySignal:
                pass
            else:
                assert not line.has_acted, f"the interrupt before {line.where} was swallowed"
        await is_whole(pool, line.where)
        if not line.has_acted:
            break
    assert number > 3


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("way", WAYS)
@on_both
async def test_an_interrupt_before_any_line_of_run_loses_nothing(side, way, fails):
    hooks, options = WAYS[way]
    pool = side.pool(Workshop(side, **hooks), max_size=2, **options)

    async def task(_):
        if fails:
            raise LookupError

    for number in lines_of(len(way)):
        with tracing(side, number, raises) as line:
            try:
                await pool.run(task)
            except (InterruptedBySignal, LookupError):
                pass
            else:
                assert not line.has_acted, f"the interrupt before {line.where} was swallowed"
        await is_whole(pool, line.where)
        if not line.has_acted:
            break
    assert number > 3


async def pooled_value(pool):
    pooled = get_pooled_value(pool.service)
    return await pooled if hasattr(pooled, "__await__") else pooled


async def give(pooled, how):
    done = getattr(pooled, how)()
    if done is not None:
        await done


@pytest.mark.parametrize("how", ["release", "destroy", "with"])
@pytest.mark.parametrize("way", WAYS)
@on_both
async def test_an_interrupt_before_any_line_of_a_pooled_value_loses_nothing(side, way, how):
    hooks, options = WAYS[way]
    pool = side.pool(Workshop(side, **hooks), max_size=2, **options)
    for number in lines_of(len(way)):
        pooled = None
        with tracing(side, number, raises) as line:
            try:
                pooled = await pooled_value(pool)
                if how == "with":
                    async with _Entered(pooled):
                        pass
                else:
                    await give(pooled, how)
            except InterruptedBySignal:
                pass
            else:
                assert not line.has_acted, f"the interrupt before {line.where} was swallowed"
        if pooled is not None and pool.is_borrowed(pooled.value):  # it had not begun: it can be called again
            await give(pooled, "destroy" if how == "destroy" else "release")
            assert not pool.is_borrowed(pooled.value), line.where
        del pooled
        await is_whole(pool, line.where)
        if not line.has_acted:
            break
    assert number > 3


@on_both
async def test_a_pooled_value_that_is_dropped_while_its_resource_is_out_gives_it_up(side):
    workshop = Workshop(side)
    pool = side.pool(workshop, max_size=1)
    pooled = await pooled_value(pool)
    value = pooled.value
    del pooled
    gc.collect()
    other = await pool.acquire()
    assert (workshop.unmade, other is value) == ([value], False)
    await pool.release(other)


@on_both
async def test_a_pooled_value_that_is_dropped_after_its_resource_came_back_takes_it_from_nobody(side):
    pool = side.pool(Workshop(side), max_size=1)
    pooled = await pooled_value(pool)
    await pool.release(pooled.value)  # past it
    value = await pool.acquire()
    del pooled
    gc.collect()
    pool.service.sweep()
    assert pool.is_borrowed(value)
    await pool.release(value)


# -- another thread between any two lines ----------------------------------------

EXPECTED = (ReleaseError, PoolClosedError, PoolExhaustedError)


class Bench:
    """
    A pool with two places, and what can be done to it.

    Args:
        start: `all out`: both are out. `one idle`: one is out, one idle. `room`: one is out, one place is free.
            `free`: one is idle, one place is free.
    """

    def __init__(self, side, way, start):
        hooks, options = WAYS[way]
        self.workshop = Workshop(side, **hooks)
        self.pool = side.pool(self.workshop, max_size=2, **options)
        self.service = self.pool.service
        self.out = self.service.acquire()
        self.pooled = get_pooled_value(self.service)
        self.mine = []
        if start == "one idle":
            self.pooled.release()
        elif start != "all out":
            self.pooled.destroy()
        if start == "free":
            self.release()

    def release(self):
        self.service.release(self.out)

    def release_pooled(self):
        self.pooled.release()

    def destroy(self):
        self.service.destroy(self.out)

    def borrow(self):
        value = self.service.acquire(timeout=20)
        me = object()
        value.take(me)
        value.leave(me)
        self.service.release(value)

    def keep(self):
        self.mine.append(self.service.acquire(timeout=20))

    def shrink(self):
        self.pool.resize(0, 1)

    def expire(self):
        self.pool.expire()

    def stop(self):
        self.service.stop(0.0)

    def suspend(self):
        self.pool.suspend()
        self.pool.resume()


PAIRS = [
    ("release", "release", "one idle"),
    ("release", "destroy", "one idle"),
    ("destroy", "release", "one idle"),
    ("destroy", "destroy", "one idle"),
    ("release_pooled", "release_pooled", "all out"),
    ("keep", "keep", "free"),
    ("borrow", "release", "all out"),
    ("release", "borrow", "all out"),
    ("release", "keep", "all out"),
    ("keep", "destroy", "all out"),
    ("destroy", "keep", "all out"),
    ("borrow", "borrow", "one idle"),
    ("borrow", "borrow", "room"),
    ("borrow", "stop", "one idle"),
    ("borrow", "stop", "room"),
    ("stop", "borrow", "one idle"),
    ("release", "stop", "one idle"),
    ("stop", "release", "one idle"),
    ("stop", "stop", "one idle"),
    ("expire", "release", "one idle"),
    ("release", "expire", "one idle"),
    ("borrow", "expire", "one idle"),
    ("shrink", "release", "one idle"),
    ("release", "shrink", "one idle"),
    ("suspend", "borrow", "one idle"),
    ("borrow", "suspend", "one idle"),
]


@pytest.mark.parametrize("way", ["plain", "with hooks"])
@pytest.mark.parametrize(("first", "second", "start"), PAIRS)
@on_threads
async def test_another_thread_between_any_two_lines_breaks_nothing(side, first, second, start, way, caplog):
    caplog.set_level("CRITICAL")  # stop(0.0) says who holds what
    for number in lines_of(PAIRS.index((first, second, start))):
        bench = Bench(side, way, start)
        pool = bench.pool
        errors = []
        others = []
        is_over, is_begun = threading.Event(), threading.Lock()

        async def other(bench=bench, errors=errors):
            try:
                getattr(bench, second)()
            except EXPECTED as refused:
                errors.append(refused)

        def interlude(other=other, others=others, is_begun=is_begun):
            if not is_begun.acquire(blocking=False):
                return
            others.append(side.go(other))
            others[0]._thread.join(0.01)  # it may be in need of what this thread holds

        line = BeforeLine(number, interlude)

        async def comes_late(other=other, others=others, is_over=is_over, is_begun=is_begun):
            # The first waits for the second before it gets as far as that line.
            if not is_over.wait(0.05) and is_begun.acquire(blocking=False):
                others.append(side.go(other))

        late = side.go(comes_late)
        with line:
            try:
                getattr(bench, first)()
            except EXPECTED as error:
                errors.append(error)
        if second in ("borrow", "keep"):
            with bench.service._operations.backend.lock:  # the second may be about to queue
                beside = pool.pending and pool.available
            assert not beside, f"somebody waits beside an idle resource: {line.where}"
        is_over.set()
        await late.result()
        for borrower in others:
            await borrower.result()
        returns = {"release", "destroy", "release_pooled"}
        if "stop" not in (first, second):
            twice = first in returns and second in returns and others
            assert len([e for e in errors if isinstance(e, ReleaseError)]) == bool(twice), (
                f"before {line.where}: {errors}"
            )
        for value in [*bench.mine, bench.out, bench.pooled.value]:
            if pool.is_borrowed(value):
                bench.service.release(value)
        assert pool.borrowed == pool.pending == 0, line.where
        if "stop" in (first, second):
            bench.service.start()
        await is_whole(pool, line.where)
        await pool.stop(20)
        await side.until(bench.workshop.is_even, f"before {line.where}: {bench.workshop.uneven()}")
        side.doors.remove(pool)
        side.workshops.remove(bench.workshop)
        side.borrowers.clear()
        if not line.has_acted:
            break
    assert number > 3


@on_threads
async def test_two_threads_that_give_back_one_pooled_value_never_take_it_from_a_third(side):
    pool = side.pool(Workshop(side), max_size=1)
    for number in itertools.count(1):
        pooled = get_pooled_value(pool.service)
        third = []
        refused = []

        async def other(pooled=pooled, third=third, refused=refused):
            try:
                pooled.release()
            except ReleaseError as error:
                refused.append(error)
            try:
                third.append(pool.service.acquire_nowait())
            except PoolExhaustedError:
                pass

        with BeforeLine(number, lambda other=other: side.go(other)._thread.join()) as line:
            try:
                pooled.release()
            except ReleaseError as error:
                refused.append(error)
        if line.has_acted:
            assert len(refused) == 1, line.where
        for value in third:
            assert pool.is_borrowed(value), f"taken from its borrower: {line.where}"
            await pool.release(value)
        if not line.has_acted:
            break
    assert number > 5
