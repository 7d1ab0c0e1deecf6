"""The ASGI middleware and the container's lifespan, without a framework."""

from __future__ import annotations

import asyncio

import anyio
import httpx
import pytest
from starlette.applications import Starlette

from pooling import ConfigurationError, PoolFactory, RequestContext, di
from pooling.web import asgi
from pooling.web.outcome import ResponseError
from tests.web.apps import CallSite, Ends, SlowSite, Thing
from tests.web.servers import Uvicorn, eventually


async def test_a_caller_that_is_cancelled_repeatedly_stops_waiting_and_the_release_goes_on():
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


def test_a_header_is_read_as_utf_8_and_one_that_is_not_as_latin_1():
    scope = {"headers": [(b"x-user", "jérôme".encode()), (b"x-city", "Genève".encode("latin-1"))]}
    assert asgi.headers(scope) == {"x-user": "jérôme", "x-city": "Genève"}


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


@pytest.mark.parametrize("status", [200, 403])
async def test_an_answer_that_refuses_a_websocket_comes_after_the_checkpoint(status):
    order = []

    class Site(di.Container):
        things = di.AsyncPool(PoolFactory.of(object, checkpoint=lambda _: order.append("checkpoint")))
        thing = di.Pooled(things)

    async def app(scope, receive, send):
        await container.thing.aget()
        await send({"type": "websocket.http.response.start", "status": status, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"no"})

    async def send(message):
        order.append(message["type"])

    async with Site().running() as container:
        await asgi.RequestContextMiddleware(app, container)({"type": "websocket", "path": "/"}, None, send)
    assert order == ["checkpoint", "websocket.http.response.start", "websocket.http.response.body"]
