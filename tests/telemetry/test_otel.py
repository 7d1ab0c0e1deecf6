"""OpenTelemetry, read with its real SDK."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from pooling import (
    AsyncPoolingService,
    ConfigurationError,
    CreateError,
    KeyedPoolingService,
    PoolingService,
    PoolTimeoutError,
    telemetry,
)
from pooling._engine.durations import DURATIONS, MOST
from pooling.telemetry.otel import instrument
from tests.telemetry.parts import fresh_name
from tests.telemetry.test_snapshot import Connects


class Seen:
    """What a provider got: metrics by name and pool, and spans."""

    def __init__(self, **options):
        self.reader = InMemoryMetricReader()
        self.exporter = InMemorySpanExporter()
        self.meters = MeterProvider([self.reader])
        self.traces = TracerProvider()
        self.traces.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.traces.get_tracer("the app")
        self.instrumentation = instrument(self.meters, self.traces, **options)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.instrumentation.uninstrument()
        self.meters.shutdown()

    def metrics(self):
        """The points of each metric."""
        data = self.reader.get_metrics_data()
        scopes = [scope for resource in (data.resource_metrics if data else ()) for scope in resource.scope_metrics]
        return {metric.name: (metric, metric.data.data_points) for scope in scopes for metric in scope.metrics}

    def values(self, name, **attributes):
        """The value, or for histograms the count, of the points with these attributes; by the others' values."""
        _, points = self.metrics().get(name, (None, ()))
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        found = [point for point in points if wanted.items() <= dict(point.attributes).items()]
        return [getattr(point, "count", None) if hasattr(point, "count") else point.value for point in found]

    def spans(self, name):
        return [span for span in self.exporter.get_finished_spans() if span.name == name]


def test_the_nine_metrics_of_the_conventions_have_their_names_units_and_kinds():
    name = fresh_name("db")
    with Seen() as seen, PoolingService(Connects(), max_size=2, name=name, use_times=True) as pool:
        pool.release(pool.acquire())
        with pool.lease(), pool.lease(), pytest.raises(PoolTimeoutError):
            pool.acquire(timeout=0.001)
        found = seen.metrics()
        units = {key: metric.unit for key, (metric, _) in found.items() if key.startswith("db.client.connection.")}
        assert units == {
            "db.client.connection.count": "{connection}",
            "db.client.connection.idle.max": "{connection}",
            "db.client.connection.idle.min": "{connection}",
            "db.client.connection.max": "{connection}",
            "db.client.connection.pending_requests": "{request}",
            "db.client.connection.timeouts": "{timeout}",
            "db.client.connection.create_time": "s",
            "db.client.connection.wait_time": "s",
            "db.client.connection.use_time": "s",
        }
        mine = {"db__client__connection__pool__name": name}
        assert seen.values("db.client.connection.count", db__client__connection__state="idle", **mine) == [2]
        assert seen.values("db.client.connection.count", db__client__connection__state="used", **mine) == [0]
        for metric, value in (("max", 2), ("idle.max", 2), ("idle.min", 0), ("pending_requests", 0), ("timeouts", 1)):
            assert seen.values(f"db.client.connection.{metric}", **mine) == [value], metric
        assert seen.values("db.client.connection.create_time", **mine) == [2]
        assert seen.values("db.client.connection.use_time", **mine) == [3]


def test_other_resources_have_the_same_shape_under_a_prefix_of_their_own():
    name = fresh_name("models")
    with Seen() as seen, PoolingService(object, max_size=1, name=name) as pool, pool.lease():
        mine = {"pooling__resource__pool__name": name}
        assert seen.values("pooling.resource.count", pooling__resource__state="used", **mine) == [1]
        assert seen.values("pooling.resource.wait_time", **mine) == [1], "it waited for the create"
        assert seen.values("db.client.connection.count", db__client__connection__pool__name=name) == []


def test_a_keyed_service_is_one_pool_and_its_counts_outlive_its_keys():
    name = fresh_name("db")
    with Seen() as seen:
        pool = KeyedPoolingService(lambda key: Connects(), max_total=3, max_keys=1, name=name)
        for user in ("ann", "bob", "eve"):  # each evicts the one before
            pool.release(pool.acquire(user))
        pool.stop()
        mine = {"db__client__connection__pool__name": name}
        assert seen.values("db.client.connection.create_time", **mine) == [3]
        assert sum(seen.values("pooling.destroyed", pooling__pool__name=name)) == 3
        assert seen.values("pooling.budget.limit", pooling__pool__name=name) == [3]
        assert seen.values("pooling.budget.used", pooling__pool__name=name) == [0]
        assert seen.values("pooling.keys", pooling__pool__name=name) == [0]


@pytest.mark.parametrize(("keys", "shown"), [("none", None), ("hashed", telemetry.hashed("ann")), ("plain", "ann")])
def test_the_users_key_is_shown_only_on_request_and_hashed_unless_it_is_to_be_plain(keys, shown):
    name = fresh_name("db")
    with Seen(keys=keys) as seen:
        pool = KeyedPoolingService(lambda key: Connects(), max_total=3, name=name)
        with pool.lease("ann"):
            everything = seen.metrics()
            with pytest.raises(PoolTimeoutError):
                pool.pool("ann").resize(0, 1) or pool.acquire("ann", timeout=0)
        pool.stop()
        points = [
            point for metric in ("count", "create_time") for point in everything[f"db.client.connection.{metric}"][1]
        ]
        mine = [point for point in points if point.attributes["db.client.connection.pool.name"] == name]
        assert {point.attributes.get("pooling.pool.key") for point in mine} == {shown}
        if keys != "plain":
            text = "".join(metric.to_json() for metric, _ in everything.values())
            text += "".join(span.to_json() for span in seen.exporter.get_finished_spans())
            assert '"ann"' not in text


def test_one_collection_takes_one_snapshot_and_the_next_another(monkeypatch):
    name = fresh_name("db")
    with Seen() as seen, PoolingService(Connects(), name=name, max_size=3) as pool:
        counts = {"db__client__connection__state": "used", "db__client__connection__pool__name": name}
        held = []
        for number in range(3):
            assert seen.values("db.client.connection.count", **counts) == [number]
            held.append(pool.acquire())
        for value in held:
            pool.release(value)
        snapshots = []
        observed = telemetry._gauges.snapshot
        monkeypatch.setattr("pooling.telemetry._gauges.snapshot", lambda **o: snapshots.append(o) or observed(**o))
        seen.metrics()
        assert len(snapshots) == 1


def test_unread_uses_are_recorded_in_the_background_before_they_become_many():
    name = fresh_name("db")
    with Seen() as seen, PoolingService(Connects(), name=name) as pool:
        for _ in range(MOST + 1):
            telemetry.note_use(pool, 0.001)
        for thread in threading.enumerate():
            if thread.name == "pooling-telemetry":
                thread.join()
        assert len(DURATIONS.read()) <= 1
        assert seen.values("db.client.connection.use_time", db__client__connection__pool__name=name)[0] >= MOST


def test_without_an_exporter_nothing_is_kept():
    with PoolingService(Connects(), name=fresh_name("db")) as pool:
        telemetry.note_use(pool, 0.001)
        assert DURATIONS.read() == []


def test_a_slow_acquisition_is_a_span_of_the_request_with_its_steps_as_events():
    with (
        Seen(slow=0) as seen,
        PoolingService(object, max_size=1, name=fresh_name("db"), validate_on_acquire=True) as pool,
    ):
        with seen.tracer.start_as_current_span("GET /orders") as request, pool.lease():
            pass
        [acquire] = seen.spans("pooling.acquire")
        assert acquire.parent.span_id == request.get_span_context().span_id
        assert dict(acquire.attributes) == {"pooling.pool.name": pool.name}
        steps = [event.name for event in acquire.events]
        assert [step for step in steps if step != "created"] == ["queue", "create", "served"]
        times = [acquire.start_time, *(event.timestamp for event in acquire.events), acquire.end_time]
        assert times == sorted(times)
        [create] = seen.spans("pooling.create")
        assert [link.context.span_id for link in create.links] == [request.get_span_context().span_id]


async def test_so_it_is_with_asyncio():
    with Seen(slow=0) as seen:
        async with AsyncPoolingService(object, max_size=1, name=fresh_name("db")) as pool:
            with seen.tracer.start_as_current_span("GET /orders") as request:
                async with pool.lease():
                    await asyncio.sleep(0)
        [acquire], [create] = seen.spans("pooling.acquire"), seen.spans("pooling.create")
        assert acquire.parent.span_id == create.links[0].context.span_id == request.get_span_context().span_id


def test_a_quick_acquisition_and_one_of_the_fast_path_make_no_span():
    with Seen(slow=60) as seen, PoolingService(object, max_size=1, name=fresh_name("db")) as pool:
        for _ in range(3):
            pool.release(pool.acquire())
        assert seen.spans("pooling.acquire") == []


def test_a_failed_acquisition_is_always_a_span_and_says_the_type_alone():
    def fails():
        raise CreateError("password=tops3cret of ann@corp.example")

    with Seen(slow=60) as seen, PoolingService(fails, name=fresh_name("db")) as pool:
        with pytest.raises(CreateError):
            pool.acquire()
        [acquire], [create] = seen.spans("pooling.acquire"), seen.spans("pooling.create")
        for span in (acquire, create):
            assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
            assert span.attributes["error.type"] == "CreateError"
            assert "tops3cret" not in span.to_json()
        assert seen.values("pooling.create_failures", pooling__pool__name=pool.name, error__type="CreateError") == [1]


def test_what_is_timed_is_a_span_also_in_another_thread():
    with Seen() as seen, seen.tracer.start_as_current_span("request") as request:
        with telemetry.timed("test.login"):

            def mint():
                with telemetry.timed("test.mint"):
                    pass

            thread = threading.Thread(target=telemetry.carry(mint))
            thread.start()
            thread.join()
    [login], [mint] = seen.spans("test.login"), seen.spans("test.mint")
    assert mint.parent.span_id == login.context.span_id
    assert login.parent.span_id == request.get_span_context().span_id


def test_a_broken_provider_breaks_no_borrower(caplog):
    class Broken:
        def __getattr__(self, name):
            raise OSError("broken")

    with Seen(slow=0) as seen, caplog.at_level(logging.ERROR, "pooling"):
        seen.instrumentation._spans._tracer = Broken()
        seen.instrumentation._instruments._made = dict.fromkeys(seen.instrumentation._instruments._made, Broken())
        with PoolingService(object, name=fresh_name("db")) as pool:
            with pool.lease():
                pass
            with telemetry.timed("test.login"):
                pass
    assert "could not be recorded" in caplog.text
    assert "a follower of acquisitions failed" in caplog.text


def test_instrumenting_again_counts_once_and_uninstrumenting_ends_it():
    name = fresh_name("db")
    with Seen() as first, Seen() as second, PoolingService(Connects(), name=name) as pool:
        with pool.lease():
            pass
        mine = {"db__client__connection__pool__name": name}
        assert first.values("db.client.connection.create_time", **mine) == []
        assert second.values("db.client.connection.create_time", **mine) == [1]
        second.instrumentation.uninstrument()
        assert second.values("db.client.connection.count", **mine) == []
        pool.expire()
        with pool.lease():
            pass
        assert second.values("db.client.connection.create_time", **mine) in ([], [1])


@pytest.mark.parametrize("wrong", [{"keys": "all"}, {"slow": -1}, {"slow": "1"}])
def test_a_setting_that_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        instrument(**wrong)
