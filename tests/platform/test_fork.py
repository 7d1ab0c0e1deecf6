"""A forked child opens its own resources and leaves its parent's alone."""

from __future__ import annotations

import os
import sys

import pytest

from tests.platform.programs import run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")

# A resource here is a file: one line is written for each that is created or destroyed, by the process that does it.
PREAMBLE = """
import logging, os, sys, gc, threading, warnings
import pooling
logging.getLogger("asyncio").setLevel(logging.ERROR)  # on a busy machine it reports slow steps
warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)

class Thing:
    def __init__(self):
        self.maker = os.getpid()
    def __del__(self):
        say("collected by", name(), "made by", "parent" if self.maker == parent else "child")

parent = os.getpid()
def say(*words): os.write(1, (" ".join(words) + "\\n").encode())  # in one piece, though other processes write
def name(): return "parent" if os.getpid() == parent else "child"
def destroy(thing): say("destroyed by", name(), "made by", "parent" if thing.maker == parent else "child")
factory = pooling.PoolFactory.of(Thing, destroy=destroy)

def forked(child):
    pid = os.fork()
    if pid == 0:
        try:
            child()
        except BaseException as error:
            say("child failed:", repr(error))
            os._exit(1)
        sys.exit(0)      # an ordinary exit, with finalisers
    assert os.waitpid(pid, 0)[1] == 0
"""


def lines_of(program: str) -> list[str]:
    outcome = run(PREAMBLE + program)
    assert outcome.status == 0, outcome
    assert outcome.err == "", outcome.err
    return outcome.out.splitlines()


def test_a_child_opens_its_own_and_never_closes_its_parents():
    lines = lines_of("""
pool = pooling.PoolingService(factory, min_size=2, max_size=3, name="orders")
pool.start()
out = pool.acquire()
def child():
    assert (pool.size, pool.borrowed, pool.pending) == (0, 0, 0)
    mine = pool.acquire()
    assert mine is not out and mine.maker == os.getpid()
    assert pool.name == "orders" and pool.options.max_size == 3
    pool.release(mine)
    pool.expire()
    pool.stop()
    gc.collect()
    say("child done")
forked(child)
assert pool.is_borrowed(out) and pool.size == 2
pool.release(out)
assert pool.acquire() is out
pool.release(out)
say("parent goes on")
pool.stop()
os._exit(0)
""")
    before, after = lines[: lines.index("parent goes on")], lines[lines.index("parent goes on") + 1 :]
    assert "child done" in before
    assert not [line for line in before if line.endswith("made by parent")], before
    assert "destroyed by child made by child" in before
    assert after.count("destroyed by parent made by parent") == 2


def test_a_child_that_ends_without_touching_the_pool_closes_nothing():
    lines = lines_of("""
pool = pooling.PoolingService(factory, min_size=2)
pool.start()
forked(lambda: None)
say("parent goes on")
assert pool.available == 2
os._exit(0)
""")
    assert lines == ["parent goes on"]


def test_a_resource_borrowed_before_the_fork_is_not_given_back_in_the_child():
    lines = lines_of("""
pool = pooling.PoolingService(factory, max_size=2)
lease = pool.lease()
value = lease.__enter__()
pooled = pooling.get_pooled_value(pool)
keyed = pooling.KeyedPoolingService(lambda key: factory)
of_key = keyed.acquire("ann")
def child():
    lease.__exit__(None, None, None)
    pooled.release()
    keyed.release(of_key)
    assert pool.size == keyed.stats().size == 0
    mine = pool.acquire()
    assert mine is not value and mine is not pooled.value
    pool.release(mine)
    say("child done")
forked(child)
assert pool.borrowed == 2
lease.__exit__(None, None, None)
pooled.release()
keyed.release(of_key)
assert pool.available == 2 and keyed.stats().available == 1
say("parent goes on")
os._exit(0)
""")
    before = lines[: lines.index("parent goes on")]
    assert "child done" in before
    assert not [line for line in before if line.endswith("made by parent")], before


def test_a_child_forked_while_another_thread_holds_the_pools_lock_does_not_hang():
    lines = lines_of("""
held, forked_now = threading.Event(), threading.Event()
def create():
    return Thing()
import time
block = False
def clock():
    # The pool reads its clock with the lock held.
    if block and threading.current_thread() is not threading.main_thread():
        held.set()
        forked_now.wait(30)
    return time.monotonic()
pool = pooling.PoolingService(factory, max_size=2, clock=clock)
pool.release(pool.acquire())
def sweeps():
    pool.sweep()
block = True
thread = threading.Thread(target=sweeps)
thread.start()
held.wait(30)
def child():
    global block
    block = False
    pool.release(pool.acquire())
    say("child done")
forked(child)
forked_now.set()
thread.join()
block = False
pool.release(pool.acquire())
say("parent goes on")
os._exit(0)
""")
    assert "child done" in lines
    assert lines[-1] == "parent goes on"


def test_workers_and_the_timer_start_anew_in_a_child():
    lines = lines_of("""
pool = pooling.PoolingService(factory, min_size=1, max_size=2, max_idle=0.01)
pool.start()
for value in [pool.acquire() for _ in range(2)]:
    pool.release(value)
def child():
    pool.start()
    for value in [pool.acquire() for _ in range(2)]:
        pool.release(value)
    import time
    ends = time.monotonic() + 30
    while pool.size != 1:        # the child's own timer finds the idle one
        assert time.monotonic() < ends
        time.sleep(0.005)
    say("child done")
    os._exit(0)
forked(child)
say("parent goes on")
os._exit(0)
""")
    assert "child done" in lines
    assert "destroyed by child made by child" in lines


def test_a_pool_stopped_before_the_fork_is_stopped_in_the_child():
    lines = lines_of("""
pool = pooling.PoolingService(factory)
pool.release(pool.acquire())
pool.stop()
def child():
    try:
        pool.acquire()
    except pooling.PoolClosedError:
        say("child is told")
    pool.start()
    pool.release(pool.acquire())
    os._exit(0)
forked(child)
os._exit(0)
""")
    assert "child is told" in lines


def test_an_asyncio_pool_in_a_child_opens_its_own_in_the_childs_loop():
    lines = lines_of("""
import asyncio
pool = pooling.AsyncPoolingService(factory, max_size=2)
async def use():
    value = await pool.acquire()
    assert value.maker == os.getpid()
    await pool.release(value)
async def main():
    await use()
    pid = os.fork()
    if pid == 0:
        # The parent's loop is of no use here.
        asyncio.events._set_running_loop(None)
        try:
            async def child():
                await use()
                await pool.stop()
            asyncio.run(child())
            say("child done")
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert pool.available == 1
    await use()
    say("parent goes on")
    os._exit(0)
asyncio.run(main())
""")
    before = lines[: lines.index("parent goes on")]
    assert "child done" in before
    assert not [line for line in before if line.endswith("made by parent")], before


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork server on Windows")
def test_a_pool_that_was_never_used_can_be_used_in_many_children():
    lines = lines_of("""
pool = pooling.PoolingService(factory)
for _ in range(3):
    forked(lambda: (pool.release(pool.acquire()), pool.stop()))
say("parent goes on")
os._exit(0)
""")
    assert lines.count("destroyed by child made by child") == 3


def test_a_child_does_not_wait_for_a_service_that_a_thread_of_its_parents_was_making():
    lines = lines_of("""
from pooling import di
inside, forgotten = threading.Event(), threading.Event()
def make():
    if os.getpid() == parent:
        inside.set()
        forgotten.wait()
    return "service"
class App(di.Container):
    service = di.Managed(make)
app = App()
maker = threading.Thread(target=app.service)
maker.start()
inside.wait()
def child():
    user = threading.Thread(target=lambda: say("has the", app.service()), daemon=True)
    user.start()
    user.join(20)
forked(child)
forgotten.set()
maker.join()
""")
    assert lines == ["has the service"]


def test_a_child_does_not_wait_for_a_lock_that_a_thread_of_its_parents_held():
    lines = lines_of("""
import lakebase
manager = lakebase.LakebasePoolManager({"host": "h", "database": "d", "user": "u", "password": "p"})
keyed = pooling.KeyedPoolingService(lambda key: factory)
budget = pooling.PoolBudget(5)
pool = pooling.PoolingService(factory, budget=budget)
locks = [manager._lock, manager._credentials._lock, keyed._lock, pool.engine.backend.lock]
held, forgotten = threading.Event(), threading.Event()
def hold():
    for lock in locks:
        lock.acquire()
    held.set()
    forgotten.wait()
    for lock in locks:
        lock.release()
holder = threading.Thread(target=hold)
holder.start()
held.wait()
def child():
    def use():
        manager.get_pool("ann")
        manager._credentials.clear()
        keyed.pool("ann")
        pool.expire()
        say("works")
    user = threading.Thread(target=use, daemon=True)
    user.start()
    user.join(20)
forked(child)
forgotten.set()
holder.join()
""")
    assert lines == ["works"]
