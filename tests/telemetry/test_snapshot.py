"""The registry of all services, and the observers of all pools."""

from __future__ import annotations

import gc
import logging
import math

import pytest

from pooling import (
    AsyncKeyedPoolingService,
    ConfigurationError,
    KeyedPoolingService,
    PoolBudget,
    PoolFactory,
    PoolingService,
    PoolObserver,
    PoolTimeoutError,
    telemetry,
)
from pooling.telemetry import BudgetNumbers, PoolNumbers
from tests.telemetry.parts import Notes, fresh_name, observing, snapshot_of


class Connects(PoolFactory[object]):
    noun = "connection"
    metric_prefix = "db.client.connection"

    def create(self):
        return object()


def test_a_service_shows_its_numbers_and_what_its_resources_are():
    with PoolingService(Connects(), min_size=1, max_size=3, name=fresh_name("db")) as pool:
        with pool.lease():
            seen = snapshot_of(pool)
            assert seen.numbers == PoolNumbers(None, 1, 0, 1, 0, 0, 0, 1, 3)
        assert (seen.name, seen.is_async, seen.is_keyed) == (pool.name, False, False)
        assert (seen.keys, seen.budget) == (None, None)
        assert (seen.noun, seen.metric_prefix) == ("connection", "db.client.connection")
        assert snapshot_of(pool).numbers.idle == 1
    assert [one for one in telemetry.snapshot() if one.service is pool] == [], "it is stopped and empty"


def test_a_keyed_service_is_one_entry_with_sums_and_keys_on_request():
    pool = KeyedPoolingService(lambda key: Connects(), max_total=5, max_size=3, name=fresh_name("db"))
    assert (snapshot_of(pool).metric_prefix, snapshot_of(pool).keys) == ("", 0)
    pool.release(pool.acquire("ann"))
    held = [pool.acquire("bob"), pool.acquire("bob")]
    seen = snapshot_of(pool)
    assert seen.numbers == PoolNumbers(None, 3, 1, 2, 0, 0, 0, 0, 5), "max_size is bounded by max_total"
    assert (seen.keys, seen.per_key, seen.budget) == (2, (), BudgetNumbers(3, 5, 5))
    assert seen.metric_prefix == "db.client.connection"
    rows = {row.key: (row.idle, row.used) for row in snapshot_of(pool, per_key=True).per_key}
    assert rows == {"ann": (1, 0), "bob": (0, 2)}
    pool.close_key("bob")
    assert snapshot_of(pool).numbers.used == 2, "what is out of a closed key is in the sums"
    assert [row.key for row in snapshot_of(pool, per_key=True).per_key] == ["ann"]
    for value in held:
        pool.release(value)


def test_pools_of_keys_are_no_services_of_their_own():
    pool = KeyedPoolingService(lambda key: object, name=fresh_name("db"))
    pool.release(pool.acquire("ann"))
    assert len([one for one in telemetry.snapshot() if one.name == pool.name]) == 1


def test_a_budget_of_two_services_shows_at_both_and_a_dropped_service_nowhere():
    budget = PoolBudget(4)
    name = fresh_name("shared")
    pools = [PoolingService(object, max_size=2, budget=budget, name=name) for _ in range(2)]
    with pools[0].lease():
        assert [one.budget for one in telemetry.snapshot() if one.name == name] == [BudgetNumbers(1, 4, 4)] * 2
    del pools
    gc.collect()
    assert [one for one in telemetry.snapshot() if one.name == name] == []


async def test_asyncio_services_show_too_and_without_a_limit_theirs_is_infinite():
    pool = AsyncKeyedPoolingService(lambda key: object, max_size=2, name=fresh_name("adb"))
    async with pool.lease("ann"):
        seen = snapshot_of(pool)
        assert (seen.is_async, seen.numbers.used, seen.numbers.max_size) == (True, 1, 2)
        assert seen.budget == BudgetNumbers(1, math.inf, math.inf)
    await pool.stop()


def test_a_hashed_key_is_short_stable_and_does_not_show_the_key():
    assert telemetry.hashed("ann@corp.example") == telemetry.hashed("ann@corp.example") == "3ca921cc06ef"
    assert telemetry.hashed("bob") != telemetry.hashed(("bob",))
    assert len(telemetry.hashed("\ud800")) == 12


def test_an_observer_of_all_pools_sees_each_beside_the_pools_own():
    name = fresh_name("db")
    own, everywhere = Notes(name), Notes(name)
    keyed = KeyedPoolingService(lambda key: object, max_size=1, name=name)
    with observing(everywhere), PoolingService(object, max_size=1, name=name, observer=own) as pool:
        with pool.lease(), keyed.lease("ann"), pytest.raises(PoolTimeoutError):
            pool.acquire(timeout=0)
        pool.expire()
        keyed.stop()
        everywhere.wait_for("created", "ann")
        everywhere.wait_for("destroyed by stopped", "ann")
        everywhere.wait_for("created")
        everywhere.wait_for("destroyed by expired")
    # It waited for the create, so the acquisition was told.
    assert {event for event in everywhere.seen if event[1] == "ann"} == {
        ("created", "ann"),
        ("acquired", "ann"),
        ("destroyed by stopped", "ann"),
    }
    assert {event for event in everywhere.seen if event[1] is None} == set(own.seen) > {("timeout", None)}
    before = len(everywhere.seen)
    with PoolingService(object, name=name) as pool, pool.lease():
        assert len(everywhere.seen) == before, "it is no longer told"


def test_the_fast_path_tells_nobody_and_stays_fast():
    with observing(Notes(name := fresh_name("db"))) as notes, PoolingService(object, max_size=1, name=name) as pool:
        pool.release(pool.acquire())
        before = len(notes.seen)
        for _ in range(100):
            pool.release(pool.acquire())
        assert len(notes.seen) == before
        assert pool.engine.ledger.plain


def test_a_broken_observer_is_logged_and_breaks_no_borrower_and_no_other_observer(caplog):
    class Broken(PoolObserver):
        def on_created(self, event):
            raise OSError("broken")

    name = fresh_name("db")
    with observing(Broken()), observing(Notes(name)) as notes, caplog.at_level(logging.ERROR, "pooling"):
        with PoolingService(object, name=name) as pool, pool.lease():
            pass
        notes.wait_for("created")
    assert f"pool {name!r}: its observer's on_created failed" in caplog.text


def test_an_observer_without_an_event_is_refused():
    with pytest.raises(ConfigurationError, match="expected a PoolObserver"):
        telemetry.observe(object())


def test_a_block_is_counted_timed_and_its_failures_apart():
    name = fresh_name("test.step")
    with telemetry.timed(name):
        pass
    with pytest.raises(LookupError), telemetry.timed(name):
        raise LookupError
    telemetry.count(f"{name}.others", 3)
    assert {key: value for key, value in telemetry.counts().items() if key.startswith(name)} == {
        f"{name}s": 1,
        f"{name}_failures": 1,
        f"{name}.others": 3,
    }
