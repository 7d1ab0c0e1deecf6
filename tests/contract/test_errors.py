"""What the errors say: pool, limit by its option's name, step, counts, cause, what to try. And what they must not."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

import pooling
from pooling import (
    CreateError,
    PoolClosedError,
    PoolCounts,
    PoolExhaustedError,
    PoolFactory,
    PoolingError,
    PoolingService,
    PoolTimeoutError,
    ReleaseError,
)
from tests.contract.harness import on_both, raising
from tests.contract.workshop import Workshop

SECRET = "hunter2-token"


class LeakyError(Exception):
    """An error of a driver whose text contains a secret."""

    def __str__(self):
        return f"could not connect to postgres://ann:{SECRET}@host"


async def borrow(pool, **options):
    async with pool.lease(**options) as value:
        return value


@on_both
async def test_a_timeout_in_the_queue_names_the_borrowers_and_what_to_try(side):
    pool = side.pool(Workshop(side), max_size=2, timeout=0.01, name="orders")

    async def holds():
        return await pool.acquire(timeout=20)

    held = [await holds(), await holds()]
    with raising(
        PoolTimeoutError,
        "pool 'orders'",
        "no resource within timeout=0.01 s",
        "(step: queueing)",
        "2 of max_size=2 borrowed",
        "0 idle",
        "0 being created",
        "raise max_size",
    ) as caught:
        await pool.acquire()
    error = caught.value
    assert isinstance(error, TimeoutError)
    assert (error.pool, error.key, error.step, error.timeout) == ("orders", None, "queueing", 0.01)
    assert (error.counts.borrowed, error.counts.idle, error.counts.max_size) == (2, 0, 2)
    for value in held:
        await pool.release(value)


@on_both
async def test_a_second_timeout_can_name_the_line_that_borrowed(side):
    # After one borrower's error the pool records every borrower, also if it did not before.
    pool = side.pool(Workshop(side), max_size=1, timeout=0.01)
    for _ in range(2):
        held = await side.go(acquires, pool).result()
        with pytest.raises(PoolTimeoutError) as caught:
            await pool.acquire()
        await pool.release(held)
    assert "test_errors.py:" in str(caught.value)
    assert "in acquires" in str(caught.value)


async def acquires(pool):
    service = pool.service
    value = service.acquire(timeout=20)
    return await value if hasattr(value, "__await__") else value


@on_both
async def test_a_timeout_while_creating_says_so(side):
    gate = side.gate()
    pool = side.pool(Workshop(side, create=gate), max_size=2, name="orders")
    with raising(PoolTimeoutError, "(step: creating)", "1 being created", "create_timeout") as caught:
        await pool.acquire(timeout=0.02)
    assert caught.value.step == "creating"
    assert caught.value.counts.creating == 1
    assert caught.value.__cause__ is None


@on_both
async def test_a_timeout_after_failed_creates_counts_them_and_has_the_last_as_its_cause(side):
    async def create():
        raise ConnectionRefusedError

    pool = side.pool(Workshop(side, create=create), create_backoff=0.001, create_backoff_max=0.002)
    with raising(PoolTimeoutError, "times in a row", "ConnectionRefusedError") as caught:
        await pool.acquire(timeout=0.3)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


@on_both
async def test_a_timeout_because_validation_refuses_all_that_is_made_says_so(side):
    async def validate(_):
        return False

    pool = side.pool(Workshop(side, validate=validate), validate_on_acquire=True, create_backoff=30, name="orders")
    with raising(
        PoolTimeoutError, "(step: validating)", "Validation rejected", "CreateError", "what validate()"
    ) as caught:
        await pool.acquire(timeout=0.5)
    assert caught.value.step == "validating"
    assert "validate() returned False" in str(caught.value.__cause__)


@on_both
async def test_a_timeout_while_destroying_says_so(side):
    gate = side.gate()

    async def destroy(_):
        await gate()

    pool = side.pool(Workshop(side, destroy=destroy), max_size=1)
    value = await pool.acquire()
    destroying = side.go(pool.destroy, value)
    await gate.reached()
    with raising(PoolTimeoutError, "1 being destroyed", "destroy() hangs") as caught:
        await pool.acquire(timeout=0.02)
    assert caught.value.counts.closing == 1
    gate.open()
    await destroying.result()


@on_both
async def test_a_refusal_says_which_limit(side):
    pool = side.pool(Workshop(side), max_size=1, max_waiting=0, name="orders")
    held = await pool.acquire()
    with raising(
        PoolExhaustedError, "pool 'orders'", "max_waiting=0", "1 of max_size=1 borrowed", "raise max_size"
    ) as caught:
        await pool.acquire()
    assert (caught.value.pool, caught.value.step, caught.value.limit) == ("orders", "queueing", "max_waiting=0")
    await pool.release(held)


@on_both
async def test_a_suspended_pool_says_so_to_a_borrower_that_may_not_wait(side):
    pool = side.pool(Workshop(side), name="orders")
    pool.suspend()
    with raising(PoolExhaustedError, "pool 'orders': it is suspended", "acquire_nowait", "resume()") as caught:
        await pool.acquire_nowait()
    assert caught.value.limit == "acquire_nowait"


@on_both
async def test_a_stopped_pool_says_what_to_call(side):
    pool = side.pool(Workshop(side), name="orders")
    await pool.stop()
    with raising(PoolClosedError, "pool 'orders' is stopped", "Call start()") as caught:
        await pool.acquire()
    assert caught.value.pool == "orders"
    assert isinstance(caught.value.counts, PoolCounts)


@on_both
async def test_a_failed_create_says_what_failed_and_chains_it(side):
    async def create():
        raise CreateError("role 'ann' does not exist")

    pool = side.pool(Workshop(side, create=create), name="orders")
    with raising(CreateError, "pool 'orders'", "role 'ann' does not exist", "(step: creating)") as caught:
        await pool.acquire()
    assert caught.value.step == "creating"
    assert isinstance(caught.value.__cause__, CreateError)
    assert str(caught.value) == (
        "pool 'orders': create failed: role 'ann' does not exist. Trying again would not help (step: creating)."
    )


def test_what_the_pool_itself_says_of_a_create_has_its_name_once():
    one = object()
    with PoolingService(lambda: one, name="orders", max_size=2) as pool, pool.lease():
        with raising(CreateError, "return a new one each time. Trying again") as caught:
            pool.acquire()
        assert str(caught.value).count("pool 'orders'") == 1


@on_both
async def test_a_value_given_back_to_a_stopped_pool_that_never_had_it_is_refused(side):
    pool = side.pool(Workshop(side), name="orders")
    await pool.stop()
    with raising(ReleaseError, "pool 'orders' (the pool is stopped)", "not this pool's"):
        await pool.release(object())


@pytest.mark.parametrize("step", ["create", "validate", "acquire", "release", "destroy"])
@on_both
async def test_no_text_of_the_pool_holds_what_a_hooks_error_or_a_resource_says(side, step, caplog):
    class Confidential:
        def __repr__(self):
            return f"<connection password={SECRET}>"

        __str__ = __repr__

    async def fails(*_):
        raise LeakyError

    caplog.set_level("DEBUG")
    workshop = Workshop(side, thing=Confidential, **{step: fails})
    pool = side.pool(workshop, max_size=1, validate_on_acquire=True, leak_timeout=0.001)
    seen = [repr(pool.service)]
    for _ in range(2):
        try:
            value = await pool.acquire(timeout=0.2)
            with pytest.raises(PoolTimeoutError) as caught:
                await pool.acquire(timeout=0.01)
            seen.append(str(caught.value))
            await pool.release(value)
        except PoolingError as error:
            seen += [str(error), repr(error)]
        except LeakyError:
            assert step == "acquire", "an acquire hook's own error is the borrower's"
    with pytest.raises(ReleaseError) as caught:
        await pool.release(Confidential())
    seen += [str(caught.value), repr(pool.service), repr(pool.stats())]
    await pool.stop(20)
    seen += [record.getMessage() for record in caplog.records]
    assert len(seen) > 3
    assert not [text for text in seen if SECRET in text]


@pytest.mark.parametrize("kind", [getattr(pooling, name) for name in pooling.__all__ if name.endswith("Error")])
def test_every_error_is_a_pooling_error_and_keeps_its_facts(kind):
    error = kind("said so", pool="orders", key="ann", step="queueing")
    assert isinstance(error, PoolingError)
    for other in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(other) is kind
        assert (str(other), other.pool, other.key, other.step) == ("said so", "orders", "ann", "queueing")


@on_both
async def test_a_timeout_raised_by_a_hook_is_not_the_pools_timeout(side):
    def acquire(value, ctx):
        raise TimeoutError("the server's, not ours")

    pool = side.pool(PoolFactory.of(object, acquire=acquire))
    with pytest.raises(TimeoutError, match="the server's") as caught:
        await pool.acquire()
    assert not isinstance(caught.value, PoolTimeoutError)
    assert pool.stats().timeouts == 0


# -- creates that fail ----------------------------------------------------------------------------


def fails_with(*errors):
    """A step that raises one error after the other, and then does nothing."""
    left = list(errors)

    async def step(*_):
        if left:
            raise left.pop(0)
        return True

    return step


@pytest.mark.parametrize(
    "error",
    [KeyError("PGHOST"), ValueError("no port"), FileNotFoundError("no such file"), IndexError("3")],
)
@on_both
async def test_a_mistake_in_the_settings_is_told_at_once_with_its_own_words(side, error):
    pool = side.pool(Workshop(side, create=fails_with(error)), timeout=30)
    with raising(CreateError, type(error).__name__, str(error).strip("'"), "Trying again would not help") as caught:
        await pool.acquire()
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [AttributeError("no_such_method"), TypeError("one argument too many")])
@on_both
async def test_a_mistake_in_validate_is_told_at_once(side, error):
    pool = side.pool(Workshop(side, validate=fails_with(error)), timeout=30, validate_on_acquire=True)
    with raising(CreateError, "step: validating", type(error).__name__, str(error)) as caught:
        await pool.acquire()
    assert caught.value.__cause__ is error
    assert await borrow(pool), "another borrower's check may work"


@on_both
async def test_a_resource_that_broke_while_idle_is_no_mistake_in_validate(side):
    flaws = [None, AttributeError("'NoneType' object has no attribute 'send'")]

    async def validate(_):
        if flaws and (flaw := flaws.pop(0)) is not None:
            raise flaw
        return True

    workshop = Workshop(side, validate=validate)
    pool = side.pool(workshop, timeout=30, validate_on_acquire=True, max_size=1)
    first = await borrow(pool)
    assert await borrow(pool) is not first


@on_both
async def test_failing_creates_are_one_warning_for_each_series(side, caplog):
    def refusals(count):
        return [ConnectionRefusedError("nobody listens at postgres://ann:hunter2-token@host") for _ in range(count)]

    workshop = Workshop(side, create=fails_with(*refusals(3)))
    pool = side.pool(workshop, timeout=30, create_backoff=0.001)
    await borrow(pool)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "create failed with ConnectionRefusedError: nobody listens at" in warnings[0]
    assert SECRET not in warnings[0]
    workshop._create = fails_with(*refusals(2))
    pool.service.expire()
    await borrow(pool)
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 2


# -- who holds a resource -------------------------------------------------------------------------


async def holder_in_message(pool):
    """What the timeout of another borrower says of the one that holds the only resource."""
    with pytest.raises(PoolTimeoutError) as caught:
        await pool.acquire(timeout=0.01)
    return str(caught.value)


@on_both
async def test_the_place_and_the_request_of_the_oldest_borrower_are_named(side):
    workshop = Workshop(side)
    workshop.factory.notes_borrowers = True
    pool = side.pool(workshop, max_size=1)

    async def holds():
        return await pool.acquire()

    value = await holds()
    assert "unrecorded" not in await holder_in_message(pool)
    await pool.release(value)
    with pooling.RequestContext("GET /orders"):
        value = await holds()
    text = await holder_in_message(pool)
    assert "request 'GET /orders'" in text
    await pool.release(value)


@on_both
async def test_the_oldest_is_said_to_be_the_oldest_known_while_others_may_be_older(side):
    pool = side.pool(Workshop(side), max_size=2)
    await pool.release(await pool.acquire())
    idle = await pool.acquire()  # the loan of an idle resource is not recorded
    created = await pool.acquire()
    text = await holder_in_message(pool)
    assert "s ago at test_errors.py:" in text
    assert "; 1 more, perhaps older, at unrecorded call sites.\n" in text
    await pool.release(idle)
    idle = await pool.acquire()  # from the error on, it is
    assert "unrecorded" not in await holder_in_message(pool)
    for value in (idle, created):
        await pool.release(value)


async def test_a_task_that_only_borrows_is_named_and_not_the_loop_that_runs_it():
    async with pooling.AsyncPoolingService(object, max_size=1) as service:
        for _ in range(2):
            value = await asyncio.create_task(service.acquire(), name="orders")
            with pytest.raises(PoolTimeoutError) as caught:
                await service.acquire(timeout=0.01)
            await service.release(value)
        assert "ago for task 'orders'" in str(caught.value)


def test_so_is_a_thread():
    with PoolingService(object, max_size=1) as service:
        for _ in range(2):
            with ThreadPoolExecutor(thread_name_prefix="orders") as threads:
                value = threads.submit(service.acquire).result()
            with pytest.raises(PoolTimeoutError) as caught:
                service.acquire(timeout=0.01)
            service.release(value)
        assert "ago for thread 'orders_0'" in str(caught.value)


def test_a_generators_block_is_its_callers():
    with PoolingService(object, max_size=1) as service:
        for _ in range(2):
            with contextlib.ExitStack() as stack:
                stack.enter_context(service.lease())
                with pytest.raises(PoolTimeoutError) as caught:
                    service.acquire(timeout=0.01)
        assert "in test_a_generators_block_is_its_callers" in str(caught.value)
