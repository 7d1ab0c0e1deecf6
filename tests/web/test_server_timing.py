"""The `Server-Timing` header, in each framework."""

from __future__ import annotations

import re

import pytest

from pooling import ConfigurationError, PoolFactory, di
from pooling.web import asgi, wsgi


class Things(PoolFactory):
    """Has a checkpoint, and neither acquire nor release hook."""

    def create(self):
        return []

    def checkpoint(self, value):
        value.append("made durable")


class Site(di.Container):
    things = di.Pool(Things(), max_size=1, inline_hooks=True)
    thing = di.Pooled(things)


class AsyncSite(di.Container):
    things = di.AsyncPool(Things(), max_size=1)
    thing = di.Pooled(things)


def parts(header: str | None) -> dict[str, float]:
    """The header as durations by name."""
    assert header, "there is no Server-Timing header"
    assert re.fullmatch(r"\w+;dur=\d+\.\d(, \w+;dur=\d+\.\d)*", header), header
    return {name: float(duration) for name, duration in re.findall(r"(\w+);dur=([\d.]+)", header)}


def check(get, *, has_checkpoint=True):
    """The first request waits for a create, the second takes what is idle."""
    first, second = parts(get()), parts(get())
    assert list(first) == ["pool", "create", *(["checkpoint"] if has_checkpoint else [])]
    assert first["pool"] >= first["create"] >= 0
    assert list(second) == ["pool", *(["checkpoint"] if has_checkpoint else [])]
    assert second["pool"] == 0.0, "nothing was waited for"


def test_fastapi_and_starlette():
    from fastapi import FastAPI
    from starlette.testclient import TestClient

    from pooling.web.fastapi import Injected, install

    app = FastAPI()
    install(app, AsyncSite(), server_timing=True)

    @app.get("/")
    async def home(thing=Injected[AsyncSite.thing]):
        return len(thing)

    with TestClient(app) as client:
        check(lambda: client.get("/").headers.get("server-timing"))


def test_litestar():
    from litestar import Litestar, get
    from litestar.testing import TestClient

    from pooling.web.litestar import PoolingPlugin

    container = AsyncSite()

    @get("/")
    async def home() -> str:
        return str(len(await container.thing.aget()))

    with TestClient(Litestar([home], plugins=[PoolingPlugin(container, server_timing=True)])) as client:
        check(lambda: client.get("/").headers.get("server-timing"))


def test_flask():
    from flask import Flask

    from pooling.web.flask import Pooling

    app, container = Flask(__name__), Site()
    Pooling(app, container, server_timing=True)

    @app.get("/")
    @di.inject
    def home(thing=di.Inject[Site.thing]):
        return str(len(thing))

    with container.running():
        check(lambda: app.test_client().get("/").headers.get("Server-Timing"))


def test_django():
    from django.test import Client

    from tests.web import django_site

    container = django_site.threads
    django_site.configure(container, SERVER_TIMING=True)
    try:
        with container.running():
            found = parts(Client().get("/plain").headers.get("Server-Timing"))
            assert {"pool", "create"} <= found.keys()
    finally:
        django_site.configure(container)


async def test_plain_asgi_without_the_option_has_no_header_and_with_it_keeps_the_others():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"server-timing", b"app;dur=1.0")]})
        await send({"type": "http.response.body", "body": b""})

    async def headers_of(**options):
        sent = []

        async def send(message):
            sent.append(message)

        middleware = asgi.RequestContextMiddleware(app, **options)
        await middleware({"type": "http", "method": "GET", "path": "/", "headers": []}, None, send)
        return [value for name, value in sent[0]["headers"] if name == b"server-timing"]

    assert await headers_of() == [b"app;dur=1.0"]
    assert await headers_of(server_timing=True) == [b"app;dur=1.0", b"pool;dur=0.0"]


def test_plain_wsgi_shows_what_is_known_when_the_headers_go_out():
    container = Site()

    @di.inject
    def app(environ, start_response, thing=di.Inject[Site.thing]):
        start_response("200 OK", [])
        return [b"ok"]

    served = wsgi.RequestContextMiddleware(app, container, server_timing=True)

    def get():
        started = []
        body = served({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, lambda *answer: started.append(answer))
        list(body)
        body.close()
        return dict(started[0][1]).get("Server-Timing")

    with container.running():
        check(get, has_checkpoint=False)


@pytest.mark.parametrize("wrong", [1, "yes", None])
def test_another_value_than_true_or_false_is_refused(wrong):
    for kind in (asgi.RequestContextMiddleware, wsgi.RequestContextMiddleware):
        with pytest.raises(ConfigurationError, match="server_timing"):
            kind(lambda *_: None, server_timing=wrong)
