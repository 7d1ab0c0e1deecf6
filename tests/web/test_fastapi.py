"""FastAPI: requests over a real server, from handler to release hook."""

from __future__ import annotations

import asyncio
import threading
from typing import Annotated

import httpx
import pytest
from dependency_injector.containers import DeclarativeContainer
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, WebSocket, WebSocketException
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from pooling import ConfigurationError, PoolFactory, RequestContext, RequestContextError, di
from pooling.web import asgi
from pooling.web.fastapi import CurrentRequest, Injected, install, lifespan
from pooling.web.outcome import ResponseError
from tests.web.apps import CallSite, Repo, ThreadSite
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
        """Wait until the test opens the gate, without blocking the loop."""
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
        body = response.iter_raw()  # kept: a body that is collected closes the response
        next(body)
        assert inside.wait(30)
        response.close()
        eventually(lambda: [type(end) for end in container.factory().ends] == [ResponseError])
        assert container.things().borrowed == 0


def test_a_client_gone_in_the_middle_of_a_stream_gives_back(served, client):
    with client.stream("GET", "/endless") as response:
        parts = response.iter_raw()
        next(parts)
        assert served.pool.borrowed == 1
    nothing_is_out(served)
    assert served.log == ["out=True"]


def test_a_client_gone_in_the_middle_of_something_ends_the_request_with_an_error(served, client):
    with client.stream("GET", "/waiting") as response:
        body = response.iter_raw()  # kept: a body that is collected closes the response
        next(body)
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


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["marker", "injected", "brief", "provider"])
@pytest.mark.parametrize("comes_first", [True, False])
def test_a_dependency_is_overridden_however_it_is_written(spelling, comes_first):
    key = {
        "marker": di.Inject[CallSite.repo],
        "injected": Injected[CallSite.repo],
        "brief": Injected[CallSite.repo, "handler"],
        "provider": CallSite.repo,
    }[spelling]
    app = FastAPI()
    if comes_first and spelling == "marker":  # before `install` the framework knows no other spelling
        app.dependency_overrides[key] = lambda: "fake"
    install(app, CallSite())
    app.dependency_overrides.update({key: lambda: "fake"})

    @app.get("/")
    async def home(repo: Annotated[Repo, Injected[CallSite.repo]], brief=Injected[CallSite.repo, "handler"]):
        return [repo, brief]

    with TestClient(app) as client:
        assert client.get("/").json() == ["fake", "fake"]
        assert key in app.dependency_overrides
        assert app.dependency_overrides.pop(key)() == "fake"
        assert key not in app.dependency_overrides


@pytest.mark.parametrize("give", [lambda: CallSite, lambda: type("Plain", (DeclarativeContainer,), {})(), object])
def test_what_is_no_container_is_refused(give):
    with pytest.raises(ConfigurationError, match=r"write CallSite\(\)|pooling\.di\.Container"):
        install(FastAPI(), give())


def test_an_argument_that_nothing_injects_is_told(served, client):
    with pytest.raises(ConfigurationError, match=r"decorate the function with @pooling\.di\.inject.*Injected"):

        @served.app.get("/forgotten")
        async def forgotten(repo: Annotated[Repo, di.Inject(CallSite.repo)]):
            pass

    said = []

    @served.app.get("/bare")
    async def bare(repo=di.Inject[CallSite.repo]):
        try:
            return repo.thing
        except AttributeError as error:
            said.append(str(error))

    assert client.get("/bare").status_code == 200
    assert "decorate the function with @pooling.di.inject" in said[0]


def test_a_value_outside_of_any_request_says_what_to_write():
    app = FastAPI()

    @app.get("/")
    async def home(repo: Annotated[Repo, Injected[CallSite.repo]]):
        pass

    with TestClient(app) as client:
        with pytest.raises(ConfigurationError, match=r"pooling\.web\.fastapi\.install\(app, container\)"):
            client.get("/")
    app.router.lifespan_context = lifespan(CallSite())
    with TestClient(app) as client:
        with pytest.raises(RequestContextError, match=r"install.*after other middlewares.*Gradio"):
            client.get("/")


@pytest.mark.parametrize(
    ("release", "dependency", "is_refused"),
    [
        ("end", Injected[CallSite.repo, "handler"], True),
        ("handler", Injected[CallSite.repo], True),
        ("handler", Injected[CallSite.repo, "end"], False),
        ("end", Injected[CallSite.repo], False),
    ],
)
def test_a_handler_that_is_a_generator_cannot_have_a_value_until_it_returns(release, dependency, is_refused):
    sse = pytest.importorskip("fastapi.sse", reason="this FastAPI has no handlers that are generators")
    app, container = FastAPI(), CallSite()
    install(app, container, release=release)

    def between(repo=dependency):
        return repo

    @app.get("/events", response_class=sse.EventSourceResponse)
    async def events(repo=Depends(between)):  # noqa: B008 - as its users write it
        for _ in range(2):
            yield {"out": repo.thing.is_out}

    if is_refused:
        with pytest.raises(ConfigurationError, match=r"/events: the handler .*events is a generator"), TestClient(app):
            pass
    else:
        with TestClient(app) as client:
            assert client.get("/events").text.count("true") == 2
        assert container.factory().ends == [None]


@pytest.mark.parametrize("release", ["handler", "response", "end"])
def test_after_an_error_no_value_is_made_durable_before_the_answer(release):
    kept = []

    class Site(di.Container):
        things = di.AsyncPool(PoolFactory.of(object, checkpoint=kept.append))
        thing = di.Pooled(things)

    app = FastAPI()
    install(app, Site(), release=release)

    @app.get("/{status}")
    async def answer(status: int, thing: object = Injected[Site.thing]) -> None:
        if status != 200:
            raise HTTPException(status)

    with TestClient(app) as client:
        for status in (409, 500):
            assert client.get(f"/{status}").status_code == status
        assert kept == []
        assert client.get("/200").status_code == 200
        assert kept
