"""Litestar: the plugin."""

from __future__ import annotations

import httpx

from pooling import RequestContext
from tests.web.apps import CallSite
from tests.web.servers import Uvicorn, eventually


def test_litestar_serves_requests_of_the_container():
    import litestar

    from pooling.web.litestar import PoolingPlugin

    container = CallSite()

    @litestar.get("/")
    async def home() -> str:
        thing = await container.thing.aget()
        return f"{thing.is_out} {RequestContext.current()['user']}"

    @litestar.get("/error")
    async def error() -> str:
        await container.thing.aget()
        raise LookupError("in the handler")

    @litestar.get("/missing")
    async def missing() -> str:
        await container.thing.aget()
        raise litestar.exceptions.NotFoundException("raised")

    app = litestar.Litestar(
        [home, error, missing], plugins=[PoolingPlugin(container, values=lambda scope: {"user": "ann"})]
    )
    with Uvicorn(app) as server:
        assert httpx.get(server.url).text == "True ann"
        assert httpx.get(server.url + "/error").status_code == 500
        assert httpx.get(server.url + "/missing").status_code == 404
        eventually(lambda: container.things().borrowed == 0)
        errors = [LookupError, litestar.exceptions.NotFoundException]
        assert [type(end) for end in container.factory().ends] == [type(None), *errors]
    assert not container.is_running
