"""No secret is in anything that is printed, logged, raised or reported, in success and in failure."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import logging
import pprint
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, is_dataclass
from typing import Any

import psycopg
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from lakebase import (
    AsyncLakebasePoolManager,
    LakebasePoolManager,
    RoutingPool,
    UserIdentity,
    create_lakebase_pool,
)
from pooling import PoolObserver, RequestContext, telemetry
from pooling.telemetry.prometheus import PoolCollector
from pooling.web.dashboard import WsgiDashboard
from tests.telemetry.test_otel import Seen


class Everything(PoolObserver):
    """Writes down every event."""

    def __init__(self, out: io.StringIO) -> None:
        for name in dir(PoolObserver):
            if name.startswith("on_"):
                setattr(self, name, lambda event, name=name: out.write(f"{name} {event} {event!r} {event.error!r}\n"))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """All that is written to the log at debug level, to stdout and to stderr."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("%(name)s %(message)s %(args)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    monkeypatch.setenv("DATABRICKS_DEBUG_HEADERS", "true")
    monkeypatch.setenv("DATABRICKS_DEBUG_TRUNCATE_BYTES", "100000")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            yield out
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


@pytest.fixture
def exported() -> Iterator[Callable[[], str]]:
    """What exporters of metrics and traces show, with each user's key as it is."""
    registry = CollectorRegistry()
    collector = PoolCollector(registry, keys="plain")
    try:
        with Seen(slow=0, keys="plain") as seen:

            def export() -> str:
                spans = [span.to_json() for span in seen.exporter.get_finished_spans()]
                assert {"pooling.acquire", "pooling.create", "lakebase.login"} <= {
                    span.name for span in seen.exporter.get_finished_spans()
                }
                return "\n".join([generate_latest(registry).decode(), str(seen.metrics()), *spans])

            yield export
    finally:
        collector.close()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The credentials minted in the test, as the SDK returned them."""
    from lakebase import credentials as credentials_module

    minted: list[str] = []
    mint = credentials_module.mint

    def watched(*arguments: Any, **keywords: Any) -> Any:
        token, expires_at = mint(*arguments, **keywords)
        minted.append(token)
        return token, expires_at

    monkeypatch.setattr(credentials_module, "mint", watched)
    return minted


def show(out: io.StringIO, *things: object) -> None:
    for thing in things:
        out.write(f"{thing} {thing!r} {pprint.pformat(thing)}\n")
        if is_dataclass(thing) and not isinstance(thing, type) and not isinstance(thing, UserIdentity):
            with contextlib.suppress(TypeError):  # what cannot be copied
                out.write(f"{asdict(thing)}\n")


def look_at(out: io.StringIO, page: WsgiDashboard) -> None:
    """Write down the live page and all of its data."""
    for path in ("/", "/pools.json", "/events"):
        answer = page({"REQUEST_METHOD": "GET", "PATH_INFO": path}, lambda *_: None)
        out.write(b"".join(answer).decode())


def failing(out: io.StringIO, action: Any) -> None:
    try:
        action()
    except Exception as error:
        out.write("".join(traceback.format_exception(error)))
        logging.getLogger("app").exception("failed: %r", error)
        show(out, error, error.__cause__)
    else:
        raise AssertionError("that was to fail")


def assert_clean(out: io.StringIO, secrets: list[str]) -> None:
    text = out.getvalue()
    assert len(text) > 10_000
    for secret in secrets:
        assert len(secret) > 8
        for part in (secret, secret[:14], secret[-14:]):
            assert part not in text, text[max(text.index(part) - 300, 0) : text.index(part) + 60]


def test_a_blocking_app_shows_no_secret(
    lakebase_user, written: io.StringIO, exported: Callable[[], str], credentials: list[str]
) -> None:
    lake, identity = lakebase_user.lake, UserIdentity.from_headers(lakebase_user.headers)
    old_token = lakebase_user.token
    observer = Everything(written)
    page = WsgiDashboard(lambda environ: True, show_keys=True, interval=0.1)
    base = lake.config(lakebase_user.name, max_size=2)
    with create_lakebase_pool(base, observer=observer, name="app") as app_pool:
        manager = LakebasePoolManager(base)
        routing = RoutingPool(app_pool, manager.for_user)
        with RequestContext(identity=identity) as context, routing.connection() as connection:
            connection.execute("SELECT 1")
            show(written, manager.holders(), routing.holders(), telemetry.snapshot(per_key=True))
            show(written, context, connection, connection.info.get_parameters(), connection.info.dsn)
            look_at(written, page)
        with app_pool.connection() as connection:
            connection.execute("SELECT 1")
            failing(written, lambda: connection.execute("SELEC"))
        lake.expire_tokens(lakebase_user.name)
        lake.drop_connections(lakebase_user.name)
        with app_pool.connection() as connection:
            connection.execute("SELECT 1")
        rotated = UserIdentity(lakebase_user.name, lake.add_user(lakebase_user.name))
        manager.for_user(rotated).close()
        for user_pool in (app_pool, manager.for_user(identity)):
            show(
                written,
                user_pool,
                user_pool.config,
                user_pool.get_stats(),
                user_pool.service,
                user_pool.service.stats(),
            )
        show(written, identity, rotated, manager, manager.stats(), base, routing, app_pool.kwargs)
        with lake.too_many_connections():
            failing(written, lambda: create_lakebase_pool(base, timeout=0.3, name="full").getconn())
        lake.revoke(lakebase_user.name)
        lake.drop_connections(lakebase_user.name)
        failing(written, lambda: create_lakebase_pool(base, name="revoked").getconn())
        look_at(written, page)
        manager.close_all()
    native = create_lakebase_pool(lake.config("nobody", password="n4tive-s3cret-password"))
    failing(written, native.getconn)
    show(written, native, native.config, native.kwargs)
    native.close()
    gc.collect()
    written.write(exported())
    assert len(credentials) >= 3
    assert_clean(written, [old_token, rotated.token or "", *credentials, "n4tive-s3cret-password"])


def test_an_asyncio_app_shows_no_secret(
    lakebase_user, written: io.StringIO, exported: Callable[[], str], credentials: list[str]
) -> None:
    lake, identity = lakebase_user.lake, UserIdentity.from_headers(lakebase_user.headers)
    token = lakebase_user.token

    async def app() -> None:
        asyncio.get_running_loop().set_debug(True)
        manager = AsyncLakebasePoolManager(lake.config(max_size=1))
        pool = manager.for_user(identity)
        async with pool.connection() as connection:
            await connection.execute("SELECT 1")
            show(written, pool, pool.get_stats(), manager.stats(), connection, *asyncio.all_tasks())
        lake.revoke(lakebase_user.name)
        lake.drop_connections(lakebase_user.name)
        try:
            async with pool.connection():
                pass
        except psycopg.OperationalError as error:
            written.write("".join(traceback.format_exception(error)))
            logging.getLogger("app").exception("failed")
        await manager.close_all()

    asyncio.run(app(), debug=True)
    written.write(exported())
    assert credentials
    assert_clean(written, [token, *credentials])
