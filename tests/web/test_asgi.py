"""The ASGI middleware and lifespan under a real server."""

from __future__ import annotations

import asyncio
import threading
from typing import Annotated

import anyio
import httpx
import pytest
from dependency_injector import providers
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, WebSocket, WebSocketException
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.applications import Starlette
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from pooling import ConfigurationError, PoolFactory, RequestContext, di
from pooling.web import asgi, starlette
from pooling.web.fastapi import CurrentRequest, Injected, install
from pooling.web.outcome import ResponseError
from tests.web.apps import CallSite, Ends, Repo, Thing, ThreadSite
from tests.web.servers import Uvicorn, eventually


class AnsweredInLoopError(Exception):
    pass


class AnsweredInThreadError(Exception):
    pass


class CodedError(AnsweredInLoopError):
    """Its code is none of HTTP's."""

    code = status_code = 304


class Served:
    """A FastAPI app with its container, and what its handlers wait for."""

    def __init__(self, **middleware) -> None:
        self.container = CallSite()
        self.app = FastAPI()
        self.log: list[str] = []
        self.inside = threading.Event()
        self.go = threading.Event()
        install(self.app, self.container, values=lambda scope: {"user": asgi.headers(scope).get("x-user")})
        add_routes(self)

    @property
    def pool(self):
        return self.container.things()

    @property
    def ends(self):
        return self.container.factory().ends

    async def gate(self) -> None:
        """Wait until the test lets go, without blocking the loop."""
        self.inside.set()
        await asyncio.to_thread(self.go.wait, 30)


def add_routes(served: Served) -> None:
    app = served.app

    @app.get("/plain")
    @di.inject
    async def plain(repo: Repo = di.Inject[CallSite.repo], other: Repo = di.Inject[CallSite.repo]):
        return {"same": repo.thing is other.thing, "out": repo.thing.is_out, "borrowed": served.pool.borrowed}

    @app.get("/annotated/{item}")
    @di.inject
    async def annotated(item: int, repo: Annotated[Repo, di.Inject(CallSite.repo)], q: str = "none"):
        return {"item": item, "q": q, "out": repo.thing.is_out}

    @app.get("/depends")
    async def depends(
        repo: Annotated[Repo, Depends(di.Inject[CallSite.repo])],
        short: Annotated[Repo, Injected[CallSite.repo]],
        ctx: Annotated[RequestContext, CurrentRequest],
    ):
        return {
            "same": repo.thing is short.thing,
            "threads": {repo.made_in, short.made_in, threading.current_thread().name},
            "user": ctx["user"],
            "name": ctx.name,
        }

    @app.get("/error")
    @di.inject
    async def error(repo: Repo = di.Inject[CallSite.repo]):
        raise LookupError("in the handler")

    @app.get("/http-error/{status}")
    @di.inject
    async def http_error(status: int, repo: Repo = di.Inject[CallSite.repo]):
        raise HTTPException(status, headers={"location": "/plain"})

    @app.get("/answered/{kind}")
    async def answered(kind: str, repo: Annotated[Repo, Injected[CallSite.repo]]):
        raise {"async": AnsweredInLoopError, "plain": AnsweredInThreadError}[kind]("in the handler")

    @app.exception_handler(AnsweredInLoopError)
    async def in_loop(request, error):
        return JSONResponse({}, 409)

    @app.exception_handler(AnsweredInThreadError)
    def in_thread(request, error):
        return JSONResponse({"thread": threading.current_thread().name}, 409)

    @app.get("/status/{status}")
    async def status(status: int, repo: Annotated[Repo, Injected[CallSite.repo]]):
        return JSONResponse({}, status)

    @app.get("/number/{number}")
    async def number(number: int, repo: Annotated[Repo, Injected[CallSite.repo]]):
        return number

    @app.get("/waiting")
    async def waiting(repo: Annotated[Repo, Injected[CallSite.repo]]):
        async def body():
            yield b"first"
            served.inside.set()
            await asyncio.Event().wait()  # in the middle of something when the client goes

        return StreamingResponse(body())

    @app.get("/stream")
    @di.inject
    async def stream(repo: Repo = di.Inject[CallSite.repo]):
        async def body():
            for _ in range(3):
                await asyncio.sleep(0)
                yield f"{repo.thing.is_out} {RequestContext.current() is not None}\n"

        return StreamingResponse(body())

    @app.get("/endless")
    @di.inject
    async def endless(repo: Repo = di.Inject[CallSite.repo]):
        async def body():
            try:
                while True:
                    yield b"x" * 65536
                    await asyncio.sleep(0)
            finally:
                served.log.append(f"out={repo.thing.is_out}")

        return StreamingResponse(body())

    @app.get("/background")
    @di.inject
    async def background(tasks: BackgroundTasks, repo: Repo = di.Inject[CallSite.repo]):
        async def later():
            await served.gate()
            served.log.append(f"out={repo.thing.is_out} same={(await again()).thing is repo.thing}")

        tasks.add_task(later)
        return {}

    @di.inject
    async def again(repo: Repo = di.Inject[CallSite.repo]):
        return repo

    @app.get("/slow")
    @di.inject
    async def slow(repo: Repo = di.Inject[CallSite.repo]):
        await served.gate()
        served.log.append(f"out={repo.thing.is_out}")
        return {}

    @di.inject
    async def opened(repo: Repo = di.Inject[CallSite.repo]):
        yield repo
        served.log.append(f"after: out={repo.thing.is_out}")

    @app.get("/yield")
    async def with_yield(repo: Repo = Depends(opened)):  # noqa: B008 - as its users write it
        return {"out": repo.thing.is_out}

    @app.websocket("/ws")
    @di.inject
    async def websocket(ws: WebSocket, repo: Repo = di.Inject[CallSite.repo]):
        await ws.accept()
        async for text in ws.iter_text():
            await ws.send_text(f"{text} {repo.thing.is_out} {served.pool.borrowed}")

    @app.websocket("/ws-loop")
    @di.inject
    async def endless_websocket(ws: WebSocket, repo: Repo = di.Inject[CallSite.repo]):
        await ws.accept()
        while True:
            if await ws.receive_text() == "forbidden":
                raise WebSocketException(1008, "policy")

    @app.get("/invalid")
    async def invalid(repo: Annotated[Repo, Injected[CallSite.repo]]):
        raise RequestValidationError([{"loc": ["body", "name"], "msg": "taken", "type": "value_error"}])

    @app.get("/not-modified")
    async def not_modified(repo: Annotated[Repo, Injected[CallSite.repo]]):
        raise CodedError


@pytest.fixture
def served():
    return Served()


@pytest.fixture
def server(served):
    with Uvicorn(served.app) as server:
        yield server


@pytest.fixture
def client(server):
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def nothing_is_out(served):
    eventually(lambda: served.pool.borrowed == 0)


def test_a_handler_has_one_value_for_all_its_services_and_it_goes_back(served, client):
    for _ in range(3):
        assert client.get("/plain").json() == {"same": True, "out": True, "borrowed": 1}
    nothing_is_out(served)
    eventually(lambda: served.ends == [None] * 3)
    assert served.pool.stats().created == 1


def test_annotated_arguments_stand_among_those_of_the_framework(served, client):
    assert client.get("/annotated/3", params={"q": "x"}).json() == {"item": 3, "q": "x", "out": True}
    nothing_is_out(served)


def test_the_marker_is_neither_in_the_schema_nor_asked_of_the_client(served, client):
    schema = client.get("/openapi.json").json()
    names = {
        parameter["name"]
        for path in schema["paths"].values()
        for operation in path.values()
        for parameter in operation.get("parameters", ())
    }
    assert names == {"item", "q", "status", "kind", "number"}
    assert not any("requestBody" in operation for path in schema["paths"].values() for operation in path.values())


def test_depends_runs_in_the_loop_and_sees_the_requests_values(served, client):
    answer = client.get("/depends", headers={"x-user": "ann"}).json()
    assert len(answer.pop("threads")) == 1  # no hop to a thread of the framework's pool
    assert answer == {"same": True, "user": "ann", "name": "GET /depends"}
    nothing_is_out(served)


def test_an_error_in_a_handler_gives_back_and_is_seen_by_the_release_hook(served, client):
    assert client.get("/error").status_code == 500
    nothing_is_out(served)
    assert [str(end) for end in served.ends] == ["in the handler"]


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_an_error_that_an_exception_handler_answers_is_seen_by_the_release_hook(served, client, kind):
    answer = client.get(f"/answered/{kind}")
    assert answer.status_code == 409
    if kind == "plain":
        assert "AnyIO" in answer.json()["thread"]  # it runs where it would have
    nothing_is_out(served)
    assert [str(end) for end in served.ends] == ["in the handler"]


@pytest.mark.parametrize("status", [404, 503])
def test_an_http_error_is_answered_and_seen_by_the_release_hook(served, client, status):
    assert client.get(f"/http-error/{status}").status_code == status
    nothing_is_out(served)
    assert [end.status_code for end in served.ends] == [status]


def test_a_redirect_that_is_raised_is_an_answer(served, client):
    assert client.get("/http-error/303", follow_redirects=False).status_code == 303
    nothing_is_out(served)
    assert served.ends == [None]


def test_a_request_that_is_refused_before_its_handler_begins_is_no_error(served, client):
    assert client.get("/number/x").status_code == 422
    nothing_is_out(served)
    assert set(served.ends) <= {None}


@pytest.mark.parametrize(("status", "is_error"), [(200, False), (404, False), (500, True), (503, True)])
def test_an_answer_of_500_or_more_is_an_error(served, client, status, is_error):
    assert client.get(f"/status/{status}").status_code == status
    nothing_is_out(served)
    (end,) = served.ends
    assert (str(end) == f"request 'GET /status/{status}' was answered with status {status}") is is_error


def test_a_streamed_body_keeps_its_value_until_its_last_part(served, client):
    assert client.get("/stream").text == "True True\n" * 3
    nothing_is_out(served)
    assert served.ends == [None]


def test_a_background_task_keeps_its_value_until_it_is_done(served, client):
    assert client.get("/background").status_code == 200
    assert served.inside.wait(30)
    assert served.pool.borrowed == 1
    served.go.set()
    nothing_is_out(served)
    assert served.log == ["out=True same=True"]
    assert served.pool.stats().acquired == 1


def test_a_yield_dependency_still_has_its_value_when_it_exits(served, client):
    assert client.get("/yield").json() == {"out": True}
    nothing_is_out(served)
    assert served.log == ["after: out=True"]


def test_a_websocket_keeps_its_value_until_it_closes(served, server):
    with connect(f"ws://127.0.0.1:{server.port}/ws") as ws:
        for text in ("a", "b"):
            ws.send(text)
            assert ws.recv() == f"{text} True 1"
        assert served.pool.borrowed == 1
    nothing_is_out(served)
    assert served.pool.stats().acquired == 1


def test_a_websocket_whose_client_leaves_in_good_order_is_no_error(served, server):
    with connect(f"ws://127.0.0.1:{server.port}/ws-loop") as ws:
        ws.send("anything")
    nothing_is_out(served)
    assert served.ends == [None]


def test_a_websocket_that_its_handler_refuses_is_an_error(served, server):
    with connect(f"ws://127.0.0.1:{server.port}/ws-loop") as ws, pytest.raises(ConnectionClosed, match="policy"):
        ws.send("forbidden")
        ws.recv()
    nothing_is_out(served)
    assert [type(end) for end in served.ends] == [WebSocketException]


def test_an_error_that_a_handler_raises_is_one_whatever_it_looks_like(served, client):
    assert client.get("/invalid").status_code == 422
    assert client.get("/not-modified").status_code == 409
    nothing_is_out(served)
    assert [type(end) for end in served.ends] == [RequestValidationError, CodedError]


def test_a_head_is_answered_without_a_body_and_no_error(served, client):
    @served.app.head("/stream-head")
    async def head(repo: Annotated[Repo, Injected[CallSite.repo]]):
        async def body():
            yield b"one"
            await asyncio.sleep(0)
            await asyncio.Event().wait()  # until the client has gone, which wants no body

        return StreamingResponse(body())

    assert client.head("/stream-head").status_code == 200
    client.close()
    nothing_is_out(served)
    assert served.ends == [None]


@pytest.mark.parametrize("is_outside", [True, False])
def test_a_middleware_that_ends_a_cut_response_does_not_hide_that(is_outside):
    container, app = CallSite(), FastAPI()

    async def passes_on(request, call_next):
        return await call_next(request)

    if not is_outside:
        app.middleware("http")(passes_on)
    install(app, container)
    if is_outside:
        app.middleware("http")(passes_on)
    inside = threading.Event()

    @app.get("/waiting")
    async def waiting(repo: Annotated[Repo, Injected[CallSite.repo]]):
        async def body():
            yield b"first"
            inside.set()
            await asyncio.Event().wait()

        return StreamingResponse(body())

    with Uvicorn(app) as server, httpx.stream("GET", f"{server.url}/waiting", timeout=30) as response:
        next(response.iter_raw())
        assert inside.wait(30)
        response.close()
        eventually(lambda: container.things().borrowed == 0)
        assert [type(end) for end in container.factory().ends] == [ResponseError]


class Slow(Ends):
    """Takes its time to release, and notes whether it came to the end of it."""

    async def release(self, value, exc=None):
        super().release(value, exc)
        await asyncio.sleep(0.01)  # sleeps: long enough for a cancellation to come in between
        self.ends.append("released")


class SlowSite(di.Container):
    factory = providers.Singleton(Slow)
    things = di.AsyncPool(factory)
    thing = di.Pooled(things)


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


async def test_who_cancels_again_and_again_is_let_go_and_the_release_goes_on():
    container = SlowSite()

    async def app(scope, receive, send):
        await container.thing.aget()
        await asyncio.Event().wait()

    async with container.running():
        with anyio.move_on_after(0.01):
            await call(asgi.RequestContextMiddleware(app, container))
        while len(container.factory().ends) < 2:
            await asyncio.sleep(0)
        assert container.factory().ends[1:] == ["released"]
        assert container.things().stats().destroyed == 0


async def test_a_client_gone_after_all_bytes_that_were_told_has_the_whole_response():
    async def app(scope, receive, send):
        await container.thing.aget()
        headers = [(b"content-length", b"%d" % scope["told"])]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"all", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        pass

    async with CallSite().running() as container:
        wrapped = asgi.RequestContextMiddleware(app, container)
        for told in (3, 4):
            await wrapped({"type": "http", "method": "GET", "path": "/", "told": told}, receive, send)
        assert [type(end) for end in container.factory().ends] == [type(None), ResponseError]


def test_a_client_gone_in_the_middle_of_a_stream_gives_back(served, client):
    with client.stream("GET", "/endless") as response:
        parts = response.iter_raw()
        next(parts)
        assert served.pool.borrowed == 1
    nothing_is_out(served)
    assert served.log == ["out=True"]


def test_a_client_gone_in_the_middle_of_something_ends_the_request_with_an_error(served, client):
    with client.stream("GET", "/waiting") as response:
        next(response.iter_raw())
        assert served.inside.wait(30)
    nothing_is_out(served)
    (end,) = served.ends
    assert isinstance(end, ResponseError)
    assert "was not sent to its end" in str(end)


def test_a_client_gone_while_the_handler_works_gives_back_when_it_ends(served, server):
    with httpx.Client(base_url=server.url) as client, pytest.raises(httpx.ReadTimeout):
        client.get("/slow", timeout=httpx.Timeout(30, read=0.05))
    assert served.inside.wait(30)
    served.go.set()
    nothing_is_out(served)
    eventually(lambda: served.log == ["out=True"])


def test_a_plain_handler_in_a_thread_takes_from_a_pool_for_threads():
    container, app = ThreadSite(), FastAPI()
    install(app, container)

    @app.get("/")
    @di.inject
    def handler(repo: Repo = di.Inject[ThreadSite.repo]):
        return {"out": repo.thing.is_out, "thread": threading.current_thread().name}

    with Uvicorn(app) as server:
        answer = httpx.get(server.url).json()
        assert answer["out"]
        assert "AnyIO" in answer["thread"]
        eventually(lambda: container.things().borrowed == 0)
        assert container.factory().ends == [None]


def test_many_requests_at_once_share_few_resources(served, server):
    async def main():
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            return await asyncio.gather(*(client.get("/plain") for _ in range(60)))

    answers = asyncio.run(main())
    assert all(answer.json()["same"] and answer.json()["borrowed"] <= 4 for answer in answers)
    nothing_is_out(served)
    assert served.pool.stats().acquired == 60


def test_the_container_runs_as_long_as_the_server(served):
    with Uvicorn(served.app) as server, httpx.Client(base_url=server.url) as client:
        client.get("/plain")
        assert served.container.is_running
        pool = served.pool
    assert not served.container.is_running
    assert not pool.is_running
    assert pool.size == 0


def test_a_server_shut_down_with_a_request_under_way_lets_it_end_and_leaves_nothing_out(served):
    with Uvicorn(served.app) as server:
        answers = []
        thread = threading.Thread(target=lambda: answers.append(httpx.get(server.url + "/slow", timeout=30)))
        thread.start()
        assert served.inside.wait(30)
        server.server.should_exit = True
        served.go.set()
        thread.join(30)
    assert answers[0].status_code == 200
    assert served.log == ["out=True"]
    assert served.ends == [None]
    assert served.pool.size == 0


# --- without a framework ---------------------------------------------------------------------------------------------


async def call(app, path="/", kind="http", **scope):
    """Call an ASGI app; what it sent."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    await app({"type": kind, "method": "GET", "path": path, "headers": [], **scope}, receive, send)
    return sent


async def answer(send, body=b"", more=False):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def test_a_cancelled_app_gives_back_and_tells_the_release_hook():
    ready = asyncio.Event()

    async def app(scope, receive, send):
        await container.thing.aget()
        ready.set()
        await asyncio.Event().wait()

    async with CallSite().running() as container:
        task = asyncio.create_task(call(asgi.RequestContextMiddleware(app, container)))
        await ready.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert container.things().borrowed == 0
        assert isinstance(container.factory().ends[0], asyncio.CancelledError)


async def test_release_after_the_response_does_not_wait_for_what_follows():
    async def app(scope, receive, send):
        await container.thing.aget()
        await answer(send, b"first", more=True)
        assert container.things().borrowed == 1
        await send({"type": "http.response.body", "body": b"last"})
        assert container.things().borrowed == 0
        assert RequestContext.current().is_closed

    async with CallSite().running() as container:
        await call(asgi.RequestContextMiddleware(app, container, release="response"))


async def test_values_may_come_from_a_coroutine_and_their_error_reaches_the_server():
    async def values(scope):
        await asyncio.sleep(0)
        if scope["path"] == "/secret":
            raise PermissionError("no token")
        return {"path": scope["path"]}

    async def app(scope, receive, send):
        assert RequestContext.current()["path"] == "/open"
        await answer(send)

    wrapped = asgi.RequestContextMiddleware(app, values=values)
    assert len(await call(wrapped, "/open")) == 2
    with pytest.raises(PermissionError):
        await call(wrapped, "/secret")


async def test_values_may_have_any_name():
    async def app(scope, receive, send):
        ctx = RequestContext.current()
        assert (ctx["name"], ctx["parent"], ctx.name) == ("ann", "bob", "GET /")
        await answer(send)

    await call(asgi.RequestContextMiddleware(app, values=lambda scope: {"name": "ann", "parent": "bob"}))


@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "http.response.body", "body": b"all"}],
        [{"type": "http.response.body", "body": b"a", "more_body": True}, {"type": "http.response.body"}],
        [{"type": "http.response.pathsend", "path": "/file"}],
        [{"type": "http.response.zerocopysend", "file": 3, "more_body": True}, {"type": "http.response.zerocopysend"}],
    ],
)
@pytest.mark.parametrize("release", ["end", "response"])
async def test_a_response_sent_whole_is_no_error_and_one_cut_short_is(messages, release):
    sent: list[dict] = []

    async def app(scope, receive, send):
        await container.thing.aget()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for message in sent:
            await send(message)

    async with CallSite().running() as container:
        wrapped = asgi.RequestContextMiddleware(app, container, release=release)
        for message in [*messages, None]:
            await call(wrapped)
            sent.append(message)
        ends = container.factory().ends
        assert [type(end) for end in ends] == [*[ResponseError] * len(messages), type(None)]
        assert container.things().borrowed == 0


async def test_an_app_that_begins_no_response_is_left_to_its_server():
    async def app(scope, receive, send):
        await container.thing.aget()

    async with CallSite().running() as container:
        await call(asgi.RequestContextMiddleware(app, container))
        assert container.factory().ends == [None]


async def test_what_is_neither_http_nor_websocket_passes_through():
    async def app(scope, receive, send):
        assert RequestContext.current() is None

    await call(asgi.RequestContextMiddleware(app), kind="lifespan")


def test_an_unknown_moment_of_release_is_refused():
    with pytest.raises(ConfigurationError, match="release='never'"):
        asgi.RequestContextMiddleware(None, release="never")


def test_headers_are_lower_case_and_repeated_ones_are_joined():
    scope = {"headers": [(b"X-User", b"ann"), (b"accept", b"a"), (b"Accept", b"b")]}
    assert asgi.headers(scope) == {"x-user": "ann", "accept": "a, b"}


@pytest.mark.parametrize("has_lifespan", [True, False])
def test_the_asgi_lifespan_runs_a_container_around_any_app(has_lifespan):
    container, log = CallSite(), []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            if not has_lifespan:
                raise NotImplementedError
            assert (await receive())["type"] == "lifespan.startup"
            log.append(f"startup running={container.is_running}")
            await send({"type": "lifespan.startup.complete"})
            assert (await receive())["type"] == "lifespan.shutdown"
            log.append(f"shutdown running={container.is_running}")
            await send({"type": "lifespan.shutdown.complete"})
            return
        thing = await container.thing.aget()
        await answer(send, str(thing.is_out).encode())

    served = asgi.ContainerLifespan(asgi.RequestContextMiddleware(app, container), container)
    with Uvicorn(served, lifespan="on") as server:
        assert httpx.get(server.url).text == "True"
    assert log == (["startup running=True", "shutdown running=True"] if has_lifespan else [])
    assert not container.is_running
    assert container.things().size == 0


def test_a_container_that_cannot_start_keeps_the_server_from_starting():
    class Broken(di.Container):
        service = di.Managed(Thing, start=lambda thing: 1 / 0)

    container = Broken()
    server = Uvicorn(asgi.ContainerLifespan(Starlette(), container), lifespan="on")
    with server:
        server.thread.join(30)
    assert server.server.should_exit
    assert not container.is_running


async def test_a_lifespan_that_is_cancelled_stops_the_container():
    container, started = CallSite(), asyncio.Event()

    async def receive():
        if started.is_set():
            await asyncio.Event().wait()
        return {"type": "lifespan.startup"}

    async def send(message):
        started.set()

    async def app(scope, receive, send):
        raise NotImplementedError

    task = asyncio.create_task(asgi.ContainerLifespan(app, container)({"type": "lifespan"}, receive, send))
    await started.wait()
    assert container.is_running
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not container.is_running


async def test_an_error_in_the_lifespan_of_the_app_inside_stops_the_container_and_reaches_the_server():
    container = CallSite()

    async def receive():
        return {"type": "lifespan.startup"}

    async def send(message):
        pass

    async def app(scope, receive, send):
        await send({"type": "lifespan.startup.complete"})
        raise LookupError("later")

    with pytest.raises(LookupError):
        await asgi.ContainerLifespan(app, container)({"type": "lifespan"}, receive, send)
    assert not container.is_running


async def test_an_app_inside_that_fails_to_shut_down_has_its_say():
    container, said = CallSite(), []
    messages = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive():
        return {"type": next(messages)}

    async def send(message):
        said.append(message["type"])

    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "no"})
        raise LookupError("at its end")

    with pytest.raises(LookupError):
        await asgi.ContainerLifespan(app, container)({"type": "lifespan"}, receive, send)
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.failed"]
    assert not container.is_running


def test_an_app_inside_that_cannot_start_stops_the_container_again():
    container = CallSite()

    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no"})

    server = Uvicorn(asgi.ContainerLifespan(app, container), lifespan="on")
    with server:
        server.thread.join(30)
    assert not container.is_running


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


def test_a_release_hook_that_fails_after_the_answer_does_not_take_the_answer_back():
    class Failing(PoolFactory):
        def create(self):
            return Thing()

        def release(self, value):
            raise OSError("reset failed")

    class Faulty(di.Container):
        things = di.AsyncPool(Failing())
        thing = di.Pooled(things)

    container = Faulty()

    async def app(scope, receive, send):
        await container.thing.aget()
        await answer(send, b"answered")

    with Uvicorn(asgi.ContainerLifespan(asgi.RequestContextMiddleware(app, container), container)) as server:
        assert httpx.get(server.url).text == "answered"
        eventually(lambda: container.things().borrowed == 0)


def test_the_hooks_of_the_tests_notice_a_value_given_out_twice():
    ends = Ends()
    thing = ends.create()
    ends.acquire(thing, None)
    with pytest.raises(AssertionError):
        ends.acquire(thing, None)
