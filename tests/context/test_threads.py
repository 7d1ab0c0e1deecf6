"""Requests with values of pools for threads."""

from __future__ import annotations

import threading

import pytest

from pooling import (
    KeyedPoolingService,
    PoolingService,
    RequestContext,
    RequestContextError,
)
from tests.context.parts import Thing, in_threads, join


def test_another_thread_takes_over_when_the_first_is_interrupted():
    started, may_fail = threading.Event(), threading.Event()
    taken = []

    class Interrupted:
        def acquire(self, request_ctx):
            taken.append(threading.current_thread())
            if len(taken) == 1:
                started.set()
                assert may_fail.wait(20)
                raise KeyboardInterrupt
            return "value"

        def release(self, value, exc=None):
            taken.append(value)

    pool = Interrupted()
    with RequestContext() as ctx:
        first, results = in_threads(lambda: ctx.acquire(pool))
        assert started.wait(20)
        second, others = in_threads(lambda: ctx.acquire(pool))
        may_fail.set()
        join(first + second)
        assert isinstance(results[0], KeyboardInterrupt)
        assert others == ["value"]
    assert len(taken) == 3


def test_a_resource_without_a_release_hook_is_destroyed_after_an_error():
    with PoolingService(Thing) as pool:
        with pytest.raises(ValueError, match="half-way"), RequestContext() as ctx:
            first = ctx.acquire(pool)
            raise ValueError("half-way")
        with RequestContext() as ctx:
            assert ctx.acquire(pool) is not first


def test_an_interrupt_that_ended_the_request_is_not_hidden_by_a_failing_callback(caplog):
    def fail(exc):
        raise OSError("callback")

    with pytest.raises(KeyboardInterrupt), RequestContext() as ctx:
        ctx.on_close(fail)
        raise KeyboardInterrupt
    assert "only logged, because an interrupt is raised" in caplog.text


def test_an_interrupt_in_a_callback_does_not_keep_values_out():
    def fail(exc):
        raise KeyboardInterrupt

    with PoolingService(Thing) as pool:
        ctx = RequestContext()
        ctx.acquire(pool)
        ctx.on_close(fail)
        with pytest.raises(KeyboardInterrupt):
            ctx.close()
        assert pool.borrowed == 0


def test_a_context_with_a_parent_is_a_separate_request():
    with PoolingService(Thing) as pool, RequestContext("app", region="eu") as app:
        with RequestContext("one", app) as one, RequestContext("two", app) as two:
            assert one.acquire(pool) is not two.acquire(pool)
            assert one["region"] == "eu"
        assert pool.borrowed == 0


def test_callbacks_of_a_child_run_at_its_own_end():
    log = []
    with RequestContext() as parent:
        with parent.child() as child:
            child.on_close(lambda exc: log.append("child"))
        log.append("between")
    assert log == ["child", "between"]


def test_a_callback_that_must_be_awaited_is_refused_by_close_before_anything_happens():
    log = []

    async def callback(exc):
        log.append(exc)

    ctx = RequestContext()
    ctx.on_close(lambda exc: log.append("plain"))
    ctx.on_close(callback)
    with pytest.raises(RequestContextError, match=r"await ctx.aclose\(\)"):
        ctx.close()
    assert log == []
    assert not ctx.is_closed


def test_an_awaitable_that_a_plain_callback_returns_is_an_error_in_close():
    async def later():
        pass

    ctx = RequestContext()
    ctx.on_close(lambda exc: later())
    with pytest.raises(RequestContextError, match="returned an awaitable"):
        ctx.close()


def test_a_connection_pool_commits_or_rolls_back_through_its_own_connection_method():
    log = []

    class Connection:
        def __init__(self):
            self.entered = None

        def __enter__(self):
            log.append("begin")
            return "conn"

        def __exit__(self, kind, exc, at):
            log.append("rollback" if exc else "commit")

    class ConnectionPool:
        def connection(self, timeout=None):
            log.append(timeout)
            return Connection()

    with RequestContext() as ctx:
        assert ctx.acquire(ConnectionPool(), timeout=3) == "conn"
    with pytest.raises(ValueError, match="x"), RequestContext() as ctx:
        ctx.acquire(ConnectionPool())
        raise ValueError("x")
    assert log == [3, "begin", "commit", None, "begin", "rollback"]


def test_a_pool_with_getconn_and_putconn_is_enough():
    log = []

    class Old:
        def getconn(self):
            return "conn"

        def putconn(self, conn):
            log.append(conn)

    with RequestContext() as ctx:
        assert ctx.acquire(Old()) == "conn"
    assert log == ["conn"]


def test_a_lease_is_entered_once_and_left_at_the_end():
    with PoolingService(Thing) as pool:
        with RequestContext() as ctx:
            assert isinstance(ctx.acquire(pool.lease(), key="lease"), Thing)
            assert pool.borrowed == 1
        assert pool.borrowed == 0


def test_a_pool_for_each_key_is_refused_without_a_key():
    with RequestContext() as ctx, pytest.raises(ValueError, match=r"take from the pool of one"):
        ctx.acquire(KeyedPoolingService(lambda key: Thing))


def test_what_lends_nothing_is_refused_by_name():
    with RequestContext() as ctx, pytest.raises(ValueError, match="cannot be taken from int"):
        ctx.acquire(3)
