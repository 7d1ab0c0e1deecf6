"""Prometheus, read as a server reads it."""

from __future__ import annotations

import asyncio
import logging

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pooling import (
    AsyncPoolingService,
    ConfigurationError,
    KeyedPoolingService,
    PoolingService,
    PoolTimeoutError,
    telemetry,
)
from pooling.telemetry.prometheus import PoolCollector
from tests.telemetry.parts import fresh_name
from tests.telemetry.test_snapshot import Connects


@pytest.fixture
def collect():
    """Makes collectors; returns a function that scrapes: the samples by name and labels."""
    made = []

    def make(**options):
        registry = CollectorRegistry()
        made.append(PoolCollector(registry, **options))

        def scrape():
            families = text_string_to_metric_families(generate_latest(registry).decode())
            return {
                (sample.name, frozenset(sample.labels.items())): sample.value
                for family in families
                for sample in family.samples
            }

        return scrape

    yield make
    for collector in made:
        collector.close()


def of(found, name, **labels):
    """The value of one sample."""
    return found.get((name, frozenset(labels.items())))


def test_a_scrape_has_the_names_that_opentelemetrys_metrics_get_in_prometheus(collect):
    scrape, name = collect(), fresh_name("db")
    with PoolingService(Connects(), max_size=2, name=name) as pool:
        with pool.lease(), pool.lease(), pytest.raises(PoolTimeoutError):
            pool.acquire(timeout=0.001)
        found = scrape()
    mine = {"db_client_connection_pool_name": name}
    assert of(found, "db_client_connection_count", db_client_connection_state="idle", **mine) == 2
    assert of(found, "db_client_connection_max", **mine) == 2
    assert of(found, "db_client_connection_timeouts_total", **mine) == 1
    assert of(found, "db_client_connection_create_time_seconds_count", **mine) == 2
    assert of(found, "db_client_connection_wait_time_seconds_bucket", le="+Inf", **mine) == 2


async def test_pools_of_asyncio_and_other_resources_too(collect):
    scrape, name = collect(), fresh_name("models")
    async with AsyncPoolingService(object, name=name) as pool:
        async with pool.lease():
            await asyncio.sleep(0)
            assert (
                of(scrape(), "pooling_resource_count", pooling_resource_state="used", pooling_resource_pool_name=name)
                == 1
            )
    assert of(scrape(), "pooling_destroyed_total", pooling_pool_name=name, pooling_reason="stopped") == 1


@pytest.mark.parametrize(("keys", "shown"), [("none", None), ("hashed", telemetry.hashed("ann")), ("plain", "ann")])
def test_keys_are_shown_only_on_request(collect, keys, shown):
    scrape, name = collect(keys=keys), fresh_name("db")
    pool = KeyedPoolingService(lambda key: Connects(), max_total=3, name=name)
    with pool.lease("ann"):
        found = scrape()
    pool.stop()
    mine = {"db_client_connection_pool_name": name} | ({"pooling_pool_key": shown} if shown else {})
    assert of(found, "db_client_connection_count", db_client_connection_state="used", **mine) == 1
    assert of(found, "db_client_connection_create_time_seconds_count", **mine) == 1
    assert of(found, "pooling_budget_used", pooling_pool_name=name) == 1
    assert (("ann" in str(found)), keys == "plain") in ((True, True), (False, False))


def test_what_other_packages_count_and_time_is_there(collect):
    scrape, name = collect(), fresh_name("test.step")
    telemetry.describe(f"{name}s", "counter", "{step}", "Steps.", ("pooling.pool.name",))
    with telemetry.timed(name, {"pooling.pool.name": "db"}):
        pass
    with pytest.raises(LookupError), telemetry.timed(name):
        raise LookupError
    found = scrape()
    base = name.replace(".", "_").replace("-", "_")
    assert of(found, f"{base}s_total", pooling_pool_name="db") == 1
    assert of(found, f"{base}_failures_total") == 1
    assert of(found, f"{base}_duration_seconds_count") == 2


def test_a_scrape_of_ten_thousand_keys_reads_one_snapshot(collect, monkeypatch):
    snapshots, taken = [], telemetry._gauges.snapshot
    monkeypatch.setattr("pooling.telemetry._gauges.snapshot", lambda **o: snapshots.append(o) or taken(**o))
    collect()()
    assert snapshots == [{"per_key": False}]


def test_a_broken_metric_breaks_no_borrower(collect, caplog, monkeypatch):
    scrape = collect()
    monkeypatch.setattr("prometheus_client.Counter.labels", lambda *_: 1 / 0)
    with caplog.at_level(logging.ERROR, "pooling"), PoolingService(object, name=fresh_name("db")) as pool:
        with pool.lease(), pytest.raises(PoolTimeoutError):
            pool.resize(0, 1)
            pool.acquire(timeout=0)
    assert "timeouts could not be recorded" in caplog.text
    assert scrape()


@pytest.mark.parametrize("wrong", [{"keys": "all"}, {"interval": 0}, {"interval": "1"}])
def test_a_setting_that_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        PoolCollector(None, **wrong)
