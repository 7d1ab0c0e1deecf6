"""
An interrupt between any two lines of acquire, release, destroy and lease loses nothing.

`KeyboardInterrupt` and what `PyThreadState_SetAsyncExc` sends may come anywhere. Each scenario is run once for
every line of the engine that it passes, with an interrupt right before that line; afterwards the
pool must hand out all it may at once, each resource to one borrower, and whoever waited must be served.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pooling import PoolFactory, PoolingService, ReleaseError

from .lines import Interruption

LONG = 20.0  # seconds that nothing here takes
MOST_LINES = 2000
SIZE = 2

PLAIN: dict[str, Any] = {}
HOOKED = {"acquire": lambda value, ctx: None, "release": lambda value: None}
VALIDATED = {"validate": lambda value: True}


class Thing:
    pass


def pool_of(hooks: dict[str, Any], **options: Any) -> PoolingService[Thing]:
    options = {"max_size": SIZE, "timeout": LONG, "inline_hooks": True, "create_backoff": 0.001, **options}
    return PoolingService(PoolFactory.of(Thing, **hooks), **options)


class Neighbour:
    """A borrower in another thread, who waits for one resource and gives it back when told to."""

    def __init__(self, pool: PoolingService[Thing]) -> None:
        self.value: Thing | None = None
        self.pool = pool
        self.queues = threading.Event()
        self.may_go = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        assert self.queues.wait(LONG)

    def _run(self) -> None:
        with Interruption(0, on_call=("wait", self.queues.set)):
            self.value = self.pool.acquire(timeout=LONG)
        self.may_go.wait(LONG)
        with contextlib.suppress(ReleaseError):  # where its hook fails
            self.pool.release(self.value)

    def leave(self) -> None:
        self.may_go.set()
        self.thread.join(LONG)


def give_back_unless_done(pool: PoolingService[Thing], value: Thing, uses_before: int) -> None:
    """What a caller can do whose release was interrupted before it had begun: call it again."""
    if pool.is_borrowed(value) and pool.stats().acquired == uses_before:
        with contextlib.suppress(ReleaseError):  # where its hook fails
            pool.release(value)


def must_be_whole(pool: PoolingService[Thing], neighbour: Neighbour | None, held: list[Thing]) -> None:
    """All that the pool may hand out it does hand out, each to one borrower; and who waits is served."""
    if neighbour is not None:
        neighbour.leave()
        assert not neighbour.thread.is_alive(), "a waiter is lost"
        assert neighbour.value is not None
    mine = [*held]
    while len(mine) < SIZE:
        mine.append(pool.acquire(timeout=LONG))
    assert len(set(mine)) == SIZE, "a resource was handed to two"
    assert pool.borrowed == SIZE
    for value in mine:
        pool.release(value)
    assert pool.pending == 0
    pool.stop()
    stats = pool.stats()
    assert pool.size == 0
    assert stats.created == stats.destroyed


def interrupted_everywhere(scenario: Callable[[int], Interruption]) -> None:
    """Run it for each line until it passes uninterrupted."""
    places = set()
    for line in range(1, MOST_LINES):
        where = scenario(line).where
        if where is None:
            assert len(places) > 5, "the scenario runs through the engine"
            return
        places.add(where)
    pytest.fail("the scenario never ended")


def acquire_once(pool: PoolingService[Thing], interruption: Interruption) -> list[Thing]:
    """What an interrupted acquisition left in the caller's hands: the resource, or nothing."""
    with interruption:
        try:
            return [pool.acquire(timeout=LONG)]
        except KeyboardInterrupt:
            assert interruption.where is not None
            return []


def release_once(pool: PoolingService[Thing], value: Thing, interruption: Interruption, *, destroys: bool) -> None:
    uses = pool.stats().acquired
    with interruption:
        try:
            (pool.destroy if destroys else pool.release)(value)
        except KeyboardInterrupt:
            assert interruption.where is not None
        except ReleaseError:
            pass
    if interruption.where is not None:
        give_back_unless_done(pool, value, uses)


@pytest.mark.parametrize("hooks", [PLAIN, HOOKED, VALIDATED], ids=["plain", "hooked", "validated"])
def test_acquiring_an_idle_resource(hooks):
    options = {"validate_on_acquire": True} if hooks is VALIDATED else {}

    def scenario(line):
        pool = pool_of(hooks, **options)
        pool.release(pool.acquire())
        interruption = Interruption(line)
        held = acquire_once(pool, interruption)
        must_be_whole(pool, None, held)
        return interruption

    interrupted_everywhere(scenario)


@pytest.mark.parametrize("hooks", [PLAIN, HOOKED], ids=["plain", "hooked"])
def test_acquiring_a_resource_that_must_be_created(hooks):
    def scenario(line):
        pool = pool_of(hooks)
        interruption = Interruption(line)
        held = acquire_once(pool, interruption)
        must_be_whole(pool, None, held)
        return interruption

    interrupted_everywhere(scenario)


def test_acquiring_when_what_is_idle_is_no_good():
    def scenario(line):
        bad: set[int] = set()
        pool = pool_of({"validate": lambda value: id(value) not in bad}, validate_on_acquire=True)
        first = pool.acquire()
        pool.release(first)
        bad.add(id(first))
        interruption = Interruption(line)
        held = acquire_once(pool, interruption)
        bad.clear()
        must_be_whole(pool, None, held)
        return interruption

    interrupted_everywhere(scenario)


def test_acquiring_when_what_is_idle_is_visibly_dead():
    def scenario(line):
        dead: set[int] = set()
        pool = pool_of({"is_alive": lambda value: id(value) not in dead})
        first = pool.acquire()
        pool.release(first)
        dead.add(id(first))
        interruption = Interruption(line)
        held = acquire_once(pool, interruption)
        assert first not in held
        dead.clear()
        must_be_whole(pool, None, held)
        return interruption

    interrupted_everywhere(scenario)


@pytest.mark.parametrize("hooks", [PLAIN, HOOKED], ids=["plain", "hooked"])
def test_acquiring_what_another_thread_gives_back_meanwhile(hooks):
    def scenario(line):
        pool = pool_of(hooks)
        taken = [pool.acquire() for _ in range(SIZE)]
        other = threading.Thread(target=lambda: pool.release(taken.pop()))

        def release_elsewhere():
            other.start()
            other.join(LONG)

        interruption = Interruption(line, on_call=("wait", release_elsewhere))
        held = acquire_once(pool, interruption)
        must_be_whole(pool, None, [*held, *taken])
        return interruption

    interrupted_everywhere(scenario)


def test_acquiring_in_vain():
    def scenario(line):
        pool = pool_of(PLAIN)
        taken = [pool.acquire() for _ in range(SIZE)]
        interruption = Interruption(line)
        with interruption:
            try:
                pool.acquire(timeout=0)
            except KeyboardInterrupt:
                assert interruption.where is not None
            except TimeoutError:
                pass
        must_be_whole(pool, None, taken)
        return interruption

    interrupted_everywhere(scenario)


@pytest.mark.parametrize("destroys", [False, True], ids=["release", "destroy"])
@pytest.mark.parametrize("hooks", [PLAIN, HOOKED], ids=["plain", "hooked"])
@pytest.mark.parametrize("is_awaited", [False, True], ids=["nobody waits", "somebody waits"])
def test_giving_back(hooks, destroys, is_awaited):
    def scenario(line):
        pool = pool_of(hooks)
        taken = [pool.acquire() for _ in range(SIZE)]
        neighbour = Neighbour(pool) if is_awaited else None
        interruption = Interruption(line)
        release_once(pool, taken.pop(), interruption, destroys=destroys)
        must_be_whole(pool, neighbour, taken)
        return interruption

    interrupted_everywhere(scenario)


@pytest.mark.parametrize(
    ("hooks", "options"),
    [
        ({}, {"max_uses": 1}),
        ({"validate": lambda value: False}, {"validate_on_release": True}),
        ({"release": lambda value: 1 / 0}, {}),
    ],
    ids=["used up", "found invalid", "release hook fails"],
)
def test_giving_back_what_is_destroyed_then(hooks, options):
    def scenario(line):
        pool = pool_of(hooks, **options)
        taken = [pool.acquire() for _ in range(SIZE)]
        neighbour = Neighbour(pool)
        interruption = Interruption(line)
        release_once(pool, taken.pop(), interruption, destroys=False)
        neighbour.may_go.set()
        neighbour.thread.join(LONG)
        assert neighbour.value is not None, "a waiter is lost"
        mine = [*taken, pool.acquire()]
        assert len(set(mine)) == SIZE == pool.borrowed
        pool.stop(0, drain=False)
        return interruption

    interrupted_everywhere(scenario)


@pytest.mark.parametrize("hooks", [PLAIN, HOOKED], ids=["plain", "hooked"])
@pytest.mark.parametrize("fails", [False, True], ids=["block ends well", "block raises"])
def test_leasing(hooks, fails):
    def scenario(line):
        pool = pool_of(hooks)
        pool.release(pool.acquire())
        interruption = Interruption(line)
        lease_once(pool, interruption, fails=fails)
        gc.collect(1)  # a lease whose exit was interrupted is garbage by now
        must_be_whole(pool, None, [])
        return interruption

    def lease_once(pool, interruption, *, fails):
        with interruption:
            try:
                with pool.lease():
                    if fails:
                        raise LookupError
            except KeyboardInterrupt:
                assert interruption.where is not None
            except LookupError:
                pass

    interrupted_everywhere(scenario)


def test_giving_back_after_the_pool_has_shrunk():
    def scenario(line):
        pool = pool_of(PLAIN, max_size=SIZE + 1)
        taken = [pool.acquire() for _ in range(SIZE + 1)]
        pool.resize(0, SIZE)
        interruption = Interruption(line)
        release_once(pool, taken.pop(), interruption, destroys=False)
        must_be_whole(pool, None, taken)
        return interruption

    interrupted_everywhere(scenario)


def test_acquiring_when_all_that_is_idle_has_been_replaced():
    def scenario(line):
        pool = pool_of(PLAIN)
        taken = [pool.acquire() for _ in range(SIZE)]
        pool.expire()
        interruption = Interruption(line)
        release_once(pool, taken.pop(), interruption, destroys=False)
        must_be_whole(pool, None, taken)
        return interruption

    interrupted_everywhere(scenario)


def test_acquiring_when_a_borrower_is_garbage():
    def scenario(line):
        pool = pool_of(PLAIN)
        taken = [pool.acquire() for _ in range(SIZE - 1)]
        lease = pool.lease()
        lease.__enter__()
        del lease
        gc.collect(1)
        interruption = Interruption(line)
        held = acquire_once(pool, interruption)
        must_be_whole(pool, None, [*held, *taken])
        return interruption

    interrupted_everywhere(scenario)


def test_acquiring_when_the_acquire_hook_fails():
    def scenario(line):
        fails = [True]
        pool = pool_of({"acquire": lambda value, ctx: 1 / 0 if fails else None})
        fails.clear()
        pool.release(pool.acquire())
        fails.append(True)
        interruption = Interruption(line)
        with interruption:
            try:
                pool.acquire()
            except (KeyboardInterrupt, ZeroDivisionError):
                pass
        fails.clear()
        held = [pool.acquire(timeout=LONG) for _ in range(SIZE)]
        assert len(set(held)) == SIZE
        pool.stop(0, drain=False)
        return interruption

    interrupted_everywhere(scenario)
