"""A request's user, read from its headers when it is asked for: `lakebase.request_identity` in every integration."""

from __future__ import annotations

from typing import Any

import fastapi
import httpx
import pytest

from lakebase import ConfigurationError, IdentityError, UserIdentity, request_identity
from pooling import LazyValue, RequestContext, UnauthenticatedError
from pooling.web import asgi, wsgi
from tests.web.apps import CallSite, ThreadSite
from tests.web.frameworks import ALL, ASGI, WSGI, url_of
from tests.web.servers import get, nothing_is_out, waitress_server

JEROME = {"x-forwarded-email": "jérôme@corp.example".encode(), "x-forwarded-access-token": b"dapi-of-jerome"}


@pytest.fixture(params=ALL, ids=lambda kind: kind.__name__)
def framework(request):
    kind = request.param
    base = ASGI if issubclass(kind, ASGI) else WSGI
    if base is ASGI:
        base.container = CallSite()
        yield kind()
    else:
        with ThreadSite().running() as base.container:
            yield kind()


def test_a_request_without_a_user_is_served_until_it_needs_one(framework):
    values = "lakebase.request_identity" if "Django" in type(framework).__name__ else request_identity
    with framework.serve(framework.make(values)) as served:
        url = url_of(served)
        assert get(url, "/health").text == "well"
        for headers in ({}, {"x-forwarded-email": "a,b"}):
            answer = get(url, framework.who, headers=headers)
            assert answer.status_code == 401
            assert "X-Forwarded-Email" in answer.text
        answer = get(url, framework.who, headers=JEROME)
        assert (answer.status_code, answer.text) == (200, "jérôme@corp.example")
        nothing_is_out(framework.container)
        ends = framework.container.factory().ends
        assert [type(end) for end in ends] == [IdentityError, IdentityError, type(None)]


def test_values_that_are_read_at_once_are_answered_with_401_too(framework):
    def values(request: Any) -> dict[str, Any]:
        return {"identity": request_identity(request)["identity"].get()}

    with framework.serve(framework.make(values)) as served:
        url = url_of(served)
        assert get(url, "/health").status_code == 401
        assert get(url, "/health", headers=JEROME).text == "well"


class StrangerError(UnauthenticatedError):
    """An app's own."""


def mine(container: Any = None) -> str:
    raise StrangerError("a stranger")


def test_an_apps_own_handlers_come_first():
    import flask
    from fastapi.testclient import TestClient

    from pooling.web.fastapi import install
    from pooling.web.flask import Pooling

    app = fastapi.FastAPI()
    install(app, CallSite())
    app.get("/")(mine)
    with TestClient(app) as client:
        assert (client.get("/").status_code, client.get("/").json()) == (401, {"detail": "a stranger"})
    app = fastapi.FastAPI()
    install(app, CallSite())
    app.get("/")(mine)
    app.exception_handler(401)(lambda request, error: fastapi.responses.PlainTextResponse(error.detail.upper(), 403))
    with TestClient(app) as client:
        assert (client.get("/").status_code, client.get("/").text) == (403, "A STRANGER")
    app = fastapi.FastAPI()
    install(app, CallSite())
    app.get("/")(mine)
    app.exception_handler(StrangerError)(lambda request, error: fastapi.responses.PlainTextResponse("mine", 418))
    with TestClient(app) as client:
        assert client.get("/").status_code == 418
    site = flask.Flask("site")
    site.register_error_handler(UnauthenticatedError, lambda error: (f"mine: {error}", 418))
    Pooling(site)
    site.get("/")(mine)
    assert site.test_client().get("/").text == "mine: a stranger"


async def test_a_websocket_is_refused_and_an_answer_that_was_begun_is_not_taken_back():
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def refuses(scope: Any, receive: Any, send: Any) -> None:
        mine()

    async def begins(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        mine()

    scope = {"type": "websocket", "path": "/", "headers": []}
    await asgi.RequestContextMiddleware(refuses)(scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "a stranger"}]
    sent.clear()
    with pytest.raises(StrangerError):
        await asgi.RequestContextMiddleware(begins)({**scope, "type": "http", "method": "GET"}, receive, send)
    assert len(sent) == 1


def test_a_wsgi_answer_whose_headers_have_gone_is_not_taken_back():
    def writes(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])(b"part")
        mine()
        return []

    with pytest.raises(StrangerError):
        wsgi.RequestContextMiddleware(writes)({}, lambda *_: lambda part: None)


def begins_late(environ: Any, start_response: Any) -> Any:
    """An app that is a generator: what it does, it does when the server asks for the body."""
    ctx = RequestContext.current()
    assert ctx is not None
    name = ctx["identity"].user.encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield name


def asks_late(environ: Any, start_response: Any) -> Any:
    """An app that has begun its answer when its body asks for the user, behind an empty part."""
    start_response("200 OK", [("Content-Length", "1000000")])
    ctx = RequestContext.current()
    assert ctx is not None
    return (part() for part in (bytes, lambda: ctx["identity"].user.encode()))


def asks_too_late(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])
    yield b"part"
    mine()


@pytest.mark.parametrize("app", [begins_late, asks_late])
def test_a_wsgi_body_may_ask_for_the_user_until_its_first_bytes(app):
    with ThreadSite().running() as container:

        def holds(environ: Any, start_response: Any) -> Any:
            container.thing()
            return app(environ, start_response)

        with waitress_server(wsgi.RequestContextMiddleware(holds, container, values=request_identity)) as url:
            answer = get(url)
            assert (answer.status_code, answer.headers["content-type"]) == (401, "application/json")
            assert "X-Forwarded-Email" in answer.text
            assert int(answer.headers["content-length"]) == len(answer.content)
            nothing_is_out(container)
            assert [type(end) for end in container.factory().ends] == [IdentityError]
            if app is begins_late:
                assert get(url, headers=JEROME).text == "jérôme@corp.example"
    parts = iter(wsgi.RequestContextMiddleware(asks_too_late)({}, lambda *_: None))
    assert next(parts) == b"part"
    with pytest.raises(StrangerError):
        next(parts)


def test_what_has_headers_is_read_and_anything_else_is_refused():
    class Request:
        headers = httpx.Headers({"x-forwarded-user": "42"})

    assert isinstance(request_identity(Request())["identity"], LazyValue)
    assert request_identity(Request())["identity"].get() == UserIdentity("42", user_id="42", from_request=True)
    for other in (None, "headers", {"x-forwarded-user": "42"}):
        with pytest.raises(ConfigurationError, match="expected an ASGI scope"):
            request_identity(other)


def test_a_websocket_of_a_framework_is_refused_before_it_is_accepted():
    from fastapi.testclient import TestClient
    from starlette.websockets import WebSocketDisconnect

    from pooling.web.fastapi import install

    app = fastapi.FastAPI()
    install(app, CallSite(), values=request_identity)

    @app.websocket("/")
    async def serve(websocket: fastapi.WebSocket) -> None:
        ctx = RequestContext.current()
        assert ctx is not None
        name = ctx["identity"].user
        await websocket.accept()
        await websocket.send_text(name)

    with TestClient(app) as client:
        with client.websocket_connect("/", headers={"X-Forwarded-Email": "ann@corp.example"}) as websocket:
            assert websocket.receive_text() == "ann@corp.example"
        with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/"):
            pytest.fail("it must not be accepted")
        assert refused.value.code == 1008
