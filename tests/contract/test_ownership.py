"""Giving back: once, to the pool it came from, also if hooks fail."""

from __future__ import annotations

import gc
import threading

import pytest

from pooling import PoolTimeoutError, ReleaseError, get_pooled_value
from tests.contract.harness import on_asyncio, on_both, on_threads, raising, whole
from tests.contract.workshop import Thing, Workshop


@pytest.fixture(autouse=True, scope="module")
def only_pools_of_these_tests() -> None:
    """A pool that refuses a resource looks whose it is, also among the thousands that earlier tests may have left."""
    gc.collect()


class HookError(Exception):
    """Raised by a hook."""


async def borrow(pool):
    async with pool.lease() as value:
        return value


# -- twice, and strangers ------------------------------------------------------


@on_both
async def test_of_two_callers_that_give_back_one_resource_one_gets_an_error(side):
    pool = side.pool(Workshop(side), max_size=1)
    for _ in range(50):
        value = await pool.acquire()
        start = side.gate()

        async def returns(value=value, start=start):
            await start()
            await pool.release(value)

        both = [side.go(returns), side.go(returns)]
        start.open()
        errors = []
        for borrower in both:
            try:
                await borrower.result()
            except ReleaseError as error:
                errors.append(str(error))
        assert len(errors) == 1
        assert "given back before" in errors[0]
        assert pool.available == 1
        assert pool.borrowed == 0


@on_threads
async def test_of_two_threads_that_release_one_pooled_value_only_one_reaches_the_pool(side):
    pool = side.pool(Workshop(side), max_size=1)
    errors = []
    barrier = threading.Barrier(2)
    for _ in range(300):
        pooled = get_pooled_value(pool.service)

        async def returns(pooled=pooled):
            barrier.wait()
            try:
                pooled.release()
            except ReleaseError as error:
                errors.append(error)

        both = [side.go(returns), side.go(returns)]
        for borrower in both:
            await borrower.result()
    assert len(errors) == 300
    assert all("this pooled value was given back before" in str(error) for error in errors)


@on_both
async def test_a_pooled_value_given_back_cannot_give_back_its_resource_from_the_next_borrower(side):
    pool = side.pool(Workshop(side), max_size=1)
    pooled = get_pooled_value(pool.service)
    pooled = pooled if side.name == "threads" else await pooled
    again = pooled.release()
    if again is not None:
        await again
    value = await pool.acquire()
    assert value is pooled.value
    with raising(ReleaseError, "given back before"):
        again = pooled.release()
        if again is not None:
            await again
    assert pool.is_borrowed(value)
    await pool.release(value)


@on_threads
async def test_ten_thousand_races_of_release_and_destroy_leave_the_counts_consistent(side):
    rounds = 10_000
    pool = side.pool(Workshop(side), max_size=2)
    turns = threading.Barrier(3)
    box = []
    won = {"release": 0, "destroy": 0}
    lost = {"release": 0, "destroy": 0}

    async def races(how):
        for _ in range(rounds):
            turns.wait(30)
            try:
                getattr(pool.service, how)(box[0])
            except ReleaseError:
                lost[how] += 1
            else:
                won[how] += 1
            turns.wait(30)

    racers = [side.go(races, "release"), side.go(races, "destroy")]
    for _ in range(rounds):
        box[:] = [await pool.acquire()]
        turns.wait(30)
        turns.wait(30)
        assert pool.borrowed == 0
    for racer in racers:
        await racer.result()
    assert sum(won.values()) == sum(lost.values()) == rounds
    stats = pool.stats()
    assert stats.acquired == rounds
    assert stats.destroyed == won["destroy"]
    assert stats.created - stats.destroyed == stats.size <= 2


@on_asyncio
async def test_ten_thousand_times_release_and_destroy_at_once_leave_the_counts_consistent(side):
    pool = side.pool(Workshop(side), max_size=2)
    errors = 0
    for attempt in range(10_000):
        value = await pool.acquire()
        first, second = ("release", "destroy") if attempt % 2 else ("destroy", "release")
        both = [side.go(getattr(pool, first), value), side.go(getattr(pool, second), value)]
        side.borrowers.clear()
        for borrower in both:
            try:
                await borrower.task
            except ReleaseError:
                errors += 1
        assert pool.borrowed == 0
    assert errors == 10_000
    stats = pool.stats()
    assert stats.created - stats.destroyed == stats.size <= 2
    assert stats.destroyed == 5_000


class Unhashable(Thing):
    __hash__ = None


class AlwaysEqual(Thing):
    def __eq__(self, other):
        return True

    def __hash__(self):
        return 7


class ChangingHash(Thing):
    def __hash__(self):
        return len(self.notes)


class Falsy(Thing):
    def __bool__(self):
        return False

    def __len__(self):
        return 0


@pytest.mark.parametrize("kind", [Unhashable, AlwaysEqual, ChangingHash, Falsy])
@on_both
async def test_resources_are_told_apart_by_identity(side, kind):
    pool = side.pool(Workshop(side, thing=kind), max_size=3)
    held = [await pool.acquire() for _ in range(3)]
    for value in held:
        value.notes.append("used")
        assert pool.is_borrowed(value)
        assert not pool.is_borrowed(kind())
    await pool.release(held[1])
    assert [pool.is_borrowed(value) for value in held] == [True, False, True]
    with pytest.raises(ReleaseError):
        await pool.release(kind())
    await pool.destroy(held[0])
    await pool.release(held[2])
    await whole(pool)


@on_both
async def test_a_foreign_resource_is_refused_and_the_error_names_both_pools(side):
    mine, others = side.pool(Workshop(side), name="mine"), side.pool(Workshop(side), name="others")
    value = await others.acquire()
    for give in (mine.release, mine.destroy):
        with raising(ReleaseError, "pool 'mine'", "pool 'others'", "Give it back there") as caught:
            await give(value)
        assert caught.value.pool == "mine"
    with raising(ReleaseError, "pool 'mine'", "not this pool's"):
        await mine.release(object())
    await others.release(value)


@on_both
async def test_an_error_about_a_resource_does_not_show_what_is_in_it(side):
    class Secretive(Thing):
        def __repr__(self):
            raise AssertionError("its repr holds a password")

        __str__ = __repr__

    pool = side.pool(Workshop(side, thing=Secretive))
    with raising(ReleaseError, "<Secretive object at 0x"):
        await pool.release(Secretive())


@on_both
async def test_a_create_that_returns_a_resource_again_is_refused(side):
    same = Thing()
    workshop = Workshop(side, thing=lambda: same)
    pool = side.pool(workshop, max_size=2)
    workshop.is_even = lambda: True
    await pool.acquire()
    waiter = side.go(borrow, pool)
    with pytest.raises(Exception, match="create failed") as caught:
        await waiter.result()
    assert "an object that is in the pool already" in str(caught.value.__cause__)
    await pool.release(same)


# -- hooks that fail or hang ---------------------------------------------------


@on_both
async def test_a_release_hook_that_raises_frees_the_place_once_and_the_waiter_is_served(side):
    failures = [HookError("socket gone")]

    async def release(_):
        if failures:
            raise failures.pop()

    workshop = Workshop(side, release=release)
    pool = side.pool(workshop, max_size=1)
    first = await pool.acquire()
    waiter = side.go(borrow, pool)
    await side.until(lambda: pool.pending == 1)
    with raising(ReleaseError, "release hook", "HookError", "destroyed") as caught:
        await pool.release(first)
    assert isinstance(caught.value.__cause__, HookError)
    assert await waiter.result() is not first
    assert workshop.unmade == [first]
    await whole(pool)


@on_threads
async def test_a_release_hook_that_hangs_frees_the_place_once_and_the_waiter_is_served(side):
    gate = side.gate()

    async def release(thing):
        if thing.serial == 1:
            await gate()

    workshop = Workshop(side, release=release)
    pool = side.pool(workshop, max_size=1, destroy_timeout=0.05)
    first = await pool.acquire()
    waiter = side.go(borrow, pool)
    await side.until(lambda: pool.pending == 1)
    hanging = side.go(pool.release, first)  # a thread cannot be interrupted, so its caller stays inside
    assert await waiter.result() is not first
    assert not hanging.is_done
    gate.open()
    await hanging.ended()
    await side.until(lambda: workshop.unmade == [first])
    await whole(pool)


@on_asyncio
async def test_a_release_hook_that_hangs_is_cancelled_and_the_waiter_is_served(side):
    gate = side.gate()

    async def release(thing):
        if thing.serial == 1:
            await gate()

    workshop = Workshop(side, release=release)
    pool = side.pool(workshop, max_size=1, destroy_timeout=0.05)
    first = await pool.acquire()
    waiter = side.go(borrow, pool)
    await side.until(lambda: pool.pending == 1)
    with raising(ReleaseError, "did not end within destroy_timeout=0.05") as caught:
        await pool.release(first)
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert await waiter.result() is not first
    assert workshop.unmade == [first]
    await whole(pool)


@on_both
async def test_a_timeout_raised_by_a_release_hook_is_a_failure_not_the_pools_timeout(side):
    async def release(_):
        raise TimeoutError("the server did not answer")

    pool = side.pool(Workshop(side, release=release), max_size=1)
    value = await pool.acquire()
    with raising(ReleaseError, "the release hook failed (TimeoutError)") as caught:
        await pool.release(value)
    assert "destroy_timeout" not in str(caught.value)
    assert str(caught.value.__cause__) == "the server did not answer"


@on_both
async def test_a_destroy_that_raises_frees_the_place_once_and_the_waiter_is_served(side, caplog):
    async def destroy(_):
        raise HookError("already closed")

    workshop = Workshop(side, destroy=destroy)
    pool = side.pool(workshop, max_size=1)
    first = await pool.acquire()
    waiter = side.go(borrow, pool)
    await side.until(lambda: pool.pending == 1)
    await pool.destroy(first)
    assert await waiter.result() is not first
    assert pool.stats().destroyed == 1
    assert "destroying a resource (destroyed) failed with HookError" in caplog.text
    await whole(pool)


@on_both
async def test_a_destroy_that_hangs_frees_the_place_once_and_the_waiter_is_served(side, caplog):
    gate = side.gate()

    async def destroy(thing):
        if thing.serial == 1:
            await gate()

    workshop = Workshop(side, destroy=destroy)
    pool = side.pool(workshop, max_size=1, destroy_timeout=0.05)
    first = await pool.acquire()
    waiter = side.go(borrow, pool)
    await side.until(lambda: pool.pending == 1)
    await pool.destroy(first)
    assert await waiter.result() is not first
    await side.until(lambda: "destroy" in caplog.text)
    gate.open()
    await side.until(lambda: workshop.gone == 1)
    assert pool.size == 1
    await whole(pool)


@on_both
async def test_a_resource_whose_acquire_hook_raises_is_destroyed_and_its_place_is_free(side):
    failures = [HookError("role is missing")]

    async def acquire(_, ctx):
        if failures:
            raise failures.pop()

    workshop = Workshop(side, acquire=acquire)
    pool = side.pool(workshop, max_size=1)
    with pytest.raises(HookError):
        await pool.acquire()
    assert pool.borrowed == 0
    await whole(pool)
    assert workshop.unmade == workshop.made[:1]


@on_both
async def test_an_acquire_hook_that_hangs_ends_at_the_timeout_and_its_place_is_free(side):
    gate = side.gate()

    async def acquire(_, ctx):
        await gate()

    pool = side.pool(Workshop(side, acquire=acquire), max_size=1)
    with raising(PoolTimeoutError, "step: acquire hook") as caught:
        await pool.acquire(timeout=0.05)
    assert caught.value.step == "acquire hook"
    gate.open()
    await whole(pool)


@on_both
async def test_what_a_lease_does_with_the_resource_of_a_block_that_raised_is_a_policy(side):
    async def release(thing):
        thing.notes.append("reset")

    async def raises(pool):
        async with pool.lease():
            raise HookError

    for hooks, policy, is_kept in [
        ({}, "auto", False),
        ({"release": release}, "auto", True),
        ({}, "release", True),
        ({"release": release}, "destroy", False),
    ]:
        pool = side.pool(Workshop(side, **hooks), max_size=1, on_error=policy)
        before = await borrow(pool)
        with pytest.raises(HookError):
            await raises(pool)
        assert (await borrow(pool) is before) == is_kept, (hooks, policy)


@on_both
async def test_a_run_that_raises_destroys_the_resource_and_one_that_returns_gives_it_back(side):
    workshop = Workshop(side)
    pool = side.pool(workshop, max_size=1)

    async def works(thing):
        return "done", thing

    async def fails(_):
        raise HookError

    result, thing = await pool.run(works)
    assert result == "done"
    assert pool.available == 1
    with pytest.raises(HookError):
        await pool.run(fails)
    assert workshop.unmade == [thing]
    await whole(pool)
