"""What a request holds of pools for threads."""

from __future__ import annotations

import threading

import pytest

from pooling import (
    KeyedPoolingService,
    PoolFactory,
    PoolingService,
    PoolTimeoutError,
    RequestContext,
    RequestContextError,
)
from tests.context.parts import Calls, Gated, Thing, in_threads, join


def test_the_value_of_a_pool_is_taken_once_and_given_back_at_the_end():
    with PoolingService(Thing) as pool:
        with RequestContext() as ctx:
            first = ctx.acquire(pool)
            assert ctx.acquire(pool) is first
            assert pool.borrowed == 1
        assert pool.borrowed == 0
        assert pool.stats().acquired == 1


def test_two_pools_give_two_values_and_two_names_too():
    with PoolingService(Thing) as users, PoolingService(Thing) as orders, RequestContext() as ctx:
        values = {ctx.acquire(users), ctx.acquire(orders), ctx.acquire(users, key="second")}
        assert len(values) == 3
        assert ctx.acquire(users, key="second") in values
        assert users.borrowed == 2


def test_without_entering_it_close_gives_back():
    with PoolingService(Thing) as pool:
        ctx = RequestContext()
        ctx.acquire(pool)
        ctx.close()
        assert pool.borrowed == 0
        ctx.close()
        assert pool.stats().acquired == 1


def test_two_threads_of_one_request_asking_at_once_get_the_same_object_acquired_once():
    factory = Gated()
    with PoolingService(factory, max_size=4) as pool:
        with RequestContext() as ctx:
            threads, results = in_threads(*[lambda: ctx.acquire(pool)] * 4)
            assert factory.asked.wait(20)
            factory.gate.set()
            join(threads)
            assert len(set(results)) == 1
            assert isinstance(results[0], Thing)
            assert pool.borrowed == 1
        assert pool.stats().acquired == 1


def test_a_request_that_ends_while_an_acquire_is_under_way_has_nothing_out_afterwards():
    factory = Gated()
    with PoolingService(factory) as pool:
        ctx = RequestContext("short")
        threads, results = in_threads(lambda: ctx.acquire(pool), lambda: ctx.acquire(pool))
        assert factory.asked.wait(20)
        ctx.close()
        factory.gate.set()
        join(threads)
        assert all(isinstance(result, RequestContextError) for result in results)
        assert "request 'short' has ended" in str(results[0])
        assert pool.borrowed == 0


def test_a_retried_acquire_after_a_failed_one_works():
    with PoolingService(Thing, max_size=1) as pool:
        other = pool.acquire()
        with RequestContext() as ctx:
            with pytest.raises(PoolTimeoutError):
                ctx.acquire(pool, timeout=0.001)
            pool.release(other)
            assert ctx.acquire(pool) is other
        assert pool.borrowed == 0


def test_all_who_wait_for_a_failing_attempt_get_its_error():
    class Failing(Gated):
        def create(self):
            super().create()
            raise TypeError("no such thing")

    factory = Failing()
    with PoolingService(factory) as pool, RequestContext() as ctx:
        threads, results = in_threads(*[lambda: ctx.acquire(pool)] * 3)
        assert factory.asked.wait(20)
        factory.gate.set()
        join(threads)
        assert all(isinstance(result, Exception) for result in results)


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


def test_an_ended_request_hands_out_nothing():
    with PoolingService(Thing) as pool:
        with RequestContext("done") as ctx:
            ctx.acquire(pool)
        with pytest.raises(RequestContextError, match="request 'done' has ended"):
            ctx.acquire(pool)
        with pytest.raises(RequestContextError, match="has ended"):
            ctx.on_close(print)


def test_values_and_callbacks_unwind_together_last_in_first_out():
    log: list[str] = []
    with RequestContext() as ctx:
        ctx.acquire(Calls("a", log))
        ctx.on_close(lambda exc: log.append("callback"))
        ctx.acquire(Calls("b", log))
        log.append("end")
    assert log == ["take a", "take b", "end", "give b", "callback", "give a"]


def test_the_exception_that_ended_the_request_reaches_callbacks_and_release_hooks():
    factory = Gated()
    factory.gate.set()
    seen = []
    problem = ValueError("in the request")
    with PoolingService(factory) as pool:
        with pytest.raises(ValueError, match="in the request"), RequestContext() as ctx:
            ctx.on_close(seen.append)
            ctx.acquire(pool)
            raise problem
        assert seen == [problem]
        assert factory.ends == [(factory.made[0], problem)]
        with RequestContext() as ctx:
            ctx.on_close(seen.append)
            ctx.acquire(pool)
        assert seen == [problem, None]
        assert factory.ends[1] == (factory.made[0], None)


def test_a_resource_nobody_can_reset_is_destroyed_after_an_error():
    with PoolingService(Thing) as pool:
        with pytest.raises(ValueError, match="half-way"), RequestContext() as ctx:
            first = ctx.acquire(pool)
            raise ValueError("half-way")
        with RequestContext() as ctx:
            assert ctx.acquire(pool) is not first


def test_a_single_failing_callback_is_raised_and_the_others_run():
    log = []
    ctx = RequestContext()
    ctx.on_close(lambda exc: log.append("first"))

    @ctx.on_close
    def fail(exc):
        raise OSError("callback")

    ctx.on_close(lambda exc: log.append("last"))
    with pytest.raises(OSError, match="callback"):
        ctx.close()
    assert log == ["last", "first"]


def test_several_failures_come_as_a_group_and_every_value_goes_back():
    class Bad(PoolFactory):
        def create(self):
            return Thing()

        def release(self, value):
            raise OSError("release hook")

    with PoolingService(Bad()) as pool:
        ctx = RequestContext("import")
        ctx.acquire(pool)

        @ctx.on_close
        def fail(exc):
            raise LookupError("callback")

        with pytest.raises(ExceptionGroup, match="request 'import': 2 errors at its end") as caught:
            ctx.close()
        assert caught.group_contains(LookupError)
        assert pool.borrowed == 0


def test_a_release_hook_that_fails_after_an_error_does_not_hide_that_error(caplog):
    class Bad(PoolFactory):
        def create(self):
            return Thing()

        def release(self, value):
            raise OSError("release hook")

    with PoolingService(Bad()) as pool:
        with pytest.raises(ValueError, match="in the request"), RequestContext() as ctx:
            ctx.acquire(pool)
            raise ValueError("in the request")
        assert pool.borrowed == 0
        assert "the release hook failed" in caplog.text


def test_an_interrupt_that_ended_the_request_is_not_hidden_by_a_failing_callback(caplog):
    def fail(exc):
        raise OSError("callback")

    with pytest.raises(KeyboardInterrupt), RequestContext() as ctx:
        ctx.on_close(fail)
        raise KeyboardInterrupt
    assert "gave way to an interrupt" in caplog.text


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


def test_a_child_uses_its_parents_value_also_when_it_asks_first():
    with PoolingService(Thing) as pool, RequestContext(user="ann") as parent:
        with parent.child(step=1) as child:
            value = child.acquire(pool)
            assert child["user"] == "ann"
        assert pool.borrowed == 1
        assert parent.acquire(pool) is value
        with parent.child() as child:
            assert child.child().acquire(pool) is value


def test_a_child_gets_its_own_value_on_request_until_its_own_end():
    with PoolingService(Thing) as pool, RequestContext() as parent:
        value = parent.acquire(pool)
        with parent.child(own=True) as child:
            assert child.acquire(pool) is not value
            assert pool.borrowed == 2
        assert pool.borrowed == 1


def test_a_context_with_a_parent_is_a_request_of_its_own():
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


def test_a_child_of_an_ended_request_hands_out_nothing():
    parent = RequestContext("outer")
    child = parent.child()
    parent.close()
    with PoolingService(Thing) as pool, pytest.raises(RequestContextError, match="'outer' has ended"):
        child.acquire(pool)


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


def test_the_options_of_an_acquire_reach_the_pool():
    with PoolingService(Thing, max_size=1) as pool:
        value = pool.acquire()
        with RequestContext() as ctx, pytest.raises(PoolTimeoutError) as caught:
            ctx.acquire(pool, timeout=0.001)
        assert caught.value.timeout == 0.001
        pool.release(value)


def test_the_acquire_hook_gets_the_request():
    seen = []

    class Hooked(PoolFactory):
        def create(self):
            return Thing()

        def acquire(self, value, request_ctx):
            seen.append(request_ctx)

    with PoolingService(Hooked()) as pool, RequestContext() as ctx:
        ctx.acquire(pool)
        assert seen == [ctx]


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
