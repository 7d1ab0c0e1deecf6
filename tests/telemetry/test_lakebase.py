"""What Lakebase pools export, on a real Postgres: logins, mints, rotations, uses, spans; and no secret."""

from __future__ import annotations

import re

import psycopg
import pytest
from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
from prometheus_client import CollectorRegistry, generate_latest

from lakebase import LoginError, RoutingPool, create_lakebase_pool
from pooling import RequestContext, telemetry
from pooling.telemetry.prometheus import PoolCollector, exported_names
from tests.contract.harness import on_both
from tests.dropin.parts import ask, connection
from tests.live.manager_parts import Managers, identity, users
from tests.telemetry.parts import fresh_name
from tests.telemetry.test_otel import Seen


@on_both
async def test_logins_mints_rotations_and_uses_are_counted_and_no_secret_is_shown(side, lakebase_local):
    name, registry = fresh_name("lakebase"), CollectorRegistry()
    collector = PoolCollector(registry)
    try:
        with Seen(slow=0) as seen:
            async with Managers(side, lakebase_local) as managers:
                manager = managers.make(name=name)
                ann = identity(lakebase_local)
                before = telemetry.counts()
                with seen.tracer.start_as_current_span("GET /orders") as request:
                    for _ in range(2):
                        async with connection(manager.for_user(ann)) as conn:
                            await ask(conn, "select 1")
                async with connection(manager.for_user(identity(lakebase_local, ann.user))) as conn:
                    await ask(conn, "select 1")
                counted = {key: value - before.get(key, 0) for key, value in telemetry.counts().items()}
                assert (counted["lakebase.logins"], counted["lakebase.mints"]) == (2, 2)
                assert counted["lakebase.rotations"] == manager.stats().rotations
                mine = {"db__client__connection__pool__name": name}
                assert seen.values("lakebase.logins", pooling__pool__name=name) == [2]
                assert seen.values("lakebase.login.duration", pooling__pool__name=name) == [2]
                assert seen.values("db.client.connection.create_time", **mine) == [2]
                assert seen.values("db.client.connection.use_time", **mine) == [3]
                scraped = generate_latest(registry).decode()
                shown = set(re.findall(r"^# TYPE (\S+) ", scraped, re.MULTILINE))
                assert {name for name in shown if not name.endswith("_created")} <= exported_names()
                text = str(seen.metrics()) + scraped
            [create, *_], [login, *_] = seen.spans("pooling.create"), seen.spans("lakebase.login")
            assert [link.context.span_id for link in create.links] == [request.get_span_context().span_id]
            assert login.parent.span_id == create.context.span_id
            # A token on probation mints before a connection is asked for.
            assert seen.spans("lakebase.mint")[0].parent.span_id == request.get_span_context().span_id
            text += "".join(span.to_json() for span in seen.exporter.get_finished_spans())
        for secret in (ann.user, ann.token, "eyJ", "password="):
            assert secret not in text
    finally:
        collector.close()


def test_a_refused_login_is_counted_with_its_type_and_without_its_words(lakebase_local):
    name = fresh_name("lakebase")
    [ann] = users(lakebase_local, 1)
    config = lakebase_local.config(user=ann, password="tops3cret")
    with Seen() as seen, create_lakebase_pool(config, name=name, timeout=20) as pool:
        with pytest.raises(LoginError), pool.connection():
            pass
        assert sum(seen.values("lakebase.login_failures", pooling__pool__name=name)) >= 1
        assert seen.values("lakebase.logins", pooling__pool__name=name) == []
        text = str(seen.metrics()) + "".join(span.to_json() for span in seen.exporter.get_finished_spans())
        assert "error.type" in text
        assert "tops3cret" not in text


@pytest.fixture
def psycopg_instrumented():
    instrumentor = PsycopgInstrumentor()
    yield instrumentor
    instrumentor.uninstrument()


def test_the_instrumentation_of_psycopg_works_beside_it(lakebase_local, psycopg_instrumented):
    [ann] = users(lakebase_local, 1)
    name = fresh_name("lakebase")
    with Seen(slow=0) as seen:
        psycopg_instrumented.instrument(tracer_provider=seen.traces, skip_dep_check=True)
        config = lakebase_local.config(user=ann, password=f"password of {ann}")
        with create_lakebase_pool(config, name=name, max_size=1) as pool:
            for _ in range(2):
                with seen.tracer.start_as_current_span("GET /orders") as request, pool.connection() as conn:
                    assert conn.execute("select 41 + 1").fetchone() == (42,)
            assert pool.service.stats().created == 1, "the connection is lent again"
        theirs = [span for span in seen.exporter.get_finished_spans() if span.name.lower() == "select"]
        assert len(theirs) == 2
        assert theirs[-1].parent.span_id == request.get_span_context().span_id
        assert len(seen.spans("lakebase.login")) == 1
        assert seen.values("db.client.connection.use_time", db__client__connection__pool__name=name) == [2]


@on_both
async def test_pools_and_managers_tell_who_holds_and_who_waits(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make({"max_size": 1})
        [ann] = users(lakebase_local, 1)
        pool = managers.pool(manager, ann)
        with RequestContext("GET /orders"):
            async with connection(pool) as conn:
                [holder] = pool.holders()
                assert manager.holders()[0].call_site == holder.call_site
                assert (holder.key, holder.request) == (ann, "GET /orders")
                assert holder.resource.split()[0] in {"Connection", "AsyncConnection"}
                assert holder.runner
                assert "password" not in f"{holder!r} {holder}"

                async def waits():
                    async with connection(pool):
                        pass

                waiter = side.go(waits)
                await side.until(lambda: manager.waiters())
                assert [one.key for one in pool.waiters()] == [ann]
                await ask(conn, "select 1")
        await waiter.result()
        assert manager.holders() == manager.waiters() == []


def test_a_routing_pool_tells_of_the_apps_pool(lakebase_local):
    [app] = users(lakebase_local, 1)
    config = lakebase_local.config(user=app, password=f"password of {app}")
    with create_lakebase_pool(config, max_size=1) as pool:
        routing = RoutingPool(pool, lambda _: None)
        with routing.connection() as conn:
            assert isinstance(conn, psycopg.Connection)
            assert routing.holders()[0].call_site.startswith("test_lakebase.py:")
