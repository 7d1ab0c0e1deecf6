"""In a web app: the request and the handler's own line, never a line of the framework."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from pooling import di
from pooling.web.fastapi import Injected, install


class Site(di.Container):
    things = di.AsyncPool(object, max_size=4)
    plain_things = di.Pool(object, max_size=4)
    thing = di.Pooled(things)


def shown(holders):
    return [(holder.request, holder.call_site.partition(" in ")[2]) for holder in holders]


@pytest.fixture
def client():
    app, site = FastAPI(), Site()
    install(app, site)

    @app.get("/injected")
    async def injected(thing=Injected[Site.thing]):
        return shown(site.things().holders())

    @app.get("/lease")
    async def lease():
        async with site.things().lease():
            return shown(site.things().holders())

    @app.get("/thread")
    def thread():
        with site.plain_things().lease():
            return shown(site.plain_things().holders())

    @app.get("/runner")
    async def runner():
        async with site.things().lease():
            return site.things().holders()[0].runner

    with TestClient(app) as client:
        site.things().holders()  # from now on each borrower is recorded
        site.plain_things().holders()
        yield client


@pytest.mark.parametrize(
    ("path", "function"),
    [("/injected", ""), ("/lease", "lease"), ("/thread", "thread")],
)
def test_a_handler_is_named_by_its_request_and_its_own_line(client, path, function):
    for _ in range(2):  # of a resource made for it, and of an idle one
        assert client.get(path).json() == [[f"GET {path}", function]]


def test_the_task_is_named_too(client):
    assert client.get("/runner").json().startswith("task ")
