"""The pooled values of a request, and how it gives them back: the same for threads and asyncio."""

from __future__ import annotations

import pytest

from pooling import CreateError, PoolFactory, PoolTimeoutError, RequestContextError
from tests.context.parts import Request, Thing, calls
from tests.contract.harness import on_both


def recording(side, ends):
    """A factory whose release hook records how each use ended."""

    async def release(value, exc=None):
        ends.append(exc)

    return PoolFactory.of(Thing, release=side.hook(release))


# --- one value for each pool -----------------------------------------------------------------------------------------


@on_both
async def test_the_value_of_a_pool_is_taken_once_and_given_back_at_the_end(side):
    pool = side.pool(Thing)
    async with Request(side) as request:
        first = await request.acquire(pool)
        assert await request.acquire(pool) is first
        assert request.ctx.acquire(pool.service) is first  # it is there: nothing to wait for
        assert pool.borrowed == 1
    assert pool.borrowed == 0
    assert pool.stats().acquired == 1


@on_both
async def test_two_pools_give_two_values_and_two_names_too(side):
    users, orders = side.pool(Thing), side.pool(Thing)
    async with Request(side) as request:
        values = {await request.acquire(users), await request.acquire(orders), await request.acquire(users, key="2")}
        assert len(values) == 3
        assert await request.acquire(users, key="2") in values
        assert users.borrowed == 2


@on_both
async def test_without_entering_it_close_gives_back_once(side):
    pool = side.pool(Thing)
    request = Request(side)
    await request.acquire(pool)
    await request.close()
    assert pool.borrowed == 0
    await request.close()
    assert request.ctx.is_closed
    assert pool.stats().acquired == 1


@on_both
async def test_callers_that_ask_at_once_get_the_same_object_acquired_once(side):
    gate = side.gate()

    async def create():
        await gate()
        return Thing()

    pool = side.pool(PoolFactory.of(side.hook(create)), max_size=4)
    async with Request(side) as request:
        callers = [side.go(request.acquire, pool) for _ in range(4)]
        await gate.reached(1)
        gate.open()
        assert len({await caller.result() for caller in callers}) == 1
        assert pool.borrowed == 1
    assert pool.stats().acquired == 1


@on_both
async def test_all_waiters_of_a_failing_attempt_get_its_error(side):
    gate = side.gate()

    async def create():
        await gate()
        raise CreateError("no such thing")

    pool = side.pool(PoolFactory.of(side.hook(create)))
    async with Request(side) as request:
        callers = [side.go(request.acquire, pool) for _ in range(3)]
        await gate.reached(1)
        gate.open()
        for caller in callers:
            with pytest.raises(CreateError, match="no such thing"):
                await caller.result()


@on_both
async def test_a_retried_acquire_after_a_failed_one_works(side):
    pool = side.pool(Thing, max_size=1)
    other = await pool.acquire()
    async with Request(side) as request:
        with pytest.raises(PoolTimeoutError):
            await request.acquire(pool, timeout=0.001)
        await pool.release(other)
        assert await request.acquire(pool) is other


@on_both
async def test_the_options_of_an_acquire_reach_the_pool(side):
    pool = side.pool(Thing, max_size=1)
    other = await pool.acquire()
    async with Request(side) as request:
        with pytest.raises(PoolTimeoutError) as caught:
            await request.acquire(pool, timeout=0.001)
    assert caught.value.timeout == 0.001
    await pool.release(other)


@on_both
async def test_the_acquire_hook_gets_the_request(side):
    seen = []

    async def acquire(value, request_ctx):
        seen.append(request_ctx)

    pool = side.pool(PoolFactory.of(Thing, acquire=side.hook(acquire)))
    async with Request(side) as request:
        await request.acquire(pool)
        assert seen == [request.ctx]


# --- the end ---------------------------------------------------------------------------------------------------------


@on_both
async def test_an_ended_request_hands_out_nothing(side):
    pool = side.pool(Thing)
    async with Request(side, "done") as request:
        await request.acquire(pool)
    with pytest.raises(RequestContextError, match="request 'done' has ended"):
        await request.acquire(pool)
    with pytest.raises(RequestContextError, match="has ended"):
        request.ctx.on_close(print)


@on_both
async def test_a_request_that_ends_while_an_acquire_is_under_way_has_nothing_out_afterwards(side):
    gate = side.gate()

    async def create():
        await gate()
        return Thing()

    pool = side.pool(PoolFactory.of(side.hook(create)))
    request = Request(side, "short")
    callers = [side.go(request.acquire, pool) for _ in range(2)]
    await gate.reached(1)
    await request.close()
    gate.open()
    for caller in callers:
        with pytest.raises(RequestContextError, match="request 'short' has ended"):
            await caller.result()
    assert pool.borrowed == 0


@on_both
async def test_values_and_callbacks_unwind_together_last_in_first_out(side):
    log: list[str] = []
    async with Request(side) as request:
        await request.acquire(calls(side, "a", log))
        request.ctx.on_close(lambda exc: log.append("callback"))
        await request.acquire(calls(side, "b", log))
        log.append("end")
    assert log == ["take a", "take b", "end", "give b", "callback", "give a"]


@on_both
async def test_the_exception_that_ended_the_request_reaches_callbacks_and_release_hooks(side):
    seen, ends = [], []
    problem = ValueError("in the request")
    pool = side.pool(recording(side, ends))
    with pytest.raises(ValueError, match="in the request"):
        async with Request(side) as request:
            request.ctx.on_close(seen.append)
            await request.acquire(pool)
            raise problem
    async with Request(side) as request:
        request.ctx.on_close(seen.append)
        await request.acquire(pool)
    assert seen == ends == [problem, None]


@on_both
async def test_an_error_that_a_framework_has_answered_is_what_ended_the_request(side):
    ends = []
    pool = side.pool(recording(side, ends))
    async with Request(side) as request:
        await request.acquire(pool)
        request.ctx.error = problem = LookupError("answered with 404")
    assert ends == [problem]


@on_both
async def test_a_single_failing_callback_is_raised_and_the_others_run(side):
    log = []
    request = Request(side)
    request.ctx.on_close(lambda exc: log.append("first"))

    @request.ctx.on_close
    def fail(exc):
        raise OSError("callback")

    request.ctx.on_close(lambda exc: log.append("last"))
    with pytest.raises(OSError, match="callback"):
        await request.close()
    assert log == ["last", "first"]


@on_both
async def test_several_failures_come_as_a_group_and_every_value_goes_back(side):
    async def release(value):
        raise OSError("release hook")

    pool = side.pool(PoolFactory.of(Thing, release=side.hook(release)))
    request = Request(side, "import")
    await request.acquire(pool)

    @request.ctx.on_close
    def fail(exc):
        raise LookupError("callback")

    with pytest.raises(ExceptionGroup, match="request 'import': 2 errors at its end") as caught:
        await request.close()
    assert caught.group_contains(LookupError)
    assert pool.borrowed == 0


@on_both
async def test_a_release_hook_that_fails_after_an_error_does_not_hide_that_error(side, caplog):
    async def release(value):
        raise OSError("release hook")

    pool = side.pool(PoolFactory.of(Thing, release=side.hook(release)))
    with pytest.raises(ValueError, match="in the request"):
        async with Request(side) as request:
            await request.acquire(pool)
            raise ValueError("in the request")
    assert pool.borrowed == 0
    assert "the release hook failed" in caplog.text


# --- a part of a request ---------------------------------------------------------------------------------------------


@on_both
async def test_a_child_uses_its_parents_value_also_when_it_asks_first(side):
    pool = side.pool(Thing)
    async with Request(side, user="ann") as parent:
        async with parent.child(step=1) as child:
            value = await child.acquire(pool)
            assert child.ctx["user"] == "ann"
        assert pool.borrowed == 1
        assert await parent.acquire(pool) is value
        async with parent.child() as child:
            assert await child.child().acquire(pool) is value


@on_both
async def test_a_child_gets_its_own_value_on_request_until_its_own_end(side):
    pool = side.pool(Thing)
    async with Request(side) as parent:
        value = await parent.acquire(pool)
        async with parent.child(own=True) as child:
            assert await child.acquire(pool) is not value
            assert pool.borrowed == 2
        assert pool.borrowed == 1


@on_both
async def test_a_child_of_an_ended_request_hands_out_nothing(side):
    pool = side.pool(Thing)
    parent = Request(side, "outer")
    child = parent.child()
    await parent.close()
    with pytest.raises(RequestContextError, match="'outer' has ended"):
        await child.acquire(pool)


@on_both
async def test_a_child_that_waits_for_its_parents_value_is_told_of_the_parents_end(side):
    gate = side.gate()

    async def create():
        await gate()
        return Thing()

    pool = side.pool(PoolFactory.of(side.hook(create)))
    parent = Request(side, "outer")
    callers = [side.go(parent.acquire, pool), side.go(parent.child().acquire, pool)]
    await gate.reached(1)
    await parent.close()
    gate.open()
    for caller in callers:
        with pytest.raises(RequestContextError, match="'outer' has ended"):
            await caller.result()
    assert pool.borrowed == 0
