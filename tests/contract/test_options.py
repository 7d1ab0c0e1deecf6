"""What each option does."""

from __future__ import annotations

import logging
import math
import threading
from functools import partial

import pytest

from pooling import (
    AsyncKeyedPoolingService,
    AsyncPoolingService,
    ConfigurationError,
    KeyedPoolingService,
    PoolClosedError,
    PoolExhaustedError,
    PoolingService,
    PoolingServiceOptions,
    PoolTimeoutError,
)
from tests.contract.harness import LIMIT, on_asyncio, on_both, on_threads, raising, whole
from tests.contract.workshop import Clock, Watch, Workshop


async def borrow(pool, **options):
    async with pool.lease(**options) as value:
        return value


# -- giving options --------------------------------------------------------------

BAD = [
    ("min_size", -1),
    ("min_size", 1.0),
    ("min_size", True),
    ("min_size", 9),
    ("max_size", 0),
    ("max_size", math.inf),
    ("max_size", "4"),
    ("timeout", -0.1),
    ("timeout", None),
    ("timeout", math.nan),
    ("timeout", True),
    ("max_waiting", -1),
    ("max_waiting", 2.5),
    ("priorities", 0),
    ("lifo", 1),
    ("max_lifetime", -1),
    ("max_lifetime", "1h"),
    ("max_idle", -1),
    ("max_uses", 0),
    ("max_uses", 1.5),
    ("validate_on_acquire", -1),
    ("validate_on_acquire", "always"),
    ("validate_on_acquire", 10**400),
    ("validate_on_acquire", None),
    ("validate_on_release", 1),
    ("validate_idle", 0),
    ("validate_idle", -5),
    ("max_creating", 0),
    ("create_timeout", -1),
    ("create_backoff", 0),
    ("create_backoff", math.inf),
    ("create_backoff_max", 0),
    ("destroy_timeout", -1),
    ("leak_timeout", 0),
    ("leak_timeout", "long"),
    ("on_error", "ignore"),
    ("inline_hooks", None),
    ("use_times", "yes"),
]


@pytest.mark.parametrize("kind", [PoolingService, AsyncPoolingService])
@pytest.mark.parametrize(("field", "value"), BAD)
def test_a_value_that_cannot_work_is_refused_at_construction_by_its_fields_name(kind, field, value):
    with raising(ConfigurationError, f"{field}={value!r}", "expected") as caught:
        kind(object, **{field: value})
    assert caught.value.field == field
    assert isinstance(caught.value, ValueError)


def test_every_option_has_a_value_that_is_refused():
    assert {field for field, _ in BAD} == set(PoolingServiceOptions.__dataclass_fields__)


@pytest.mark.parametrize("kind", [PoolingService, AsyncPoolingService])
def test_an_option_that_does_not_exist_is_refused_with_the_one_that_may_be_meant(kind):
    with raising(ConfigurationError, "'max_sise'", "did you mean 'max_size'?") as caught:
        kind(object, max_sise=3)
    assert caught.value.field == "max_sise"
    with raising(ConfigurationError, "'colour'", "known are min_size"):
        kind(object, {"colour": "red"})
    with raising(ConfigurationError, "options=7"):
        kind(object, 7)
    with raising(ConfigurationError, "'validate'", "PoolFactory.of(create, validate=...)"):
        kind(object, validate=bool)
    with raising(ConfigurationError, "'create'", "is the first argument"):
        kind(object, create=object)
    with raising(ConfigurationError, "validate_on_acquire='yes'", "True, False, or a number of seconds"):
        kind(object, validate_on_acquire="yes")
    with raising(ConfigurationError, "unknown pool option 3") as caught:
        kind(object, {3: "three"})
    assert caught.value.field == "3"


@pytest.mark.parametrize("kind", [KeyedPoolingService, AsyncKeyedPoolingService])
def test_an_unknown_option_of_a_keyed_pool_is_refused_with_all_known_options(kind):
    with raising(ConfigurationError, "did you mean 'max_total'?"):
        kind(lambda key: object, maxtotal=3)
    with raising(ConfigurationError, "did you mean 'on_dropped'?"):
        kind(lambda key: object, on_drop=print)
    with raising(ConfigurationError, "known are max_total, max_keys"):
        kind(lambda key: object, colour="red")


@on_both
async def test_a_check_with_something_that_cannot_be_called_is_refused(side):
    pool = side.pool(Workshop(side))
    await pool.release(await pool.acquire())
    with raising(ConfigurationError, "validate=3: expected a callable"):
        await pool.check(3)
    assert pool.available == 1


@pytest.mark.parametrize("kind", [PoolingService, AsyncPoolingService])
def test_options_come_as_an_object_as_a_mapping_or_as_keywords_and_keywords_win(kind):
    assert kind(object).options == PoolingServiceOptions()
    assert kind(object, PoolingServiceOptions(max_size=3)).options.max_size == 3
    assert kind(object, {"max_size": 3, "lifo": False}).options == PoolingServiceOptions(max_size=3, lifo=False)
    mixed = kind(object, PoolingServiceOptions(max_size=3, timeout=7), max_size=5).options
    assert (mixed.max_size, mixed.timeout) == (5, 7)


@pytest.mark.parametrize("kind", [PoolingService, AsyncPoolingService, KeyedPoolingService, AsyncKeyedPoolingService])
@pytest.mark.parametrize("name", ["", 7, b"orders"])
def test_a_name_is_a_text(kind, name):
    with raising(ConfigurationError, f"name={name!r}") as caught:
        kind(object, name=name)
    assert caught.value.field == "name"


@pytest.mark.parametrize("kind", [PoolingService, AsyncPoolingService, KeyedPoolingService, AsyncKeyedPoolingService])
@pytest.mark.parametrize(("field", "expected"), [("budget", "a PoolBudget"), ("observer", "a PoolObserver")])
def test_what_is_no_budget_or_observer_is_refused(kind, field, expected):
    with raising(ConfigurationError, f"{field}=3: expected {expected}") as caught:
        kind(object, **{field: 3})
    assert caught.value.field == field


BAD_SECONDS = [math.nan, "x", True, 10**400]


@pytest.mark.parametrize("timeout", BAD_SECONDS)
@on_both
async def test_a_timeout_that_is_no_number_of_seconds_is_refused(side, timeout):
    pool = side.pool(Workshop(side), max_size=1, min_size=1, name="orders")
    for call in (pool.acquire, lambda timeout: borrow(pool, timeout=timeout), partial(pool._call, "start")):
        with raising(ConfigurationError, f"pool 'orders': timeout={timeout!r}: expected") as caught:
            await call(timeout=timeout)
        assert caught.value.field == "timeout"
    assert pool.size == 0


@pytest.mark.parametrize("timeout", [None, *BAD_SECONDS])
@on_both
async def test_a_pool_is_not_stopped_with_a_timeout_that_is_no_number_of_seconds(side, timeout):
    pool = side.pool(Workshop(side), name="orders")
    held = await pool.acquire()
    with raising(ConfigurationError, f"pool 'orders': timeout={timeout!r}: expected"):
        await pool.stop(timeout)
    await pool.release(held)
    await pool.release(await pool.acquire())


@pytest.mark.parametrize("priority", [0.5, None, 2, 99, -1, "first"])
@on_both
async def test_a_priority_that_has_no_queue_is_refused(side, priority):
    pool = side.pool(Workshop(side), priorities=2, name="orders")
    with raising(
        ConfigurationError, "pool 'orders'", f"priority={priority!r}: expected 0", "priorities - 1 = 1"
    ) as caught:
        await pool.acquire(priority=priority)
    assert caught.value.field == "priority"
    assert pool.size == 0


@on_both
async def test_limits_that_cannot_work_are_refused_and_change_nothing(side):
    pool = side.pool(Workshop(side), max_size=2)
    for limits in [(3, 2), (0, 0), (-1, 2), (0, 1.5)]:
        with pytest.raises(ConfigurationError):
            pool.resize(*limits)
    assert (pool.options.min_size, pool.options.max_size) == (0, 2)
    await whole(pool)


# -- sizes, order, queueing --------------------------------------------------------


@on_both
async def test_start_returns_when_min_size_resources_exist(side):
    workshop = Workshop(side)
    pool = side.pool(workshop, min_size=3, max_size=5)
    assert pool.size == 0, "construction starts nothing"
    await pool.start()
    assert pool.available == pool.size == len(workshop.made) == 3
    await pool.start()
    assert pool.size == 3


@on_both
async def test_a_destroyed_resource_is_replaced_up_to_min_size(side):
    pool = side.pool(Workshop(side), min_size=2, max_size=4)
    await pool.start()
    await pool.destroy(await pool.acquire())
    await side.until(lambda: pool.available == 2)
    assert pool.stats().created == 3


@pytest.mark.parametrize("lifo", [True, False])
@on_both
async def test_idle_resources_are_handed_out_in_the_order_asked_for(side, lifo):
    pool = side.pool(Workshop(side), max_size=3, lifo=lifo)
    first, second, third = [await pool.acquire() for _ in range(3)]
    for value in (second, first, third):
        await pool.release(value)
    got = [await pool.acquire() for _ in range(3)]
    assert got == ([third, first, second] if lifo else [second, first, third])
    for value in got:
        await pool.release(value)


@on_both
async def test_borrowers_are_served_in_the_order_they_came(side):
    pool = side.pool(Workshop(side), max_size=1)
    held = await pool.acquire()
    served = []

    async def waits(number):
        async with pool.lease():
            served.append(number)

    waiters = []
    for number in range(10):
        waiters.append(side.go(waits, number))
        await side.until(lambda number=number: pool.pending == number + 1)
    await pool.release(held)
    for waiter in waiters:
        await waiter.result()
    assert served == list(range(10))


@on_both
async def test_no_borrower_passes_one_that_waits(side):
    pool = side.pool(Workshop(side), max_size=1)
    held = await pool.acquire()
    got = side.gate()

    async def waits():
        async with pool.lease():
            await got()

    waiter = side.go(waits)
    await side.until(lambda: pool.pending == 1)
    await pool.release(held)
    # From the release on it is the waiter's, though it may not have woken yet.
    with pytest.raises(PoolExhaustedError):
        await pool.acquire_nowait()
    got.open()
    await waiter.result()


@on_both
async def test_acquire_nowait_takes_what_is_idle_or_creates_and_else_refuses(side):
    workshop = Workshop(side)
    pool = side.pool(workshop, max_size=2, name="orders")
    first = await pool.acquire_nowait()
    await pool.release(first)
    assert await pool.acquire_nowait() is first
    second = await pool.acquire_nowait()
    with raising(PoolExhaustedError, "pool 'orders'", "acquire_nowait", "2 of max_size=2 borrowed") as caught:
        await pool.acquire_nowait()
    assert caught.value.limit == "acquire_nowait"
    assert caught.value.counts.borrowed == 2
    assert pool.stats().rejected == 1
    await pool.release(first)
    await pool.release(second)


@pytest.mark.parametrize("most", [0, 1, 3])
@on_both
async def test_max_waiting_limits_borrowers_that_wait_for_another_borrower(side, most):
    pool = side.pool(Workshop(side), max_size=2, max_waiting=most)
    held = [await pool.acquire() for _ in range(2)]  # no borrower queues while a place is free
    waiters = [side.go(borrow, pool) for _ in range(most)]
    await side.until(lambda: pool.pending == most)
    with raising(PoolExhaustedError, f"max_waiting={most}", f"{most} queued") as caught:
        await pool.acquire()
    assert caught.value.limit == f"max_waiting={most}"
    for value in held:
        await pool.release(value)
    for waiter in waiters:
        await waiter.result()
    assert pool.stats().rejected == 1


@on_both
async def test_a_higher_priority_is_served_first_and_equals_in_their_order(side):
    pool = side.pool(Workshop(side), max_size=1, priorities=3)
    held = await pool.acquire()
    served = []

    async def waits(priority, number):
        async with pool.lease(priority=priority):
            served.append((priority, number))

    waiters = []
    for number, priority in enumerate([2, 1, 0, 2, 1, 0]):
        waiters.append(side.go(waits, priority, number))
        await side.until(lambda number=number: pool.pending == number + 1)
    await pool.release(held)
    for waiter in waiters:
        await waiter.result()
    assert served == [(0, 2), (0, 5), (1, 1), (1, 4), (2, 0), (2, 3)]


@on_both
async def test_the_timeout_of_a_call_wins_over_the_pools(side):
    pool = side.pool(Workshop(side), max_size=1, timeout=0.01)
    held = await pool.acquire(timeout=20)
    with raising(PoolTimeoutError, "timeout=0.01 s") as caught:
        await pool.acquire()
    assert caught.value.timeout == 0.01
    with raising(PoolTimeoutError, "timeout=0 s"):
        await pool.acquire(timeout=0)
    waiter = side.go(pool.acquire, timeout=math.inf)
    await side.until(lambda: pool.pending == 1)
    await pool.release(held)
    await pool.release(await waiter.result())
    assert pool.stats().timeouts == 2


@on_both
async def test_while_suspended_nothing_is_handed_out_or_created(side):
    workshop = Workshop(side)
    pool = side.pool(workshop, max_size=2)
    value = await pool.acquire()
    pool.suspend()
    assert not pool.is_running
    await pool.release(value)
    waiters = [side.go(borrow, pool) for _ in range(3)]
    await side.until(lambda: pool.pending == 3)
    with pytest.raises(PoolExhaustedError):
        await pool.acquire_nowait()
    assert workshop.calls["create"] == 1
    pool.resume()
    for waiter in waiters:
        await waiter.result()


# -- validation ----------------------------------------------------------------------


@on_both
async def test_validate_on_acquire_looks_at_each_resource_new_ones_too(side):
    bad = set()

    async def validate(thing):
        return thing.serial not in bad

    workshop = Workshop(side, validate=validate)
    pool = side.pool(workshop, max_size=2, validate_on_acquire=True)
    first = await borrow(pool)
    assert workshop.calls["validate"] == 1
    bad.add(1)
    second = await borrow(pool)
    assert second is not first
    assert workshop.unmade == [first]
    assert pool.stats().destroyed_by == {"invalid": 1}


@on_both
async def test_without_validate_on_acquire_nothing_is_validated(side):
    async def validate(_):
        raise AssertionError

    workshop = Workshop(side, validate=validate)
    pool = side.pool(workshop)
    for _ in range(3):
        await borrow(pool)
    assert workshop.calls["validate"] == 0


@on_both
async def test_validate_on_acquire_may_be_for_those_only_that_were_idle_for_long(side):
    async def validate(_):
        return True

    clock = Clock()
    workshop = Workshop(side, validate=validate)
    pool = side.pool(workshop, max_size=1, validate_on_acquire=5.0, clock=clock)
    await borrow(pool)
    clock.move(4.9)
    await borrow(pool)
    assert workshop.calls["validate"] == 0
    clock.move(5.1)
    await borrow(pool)
    assert workshop.calls["validate"] == 1
    await borrow(pool)
    assert workshop.calls["validate"] == 1, "it has just been used"


@on_both
async def test_a_validation_that_raises_says_no(side):
    async def validate(thing):
        if thing.serial == 1:
            raise ConnectionError
        return True

    workshop = Workshop(side, validate=validate)
    pool = side.pool(workshop, validate_on_acquire=True)
    assert (await borrow(pool)).serial == 2
    assert pool.stats().destroyed_by == {"invalid": 1}


@on_both
async def test_validate_on_release_destroys_what_comes_back_broken(side):
    async def validate(thing):
        return "broken" not in thing.notes

    workshop = Workshop(side, validate=validate)
    pool = side.pool(workshop, max_size=1, validate_on_release=True)
    value = await pool.acquire()
    assert workshop.calls["validate"] == 0
    await pool.release(value)
    assert await pool.acquire() is value
    value.notes.append("broken")
    await pool.release(value)
    assert pool.size == 0
    assert workshop.unmade == [value]


@pytest.mark.parametrize("how", ["validate_idle", "check"])
@on_both
async def test_an_idle_resource_that_is_being_validated_counts_as_idle(side, how):
    clock, gate = Clock(), side.gate()

    async def validate(_):
        await gate()
        return True

    options = {"validate_idle": 30.0} if how == "validate_idle" else {}
    pool = side.pool(Workshop(side, validate=validate), clock=clock, **options)
    await pool.release(await pool.acquire())
    if how == "validate_idle":
        clock.move(31, pool)
        clock.move(31, pool)
    else:
        looking = side.go(pool._call, "check", side.hook(validate))
    await gate.reached()
    stats = pool.stats()
    assert (stats.borrowed, stats.available, stats.size) == (0, 1, 1)
    gate.open()
    if how == "check":
        await looking.result()
    await side.until(lambda: pool.available == 1)
    assert (pool.stats().borrowed, pool.stats().available) == (0, 1)


@on_both
async def test_validate_idle_looks_at_idle_resources_in_the_background(side):
    dead = set()

    async def validate(thing):
        return thing not in dead

    clock = Clock()
    workshop = Workshop(side, validate=validate)
    pool = side.pool(workshop, max_size=3, validate_idle=30.0, clock=clock)
    held = [await pool.acquire() for _ in range(3)]
    for value in held[:2]:
        await pool.release(value)
    dead |= {held[0], held[2]}
    clock.move(0, pool)
    clock.move(31, pool)
    await side.until(lambda: workshop.unmade == [held[0]])
    await side.until(lambda: pool.available == 1)
    assert workshop.calls["validate"] == 2, "borrowed resources are not checked"
    clock.move(10, pool)
    assert workshop.calls["validate"] == 2
    clock.move(31, pool)
    await side.until(lambda: workshop.calls["validate"] == 3)
    await side.until(lambda: pool.available == 1)
    await pool.release(held[2])


# -- wear and age ----------------------------------------------------------------------


@on_both
async def test_a_resource_is_replaced_after_max_uses(side):
    workshop = Workshop(side)
    pool = side.pool(workshop, max_size=1, max_uses=3)
    assert [(await borrow(pool)).serial for _ in range(7)] == [1, 1, 1, 2, 2, 2, 3]
    assert pool.stats().destroyed_by == {"max_uses": 2}


@on_both
async def test_a_resource_is_replaced_at_max_lifetime_less_up_to_a_tenth(side):
    clock = Clock()
    workshop = Workshop(side)
    pool = side.pool(workshop, max_size=1, max_lifetime=100.0, max_idle=math.inf, clock=clock)
    first = await borrow(pool)
    clock.move(89, pool)
    assert await borrow(pool) is first
    clock.move(12, pool)
    assert await borrow(pool) is not first
    assert pool.stats().destroyed_by == {"max_lifetime": 1}


@on_both
async def test_expire_replaces_all_there_are_idle_ones_now_the_others_as_they_come_back(side):
    workshop = Workshop(side)
    pool = side.pool(workshop, min_size=2, max_size=3)
    await pool.start()
    out = await pool.acquire()
    old = list(workshop.made)
    pool.expire()
    await side.until(lambda: len(workshop.unmade) == 1)
    assert pool.is_borrowed(out)
    await pool.release(out)
    await side.until(lambda: len(workshop.unmade) == 2)
    await side.until(lambda: pool.available == 2)
    assert not set(await whole(pool)) & set(old)
    assert pool.stats().destroyed_by == {"expired": 2}


@on_both
async def test_zero_max_idle_keeps_nothing_above_min_size(side):
    workshop = Workshop(side)
    pool = side.pool(workshop, min_size=1, max_size=3, max_idle=0)
    await pool.start()
    await whole(pool)
    await side.until(lambda: pool.size == 1)


# -- creating and destroying --------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 3])
@on_both
async def test_at_most_max_creating_creates_run_at_once(side, most):
    gate = side.gate()
    workshop = Workshop(side, create=gate)
    pool = side.pool(workshop, max_size=6, max_creating=most)
    held = side.gate()

    async def holds():
        async with pool.lease():
            await held()

    borrowers = [side.go(holds) for _ in range(6)]
    await gate.reached(most)
    await side.until(lambda: pool.pending == 6)
    assert pool.stats().creating == most
    gate.open()
    await held.reached(6)
    held.open()
    for borrower in borrowers:
        await borrower.result()
    assert workshop.most_creating == most


@on_asyncio
async def test_a_create_that_takes_longer_than_create_timeout_is_cancelled_and_tried_again(side):
    gate = side.gate()
    calls = []

    async def create():
        calls.append(None)
        if len(calls) == 1:
            await gate()

    workshop = Workshop(side, create=create)
    pool = side.pool(workshop, max_size=1, create_timeout=0.02)
    assert (await borrow(pool)).serial == 1
    assert len(calls) == 2
    assert workshop.creating == 0
    assert pool.stats().create_failures == 1


@on_threads
async def test_a_create_that_takes_longer_than_create_timeout_is_reported_and_what_comes_late_is_used(side, caplog):
    gate = side.gate()
    calls = []

    async def create():
        calls.append(None)
        if len(calls) == 1:
            await gate()

    workshop = Workshop(side, create=create)
    pool = side.pool(workshop, max_size=2, create_timeout=0.02)
    early = await borrow(pool)  # a second attempt serves it
    assert len(calls) == 2
    assert pool.size == 2, "a thread cannot be interrupted: its place stays taken"
    assert "a create hook has not ended in its time" in caplog.text
    gate.open()
    await side.until(lambda: pool.available == 2)
    assert set(await whole(pool)) >= {early}


@on_both
async def test_a_create_timeout_is_the_cause_of_the_borrowers(side):
    gate = side.gate()
    pool = side.pool(Workshop(side, create=gate), max_size=1, create_timeout=0.02)
    with raising(PoolTimeoutError, "step: creating") as caught:
        await pool.acquire(timeout=0.3)
    assert "create_timeout=0.02" in str(caught.value.__cause__)


# -- leaks ------------------------------------------------------------------------------------


@on_both
async def test_a_leak_is_reported_once_with_the_borrowers_stack(side, caplog):
    clock, watch = Clock(), Watch()
    pool = side.pool(Workshop(side), max_size=2, leak_timeout=60.0, clock=clock, observer=watch, name="orders")

    async def forgetful():
        return await pool.acquire()

    held = await forgetful()
    clock.move(59, pool)
    assert not watch.named("leaked")
    with caplog.at_level(logging.WARNING, logger="pooling"):
        for _ in range(3):
            clock.move(2, pool)
    (leak,) = watch.named("leaked")
    assert leak.value is held
    assert leak.duration == 61
    assert "in forgetful" in leak.stack
    (record,) = caplog.records
    for text in ("pool 'orders'", "leak_timeout=60.0", "61.0 s ago at test_options.py:", "in forgetful"):
        assert text in record.getMessage()
    await pool.release(held)
    again = await pool.acquire()
    clock.move(61, pool)
    assert len(watch.named("leaked")) == 2, "another borrower, another leak"
    await pool.release(again)


# -- numbers -------------------------------------------------------------------------------------


@on_both
async def test_statistics_count_what_happened(side):
    clock = Clock()

    async def create():
        clock.now += 2.0

    pool = side.pool(Workshop(side, create=create), max_size=2, clock=clock, use_times=True, name="orders")
    value = await pool.acquire()
    clock.now += 3.0
    await pool.release(value)
    held = [await pool.acquire() for _ in range(2)]
    with pytest.raises(PoolTimeoutError):
        await pool.acquire(timeout=0)
    with pytest.raises(PoolExhaustedError):
        await pool.acquire_nowait()
    waiter = side.go(borrow, pool)
    await side.until(lambda: pool.pending == 1)
    stats = pool.stats()
    assert (stats.name, stats.min_size, stats.max_size) == ("orders", 0, 2)
    assert (stats.size, stats.available, stats.borrowed, stats.pending) == (2, 0, 2, 1)
    assert (stats.creating, stats.closing) == (0, 0)
    assert (stats.created, stats.create_failures, stats.destroyed) == (2, 0, 0)
    assert (stats.acquired, stats.timeouts, stats.rejected) == (3, 1, 1)
    assert stats.create_time.count == 2
    assert stats.create_time.mean == 2.0
    assert stats.use_time.count == 1
    assert stats.use_time.max == 3.0
    clock.now += 7.0
    await pool.release(held[0])
    await waiter.result()
    assert pool.stats().wait_time.max == 7.0
    assert pool.stats().waited == 3, "two waited for a create, one for another borrower"
    assert stats.waited == 2, "what was read stays as it was"
    await pool.destroy(held[1])
    assert pool.stats().destroyed_by == {"destroyed": 1}


@on_both
async def test_borrowers_are_counted_when_they_come_and_again_for_what_becomes_of_them(side):
    async def acquire(_, ctx):
        if ctx == "fails":
            raise LookupError

    pool = side.pool(Workshop(side, acquire=acquire), max_size=1, priorities=2)
    with pytest.raises(LookupError):
        await pool.acquire("fails")
    held = await pool.acquire()
    before = pool.stats()
    assert (before.requested, before.queued, before.acquired, before.dismissed) == (2, 2, 1, 1)
    interrupt = await side.interrupted(partial(pool.acquire, timeout=LIMIT), when=lambda: pool.pending)
    with pytest.raises(PoolTimeoutError):
        await pool.acquire(timeout=0)
    with pytest.raises(PoolExhaustedError):
        await pool.acquire_nowait()
    waiter = side.go(pool.acquire)
    await side.until(lambda: pool.pending == 1)
    stats = pool.stats()
    assert not isinstance(interrupt, Exception)
    assert (stats.requested, stats.queued, stats.acquired) == (6, 5, 1), "waiting borrowers are counted"
    assert (stats.cancelled, stats.timeouts, stats.rejected, stats.dismissed) == (1, 1, 1, 1)
    assert stats.waited_in_vain > 0
    stopping = side.go(pool.stop)
    with pytest.raises(PoolClosedError):
        await waiter.result()
    assert (pool.stats().requested, pool.stats().dismissed) == (6, 2)
    await pool.release(held)
    await stopping.result()


@on_both
async def test_borrowers_on_the_fast_path_are_counted_too(side):
    pool = side.pool(Workshop(side))
    for _ in range(3):
        await pool.release(await pool.acquire())
    stats = pool.stats()
    assert (stats.requested, stats.queued, stats.acquired) == (3, 1, 3)


@on_both
async def test_sizes_can_be_read_from_the_pool(side):
    pool = side.pool(Workshop(side), max_size=3, name="orders")
    held = [await pool.acquire() for _ in range(2)]
    await pool.release(held.pop())
    assert (pool.name, pool.size, pool.available, pool.borrowed, pool.pending) == ("orders", 2, 1, 1, 0)
    assert pool.is_borrowed(held[0])
    assert "1 of max_size=3 borrowed, 1 idle" in repr(pool.service)
    await pool.release(held[0])


# -- threads only ---------------------------------------------------------------------------------


@pytest.mark.parametrize("inline", [True, False])
@on_threads
async def test_inline_hooks_run_in_the_borrowers_own_thread(side, inline):
    seen = []

    async def hook(*_):
        seen.append(threading.get_ident())
        return True

    pool = side.pool(
        Workshop(side, validate=hook, acquire=hook, release=hook), validate_on_acquire=True, inline_hooks=inline
    )
    await borrow(pool)
    here = [ident == threading.get_ident() for ident in seen]
    assert here == [inline, inline, True], "validate, acquire, release"
