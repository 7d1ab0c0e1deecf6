"""
Threads that look at a pool while others borrow from it. They do so at the same instant on a free-threaded Python only.

There a container may change between any two steps of a loop over it, also of a loop in C.
"""

from __future__ import annotations

import itertools
import threading
from math import inf

import pytest

from pooling import KeyedPoolingService, PoolingService
from pooling._engine.audit import AUDIT_EVERY, find_lost
from pooling._engine.budget import Budget
from pooling._engine.slots import LIVE, Slot
from pooling.stats import Histogram
from tests.contract.lines import BeforeLine

BORROWERS = 8
ROUNDS = 300


def together(*works):
    """Run each of these in a thread of its own, until the first error or the end of all; raise that error."""
    errors = []
    barrier = threading.Barrier(len(works))

    def runs(work):
        try:
            barrier.wait()
            work()
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=runs, args=(work,)) for work in works]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for error in errors:
        raise error


@pytest.mark.parametrize("max_size", [3, BORROWERS], ids=["with waiters", "without"])
@pytest.mark.parametrize("lifo", [True, False])
def test_threads_may_look_at_a_pool_while_others_borrow(lifo, max_size):
    pool = PoolingService(object, max_size=max_size, lifo=lifo)
    borrowers = [BORROWERS]

    def borrows():
        for _ in range(ROUNDS):
            with pool.lease():
                pass
        borrowers.append(borrowers.pop() - 1)

    def looks():
        while borrowers != [0]:
            pool.sweep()
            assert pool.stats().size <= max_size
            for found in (pool.idle, pool.holders(), pool.waiters()):
                assert len(found) <= BORROWERS

    together(looks, *[borrows] * BORROWERS)
    pool.stop()
    stats = pool.stats()
    assert stats.acquired == BORROWERS * ROUNDS
    assert stats.destroyed_by == {"stopped": stats.created}


def test_threads_may_look_at_all_keys_while_others_open_and_close_some():
    pools = KeyedPoolingService(lambda key: object, max_size=1, max_total=4)
    is_over = threading.Event()

    def borrows():
        for turn in range(ROUNDS):
            with pools.lease(turn % 5):
                pass
            pools.close_key(turn % 3)

    def looks():
        while not is_over.is_set():
            pools.sweep()
            for found in (pools.keys(), pools.all_data(), pools.stats().per_key, pools.holders(), pools.waiters()):
                assert len(found) <= BORROWERS * ROUNDS

    def works():
        together(*[borrows] * BORROWERS)
        is_over.set()

    together(looks, works)
    pools.stop()
    assert pools.budget.used == 0


def test_a_borrower_may_let_go_of_its_slot_while_the_audit_looks_at_it():
    class Ended:
        is_under_way = False

    class Lent(Slot):
        """A slot whose operation is there for one look only."""

        operation = property(lambda self: self.seen_next.pop() if self.seen_next else None, lambda *_: None)

    slot = Lent(0, 1, 0.0)
    slot.state, slot.seen_next = LIVE, [Ended()]
    assert find_lost([slot], [], {id(slot.value): slot}, [], 0.0) == ([], AUDIT_EVERY)
    assert find_lost([slot], [], {id(slot.value): slot}, [], 1.0) == ([], inf)


def test_use_times_are_counted_under_the_lock():
    class Counted(Histogram):
        def record(self, seconds):
            assert pool.engine.backend.lock.locked()
            super().record(seconds)

    pool = PoolingService(object, use_times=True)
    pool.engine.use_time = Counted()
    pool.release(pool.acquire())
    assert pool.stats().use_time.count == 1


def test_a_resize_and_other_new_settings_at_the_same_time_lose_neither():
    def act():
        if not pool.engine.backend.lock.locked():  # another thread would wait
            pool.resize(2, 5)

    for number in itertools.count(1):
        pool = PoolingService(object)
        with BeforeLine(number, act) as line:
            pool.adjust(timeout=7.0)
        assert pool.options.timeout == pool.engine.options.timeout == 7.0, line.where
        assert (pool.options.max_size, pool.stats().max_size) in {(5, 5), (8, 8)}, line.where
        pool.stop()
        if not line.has_acted:
            break


def test_a_place_may_become_free_while_a_message_counts_the_places_that_do():
    class Member:
        @property
        def closing(self):
            budget.closing.pop(self, None)  # as another thread that has the lock
            return {}

    budget = Budget(1)
    budget.will_free(Member())
    assert budget.room_for(Member(), 0.0) == 1
