"""A borrower that stands still on its way for longer than two audits: what it has is given up, and lent to no other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from pooling import PoolingService
from pooling._backends.threads import ThreadBackend
from pooling._engine.audit import AUDIT_EVERY

from .signals import Clock, Made, SoftLimitError

LIMIT = 20.0  # seconds until a test gives up


class Pause:
    """A place where the first that comes stands still."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.over = threading.Event()

    def stand_still(self) -> None:
        if not self.reached.is_set():
            self.reached.set()
            assert self.over.wait(LIMIT)


class Dict(dict[Any, Any]):
    """A dictionary that calls back after something was taken from it."""

    def __init__(self, call: Callable[[], None]) -> None:
        super().__init__()
        self.call = call

    def pop(self, *args: Any) -> Any:
        found = super().pop(*args)
        self.call()
        return found


class InThread(threading.Thread):
    """What a function returns, from another thread."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.function = function
        self.start()

    def run(self) -> None:
        self.outcome = self.function()

    def result(self) -> Any:
        self.join(LIMIT)
        return self.outcome


@pytest.fixture
def pool():
    pool = PoolingService(Made, max_size=1, clock=Clock())
    pool.release(pool.acquire())  # one resource is idle
    yield pool
    pool.stop()


def let_two_audits_pass(pool):
    for _ in range(3):
        pool.engine.backend.now.ahead += AUDIT_EVERY
        pool.sweep()


def borrow(pool):
    return lambda: pool.acquire(timeout=LIMIT)


def test_a_borrower_that_stood_still_after_taking_gets_another(pool):
    pause, ledger = Pause(), pool.engine.ledger
    pop = ledger.pop

    def pop_and_stand_still():
        slot = pop()
        pause.stand_still()
        return slot

    ledger.pop = pop_and_stand_still
    first = InThread(borrow(pool))
    assert pause.reached.wait(LIMIT)
    let_two_audits_pass(pool)
    other = pool.acquire(timeout=LIMIT)
    pause.over.set()
    assert not other.is_unmade
    pool.release(other)
    late = first.result()
    assert late is other
    assert not late.is_unmade
    assert pool.borrowed == 1
    pool.release(late)


def test_a_borrower_that_goes_on_while_its_resource_is_given_up_does_not_get_it(pool):
    """The very instant at which the audit has decided."""
    pause, ledger = Pause(), pool.engine.ledger
    pop = ledger.pop
    first: list[InThread] = []
    (given_up,) = pool.idle

    def pop_and_stand_still():
        slot = pop()
        pause.stand_still()
        return slot

    def let_it_go_on():
        if not pause.over.is_set() and pause.reached.is_set():
            pause.over.set()
            first[0].join(AUDIT_EVERY)  # it waits for the lock, or has got away with it

    ledger.pop = pop_and_stand_still
    ledger.returning = Dict(let_it_go_on)
    first.append(InThread(borrow(pool)))
    assert pause.reached.wait(LIMIT)
    let_two_audits_pass(pool)
    late = first[0].result()
    assert late is not given_up
    assert not late.is_unmade
    pool.release(late)


def test_a_resource_whose_borrower_stood_still_while_giving_it_back_is_lent_no_more(pool):
    pause, ledger = Pause(), pool.engine.ledger
    put = ledger.put

    def stand_still_and_put(slot):
        pause.stand_still()
        put(slot)

    held = pool.acquire()
    ledger.put = stand_still_and_put
    back = InThread(lambda: pool.release(held))
    assert pause.reached.wait(LIMIT)
    let_two_audits_pass(pool)
    other = pool.acquire(timeout=LIMIT)
    assert other is not held
    pause.over.set()
    back.join(LIMIT)
    assert held.is_unmade
    assert not other.is_unmade
    pool.release(other)
    assert pool.acquire(timeout=LIMIT) is other
    pool.release(other)
    assert pool.stats().size == 1


def test_what_is_destroyed_is_destroyed_once_though_its_borrower_gives_it_back_late():
    """A release with a hook, which stands still before the pool knows that it has begun."""
    pause, is_closing, may_close = Pause(), threading.Event(), threading.Event()
    destroyed: list[Slow] = []

    class Slow(Made):
        def release(self):
            pass

        def destroy(self):
            destroyed.append(self)
            is_closing.set()
            assert may_close.wait(LIMIT)

    pool = PoolingService(Slow, max_size=1, clock=Clock(), destroy_timeout=LIMIT)
    held = pool.acquire()
    out = Dict(pause.stand_still)
    out.update(pool.engine.ledger.out)
    pool.engine.ledger.out = out
    back = InThread(lambda: pool.release(held))
    assert pause.reached.wait(LIMIT)
    audits = InThread(lambda: let_two_audits_pass(pool))
    audits.join(AUDIT_EVERY)
    is_closing.wait(AUDIT_EVERY)
    pause.over.set()
    back.join(AUDIT_EVERY)
    audits.join(LIMIT)
    let_two_audits_pass(pool)
    may_close.set()
    back.join(LIMIT)
    pool.release(pool.acquire(timeout=LIMIT))
    assert len(destroyed) == len(set(map(id, destroyed)))
    pool.stop()


def test_an_interrupt_after_a_create_was_ordered_does_not_put_the_resource_into_the_pool_twice(monkeypatch):
    pool = PoolingService(Made, max_size=1)
    spawn = ThreadBackend.spawn

    def spawn_and_be_interrupted(self, work, name):
        spawn(self, work, name)
        while not pool.available:
            threading.Event().wait(0.001)
        raise SoftLimitError

    monkeypatch.setattr(ThreadBackend, "spawn", spawn_and_be_interrupted)
    with pytest.raises(SoftLimitError):
        pool.resize(1, 1)
        pool.start(wait=False)
    monkeypatch.undo()
    assert pool.available == 1
    pool.stop()
