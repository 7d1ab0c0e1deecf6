"""An interrupt before any line of a request's life, and another thread between any two: nothing stays out."""

from __future__ import annotations

import contextvars
import itertools
import threading

import pytest
from dependency_injector import providers

from pooling import PoolFactory, PoolingService, RequestContext, RequestContextError, di
from tests.context.parts import Thing
from tests.contract.harness import InterruptedBySignal
from tests.contract.lines import BeforeLine


class Repo:
    def __init__(self, thing):
        self.thing = thing


class Hooked(PoolFactory):
    def create(self):
        return Thing()

    def release(self, value):
        pass


class App(di.Container):
    things = di.Pool(Thing, max_size=2)
    thing = di.Pooled(things)
    repo = providers.Factory(Repo, thing=thing)


@di.inject
def injected(repo: Repo = di.Inject[App.repo]):
    return repo


def by_hand(app, pool):
    with RequestContext() as ctx:
        ctx.on_close(lambda exc: None)
        ctx.acquire(pool)


def by_slot(app, pool):
    with app.request():
        app.thing()


def by_injection(app, pool):
    with app.request():
        injected()


def raises():
    raise InterruptedBySignal


@pytest.mark.parametrize("factory", [Thing, Hooked()], ids=["plain", "with a release hook"])
@pytest.mark.parametrize("use", [by_hand, by_slot, by_injection])
def test_an_interrupt_before_any_line_of_a_request_leaves_nothing_out(use, factory):
    app = App()
    with PoolingService(factory, max_size=2, inline_hooks=True) as pool, app.running(), app.things.override(pool):
        for number in itertools.count(1):
            pool.release(pool.acquire())  # one is idle: how a pool makes one is the pool's own matter
            # Python itself calls `__exit__`, and what comes before its first line nobody can catch.
            with BeforeLine(number, raises, skips="exit__") as line:
                try:
                    contextvars.copy_context().run(use, app, pool)
                except InterruptedBySignal:
                    pass
                else:
                    assert not line.has_acted, f"the interrupt before {line.where} was swallowed"
            assert pool.borrowed == 0, f"interrupted before {line.where}"
            if not line.has_acted:
                break
        assert number > 20


@pytest.mark.parametrize("what", ["ask", "close"])
@pytest.mark.parametrize("use", [by_hand, by_slot])
def test_another_thread_between_any_two_lines_of_a_request_leaves_nothing_out(use, what):
    app = App()
    with app.running():
        pool = app.things()
        for number in itertools.count(1):
            pool.release(pool.acquire())
            requests: list[RequestContext] = []
            results: list[object] = []

            def other(requests=requests, results=results):
                if not requests:
                    return
                with requests[0].active():
                    try:
                        results.append(app.thing() if what == "ask" else requests[0].close())
                    except RequestContextError as error:
                        results.append(error)

            threads: list[threading.Thread] = []

            def interlude(other=other, threads=threads):
                thread = threading.Thread(target=other, daemon=True)
                threads.append(thread)
                thread.start()
                thread.join(0.01)  # it may wait for what this thread is about to do

            line = BeforeLine(number, interlude)
            try:
                with app.request() as ctx, line:
                    requests.append(ctx)
                    thing = ctx.acquire(pool) if use is by_hand else app.thing()
            except RequestContextError:
                assert what == "close", line.where
                thing = None
            for thread in threads:
                thread.join(20)
                assert not thread.is_alive(), line.where
            if what == "ask" and results and isinstance(results[0], Thing):
                assert results[0] is thing, f"two values, before {line.where}"
            assert pool.borrowed == 0, line.where
            if not line.has_acted:
                break
        assert number > 10


def test_an_interrupt_while_a_request_is_entered_leaves_none_current():
    for number in itertools.count(1):
        with BeforeLine(number, raises) as line:
            try:
                RequestContext().__enter__()
            except InterruptedBySignal:
                pass
        if not line.has_acted:
            break
        assert RequestContext.current() is None, line.where
    ctx = RequestContext.current()
    ctx.__exit__(None, None, None)
    assert RequestContext.current() is None


def test_a_request_whose_release_is_interrupted_again_and_again_ends():
    class Stubborn(PoolingService):
        def release(self, value, exc=None):
            calls.append(value)
            raise InterruptedBySignal

    calls: list[object] = []
    pool = Stubborn(Thing)
    ctx = RequestContext()
    ctx.acquire(pool)
    with pytest.raises(InterruptedBySignal):
        ctx.close()
    assert len(calls) == 2
    assert ctx.is_closed
