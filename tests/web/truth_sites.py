"""
One small service on a real Postgres, in each framework, for the tests of what an answer promises.

`POST /{what}/{status}/{n}` does something to the database and answers with the status. Its body has two parts: between
them it waits for the test, which meanwhile looks at the database.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from dependency_injector import providers

from lakebase import LakebasePool, create_async_lakebase_pool, create_lakebase_pool
from pooling import di
from pooling.web import asgi, wsgi
from tests.web.servers import Uvicorn, waitress_server

SCHEMA = """
create table if not exists items (n int primary key);
create table if not exists children (n int references items deferrable initially deferred);
grant all on items, children to public;
"""

INSERT, INSERT_CHILD = "insert into items values (%s)", "insert into children values (%s)"
KNOWN, READ = "select 1 from items where n = %s", "select count(*) from items"


class Site(di.Container):
    """For asyncio."""

    config = providers.Dependency()
    pool = di.Managed(create_async_lakebase_pool, config, max_size=2, name="site", stop="close")
    connection = di.Pooled(pool)


class ThreadSite(di.Container):
    """For threads."""

    config = providers.Dependency()
    pool = di.Managed(create_lakebase_pool, config, max_size=2, name="site", stop="close")
    connection = di.Pooled(pool)


class Gate:
    """Holds a streamed body after its first part until the test opens it."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def wait(self) -> None:
        assert self.event.wait(30)

    async def await_it(self) -> None:
        await asyncio.to_thread(self.wait)


# --- what the handlers do --------------------------------------------------------------------------------------------


async def act(connection: psycopg.AsyncConnection[Any], what: str, n: int) -> None:
    """Do what the path says."""
    if what == "orphan":
        await connection.execute(INSERT_CHILD, [n])
    elif what == "read":
        await connection.execute(READ)
    else:
        await connection.execute(INSERT, [n])
    if what == "swallowed":
        try:
            await connection.execute(INSERT, [n])
        except psycopg.errors.UniqueViolation:
            pass


def act_in_thread(connection: psycopg.Connection[Any], what: str, n: int) -> None:
    """As `act`."""
    if what == "orphan":
        connection.execute(INSERT_CHILD, [n])
    elif what == "read":
        connection.execute(READ)
    else:
        connection.execute(INSERT, [n])
    if what == "swallowed":
        try:
            connection.execute(INSERT, [n])
        except psycopg.errors.UniqueViolation:
            pass


def parts(gate: Gate) -> Iterator[bytes]:
    """A body in two parts."""
    yield b"one"
    gate.wait()
    yield b"two"


async def aparts(gate: Gate):
    """As `parts`."""
    yield b"one"
    await gate.await_it()
    yield b"two"


def parsed(path: str) -> tuple[str, int, int]:
    _, what, status, n = path.split("/")
    return what, int(status), int(n)


# --- one app for each framework --------------------------------------------------------------------------------------


def plain_asgi(site: Any, gate: Gate, release: str) -> Any:
    async def app(scope, receive, send):
        what, status, n = parsed(scope["path"])
        await act(await site.connection.aget(), what, n)
        await send({"type": "http.response.start", "status": status, "headers": []})
        async for part in aparts(gate):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})

    return asgi.ContainerLifespan(asgi.RequestContextMiddleware(app, site, release=release), site)


def starlette(site: Any, gate: Gate, release: str) -> Any:
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, StreamingResponse
    from starlette.routing import Route

    from pooling.web.starlette import install

    async def handle(request):
        what, status, n = parsed(request.url.path)
        await act(await site.connection.aget(), what, n)
        return StreamingResponse(aparts(gate), status)

    async def answer(request, error):
        return JSONResponse({"answered": type(error).__name__}, 422)

    app = Starlette(
        routes=[Route("/{what}/{status}/{n}", handle, methods=["POST"])],
        exception_handlers={psycopg.errors.ForeignKeyViolation: answer},
    )
    install(app, site, release=release)
    return app


def fastapi(site: Any, gate: Gate, release: str) -> Any:
    from fastapi import FastAPI
    from fastapi.responses import JSONResponse, StreamingResponse

    from pooling.web.fastapi import Injected, install

    app = FastAPI()
    install(app, site, release=release)

    @app.middleware("http")
    async def passes_on(request, call_next):
        return await call_next(request)

    @app.post("/{what}/{status}/{n}")
    async def handle(what: str, status: int, n: int, connection=Injected[Site.connection]):
        await act(connection, what, n)
        return StreamingResponse(aparts(gate), status)

    @app.exception_handler(psycopg.errors.ForeignKeyViolation)
    async def answer(request, error):
        return JSONResponse({"answered": type(error).__name__}, 422)

    return app


def litestar(site: Any, gate: Gate, release: str) -> Any:
    from litestar import Litestar, Request, Response, post
    from litestar.response import Stream

    from pooling.web.litestar import PoolingPlugin

    @post("/{path:path}")
    async def handle(request: Request) -> Stream:
        what, status, n = parsed(request.url.path)
        await act(await site.connection.aget(), what, n)
        return Stream(aparts(gate), status_code=status)

    def answer(request: Any, error: Exception) -> Response:
        return Response({"answered": type(error).__name__}, status_code=422)

    handle.fn.__annotations__ |= {"request": Request, "return": Stream}
    return Litestar(
        [handle],
        plugins=[PoolingPlugin(site, release=release)],
        exception_handlers={psycopg.errors.ForeignKeyViolation: answer},
    )


def plain_wsgi(site: Any, gate: Gate, release: str) -> Any:
    def app(environ, start_response):
        what, status, n = parsed(environ["PATH_INFO"])
        act_in_thread(site.connection(), what, n)
        start_response(f"{status} It", [])
        return parts(gate)

    return wsgi.RequestContextMiddleware(app, site, release=release)


def lazy_wsgi(site: Any, gate: Gate, release: str) -> Any:
    """The app is a generator, and so begins only when the server asks for the first part."""

    def app(environ, start_response):
        what, status, n = parsed(environ["PATH_INFO"])
        act_in_thread(site.connection(), what, n)
        start_response(f"{status} It", [])
        yield from parts(gate)

    return wsgi.RequestContextMiddleware(app, site, release=release)


def writing_wsgi(site: Any, gate: Gate, release: str) -> Any:
    """The app writes its first part by the function that `start_response` returns."""

    def app(environ, start_response):
        what, status, n = parsed(environ["PATH_INFO"])
        act_in_thread(site.connection(), what, n)
        body = parts(gate)
        start_response(f"{status} It", [])(next(body))
        return body

    return wsgi.RequestContextMiddleware(app, site, release=release)


def flask(site: Any, gate: Gate, release: str) -> Any:
    import flask

    from pooling.web.flask import Pooling

    app = flask.Flask("truth")
    Pooling(app, site, release=release)

    @app.post("/<what>/<int:status>/<int:n>")
    def handle(what, status, n):
        act_in_thread(site.connection(), what, n)
        return flask.Response(parts(gate), status)

    @app.errorhandler(psycopg.errors.ForeignKeyViolation)
    def answer(error):
        return {"answered": type(error).__name__}, 422

    return app


def django(site: Any, gate: Gate, release: str, *, is_async: bool = False) -> Any:
    from django.core.handlers.asgi import ASGIHandler
    from django.core.handlers.wsgi import WSGIHandler

    from tests.web import django_site

    django_site.configure(site, RELEASE=release)
    django_site.gate = gate
    if not is_async:
        return WSGIHandler()
    handler = ASGIHandler()

    async def http_only(scope, receive, send):
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await handler({**scope, "path": f"/async{scope['path']}"}, receive, send)

    return asgi.ContainerLifespan(http_only, site)


def async_django(site: Any, gate: Gate, release: str) -> Any:
    return django(site, gate, release, is_async=True)


ASGI = (plain_asgi, starlette, fastapi, litestar, async_django)
WSGI = (plain_wsgi, lazy_wsgi, writing_wsgi, flask, django)
#: Frameworks whose own handlers of errors answer a failed commit.
WITH_HANDLERS = (starlette, fastapi, litestar, flask)


@contextmanager
def served(make: Any, config: Any, gate: Gate, release: str = "end") -> Iterator[tuple[str, Any]]:
    """A real server with this app: its address and its container."""
    site = (Site if make in ASGI else ThreadSite)(config=config)
    if make in ASGI:
        with Uvicorn(make(site, gate, release)) as server:
            yield server.url, site
    else:
        with site.running(), waitress_server(make(site, gate, release)) as url:
            yield url, site


class Database:
    """The tables as their owner sees them."""

    def __init__(self, pool: LakebasePool, user: str) -> None:
        self.pool = pool
        self.user = user

    def has(self, n: int) -> bool:
        """Whether an item is kept."""
        return self._one(KNOWN, n) is not None

    def transactions(self) -> list[str]:
        """What the connections of the site do, as far as they are in a transaction."""
        with self.pool.connection() as connection:
            rows = connection.execute(
                "select state from pg_stat_activity where usename = %s and state <> 'idle'", [self.user]
            )
            return [state for (state,) in rows]

    def _one(self, query: str, *values: Any) -> Any:
        with self.pool.connection() as connection:
            return connection.execute(query, values).fetchone()
