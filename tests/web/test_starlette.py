"""Starlette: a container that runs as long as the app, and a request for each connection."""

from __future__ import annotations

import httpx
import pytest
from fastapi.responses import StreamingResponse
from starlette.applications import Starlette
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from pooling import PoolFactory, di
from pooling.web import asgi, starlette
from tests.web.apps import CallSite, Repo, SlowSite
from tests.web.servers import Uvicorn, eventually


@pytest.mark.parametrize("release", ["end", "response"])
def test_a_release_hook_is_not_cut_short_by_a_framework_that_is_done_with_the_response(release):
    container = SlowSite()

    async def stream(request):
        await container.thing.aget()

        async def body():
            yield b"all"

        return StreamingResponse(body())

    app = Starlette(routes=[Route("/", stream)])
    served = asgi.ContainerLifespan(asgi.RequestContextMiddleware(app, container, release=release), container)
    with Uvicorn(served) as server:
        for _ in range(5):
            assert httpx.get(server.url, timeout=30).text == "all"
        eventually(lambda: len(container.factory().ends) == 10)
        assert container.factory().ends == [None, "released"] * 5
        assert container.things().stats().created == 1


def test_starlettes_lifespan_runs_the_container_around_the_apps_own():
    container, log = CallSite(), []

    class Inner:
        def __init__(self, app):
            pass

        async def __aenter__(self):
            log.append(f"up running={container.is_running}")
            return {"state": 1}

        async def __aexit__(self, *_):
            log.append(f"down running={container.is_running}")

    @di.inject
    async def home(request, repo: Repo = di.Inject[CallSite.repo]):
        return PlainTextResponse(
            f"{repo.thing.is_out} {request.state.state} {request.app.state.container is container}"
        )

    app = Starlette(routes=[Route("/", home)], lifespan=starlette.lifespan(container, Inner))
    app.add_middleware(starlette.RequestContextMiddleware, container=container)
    with Uvicorn(app) as server:
        assert httpx.get(server.url).text == "True 1 True"
    assert log == ["up running=True", "down running=True"]
    assert not container.is_running


@pytest.mark.parametrize("own", [True, False])
def test_starlette_can_be_given_its_container_with_all_that_belongs_to_it(own):
    container = CallSite()

    @di.inject
    async def home(request, repo: Repo = di.Inject[CallSite.repo]):
        if "status" in request.query_params:
            raise StarletteHTTPException(int(request.query_params["status"]), "raised")
        return PlainTextResponse(str(repo.thing.is_out))

    async def mine(request, error):
        return PlainTextResponse("mine", 400)

    app = Starlette(routes=[Route("/", home)])
    starlette.install(app, container)
    if own:
        app.add_exception_handler(StarletteHTTPException, mine)
    with Uvicorn(app) as server:
        assert httpx.get(server.url).text == "True"
        assert httpx.get(server.url + "/nowhere").status_code == (400 if own else 404)
        assert httpx.get(server.url + "?status=404").text == ("mine" if own else "raised")
        eventually(lambda: container.things().borrowed == 0)
        assert [type(end) for end in container.factory().ends] == [type(None), StarletteHTTPException]
    assert not container.is_running


@pytest.mark.parametrize("error", [TimeoutError("at commit"), LookupError("at commit")])
@pytest.mark.parametrize("is_streamed", [True, False])
def test_a_checkpoint_that_fails_is_answered_whatever_the_error_is_taken_for(error, is_streamed):
    """A framework takes an `OSError` of a stream for a client that has disconnected, and keeps silent."""

    async def fail(value):
        raise error

    class Site(di.Container):
        things = di.AsyncPool(PoolFactory.of(object, checkpoint=fail))
        thing = di.Pooled(things)

    container, answered = Site(), []

    async def home(request):
        await container.thing.aget()
        return StreamingResponse(iter([b"never"])) if is_streamed else PlainTextResponse("never")

    async def failed(request, error):
        answered.append(error)
        return PlainTextResponse("mine", 500)

    app = Starlette(routes=[Route("/", home)], exception_handlers={500: failed})
    starlette.install(app, container)
    with Uvicorn(app) as server:
        answer = httpx.get(server.url)
        assert (answer.status_code, answer.text) == (500, "mine")
        eventually(lambda: container.things().borrowed == 0)
    assert answered == [error]
