"""Pools of several budgets on one store, in one process: each budget is what a process would have."""

from __future__ import annotations

import asyncio
import fcntl
import re
import stat
import sys
import traceback
from pathlib import Path

import pytest

from pooling import (
    AsyncPoolingService,
    ConfigurationError,
    KeyedPoolingService,
    PoolBudget,
    PoolingService,
    PoolTimeoutError,
    SharedBudget,
)
from pooling._engine.lease_book import Claim
from pooling.leases import FileLeases, PostgresLeases, RedisLeases
from pooling.leases._store import StoreError
from tests.contract.harness import on_both, on_threads, raising
from tests.contract.workshop import Workshop

OTHERS = "Other processes that share the limit have the places that are missing. Raise max_total, or release sooner"


def two_pools(side, store, name, *, limit=4, **options):
    """Two pools of one workshop, each under a budget of its own, and these budgets."""
    workshop = Workshop(side)
    budgets = [SharedBudget(limit, store, name=name) for _ in range(2)]
    return workshop, *(side.pool(workshop, max_size=9, budget=budget, **options) for budget in budgets), *budgets


@on_both
async def test_two_budgets_on_one_store_have_one_limit(side, store, name):
    workshop, one, other, budget, _ = two_pools(side, store, name)
    held = [await one.acquire() for _ in range(3)]
    further = await other.acquire()
    with raising(
        PoolTimeoutError,
        "of max_total=4 of all processes this one has 1, others up to 3; 1 used here by 1 pool",
        OTHERS,
    ):
        await other.acquire(timeout=0.2)
    await one.release(held.pop())
    await other.release(further)
    assert workshop.most <= 4
    assert budget.max_total == 4
    assert budget.used in (2, 3), "what became idle may have gone to the one that waited"
    for value in held:
        await one.release(value)


@on_both
async def test_a_process_that_waits_gets_the_place_of_an_idle_resource_of_another(side, tmp_path):
    workshop, one, other, budget, other_budget = two_pools(side, FileLeases(tmp_path), "b")
    for value in [await one.acquire() for _ in range(4)]:
        await one.release(value)
    assert one.available == 4
    held = [await other.acquire() for _ in range(3)]
    assert (workshop.most, one.available) == (4, 1)
    assert budget.used + other_budget.used == 4
    for value in held:
        await other.release(value)


@on_both
async def test_of_two_busy_processes_each_gets_half_as_borrowers_give_back(side, tmp_path):
    workshop, one, other, budget, other_budget = two_pools(side, FileLeases(tmp_path), "b")
    ends = side.gate(is_open=True)
    done = [False]

    async def borrow(pool):
        while not done[0]:
            value = await pool.acquire()
            await ends()
            await side.turn()
            await pool.release(value)

    borrowers = [side.go(borrow, one) for _ in range(6)]
    await side.until(lambda: budget.used == 4)
    borrowers += [side.go(borrow, other) for _ in range(6)]
    await side.until(lambda: (budget.used, other_budget.used) == (2, 2))
    done[0] = True
    for borrower in borrowers:
        await borrower.result()
    assert workshop.most <= 4


@on_both
async def test_a_create_with_a_leased_place_asks_nobody(side, tmp_path):
    budget = SharedBudget(64, FileLeases(tmp_path), block=8)
    pool = side.pool(Workshop(side), max_size=64, budget=budget)
    values = [await pool.acquire()]
    await side.until(lambda: budget.limit >= 8)
    claims = budget.claims
    values += [await pool.acquire() for _ in range(3)]
    assert (budget.claims, budget.used) == (claims, 4)
    taken = budget.claim_time
    answered = taken.count
    assert 1 <= answered <= claims
    assert 0 < taken.mean <= taken.max
    values += [await pool.acquire() for _ in range(24)]  # more than a block or two
    assert budget.claims > claims
    assert (taken.count, budget.claim_time.count > answered) == (answered, True), "it is a copy"
    for value in values:
        await pool.release(value)


@on_both
async def test_unused_places_go_back_after_a_while_and_all_when_the_pool_stops(side, tmp_path):
    budget = SharedBudget(64, FileLeases(tmp_path), block=8, idle_after=0.05)
    pool = side.pool(Workshop(side), max_size=64, budget=budget)
    value = await pool.acquire()
    await side.until(lambda: budget.leased == 1)
    claims = budget.claims
    await side.breathe()
    assert budget.claims == claims  # nothing is asked while nothing changes
    await pool.release(value)
    await pool.stop()
    await side.until(lambda: not list((tmp_path / "default").glob("*.held")), "its thread has not ended")
    assert (budget.leased, budget.used) == (0, 0)


@on_both
async def test_places_are_leased_though_unused_ones_go_back_at_once(side, tmp_path):
    budget = SharedBudget(64, FileLeases(tmp_path), block=8, idle_after=0.0)
    pool = side.pool(Workshop(side), max_size=64, budget=budget)
    values = [await pool.acquire() for _ in range(3)]
    await side.until(lambda: budget.leased == 3)
    for value in values:
        await pool.release(value)


@on_both
async def test_a_pool_is_filled_to_min_size_from_a_shared_budget(side, tmp_path):
    pool = side.pool(Workshop(side), min_size=3, max_size=9, budget=SharedBudget(4, FileLeases(tmp_path)))
    await pool.start()
    assert pool.available == 3


@on_both
async def test_who_may_not_wait_for_others_gets_a_place_that_must_be_leased_first(side, tmp_path):
    budget = SharedBudget(2, FileLeases(tmp_path))
    pool = side.pool(Workshop(side), max_size=9, max_waiting=0, budget=budget)
    values = [await pool.acquire_nowait(), await pool.acquire()]
    await pool.release(values.pop())
    await pool.release(values.pop())


@on_both
async def test_a_lower_limit_of_one_process_counts_for_all(side, tmp_path):
    _, one, other, budget, other_budget = two_pools(side, FileLeases(tmp_path), "b")
    for value in [await one.acquire() for _ in range(4)]:
        await one.release(value)
    held = await other.acquire()
    other_budget.resize(2)
    await side.until(lambda: budget.used + other_budget.used <= 2)
    budget.resize(3)
    other_budget.resize(3)
    more = [await other.acquire() for _ in range(2)]
    assert other_budget.used == 3
    for value in [held, *more]:
        await other.release(value)


@on_threads
async def test_pools_for_threads_and_for_asyncio_share_a_limit(side, tmp_path):
    store = FileLeases(tmp_path)
    pool = PoolingService(object, max_size=9, budget=SharedBudget(2, store))
    held = pool.acquire()

    async def main():
        async with AsyncPoolingService(object, max_size=9, budget=SharedBudget(2, store)) as other:
            value = await other.acquire()
            with pytest.raises(PoolTimeoutError):
                await other.acquire(timeout=0.1)
            await asyncio.to_thread(pool.release, held)
            await other.release(await other.acquire())
            await other.release(value)

    asyncio.run(main())
    pool.stop()


@on_threads
async def test_a_thousand_keys_share_what_the_process_has_leased(side, tmp_path):
    budget = SharedBudget(50, FileLeases(tmp_path))
    with KeyedPoolingService(lambda key: object, budget=budget, max_keys=2000) as pool:
        for key in range(1000):
            with pool.lease(key):
                pass
        assert budget.used <= 50
        assert len(pool) == 1000


def test_what_cannot_work_is_refused(tmp_path):
    store = FileLeases(tmp_path)
    for wrong in (0, 2.5, True, float("inf"), "8"):
        with pytest.raises(ConfigurationError, match="limit="):
            SharedBudget(wrong, store)
    for field, wrong in [("lease_ttl", 0.1), ("lease_ttl", "x"), ("block", 0), ("name", ""), ("idle_after", -1)]:
        with pytest.raises(ConfigurationError, match=f"{field}="):
            SharedBudget(4, store, **{field: wrong})
    with pytest.raises(ConfigurationError, match="store="):
        SharedBudget(4, tmp_path)
    with pytest.raises(ConfigurationError, match="table="):
        PostgresLeases(print, table="leases; DROP TABLE users")
    with pytest.raises(ConfigurationError, match="role"):
        PostgresLeases(print).create_sql("ann; DROP TABLE users")
    with pytest.raises(ConfigurationError, match="or a URL"):
        RedisLeases(object())


def test_an_argument_that_there_is_not_is_refused_with_the_one_that_is_meant(tmp_path):
    with pytest.raises(ConfigurationError, match=r"unknown argument 'blok' of a shared budget: did you mean 'block'\?"):
        SharedBudget(4, FileLeases(tmp_path), blok=2)
    with pytest.raises(
        ConfigurationError, match=r"unknown argument 'replicas' .*: known are limit, store, name"
    ) as refused:
        SharedBudget(4, FileLeases(tmp_path), replicas=2)
    assert refused.value.field == "replicas"


def test_a_directory_that_other_processes_would_not_find_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "leases"):
        with pytest.raises(ConfigurationError, match=re.escape(str(tmp_path / "file"))):
            FileLeases(path)
    with pytest.raises(ConfigurationError, match="share no limit"):
        FileLeases(tmp_path / "typo" / "leases")
    assert not (tmp_path / "typo").exists()


@on_both
async def test_only_the_user_can_read_a_directory_of_leases(side, tmp_path):
    pool = side.pool(Workshop(side), max_size=1, budget=SharedBudget(4, FileLeases(tmp_path / "leases")))
    value = await pool.acquire()
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [tmp_path / "leases", *tmp_path.glob("leases/**/*")]}
    assert {path.name for path in modes} >= {"leases", "default", "book", "lock"}
    assert [path for path, mode in modes.items() if mode & 0o077] == []
    await pool.release(value)


@on_both
async def test_the_error_of_a_borrower_says_why_the_store_cannot_be_reached(side):
    pytest.importorskip("redis", reason="redis-py comes with the extra `redis`")
    budget = SharedBudget(4, RedisLeases("redis://:s3cret@localhost:1"))
    pool = side.pool(Workshop(side), max_size=1, budget=budget)
    with raising(PoolTimeoutError, "(ConnectionError: ", "localhost:1", "goes on by itself") as caught:
        await pool.acquire(timeout=0.3)
    assert "s3cret" not in str(caught.value)
    assert budget.claim_time.count == 0 < budget.claims, "none was answered"


def test_a_url_without_the_client_for_it_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigurationError, match=r"lakebase-pooling\[redis\]"):
        RedisLeases("redis://localhost:6379/0")


def test_a_client_without_a_time_limit_is_refused_and_no_password_is_shown():
    redis = pytest.importorskip("redis", reason="redis-py comes with the extra `redis`")
    client = redis.Redis(password="s3cret", socket_timeout=None)
    with pytest.raises(ConfigurationError, match="socket_timeout=None"):
        RedisLeases(client)
    assert "s3cret" not in repr(RedisLeases("redis://:s3cret@localhost:1"))
    for url in ("nope", "redis://:s3cret/x@localhost:1"):
        with pytest.raises(ConfigurationError, match="redis://host") as caught:
            RedisLeases(url)
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@on_both
async def test_a_budget_within_a_shared_one_keeps_both_limits(side, tmp_path):
    shared, other_shared = (SharedBudget(4, FileLeases(tmp_path)) for _ in range(2))
    workshop = Workshop(side)
    pool = side.pool(workshop, max_size=9, budget=PoolBudget(2, within=shared))
    other = side.pool(workshop, max_size=9, budget=other_shared)
    held = [await pool.acquire() for _ in range(2)]
    with pytest.raises(PoolTimeoutError):
        await pool.acquire(timeout=0.1)
    theirs = [await other.acquire() for _ in range(2)]
    with pytest.raises(PoolTimeoutError):
        await other.acquire(timeout=0.1)
    await pool.release(held.pop())
    theirs.append(await other.acquire())
    assert workshop.most <= 4
    for value in held:
        await pool.release(value)
    for value in theirs:
        await other.release(value)


@on_both
async def test_a_process_without_places_says_that_others_have_them(side, tmp_path):
    _, one, other, _, _ = two_pools(side, FileLeases(tmp_path), "b")
    held = [await one.acquire() for _ in range(4)]
    with raising(PoolTimeoutError, "this one has 0, others up to 4; 0 used here by 0 pools", OTHERS) as caught:
        await other.acquire(timeout=0.2)
    assert caught.value.limit == "max_total=4"
    for value in held:
        await one.release(value)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the open files are read there")
def test_a_book_that_another_process_keeps_locked_is_an_error_until_it_is_unlocked(tmp_path, monkeypatch):
    monkeypatch.setattr("pooling.leases._files.LOCK_WITHIN", 0.05)
    session = FileLeases(tmp_path).open("me", "b")
    claim = Claim("me", turn=1, limit=4, ttl=30.0, keeps=0, used=0, needs=1, wants=1)
    assert session.exchange(claim).places == 1
    file = tmp_path / "b" / "lock"
    with file.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with raising(StoreError, f"{file} has been locked for 0.05 s"):
            session.exchange(claim._replace(turn=2, keeps=1))
        assert len([each for each in Path("/proc/self/fd").iterdir() if each.resolve() == file]) == 1, "this one only"
    assert session.exchange(claim._replace(turn=3, keeps=1)).places == 2
    session.close()
