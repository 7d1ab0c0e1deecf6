"""Pools for threads under signals: capacity is whole again, and no resource has two holders."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from pooling import KeyedPoolingService, PoolingService, get_pooled_value
from pooling._engine.audit import AUDIT_EVERY

from .signals import KINDS, MARKS, Clock, Made, Signals

SIGNALS = int(os.environ.get("INTERRUPTS", "300"))
pytestmark = MARKS
LIMIT = 20.0  # seconds until a test gives up that is not about time


class Borrower:
    """Uses a pool, and gives back what it knows it has when it was interrupted."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.held: Any = None

    # The interpreter looks at signals after a call with a `*`, before it keeps the result: so there is none here.
    def acquire(self) -> Any:
        return self.pool.acquire(timeout=LIMIT)

    def a_lease(self) -> Any:
        return self.pool.lease(timeout=LIMIT)

    def acquire_and_release(self) -> None:
        self.held = self.acquire()
        self._look_at(self.held)
        self.pool.release(self.held)
        self.held = None

    def acquire_and_destroy(self) -> None:
        self.held = self.acquire()
        self._look_at(self.held)
        self.pool.destroy(self.held)
        self.held = None

    def lease(self) -> None:
        with self.a_lease() as value:
            self._look_at(value)

    def run(self) -> None:
        self.pool.run(self._look_at)

    def start_and_stop(self) -> None:
        self.pool.start(timeout=LIMIT)
        self.pool.stop(LIMIT)

    def pooled_value(self) -> None:
        pooled = get_pooled_value(self.pool)
        self._look_at(pooled.value)
        pooled.release()

    def _look_at(self, value: Made) -> None:
        assert isinstance(value, Made)
        assert not value.is_unmade, "destroyed, and lent again"

    def give_back(self) -> None:
        if self.held is not None and self.pool.is_borrowed(self.held):
            self.pool.release(self.held)
        self.held = None


class KeyedBorrower(Borrower):
    """The same, of one key."""

    def __init__(self, pool: Any, key: str) -> None:
        super().__init__(pool)
        self.key = key

    def acquire(self) -> Any:
        return self.pool.acquire(self.key, timeout=LIMIT)

    def a_lease(self) -> Any:
        return self.pool.lease(self.key, timeout=LIMIT)

    def run(self) -> None:
        self.pool.run(self.key, self._look_at)


def catch_up(pool: Any, clock: Clock, keys: list[tuple[str, ...]]) -> None:
    """Let two audits pass: lost slots are destroyed."""
    for _ in range(2):
        clock.ahead += AUDIT_EVERY
        for key in keys:
            (pool.pool(*key) if key else pool).sweep()


def all_of(pool: Any, count: int, key: tuple[str, ...], timeout: float) -> list[Made]:
    """Acquire the whole capacity."""
    values = [pool.acquire(*key, timeout=timeout) for _ in range(count)]
    assert len(set(map(id, values))) == count, "a resource with two holders"
    assert not any(value.is_unmade for value in values)
    return values


USES = ["acquire_and_release", "acquire_and_destroy", "lease", "run", "pooled_value"]
POOLS: dict[str, Callable[..., Any]] = {
    "plain": lambda **options: PoolingService(Made, **options),
    "with hooks": lambda **options: PoolingService(Made, validate_on_acquire=True, max_uses=50, **options),
    "keyed": lambda max_size, **options: KeyedPoolingService(lambda _: Made, max_total=max_size, **options),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("of", POOLS)
def test_after_a_signal_at_any_bytecode_the_capacity_is_whole(of, use, kind):
    if of == "keyed" and use == "pooled_value":
        pytest.skip("a pooled value is of one pool")
    clock = Clock()
    keys = [("ann",), ("bob",)] if of == "keyed" else [()]
    pool = POOLS[of](max_size=2, clock=clock)
    with Signals(kind) as signals:
        while signals.raised < SIGNALS:
            key = keys[signals.raised % len(keys)]
            borrower = KeyedBorrower(pool, *key) if key else Borrower(pool)
            signals.interrupt(getattr(borrower, use))
            borrower.give_back()
            del borrower
            catch_up(pool, clock, keys)
            for key in keys:
                for value in all_of(pool, 2, key, LIMIT):
                    pool.release(value)
    pool.stop()
    assert pool.stats().borrowed == 0
    assert pool.stats().size == 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_signal_has_lost_is_replaced_while_a_borrower_waits(kind):
    """No clock is put forward here: the pool looks by itself."""
    pool = PoolingService(Made, max_size=1)
    longest = 0.0
    with Signals(kind) as signals:
        for _ in range(30):
            borrower = Borrower(pool)
            signals.interrupt(borrower.acquire_and_release)
            borrower.give_back()
            began = time.monotonic()
            pool.release(pool.acquire(timeout=LIMIT))
            longest = max(longest, time.monotonic() - began)
    assert longest < LIMIT / 2
    pool.stop()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("use", ["start_and_stop", "acquire_and_destroy"])
def test_after_a_signal_the_pool_looks_for_no_state_that_nothing_waits_for(use, kind):
    clock = Clock()
    pool = PoolingService(Made, min_size=1, max_size=1, clock=clock)
    with Signals(kind) as signals:
        while signals.raised < SIGNALS // 2:
            borrower = Borrower(pool)
            signals.interrupt(getattr(borrower, use))
            borrower.give_back()
    pool.stop()
    catch_up(pool, clock, [()])
    assert not pool.engine.ledger.watchers
    assert pool.stats().size == 0
