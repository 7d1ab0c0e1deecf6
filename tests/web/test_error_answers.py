"""What a client is told when a request fails: by each framework, with real errors of a real local Lakebase."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import fastapi
import flask
import httpx
import litestar
import psycopg
import pytest
from dependency_injector import providers
from fastapi.testclient import TestClient
from litestar.exceptions import WebSocketDisconnect as LitestarDisconnect
from litestar.testing import TestClient as LitestarClient
from starlette.exceptions import HTTPException
from starlette.websockets import WebSocketDisconnect

from lakebase import (
    AsyncLakebasePoolManager,
    IdentityError,
    LakebasePoolConfig,
    LakebasePoolManager,
    LoginError,
    UserIdentity,
    answer_error,
    request_identity,
)
from lakebase.errors import CallbackError, ConnectFailure, CredentialError
from pooling import (
    ConfigurationError,
    CreateError,
    PoolClosedError,
    PoolExhaustedError,
    PoolFactory,
    PoolTimeoutError,
    RequestContext,
    UnauthenticatedError,
    di,
)
from pooling.web import asgi, errors, wsgi
from pooling.web.fastapi import install
from pooling.web.flask import Pooling
from pooling.web.litestar import PoolingPlugin
from tests.web.apps import CallSite, ThreadSite
from tests.web.frameworks import ALL, ASGI, WSGI, url_of
from tests.web.servers import PLAIN

numbers = itertools.count(1)


def pool_of_user(pools: Any, ctx: RequestContext) -> Any:
    return pools.for_user(ctx["identity"])


class Site(di.Container):
    """A connection of the user's, and a second one, which a pool of one does not have."""

    config = providers.Dependency(instance_of=LakebasePoolConfig)
    pools = di.Managed(LakebasePoolManager, config, stop="close_all")
    thing = di.Pooled(pools, select=pool_of_user)
    second = di.Pooled(pools, select=pool_of_user, name="second")


class AsyncSite(di.Container):
    config = providers.Dependency(instance_of=LakebasePoolConfig)
    pools = di.Managed(AsyncLakebasePoolManager, config, stop="close_all")
    thing = di.Pooled(pools, select=pool_of_user)
    second = di.Pooled(pools, select=pool_of_user, name="second")


def wants(name: str) -> bool:
    """Whether the user's name begins with that."""
    ctx = RequestContext.current()
    assert ctx is not None
    return ctx["identity"].user.startswith(name)


def statement() -> str:
    return "select rolpassword from pg_authid" if wants("curious") else "select current_user"


def ask(container: Any) -> str:
    conn = container.thing()
    if wants("greedy"):
        container.second()
    return conn.execute(statement()).fetchone()[0]


async def aask(container: Any) -> str:
    conn = await container.thing.aget()
    if wants("greedy"):
        await container.second.aget()
    return (await (await conn.execute(statement())).fetchone())[0]


@pytest.fixture(params=ALL, ids=lambda kind: kind.__name__)
def call(request, lakebase_local, monkeypatch):
    """Calls an app of that framework, which answers errors by `lakebase.answer_error`."""
    kind = request.param
    base, container, asked = (ASGI, AsyncSite(), aask) if issubclass(kind, ASGI) else (WSGI, Site(), ask)
    container.config.override(lakebase_local.config(lakebase_local.client_id, max_size=1, timeout=0.5))
    monkeypatch.setattr(base, "container", container, raising=False)
    monkeypatch.setattr(base, "ask", staticmethod(asked))
    logging.disable(logging.ERROR)  # what goes wrong on purpose
    app = kind().make(request_identity, errors="lakebase.answer_error" if "Django" in kind.__name__ else answer_error)
    with kind().serve(app) as served, httpx.Client(timeout=30, **PLAIN) as client:
        yield lambda name, token: client.get(url_of(served) + kind.who, headers=headers_of(name, token))
    if base is WSGI:
        container.stop()
    logging.disable(logging.NOTSET)


def headers_of(name: str | None, token: str) -> dict[str, str]:
    return {} if name is None else {"X-Forwarded-Email": name, "X-Forwarded-Access-Token": token}


def test_each_framework_tells_what_failed_and_nothing_else(call, lakebase_local):
    lake = lakebase_local
    n = next(numbers)

    def answer(name: str | None, token: str) -> httpx.Response:
        got = call(name, token)
        assert got.headers["content-type"].startswith("application/json")
        assert not {word for word in ("dapi", lake.host, lake.endpoint, "Traceback") if word in got.text}
        assert got.json()["detail"]
        return got

    def user(kind: str) -> tuple[str, str]:
        name = f"{kind}{n}@corp.example"
        return name, lake.add_user(name)

    ann = user("ann")
    assert call(*ann).text == ann[0]

    for name, token in ((None, ""), (ann[0], "dapi-made-up"), (f"unknown{n}@corp.example", "dapi-made-up")):
        refused = answer(name, token)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    expired = user("expired")
    lake.revoke(expired[0])
    assert answer(*expired).status_code == 401

    unscoped = f"unscoped{n}@corp.example"
    refused = answer(unscoped, lake.forwarded_token(unscoped, ["iam.current-user:read"]))
    assert refused.status_code == 403
    assert "'postgres'" in refused.json()["detail"]
    without_role = user("norole")
    assert lake.socket_directory is not None
    with psycopg.connect(host=str(lake.socket_directory), user="postgres", dbname=lake.database) as conn:
        conn.execute(f'drop role "{without_role[0]}"')
    assert answer(*without_role).status_code == 403
    assert answer(*user("curious")).status_code == 403

    busy = answer(*user("greedy"))
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
    with lake.too_many_connections(user=user("refused")[0]):
        assert answer(f"refused{n}@corp.example", lake.token(f"refused{n}@corp.example")).status_code == 503
    with lake.fail_workspace(429, path="/credentials", retry_after=7):
        throttled = answer(*user("throttled"))
    assert (throttled.status_code, throttled.headers["retry-after"]) == (503, "7")
    assert call(*ann).text == ann[0]


# --- which error means what ------------------------------------------------------------------------------------------


def own(cause: BaseException) -> PoolTimeoutError:
    error = PoolTimeoutError("late")
    error.__cause__ = cause
    return error


class WrappedError(Exception):
    """As SQLAlchemy wraps the driver's errors."""

    orig = psycopg.OperationalError("broken")


ANSWERS = [
    (UnauthenticatedError("who are you"), 401, None),
    (IdentityError("no header", header="X-Forwarded-Email"), 401, None),
    (CredentialError("…", refusal="token"), 401, None),
    (CredentialError("…", refusal="scope"), 403, None),
    (CredentialError("…", refusal="permission"), 403, None),
    (CredentialError("…", is_transient=True), 503, "1"),
    (CredentialError("…", is_transient=True, retry_after=2.5), 503, "3"),
    (CredentialError("the app's own"), None, None),
    (LoginError("…", failure=ConnectFailure.NO_ROLE, key="ann"), 403, None),
    (LoginError("the app's own", failure=ConnectFailure.NO_ROLE), None, None),
    (LoginError("…", failure=ConnectFailure.TLS, key="ann"), None, None),
    (PoolTimeoutError("late"), 503, "1"),
    (own(CredentialError("…", is_transient=True, retry_after=0.0)), 503, "1"),
    (own(CredentialError("…", is_transient=True, retry_after=30)), 503, "30"),
    (PoolExhaustedError("full"), 503, "1"),
    (PoolClosedError("closed"), 503, "1"),
    (psycopg.errors.AdminShutdown("…"), 503, "1"),
    (psycopg.errors.InsufficientPrivilege("…"), 403, None),
    (WrappedError("in SQLAlchemy"), 503, "1"),
    (CallbackError("…"), None, None),
    (CreateError("…"), None, None),
    (ConfigurationError("…"), None, None),
    (psycopg.errors.UniqueViolation("…"), None, None),
    (ZeroDivisionError(), None, None),
]


@pytest.mark.parametrize(("error", "status", "retry_after"), ANSWERS, ids=lambda value: getattr(value, "args", value))
def test_which_error_means_what(error, status, retry_after):
    answer = answer_error(error)
    assert (answer and answer.status) == status
    assert (answer and answer.headers.get("Retry-After")) == retry_after
    if answer is not None and type(error) is not UnauthenticatedError:  # whose words the app chooses
        assert str(error) not in answer.detail


def test_a_client_without_a_user_is_told_to_sign_in_and_nothing_of_the_apps_code():
    with pytest.raises(IdentityError, match="build UserIdentity") as refused:
        UserIdentity.from_headers({})
    answer = answer_error(refused.value)
    assert answer.detail == "sign in: this app got no user for your request"
    assert answer.headers == {"WWW-Authenticate": "Bearer"}
    with pytest.raises(IdentityError, match="selects no pool") as refused:
        UserIdentity.from_headers({"X-Forwarded-Email": "ann@corp"}).pool_key()
    assert answer_error(refused.value).detail == "sign in again: your token does not prove who you are"


def test_a_database_of_django_is_asked_for_the_drivers_error():
    from django.db.utils import OperationalError

    error = OperationalError("wrapped")
    error.__cause__ = PoolTimeoutError("late")
    assert answer_error(error) is None, "it is none of the driver's"
    error.__cause__ = psycopg.OperationalError("broken")
    assert answer_error(error).status == 503


# --- whose answer counts ---------------------------------------------------------------------------------------------


def fail() -> str:
    raise PoolTimeoutError("late")


def test_by_default_a_pool_that_has_nothing_in_time_is_503_and_none_leaves_it_to_the_app():
    for options, status in (({}, 503), ({"errors": None}, 500)):
        app = fastapi.FastAPI()
        install(app, CallSite(), **options)
        app.get("/")(fail)
        with TestClient(app, raise_server_exceptions=False) as client:
            assert client.get("/").status_code == status
    with pytest.raises(ConfigurationError, match="expected a function such as"):
        asgi.RequestContextMiddleware(app, errors="503")
    with pytest.raises(ConfigurationError, match="expected a function such as"):
        wsgi.RequestContextMiddleware(lambda *_: [], errors=503)


@pytest.mark.parametrize("kind", [PoolTimeoutError, TimeoutError, OSError, 503, HTTPException])
def test_handlers_of_a_fastapi_app_come_first_whatever_class_they_are_for(kind):
    app = fastapi.FastAPI()
    install(app, CallSite())
    app.get("/")(fail)
    app.exception_handler(kind)(lambda request, error: fastapi.responses.PlainTextResponse("mine", 418))
    with TestClient(app) as client:
        assert (client.get("/").status_code, client.get("/").text) == (418, "mine")


@pytest.mark.parametrize("kind", [PoolTimeoutError, TimeoutError, Exception, 503])
def test_handlers_of_a_flask_app_come_first(kind):
    app = flask.Flask("site")
    app.register_error_handler(kind, lambda error: ("mine", 418))
    with ThreadSite().running() as container:
        Pooling(app, container)
        app.add_url_rule("/", "fail", fail)
        assert app.test_client().get("/").text == "mine"


@pytest.mark.parametrize("kind", [PoolTimeoutError, TimeoutError, Exception, 503])
def test_handlers_of_a_litestar_app_come_first(kind):
    handlers = {kind: lambda request, error: litestar.Response("mine", status_code=418)}
    app = litestar.Litestar(
        [litestar.get("/", sync_to_thread=False)(fail)],
        plugins=[PoolingPlugin(CallSite())],
        exception_handlers=handlers,
    )
    with LitestarClient(app) as client:
        assert client.get("/").status_code == 418


def test_other_errors_of_a_litestar_app_are_answered_as_without_the_plugin():
    @litestar.get("/lost", sync_to_thread=False)
    def lost() -> str:
        raise litestar.exceptions.NotFoundException("lost")

    @litestar.get("/broken", sync_to_thread=False)
    def broken() -> str:
        raise ZeroDivisionError

    for handlers, body in (({}, "Internal Server Error"), ({500: lambda *_: litestar.Response("mine")}, "mine")):
        app = litestar.Litestar([lost, broken], plugins=[PoolingPlugin(CallSite())], exception_handlers=handlers)
        with LitestarClient(app, raise_server_exceptions=False) as client:
            assert client.get("/lost").json() == {"status_code": 404, "detail": "lost"}
            assert body in client.get("/broken").text
            assert client.get("/nowhere").status_code == 404


def test_an_answer_gets_what_the_middlewares_of_an_app_add():
    from starlette.middleware.cors import CORSMiddleware

    app = fastapi.FastAPI()
    app.add_middleware(CORSMiddleware, allow_origins=["*"])
    install(app, CallSite())
    app.get("/")(fail)
    with TestClient(app) as client:
        assert client.get("/", headers={"Origin": "https://app.example"}).headers["access-control-allow-origin"] == "*"


class Unkept(PoolFactory[object]):
    """What was done with it cannot be made durable."""

    def create(self) -> object:
        return object()

    def checkpoint(self, value: object) -> None:
        raise PoolTimeoutError("the commit")


class UnkeptSite(di.Container):
    things = di.AsyncPool(Unkept())
    thing = di.Pooled(things)


def test_a_failed_commit_is_never_an_invitation_to_try_again():
    app = fastapi.FastAPI()
    install(app, UnkeptSite())

    @app.get("/")
    async def serve() -> str:
        await app.state.container.thing.aget()
        return "done"

    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/").status_code == 500


@pytest.mark.parametrize("error", [PoolTimeoutError("late"), UnauthenticatedError("who are you")])
@pytest.mark.parametrize("accepts", [False, True])
def test_a_websocket_is_closed_with_what_its_client_can_act_on(error, accepts):
    app = fastapi.FastAPI()
    install(app, CallSite())

    @app.websocket("/")
    async def serve(websocket: fastapi.WebSocket) -> None:
        if accepts:
            await websocket.accept()
        raise error

    @litestar.websocket("/")
    async def serve_litestar(socket: litestar.WebSocket) -> None:
        if accepts:
            await socket.accept()
        raise error

    other = litestar.Litestar([serve_litestar], plugins=[PoolingPlugin(CallSite())])
    code = 1013 if isinstance(error, PoolTimeoutError) else 1008
    with TestClient(app) as client:
        with pytest.raises(WebSocketDisconnect) as closed, client.websocket_connect("/") as websocket:
            websocket.receive_text()
        assert closed.value.code == code
    with LitestarClient(other) as client:
        with pytest.raises(LitestarDisconnect) as closed, client.websocket_connect("/") as websocket:
            websocket.receive_text()
        assert closed.value.code == code


def test_what_a_client_is_told_fits_into_a_close_frame_and_into_json():
    answer = errors.ErrorAnswer(503, "ü" * 100, {})
    assert len(answer.close_reason.encode()) <= 123
    assert answer.body.decode() == '{"detail": "' + "ü" * 100 + '"}'
