"""What a request does before its answer goes out: checkpoints, and values that go back early."""

from __future__ import annotations

import pytest

from pooling import AsyncPoolingService, PoolFactory, PoolingService, ReleaseError, RequestContext, RequestContextError
from pooling._request.answer import give_back, keep_until, keeps_values
from tests.context.parts import Request, Thing, calls
from tests.contract.harness import on_both, on_threads


def noting(side, log, name="", *, fails=False):
    """A factory that records its checkpoints and releases."""

    async def checkpoint(value):
        log.append(f"checkpoint {name}".strip())
        if fails:
            raise LookupError(name)

    async def release(value, exc=None):
        log.append(f"release {name} {type(exc).__name__ if exc else ''}".strip())

    return PoolFactory.of(Thing, checkpoint=side.hook(checkpoint), release=side.hook(release))


# --- the hook of a pool ----------------------------------------------------------------------------------------------


@on_both
async def test_a_checkpoint_runs_the_factorys_hook_and_the_resource_stays_out(side):
    log = []
    pool = side.pool(noting(side, log))
    value = await pool.acquire()
    assert pool.service.has_checkpoint
    await pool.checkpoint(value)
    assert (log, pool.borrowed) == (["checkpoint"], 1)
    await pool.release(value)
    with pytest.raises(ReleaseError):
        await pool.checkpoint(value)


@on_both
async def test_the_hooks_own_error_is_raised_and_the_resource_is_still_the_borrowers(side):
    pool = side.pool(noting(side, [], "at commit", fails=True))
    value = await pool.acquire()
    with pytest.raises(LookupError, match="at commit"):
        await pool.checkpoint(value)
    await pool.release(value)
    assert pool.available == 1


@on_both
async def test_a_pool_without_the_hook_has_nothing_to_do(side):
    pool = side.pool(Thing)
    value = await pool.acquire()
    assert not pool.service.has_checkpoint
    await pool.checkpoint(value)
    await pool.release(value)


@on_threads
async def test_a_hook_that_must_be_awaited_is_refused_in_threads(side):
    async def checkpoint(value):
        pass

    with pytest.raises(Exception, match="checkpoint is a coroutine function"):
        side.pool(PoolFactory.of(Thing, checkpoint=checkpoint))
    pool = side.pool(PoolFactory.of(Thing, checkpoint=lambda value: checkpoint(value)))
    value = await pool.acquire()
    with pytest.raises(TypeError, match="returned a coroutine"):
        await pool.checkpoint(value)
    await pool.release(value)


@on_both
async def test_a_lease_can_be_checkpointed(side):
    log = []
    pool = side.pool(noting(side, log))
    async with Request(side) as request:
        await request.acquire(pool.service.lease())
        await request.checkpoint()
    assert log == ["checkpoint", "release"]


# --- of a request ----------------------------------------------------------------------------------------------------


@on_both
async def test_a_requests_checkpoint_runs_the_hook_of_each_value_last_taken_first(side):
    log = []
    first, second, other = side.pool(noting(side, log, "1")), side.pool(noting(side, log, "2")), side.pool(Thing)
    async with Request(side) as request:
        assert not request.ctx.has_checkpoint
        await request.acquire(other)
        assert not request.ctx.has_checkpoint
        await request.acquire(first)
        await request.acquire(second)
        assert request.ctx.has_checkpoint
        await request.checkpoint()
        assert log == ["checkpoint 2", "checkpoint 1"]
        await request.child().checkpoint()
        assert log[2:] == ["checkpoint 2", "checkpoint 1"], "a part of the request has the same values"
        await request.child(own=True).checkpoint()
        assert len(log) == 4
    with pytest.raises(RequestContextError, match="has ended"):
        await request.checkpoint()


@on_both
async def test_a_checkpoint_that_fails_keeps_the_others_from_running(side):
    log = []
    first, second = side.pool(noting(side, log, "1")), side.pool(noting(side, log, "2", fails=True))
    async with Request(side) as request:
        await request.acquire(first)
        await request.acquire(second)
        with pytest.raises(LookupError):
            await request.checkpoint()
        assert log == ["checkpoint 2"]


async def test_a_checkpoint_that_must_be_awaited_is_refused_without_await():
    async def checkpoint(value):
        pass

    async with AsyncPoolingService(PoolFactory.of(Thing, checkpoint=checkpoint)) as pool, RequestContext("r") as ctx:
        await ctx.aacquire(pool)
        with pytest.raises(RequestContextError, match=r"await ctx\.acheckpoint\(\)"):
            ctx.checkpoint()


async def test_the_hook_of_a_pool_for_threads_does_not_block_the_loop():
    import threading

    where = []
    factory = PoolFactory.of(Thing, checkpoint=lambda value: where.append(threading.current_thread()))
    with PoolingService(factory) as pool:
        async with RequestContext() as ctx:
            await ctx.aacquire(pool)
            await ctx.acheckpoint()
    assert where != [threading.main_thread()]


@on_both
async def test_pools_of_others_are_checkpointed_by_their_own_method(side):
    log = []
    plain, with_method = calls(side, "plain", log), calls(side, "own", log)

    async def checkpoint(value):
        log.append("checkpoint own")

    with_method.checkpoint = side.hook(checkpoint)
    async with Request(side) as request:
        await request.acquire(plain)
        await request.acquire(with_method)
        log.clear()
        await request.checkpoint()
        assert log == ["checkpoint own"]


# --- values that go back early ---------------------------------------------------------------------------------------


@on_both
async def test_values_go_back_at_the_point_that_was_noted_or_the_default(side):
    pools = {name: side.pool(Thing) for name in ("default", "handler", "response", "end", "two notes")}
    async with Request(side) as request:
        values = {name: await request.acquire(pool) for name, pool in pools.items()}
        for name in ("handler", "response", "end"):
            keep_until(request.ctx, values[name], name)
        for note in ("handler", "response", None):
            keep_until(request.ctx, values["two notes"], note)
        assert keeps_values(request.ctx)

        def held():
            return {name for name, pool in pools.items() if pool.borrowed}

        await request.give_back("handler", "handler")
        assert held() == {"response", "end", "two notes"}
        await request.give_back("response", "end")
        assert held() == {"end", "two notes"}, "a note of None means the default, which is now the end"
        again = await request.acquire(pools["handler"])
        assert held() == {"handler", "end", "two notes"}
        assert await request.acquire(pools["handler"]) is again
    assert held() == set()


@on_both
async def test_callbacks_stay_until_the_end_and_see_how_it_ended(side):
    seen = []
    pool = side.pool(Thing)
    async with Request(side) as request:
        request.ctx.on_close(seen.append)
        await request.acquire(pool)
        await request.give_back("handler", "handler")
        assert (seen, pool.borrowed) == ([], 0)
    assert seen == [None]


@on_both
async def test_a_value_that_goes_back_early_is_told_of_the_requests_error(side):
    log = []
    async with Request(side) as request:
        await request.acquire(side.pool(noting(side, log, "it")))
        request.ctx.error = LookupError()
        await request.give_back("handler", "handler")
    assert log == ["release it LookupError"]


@on_both
async def test_all_values_go_back_though_one_of_them_fails(side):
    async def fail(value):
        raise LookupError("cannot reset")

    good, bad = side.pool(Thing), side.pool(PoolFactory.of(Thing, release=side.hook(fail)))
    async with Request(side) as request:
        for pool in (good, bad):
            await request.acquire(pool)
        with pytest.raises(ReleaseError):
            await request.give_back("handler", "handler")
        assert (good.borrowed, bad.borrowed) == (0, 0)


async def test_giving_back_without_await_leaves_what_must_be_awaited():
    async with AsyncPoolingService(Thing) as pool, RequestContext("r") as ctx:
        await ctx.aacquire(pool)
        with pytest.raises(RequestContextError, match="asyncio pool"):
            give_back(ctx, "handler", "handler")
        assert pool.borrowed == 1
