"""Many threads, signals in one, errors thrown into the others, and a pool that is changed all the time."""

from __future__ import annotations

import ctypes
import gc
import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from pooling import (
    KeyedPoolingService,
    PoolClosedError,
    PoolExhaustedError,
    PoolingService,
    PoolTimeoutError,
    ReleaseError,
)

from .signals import KINDS, MARKS, Signals, SoftLimitError

pytestmark = MARKS
SECONDS = float(os.environ.get("STORM", "1.5"))
BORROWERS = 8
LIMIT = 20.0
REFUSALS = (PoolClosedError, PoolTimeoutError, PoolExhaustedError)  # that a storm brings


def stacks() -> str:
    """Where all threads are."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames().items()
    return "\n".join(f"{names.get(ident)}:\n{''.join(traceback.format_stack(frame))}" for ident, frame in frames)


class Held:
    """A resource that knows who holds it, and writes down what must not be."""

    wrong: ClassVar[list[str]]

    def __init__(self) -> None:
        self.holder: Any = None
        self.is_unmade = False

    def destroy(self) -> None:
        if self.holder is not None:
            self.wrong.append("destroyed in the hands of a borrower")
        if self.is_unmade:
            self.wrong.append("destroyed twice")
        self.is_unmade = True


class Checked(Held):
    """The same, with hooks of its own: no release of it is on the fast path."""

    def acquire(self, _: object) -> None:
        if self.is_unmade:
            self.wrong.append("prepared, though destroyed")

    def release(self) -> None:
        if self.is_unmade:
            self.wrong.append("reset, though destroyed")


class Storm:
    """
    Borrows from a pool in many threads while it is changed.

    Args:
        pool: What to borrow from.
        keys: Arguments of each acquisition; one of them is drawn.
        changes: What is done to the pool, one of them at a time.
    """

    def __init__(self, pool: Any, keys: list[tuple[str, ...]], changes: list[Callable[[], Any]]) -> None:
        self.pool = pool
        self.keys = keys
        self.changes = changes
        self.is_over = False
        self.is_calm = False  # no more errors are thrown
        self.uses = 0
        self.wrong: list[str] = []
        Held.wrong = self.wrong

    # Between the lease's entry and its end nothing is called that an error could come out of before it is marked.
    def use(self, who: object) -> None:
        key = random.choice(self.keys)
        lease = self.pool.lease(key[0], timeout=0.05) if key else self.pool.lease(timeout=0.05)
        with lease as value:
            if value is None:
                self.wrong.append("lent nothing")
            elif value.holder is not None:
                self.wrong.append("lent to two")
            else:
                try:
                    value.holder = who
                    if value.is_unmade:
                        self.wrong.append("lent, though destroyed")
                    if random.random() < 0.02:
                        time.sleep(0.001)  # sleeps: keeps it, so that others wait
                    self.uses += 1
                finally:
                    value.holder = None

    def use_and_destroy(self, who: object) -> None:
        value = self.pool.acquire(timeout=0.05) if not self.keys[0] else self.pool.acquire("ann", timeout=0.05)
        if value.is_unmade or value.holder is not None:
            self.wrong.append("lent to two, or though destroyed")
        self.pool.destroy(value)

    def borrow(self, levels: int = 10) -> None:
        # As long as errors are thrown at this thread it has to live: else its identifier is soon that of a worker of
        # the pool, which would get them while it starts, and who starts it would wait for ever. An error may come where
        # another one is handled, and on a busy machine one more where that one is: hence the levels.
        while not self.is_calm:
            try:
                self.borrow(levels - 1) if levels else self.borrow_on()
            except SoftLimitError:
                continue

    def borrow_on(self) -> None:
        while not self.is_calm:
            try:
                self.try_to_use(threading.get_ident())
            except SoftLimitError:
                continue

    def try_to_use(self, who: object) -> None:
        try:
            self.use(who)
        except REFUSALS:
            return
        except ReleaseError as error:
            if error.__cause__ is None:  # else a hook was interrupted
                self.wrong.append(str(error))

    def destroy(self) -> None:
        while not self.is_over:
            try:
                self.use_and_destroy(threading.get_ident())
            except REFUSALS:
                continue

    def change(self) -> None:
        while not self.is_over:
            random.choice(self.changes)()
            time.sleep(0.002)  # sleeps: between two changes

    def throw(self, threads: list[threading.Thread]) -> None:
        """Raise in the borrowers' threads, at instants of the interpreter's choice."""
        raise_in, error = ctypes.pythonapi.PyThreadState_SetAsyncExc, ctypes.py_object(SoftLimitError)
        while not self.is_over:
            ident = ctypes.c_ulong(random.choice(threads).ident or 0)
            # Before 3.12 a thread that is being started has the identifier of the one that starts it, and would get the
            # error in its place; then it never tells that it has started.
            if not threading._limbo:
                raise_in(ident, error)
            time.sleep(0.003)  # sleeps: between two errors

    def rage(self, kind: type[BaseException]) -> None:
        # The last error may come when a thread is about to end.
        hook, threading.excepthook = threading.excepthook, lambda _: None
        borrowers = [threading.Thread(target=self.borrow, daemon=True) for _ in range(BORROWERS)]
        others = [threading.Thread(target=self.change, daemon=True), threading.Thread(target=self.destroy, daemon=True)]
        others.append(threading.Thread(target=self.throw, args=(borrowers,), daemon=True))
        for thread in (*borrowers, *others):
            thread.start()
        ends_at = time.monotonic() + SECONDS
        try:
            with Signals(kind) as signals:
                while time.monotonic() < ends_at:
                    signals.interrupt(lambda: self.try_to_use("main"))
        finally:
            self.is_over = True
            for thread in others:
                thread.join(LIMIT)
            self.is_calm = True
            for thread in borrowers:
                thread.join(LIMIT)
            threading.excepthook = hook
        alive = [thread for thread in (*others, *borrowers) if thread.is_alive()]
        assert not alive, stacks()
        gc.collect()

    def assert_all_is_well(self, capacity: int, key: tuple[str, ...]) -> None:
        assert not self.wrong, set(self.wrong)
        assert self.uses
        values = []
        for _ in range(capacity):
            began = time.monotonic()
            values.append(self.pool.acquire(*key, timeout=LIMIT))
            assert time.monotonic() - began < LIMIT / 4  # a second, on a machine that is not busy
        assert len(set(map(id, values))) == capacity
        assert not any(value.is_unmade for value in values)
        for value in values:
            self.pool.release(value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("resource", [Held, Checked])
def test_in_a_storm_each_resource_has_one_holder_and_none_is_lost(resource, kind):
    pool = PoolingService(resource, max_size=3)

    def stop_and_start() -> None:
        pool.stop(0.001, drain=False)
        pool.start(wait=False)

    changes = [pool.expire, stop_and_start, pool.sweep, lambda: pool.resize(0, random.randint(1, 4)), pool.check]
    storm = Storm(pool, [()], changes)
    storm.rage(kind)
    pool.start(wait=False)
    pool.resize(0, 3)
    storm.assert_all_is_well(3, ())
    pool.stop()
    assert pool.stats().size == 0
    assert not storm.wrong


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_storm_of_many_keys_the_budget_stays_whole(kind):
    pool = KeyedPoolingService(lambda _: Held, max_total=4, max_size=4)
    keys = [("ann",), ("bob",), ("eve",)]

    def expire() -> None:
        pool.pool(random.choice(keys)[0]).expire()

    def close_key() -> None:
        pool.close_key(random.choice(keys)[0])

    storm = Storm(pool, keys, [expire, close_key, lambda: pool.budget.squeeze(0.01)])
    storm.rage(kind)
    for key in keys:
        storm.assert_all_is_well(4, key)
    pool.stop()
    assert pool.stats().size == 0
    assert not storm.wrong
