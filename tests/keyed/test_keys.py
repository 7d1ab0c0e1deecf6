"""Many keys, one budget."""

from __future__ import annotations

import asyncio
import collections
import gc
import os

import pytest

from pooling import (
    AsyncKeyedPoolingService,
    ConfigurationError,
    KeyedPoolingService,
    PoolBudget,
    PoolClosedError,
    PoolExhaustedError,
    PoolTimeoutError,
    ReleaseError,
)
from tests.contract.harness import on_asyncio, on_both, on_threads, raising
from tests.contract.workshop import Clock, Watch, Workshop
from tests.keyed.drivers import keyed


@on_both
async def test_a_key_with_waiters_does_not_keep_another_key_waiting(side):
    pool = keyed(side, Workshop(side), max_size=1, max_total=10)

    async def borrows():
        await pool.release(await pool.acquire("busy"))

    busy = await pool.acquire("busy")
    waiters = [side.go(borrows) for _ in range(5)]
    await side.until(lambda: pool.pending == 5)
    other = await pool.acquire("other", timeout=5)
    assert pool.pending == 5
    await pool.release(other)
    await pool.release(busy)
    for waiter in waiters:  # they were served in the order in which they queued, which need not be this one
        await waiter.result()


@pytest.mark.parametrize("how", ["released", "destroyed", "idle", "expired"])
@on_both
async def test_what_one_key_frees_goes_to_another_keys_waiter_at_once(side, how):
    workshop = Workshop(side)
    pool = keyed(side, workshop, max_size=2, max_total=2)
    first, second = await pool.acquire("rich"), await pool.acquire("rich")
    if how == "idle":
        await pool.release(first)
    waiter = side.go(pool.acquire, "poor", timeout=5)
    if how != "idle":
        await side.until(lambda: pool.pending == 1)
        assert pool.of("rich").pending == 0
    if how == "destroyed":
        await pool.destroy(first)
    elif how == "expired":
        pool.expire("rich")
    if how in ("released", "expired"):
        await pool.release(first)
    given = await waiter.result()
    assert given not in (first, second)
    assert workshop.most <= 2
    assert not pool.is_borrowed(first)
    assert pool.is_borrowed(second), "what is in use is left alone"
    await pool.release(given)
    await pool.release(second)


@on_both
async def test_the_least_recently_used_key_gives_up_its_idle_resource(side):
    clock, watch = Clock(), Watch()
    pool = keyed(side, Workshop(side), max_size=1, max_total=3, clock=clock, observer=watch, max_idle=1e9)
    for key in ("b", "a", "c"):
        await pool.release(await pool.acquire(key))
        clock.move(1)
    await pool.release(await pool.acquire("b"))  # by the fast path, too, it counts as used
    clock.move(1)
    held = await pool.acquire("new")
    await side.until(lambda: watch.named("destroyed"))
    assert [(event.key, event.reason) for event in watch.named("destroyed")] == [("a", "evicted")]
    await pool.release(held)


@on_both
async def test_what_is_in_use_is_not_taken_away_for_another_key(side):
    workshop = Workshop(side)
    pool = keyed(side, workshop, max_total=2)
    held = [await pool.acquire("a"), await pool.acquire("b")]
    with pytest.raises(PoolTimeoutError):
        await pool.acquire("c", timeout=0.05)
    assert workshop.unmade == []
    assert all(pool.is_borrowed(value) for value in held)
    for value in held:
        await pool.release(value)
    await pool.release(await pool.acquire("c"))


@on_both
async def test_a_release_is_not_delayed_by_another_keys_create(side):
    gate = side.gate()
    slow = Workshop(side, create=gate)
    quick = Workshop(side)
    side.workshops.append(slow)
    pool = keyed(side, quick, factory_for_key=lambda key: (slow if key == "slow" else quick).factory, max_total=2)
    value = await pool.acquire("quick")
    waiter = side.go(pool.acquire, "slow")
    await gate.reached()
    await pool.release(value)
    again = await pool.acquire("quick", timeout=5)
    assert again is value
    assert not waiter.is_done
    await pool.release(again)
    gate.open()
    await pool.release(await waiter.result())


@on_both
async def test_a_pool_that_is_dropped_between_look_up_and_use_still_works(side):
    clock = Clock()
    workshop = Workshop(side)
    pool = keyed(side, workshop, max_total=1, max_key_idle=10.0, clock=clock)
    looked_up = pool.of("key")
    clock.move(11, pool)
    assert "key" not in pool.service
    value = await looked_up.acquire(timeout=5)
    assert pool.size == 1, "it counts in the same budget"
    other = side.go(pool.acquire, "key")
    await side.until(lambda: pool.pending == 1)
    await looked_up.release(value)
    await pool.release(await other.result())
    assert workshop.most == 1


@on_both
async def test_an_unused_key_is_evicted_and_one_in_use_is_not(side):
    clock, dropped = Clock(), []
    pool = keyed(
        side,
        Workshop(side),
        max_key_idle=10.0,
        max_idle=5.0,
        clock=clock,
        on_dropped=lambda key, service: dropped.append(key),
    )
    held = await pool.acquire("used")
    await pool.release(await pool.acquire("idle"))
    for _ in range(4):
        clock.move(6, *map(pool.of, pool.keys()))  # looked up, so that no key is unused
        pool.sweep()
    await side.until(lambda: pool.of("idle").size == 0)
    assert (pool.keys(), dropped) == (["used", "idle"], [])
    for _ in range(2):
        clock.move(6, pool)
    assert (pool.keys(), dropped) == (["used"], ["idle"])
    await pool.release(held)


@pytest.mark.parametrize("how", ["unused", "one too many"])
@on_both
async def test_a_key_without_resources_is_not_evicted_while_a_borrower_waits(side, how):
    clock = Clock()
    pool = keyed(side, Workshop(side), max_total=1, max_keys=2, max_key_idle=10.0, clock=clock, max_idle=1e9)
    held = await pool.acquire("busy")
    waiter = side.go(pool.acquire, "waits")
    await side.until(lambda: pool.pending == 1)
    waited_for = pool.of("waits").service
    assert waited_for.size == 0, "the budget is spent"
    clock.move(11, pool)
    if how == "one too many":
        with raising(PoolExhaustedError, "max_keys=2"):
            pool.of("third")
    else:
        clock.move(11, pool)
    assert pool.keys() == ["busy", "waits"]
    assert pool.of("waits").service is waited_for
    await pool.release(held)
    await pool.release(await waiter.result())


@on_both
async def test_a_callback_for_dropped_keys_that_fails_harms_no_borrower(side, caplog):
    dropped = []

    def on_dropped(key, service):
        dropped.append(key)
        raise RuntimeError("a listener's own mistake")

    pool = keyed(side, Workshop(side), max_keys=1, on_dropped=on_dropped)
    first = await pool.acquire("first")
    await pool.release(first)
    second = await pool.acquire("second", timeout=5)
    assert (pool.keys(), dropped) == (["second"], ["first"])
    await side.until(lambda: pool.stats().available == 0)
    assert pool.stats().created == 2
    assert "on_dropped() failed" in caplog.text
    await pool.release(second)


@on_both
async def test_what_a_lease_or_a_keys_own_pool_has_lent_is_known_to_all(side):
    pool = keyed(side, Workshop(side))
    pool.of("other")
    value = await pool.of("one").acquire()
    assert pool.service.is_borrowed(value)
    await pool.release(value)
    assert not pool.service.is_borrowed(value)
    with raising(ReleaseError, "not out under any key"):
        await pool.release(value)
    again = await pool.acquire("one")
    await pool.of("one").release(again)
    assert not pool.service.is_borrowed(again)


@on_both
async def test_a_key_that_comes_while_all_are_stopped_gets_no_pool(side):
    class Stopping:
        def create(self):
            return object()

        @property
        def validate(self):  # looked at while the key's pool is being made
            pool.service._is_stopped = True
            return None

    pool = keyed(side)
    with raising(PoolClosedError, "'late' gets no pool"):
        pool.service.open_key("late", Stopping())
    assert pool.keys() == []


@on_both
async def test_the_timer_evicts_unused_keys_by_itself(side):
    pool = keyed(side, Workshop(side), max_key_idle=0.02, max_idle=0.01)
    for key in range(30):
        await pool.release(await pool.acquire(key))
    await side.until(lambda: not pool.keys())
    await pool.release(await pool.acquire("again"))
    await side.until(lambda: not pool.keys())


@on_both
async def test_keys_come_and_go_by_the_ten_thousand_and_the_map_is_empty_again(side):
    clock = Clock()
    pool = keyed(side, max_total=4, max_key_idle=10.0, clock=clock, max_idle=1e9)
    most = 0
    for number in range(20_000):
        service = pool.pool(number)
        if number % 500 == 0:
            await pool.release(await pool.acquire(number))
        if number % 1000 == 0:
            clock.move(6, pool)
            most = max(most, len(pool.service))
    del service
    assert most < 3000
    assert pool.size <= 4
    for key in list(pool.keys()):
        pool.close_key(key)
    for _ in range(3):
        clock.move(11, pool)
    await side.until(lambda: pool.size == 0)
    assert (pool.keys(), len(pool.service), len(pool.service._lru), pool.service._owners) == ([], 0, 0, {})
    gc.collect()
    assert pool.service.stats().size == 0
    for _ in range(10):
        await side.turn()


@on_both
async def test_more_keys_than_max_keys_have_the_least_recently_used_forgotten(side):
    clock = Clock()
    pool = keyed(side, Workshop(side), max_keys=3, clock=clock)
    for key in "abc":
        await pool.release(await pool.acquire(key))
        clock.move(1)
    held = await pool.acquire("a")
    clock.move(1)
    pool.pool("b")
    clock.move(1)
    pool.pool("d")
    assert pool.keys() == ["a", "b", "d"]
    pool.pool("e")
    assert "a" in pool.service, "a key in use is never forgotten"
    await pool.release(held)


@on_both
async def test_no_key_more_than_max_keys_in_use(side):
    pool = keyed(side, Workshop(side), max_keys=2)
    held = [await pool.acquire("a"), await pool.acquire("b")]
    with raising(PoolExhaustedError, "max_keys=2", "'c'") as caught:
        await pool.acquire("c")
    assert caught.value.limit == "max_keys"
    await pool.release(held.pop())
    held.append(await pool.acquire("c"))
    for value in held:
        await pool.release(value)


@on_both
async def test_a_closed_key_serves_its_waiters_and_refuses_new_borrowers(side):
    workshop = Workshop(side)
    pool = keyed(side, workshop, max_size=1, max_total=2)
    old = pool.of("key")
    held = await old.acquire()
    waiter = side.go(old.acquire)
    await side.until(lambda: old.pending == 1)
    assert pool.close_key("key")
    assert not pool.close_key("key")
    new = await pool.acquire("key")
    await old.release(held)
    assert await waiter.result() is held
    with pytest.raises(PoolClosedError):
        await old.acquire()
    await old.release(held)
    await pool.release(new)
    await side.until(lambda: held in workshop.unmade)


@on_both
async def test_a_raised_budget_serves_waiters_at_once_and_a_lowered_one_closes_idle_resources(side):
    workshop = Workshop(side)
    pool = keyed(side, workshop, max_total=1)
    values = [await pool.acquire(0)]
    waiters = [side.go(pool.acquire, key) for key in (1, 2, 3)]
    await side.until(lambda: pool.pending == 3)
    pool.budget.resize(4)
    values += [await waiter.result() for waiter in waiters]
    assert workshop.most == 4
    for value in values:
        await pool.release(value)
    pool.budget.resize(2)
    await side.until(lambda: pool.size == 2)


@pytest.mark.parametrize("seconds", [None, "x", float("nan")])
def test_a_budget_is_not_squeezed_for_what_is_no_number_of_seconds(seconds):
    budget = PoolBudget(5)
    with raising(ConfigurationError, f"seconds={seconds!r}"):
        budget.squeeze(seconds)


@on_both
async def test_a_squeezed_budget_opens_no_more_resources_until_the_time_is_over(side):
    clock = Clock()
    workshop = Workshop(side)
    pool = keyed(side, workshop, max_total=5, clock=clock, max_idle=1e9)
    held = [await pool.acquire("a"), await pool.acquire("b")]
    pool.budget.squeeze(30.0)
    assert (pool.budget.limit, pool.budget.max_total) == (2, 5)
    await pool.release(held.pop())
    held.append(await pool.acquire("c", timeout=5))
    assert (workshop.most, pool.stats().per_key["b"].size) == (2, 0)
    clock.move(31)
    held.append(await pool.acquire("b", timeout=5))
    assert (workshop.most, pool.budget.limit) == (3, 5)
    for value in held:
        await pool.release(value)


@on_both
async def test_a_pool_without_keys_shares_the_budget(side):
    workshop, others = Workshop(side), Workshop(side)
    pool = keyed(side, workshop, max_total=2)
    app = side.pool(others, budget=pool.budget)
    first, second = await app.acquire(), await app.acquire()
    waiter = side.go(pool.acquire, "key")
    await side.until(lambda: pool.pending == 1)
    await app.release(first)
    await pool.release(await waiter.result())
    assert workshop.most == 1
    await app.release(second)


@on_both
async def test_min_size_is_filled_up_again_when_the_budget_has_room(side):
    workshop = Workshop(side)
    pool = keyed(side, workshop, max_total=1)
    app = side.pool(Workshop(side), budget=pool.budget, min_size=1)
    await app.start()
    held = await pool.acquire("key")  # takes its only one away
    assert app.size == 0
    await pool.destroy(held)
    await side.until(lambda: app.available == 1)


@on_both
async def test_a_lease_that_was_dropped_serves_another_keys_waiter(side):
    pool = keyed(side, Workshop(side), max_total=1)
    lease = pool.service.lease("careless")
    if side.name == "threads":
        lease.__enter__()
    else:
        await lease.__aenter__()
    waiter = side.go(pool.acquire, "other")
    await side.until(lambda: pool.pending == 1)
    del lease
    gc.collect()
    await pool.release(await waiter.result())


@on_both
async def test_a_value_given_back_under_no_key_is_an_error(side):
    pool = keyed(side, Workshop(side))
    value = await pool.acquire("key")
    await pool.release(value)
    with raising(ReleaseError, "not out under any key"):
        await pool.release(value)
    with raising(ReleaseError, "not out under any key"):
        await pool.destroy(object())


@on_both
async def test_values_may_be_borrowed_and_given_back_past_the_map(side):
    pool = keyed(side, Workshop(side), max_key_idle=1000.0)
    value = await pool.acquire("a")
    await pool.of("a").release(value)
    held = await pool.of("a").acquire()
    assert held is value
    await pool.release(held)
    stale = await pool.acquire("a")
    await pool.of("a").release(stale)
    await pool.stop()
    assert pool.service._owners == {}


@on_both
async def test_a_value_that_is_not_out_has_numbers_and_advice_in_its_error(side):
    pool = keyed(side, Workshop(side), max_total=5, name="sessions")
    held = [await pool.acquire("a"), await pool.acquire("b")]
    with raising(ReleaseError, "pool 'sessions'", "acquire() returned", "lease()") as caught:
        await pool.release(object())
    counts = caught.value.counts
    assert (counts.borrowed, counts.idle, counts.total, counts.max_total) == (2, 0, 2, 5)
    for value in held:
        await pool.release(value)


@pytest.mark.parametrize("timeout", [None, "x", float("nan")])
@on_both
async def test_keys_are_not_stopped_with_a_timeout_that_is_no_number_of_seconds(side, timeout):
    pool = keyed(side, Workshop(side), name="sessions")
    with raising(ConfigurationError, f"pool 'sessions': timeout={timeout!r}"):
        await pool.stop(timeout)
    await pool.release(await pool.acquire("key"))


@on_both
async def test_a_stop_that_took_too_long_names_the_timeout_that_was_given(side, caplog):
    gate = side.gate()

    async def destroy(_):
        await gate()

    pool = keyed(side, Workshop(side, destroy=destroy), name="sessions")
    held = await pool.acquire("out")
    await pool.release(await pool.acquire("idle"))
    await pool.stop(0.02)
    (out,) = [text for text in caplog.messages if "key 'out'" in text]
    (hangs,) = [text for text in caplog.messages if "key 'idle'" in text]
    assert "after timeout=0.02 s" in out
    assert "What is out is destroyed when it comes back: borrowed" in out
    assert "after timeout=0.02 s" in hangs
    assert "1 being destroyed" in hangs
    assert "is out" not in hangs
    gate.open()
    await pool.release(held)


@pytest.mark.parametrize("kind", [KeyedPoolingService, AsyncKeyedPoolingService])
def test_a_callback_for_dropped_keys_is_callable(kind):
    with raising(ConfigurationError, "on_dropped=3") as caught:
        kind(lambda key: object, on_dropped=3)
    assert caught.value.field == "on_dropped"


@pytest.mark.parametrize("kind", [KeyedPoolingService, AsyncKeyedPoolingService])
def test_a_resource_in_place_of_its_factory_is_refused_without_showing_it(kind):
    pool = kind(lambda key: f"password={key}", name="sessions")
    with raising(ConfigurationError, "pool 'sessions' key 'a': factory_for_key returned", "type str") as caught:
        pool.pool("a")
    assert caught.value.field == "factory_for_key"
    assert "password" not in str(caught.value)


@on_both
async def test_numbers_of_each_key_and_of_all(side):
    pool = keyed(side, Workshop(side), max_total=9)
    held = [await pool.acquire("a"), await pool.acquire("a"), await pool.acquire("b")]
    stats = pool.stats()
    assert (stats.keys, stats.size, stats.borrowed, stats.available, stats.max_total) == (2, 3, 3, 0, 9)
    assert (stats.per_key["a"].borrowed, stats.per_key["b"].borrowed) == (2, 1)
    for value in held:
        await pool.release(value)
    pool.close_key("a")
    assert pool.stats().created == 3
    assert list(pool.stats().per_key) == ["b"]


class Key:
    """A key with an `__eq__` in Python, like a dataclass."""

    def __init__(self, number):
        self.number = number

    def __hash__(self):
        return self.number % 7

    def __eq__(self, other):
        return isinstance(other, type(self)) and self.number == other.number


@on_threads
async def test_keys_come_and_go_under_many_threads(side):
    workshop = Workshop(side)
    pool = keyed(side, workshop, max_total=6, max_keys=10, max_size=2, max_key_idle=0.0)
    used = collections.Counter()

    async def work(seed):
        for step in range(150):
            key = Key((seed * 31 + step * 17) % 14)
            try:
                value = await pool.acquire(key)
            except PoolExhaustedError:
                continue
            value.take(seed)
            used[key.number] += 1
            value.leave(seed)
            if step % 11 == 0:
                await pool.destroy(value)
            else:
                await pool.release(value)
            if step % 13 == 0:
                pool.sweep()
            if step % 17 == 0:
                assert len(pool.keys()) <= 12
                pool.stats()

    for worker in [side.go(work, seed) for seed in range(8)]:
        await worker.result()
    assert workshop.most <= 6
    assert len(used) == 14


@on_asyncio
async def test_cancelled_borrowers_of_many_keys_leave_nothing_behind(side):
    workshop = Workshop(side)
    pool = keyed(side, workshop, max_total=2)
    held = [await pool.acquire("a"), await pool.acquire("b")]
    waiters = [side.go(pool.acquire, key) for key in range(20)]
    await side.until(lambda: pool.pending == 20)
    for waiter in waiters[::-2] + waiters[::2]:
        waiter.cancel()
    await side.until(lambda: pool.pending == 0)
    budget = pool.budget._budget
    assert (budget.is_short, budget.demand) == (False, 0)
    for value in held:
        await pool.release(value)
    await pool.release(await pool.acquire("c"))
    assert workshop.most == 2


def test_a_keyed_pool_works_in_a_second_loop_and_evicts_unused_keys_there_too():
    pool = AsyncKeyedPoolingService(lambda key: object, max_key_idle=0.02, max_idle=0.01, max_total=1)

    async def borrow(key):
        await pool.release(await pool.acquire(key, timeout=5))
        while pool.keys():
            await asyncio.sleep(0.001)  # sleeps: between two looks

    async def leave_at_once():
        await pool.release(await pool.acquire("left"))
        await pool.pool("left").stop()

    asyncio.run(borrow("first"))
    asyncio.run(leave_at_once())  # the timer of this loop never rings
    pool._now = lambda now=pool._now: now() + 10.0
    asyncio.run(borrow("second"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_its_own_budget_and_resources():
    pool = KeyedPoolingService(lambda key: object, max_total=2, max_key_idle=60.0)
    held = [pool.acquire("a"), pool.acquire("b")]
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        outcome = b"failed"
        try:
            mine = [pool.acquire("a", timeout=5), pool.acquire("c", timeout=5)]
            if not {*map(id, mine)} & {*map(id, held)} and pool.budget.used == 2:
                outcome = b"worked"
        finally:
            os.write(writer, outcome)
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as outcome:
        assert outcome.read() == b"worked"
    os.waitpid(child, 0)
    assert pool.budget.used == 2
    for value in held:
        pool.release(value)
    pool.stop()


# -- provisional keys ------------------------------------------------------------


def add(pool, key, workshop, **how):
    pool.service.add_pool(key, pool.service.make_pool(key, workshop.factory), **how)
    return pool.of(key)


@on_both
async def test_no_key_is_evicted_for_a_provisional_one_until_it_counts(side):
    workshop, dropped = Workshop(side), []
    pool = keyed(side, workshop, max_keys=2, on_dropped=lambda key, _: dropped.append(key))
    for key in ("a", "b"):
        await pool.release(await pool.acquire(key))
    for number in range(5):
        add(pool, number, workshop, is_provisional=True)
    assert (dropped, len(pool.service)) == ([], 7)
    await pool.release(await pool.acquire(3))
    assert dropped == [], "it can be used"
    assert pool.service.confirm(3)
    assert pool.service.confirm(3), "it counts already"
    assert dropped == ["a"]
    assert not pool.service.confirm("nobody's")


@on_both
async def test_a_provisional_key_waits_until_one_of_the_others_is_unused(side):
    workshop = Workshop(side)
    pool = keyed(side, workshop, max_keys=1)
    held = await pool.acquire("a")
    with raising(PoolExhaustedError, "max_keys=1"):
        add(pool, "b", workshop, is_provisional=True)
    await pool.release(held)
    late = add(pool, "b", workshop, is_provisional=True)
    held = await pool.acquire("a")
    assert not pool.service.confirm("b")
    await late.release(await late.acquire())
    await pool.release(held)
    assert pool.service.confirm("b")
    assert pool.keys() == ["b"]


@on_both
async def test_provisional_keys_are_bounded_and_those_in_use_stay(side, monkeypatch):
    monkeypatch.setattr("pooling.keyed.MOST_PROVISIONAL", 3)
    workshop = Workshop(side)
    pool = keyed(side, workshop, max_keys=5)
    await pool.release(await pool.acquire("counts"))
    used = add(pool, "used", workshop, is_provisional=True)
    held = await used.acquire()
    for number in range(20):
        add(pool, number, workshop, is_provisional=True)
    assert sorted(map(str, pool.keys())) == ["18", "19", "counts", "used"]
    await pool.release(held)


@on_both
async def test_a_dropped_key_leaves_its_pool_usable_and_a_closed_one_does_not(side):
    workshop, dropped = Workshop(side), []
    pool = keyed(side, workshop, on_dropped=lambda key, _: dropped.append(key))
    old = pool.of("key")
    await old.release(await old.acquire())
    assert pool.service.drop_key("key")
    assert not pool.service.drop_key("key")
    assert (dropped, pool.keys()) == (["key"], [])
    await side.until(lambda: old.size == 0)
    value = await old.acquire()
    pool.service.expire_all()
    await old.release(value)
    await side.until(lambda: old.size == 0, "which also concerns pools that are off the map")


@on_both
async def test_when_a_key_was_used_last_can_be_told_without_using_it(side):
    clock = Clock()
    pool = keyed(side, Workshop(side), clock=clock, max_idle=1e9)
    pool.pool("key")
    first = pool.last_used("key")
    clock.move(5)
    assert pool.last_used("key") == first
    pool.pool("key")
    assert pool.last_used("key") == first + 5
    assert pool.last_used("nobody's") == float("-inf")
