"""No exception that arrives in a thread leaves a lock locked."""

from __future__ import annotations

import _thread
import ctypes
import os
import sys
import threading
import time

import pytest

from pooling.locks import make_lock, make_rlock

# CPython 3.14 leaves one of about 25 locked; elsewhere a few are enough to see that the test runs.
TIMES = 150 if sys.version_info[:2] == (3, 14) else 20


class Interrupt(BaseException):
    """Arrives from outside."""


def interrupt(thread):
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Interrupt))


def leaves_locked(lock) -> bool:
    """Interrupts a thread that takes the lock again and again; whether it is locked afterwards."""
    turns = []

    def take():
        try:
            while True:
                with lock:
                    turns.append(None)
        except Interrupt:
            pass

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    while not turns:
        os.sched_yield()
    interrupt(thread)
    thread.join(30)
    assert not thread.is_alive()
    # By this thread, which is another one: that of a reentrant lock could take it again.
    if not lock.acquire(blocking=False):
        return True
    lock.release()
    return False


@pytest.mark.parametrize("make", [make_lock, make_rlock])
def test_an_interrupt_leaves_no_lock_locked(make):
    assert not any(leaves_locked(make()) for _ in range(TIMES))


@pytest.mark.skipif(sys.version_info[:2] != (3, 14), reason="only CPython 3.14 leaves them locked")
def test_locks_of_threading_are_left_locked_by_this_python():
    assert any(leaves_locked(threading.Lock()) for _ in range(20 * TIMES)), "pooling.locks is needed no longer"


def test_a_lock_is_no_reentrant_one():
    lock = make_lock()
    with lock:
        assert lock.locked()
        assert not lock.acquire(blocking=False)
    assert not lock.locked()


@pytest.mark.skipif(sys.version_info[:2] != (3, 14), reason="elsewhere it is threading's own, and waits for ever")
def test_a_thread_that_would_wait_for_itself_is_told():
    lock = make_lock()
    with lock, pytest.raises(RuntimeError, match="holds the lock already"):
        lock.acquire()
    assert lock.acquire(blocking=False)


def test_a_reentrant_lock_is_free_after_as_many_exits_as_entries():
    lock, seen = make_rlock(), []

    def look():
        seen.append(lock.acquire(blocking=False))
        if seen[-1]:
            lock.release()

    def look_from_another_thread():
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    with lock:
        with lock:
            look_from_another_thread()
        look_from_another_thread()
    look_from_another_thread()
    assert seen == [False, False, True]


def test_an_interrupt_while_one_waits_for_a_lock_takes_nothing():
    lock, is_waiting, errors = make_lock(), threading.Event(), []

    def wait():
        is_waiting.set()
        try:
            with lock:
                pass
        except Interrupt as error:
            errors.append(error)

    with lock:
        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        is_waiting.wait()
        time.sleep(0.01)  # sleeps: until the thread is, most likely, in the lock's own code
        interrupt(thread)
    thread.join(30)
    assert not thread.is_alive()
    assert not lock.locked()


def test_locks_that_gevent_has_replaced_are_used_as_they_are(monkeypatch):
    class Replaced:
        pass

    monkeypatch.setattr(threading, "Lock", Replaced)
    monkeypatch.setattr(threading, "RLock", Replaced)
    assert isinstance(make_lock(), Replaced)
    assert isinstance(make_rlock(), Replaced)
    assert _thread.__name__ != Replaced.__module__
