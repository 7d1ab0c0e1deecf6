"""Who holds, who waits: what `holders()` and `waiters()` tell."""

from __future__ import annotations

import asyncio
import functools
import pathlib
import sys
import threading

import pytest

import pooling
from pooling import Holder, KeyedPoolingService, PoolingService, PoolTimeoutError, RequestContext, Waiting

from .harness import on_both
from .workshop import Workshop


class Secretive:
    def __repr__(self):
        raise AssertionError("a repr may hold a password")


@on_both
async def test_a_holder_is_named_by_line_request_and_runner_and_its_resource_by_type(side):
    pool = side.pool(Secretive, max_size=2, name="orders")
    assert pool.holders() == []  # from now on it records every borrower
    with RequestContext("GET /orders"):
        first = await pool.acquire()
    second = await pool.acquire()
    [one, other] = pool.holders()
    assert isinstance(one, Holder)
    assert (one.pool, one.key, one.request, other.request) == ("orders", None, "GET /orders", None)
    assert one.resource == f"Secretive {id(first):#x}"
    assert one.since >= other.since >= 0
    assert one.call_site.startswith("test_borrowers.py:")
    assert one.call_site.endswith(" in test_a_holder_is_named_by_line_request_and_runner_and_its_resource_by_type")
    running = f"task {asyncio.current_task().get_name()!r}" if side.name == "asyncio" else "thread 'MainThread'"
    assert one.runner == other.runner == running
    assert (one.step, one.is_recorded) == ("", True)
    for value in (first, second):
        await pool.release(value)
    assert pool.holders() == []


@on_both
async def test_a_loan_of_an_idle_resource_is_recorded_from_the_first_question_on(side):
    pool = side.pool(max_size=1)
    await pool.release(await pool.acquire())
    value = await pool.acquire()  # by the fast path
    [holder] = pool.holders()
    assert (holder.since, holder.call_site, holder.runner, holder.is_recorded) == (None, "", "", False)
    assert str(id(value)) in str(int(holder.resource.split()[1], 16))
    await pool.release(value)
    value = await pool.acquire()
    assert pool.holders()[0].call_site
    await pool.release(value)


@on_both
async def test_a_waiter_is_named_with_what_it_has_left(side):
    pool = side.pool(max_size=1, timeout=60, priorities=2, name="orders")
    value = await pool.acquire()

    async def waits():
        with RequestContext("GET /late"):
            await pool.release(await pool.acquire(priority=1))

    borrower = side.go(waits)
    await side.until(lambda: pool.pending)
    [waiter] = pool.waiters()
    assert isinstance(waiter, Waiting)
    assert (waiter.pool, waiter.request, waiter.priority) == ("orders", "GET /late", 1)
    assert 0 <= waiter.since < 60
    assert 0 < waiter.left <= 60
    assert waiter.call_site.endswith(" in waits")
    assert waiter.runner not in ("", pool.holders()[0].runner)
    assert str(waiter).startswith("for ")
    assert "GET /late" in str(waiter)
    await pool.release(value)
    await borrower.result()
    assert pool.waiters() == []


@pytest.mark.parametrize(("hook", "step"), [("acquire", "acquire hook"), ("release", "release hook")])
@on_both
async def test_a_resource_in_a_hook_has_a_holder_with_that_step(side, hook, step):
    workshop = Workshop(side)
    gate = side.gate(is_open=True)
    setattr(workshop.factory, hook, side.hook(lambda *_: gate()))
    pool = side.pool(workshop, max_size=1)
    await pool.release(await pool.acquire())

    async def borrows():
        await pool.release(await pool.acquire())

    gate.close()
    borrower = side.go(borrows)
    await gate.reached()
    await side.until(lambda: [holder.step for holder in pool.holders()] == [step])
    assert pool.stats().borrowed == len(pool.holders()) == 1
    assert pool.holders()[0].call_site.endswith(" in borrows")
    gate.open()
    await borrower.result()
    assert pool.holders() == []


@on_both
async def test_an_error_names_the_three_longest_holders_and_has_them_as_objects(side):
    pool = side.pool(max_size=4, name="orders")
    pool.holders()
    values = []
    for number in range(4):
        with RequestContext(f"GET /{number}"):
            values.append(await pool.acquire())
    for waits in (lambda: pool.acquire(timeout=0.01), pool.acquire_nowait):
        with pytest.raises((PoolTimeoutError, pooling.PoolExhaustedError)) as caught:
            await waits()
        text = str(caught.value)
        assert all(f"for request 'GET /{number}'" in text for number in range(3)), text
        assert "GET /3" not in text
        assert [holder.request for holder in caught.value.holders] == ["GET /0", "GET /1", "GET /2"]
    for value in values:
        await pool.release(value)


def test_a_keyed_service_tells_of_all_keys_and_so_do_its_errors():
    pool = KeyedPoolingService(lambda key: object, max_total=2, name="db")
    values = [pool.acquire(key) for key in ("ann", "bob")]
    assert [(holder.key, holder.is_recorded) for holder in pool.holders()] == [("ann", True), ("bob", True)]
    with pytest.raises(PoolTimeoutError) as caught:
        pool.acquire("eve", timeout=0.01)
    assert [holder.key for holder in caught.value.holders] == ["ann", "bob"]
    assert "from pool 'db' key 'ann'" in str(caught.value)
    assert "from pool 'db' key 'bob'" in str(caught.value)
    pool.close_key("ann")
    assert [holder.key for holder in pool.holders()] == ["ann", "bob"], "what is out of a closed key is out"
    waits = threading.Thread(target=lambda: pool.release(pool.acquire("eve", timeout=60)))
    waits.start()
    while not pool.waiters():
        assert waits.is_alive()
    assert [waiter.key for waiter in pool.waiters()] == ["eve"]
    for value in values:
        pool.release(value)
    waits.join()
    assert pool.holders() == pool.waiters() == []


LIBRARY = """
def borrow(pool):
    return pool.acquire()

def serve(handler):
    return handler()
"""


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A library where libraries are."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "some_library_of_pools.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(str(folder))
    yield __import__("some_library_of_pools")
    del sys.modules["some_library_of_pools"]


def test_a_library_that_borrows_is_passed_over_for_the_users_own_line(library):
    pool = PoolingService(object, max_size=1)
    pool.holders()
    value = library.borrow(pool)
    assert pool.holders()[0].call_site.startswith(f"{pathlib.Path(__file__).name}:")
    pool.release(value)
    borrowed = []
    thread = threading.Thread(target=lambda: borrowed.append(pool.acquire()), name="worker")
    thread.start()
    thread.join()
    assert pool.holders()[0].runner == "thread 'worker'"
    pool.release(borrowed.pop())
    # A thread that runs the library alone has no line of the user's.
    thread = threading.Thread(target=library.borrow, args=[pool], name="alone")
    thread.start()
    thread.join()
    [holder] = pool.holders()
    assert (holder.call_site, holder.runner) == ("some_library_of_pools.py:3 in borrow", "thread 'alone'")


def test_in_a_request_a_frameworks_line_is_not_the_call_site(library):
    pool = PoolingService(object, max_size=1)
    pool.holders()
    with RequestContext("GET /") as ctx:
        library.serve(lambda: ctx.acquire(pool))  # the line of the handler
        assert pool.holders()[0].call_site.endswith(" in <lambda>")
    with RequestContext("GET /") as ctx:
        library.serve(functools.partial(ctx.acquire, pool))  # no frame of the user's between framework and request
        assert pool.holders()[0].call_site == ""
        assert pool.holders()[0].request == "GET /"
