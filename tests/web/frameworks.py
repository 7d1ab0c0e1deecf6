"""One small app in each framework, on a real server: `/health`, which needs nothing pooled, and one that does."""

from __future__ import annotations

from typing import Any, ClassVar

import fastapi

from pooling import RequestContext
from pooling.web import asgi, wsgi
from tests.web import django_site
from tests.web.servers import Uvicorn, waitress_server


def who(container: Any) -> str:
    """The user of the request, which has to hold something of a pool."""
    container.thing()
    ctx = RequestContext.current()
    assert ctx is not None
    assert ctx["identity"] is ctx["identity"], "made once"
    return ctx["identity"].user


async def awho(container: Any) -> str:
    await container.thing.aget()
    return who(container)


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    text = await ASGI.ask(ASGI.container) if scope["path"] == "/who" else "well"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})


def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    text = WSGI.ask(WSGI.container) if environ["PATH_INFO"] == "/who" else "well"
    return [text.encode()]


def in_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Options as the keys of Django's setting."""
    return {name.upper(): value for name, value in options.items()}


class ASGI:
    """For asyncio. `ask` is what a request does that holds something of a pool, given the container."""

    container: ClassVar[Any]
    ask: ClassVar[Any] = staticmethod(awho)
    who = "/who"

    def make(self, values: Any, **options: Any) -> Any:
        return asgi.ContainerLifespan(
            asgi.RequestContextMiddleware(asgi_app, self.container, values=values, **options), self.container
        )

    def serve(self, app: Any) -> Any:
        return Uvicorn(app)


class Starlette(ASGI):
    def make(self, values: Any, **options: Any) -> Any:
        from starlette.applications import Starlette
        from starlette.responses import PlainTextResponse
        from starlette.routing import Route

        from pooling.web.starlette import install

        async def answer(request: Any) -> Any:
            return PlainTextResponse(await self.ask(self.container))

        async def health(request: Any) -> Any:
            return PlainTextResponse("well")

        app = Starlette(routes=[Route("/who", answer), Route("/health", health)])
        install(app, self.container, values=values, **options)
        return app


class FastAPI(ASGI):
    def make(self, values: Any, **options: Any) -> Any:
        from pooling.web.fastapi import install

        app = fastapi.FastAPI(default_response_class=fastapi.responses.PlainTextResponse)
        install(app, self.container, values=values, **options)

        @app.get("/who")
        async def answer() -> str:
            return await self.ask(self.container)

        @app.get("/health")
        async def health() -> str:
            return "well"

        return app


class Litestar(ASGI):
    def make(self, values: Any, **options: Any) -> Any:
        import litestar

        from pooling.web.litestar import PoolingPlugin

        container = self.container

        @litestar.get("/who")
        async def answer() -> str:
            return await self.ask(container)

        @litestar.get("/health")
        async def health() -> str:
            return "well"

        return litestar.Litestar([answer, health], plugins=[PoolingPlugin(container, values=values, **options)])


class DjangoAsync(ASGI):
    who = "/awho"

    def make(self, values: Any, **options: Any) -> Any:
        django_site.configure(self.container, VALUES=values, **in_settings(options))
        from django.core.handlers.asgi import ASGIHandler

        django_site.asked = self.ask
        return asgi.ContainerLifespan(ASGIHandler(), self.container)


class WSGI:
    """The same for threads."""

    container: ClassVar[Any]
    ask: ClassVar[Any] = staticmethod(who)
    who = "/who"

    def make(self, values: Any, **options: Any) -> Any:
        return wsgi.RequestContextMiddleware(wsgi_app, self.container, values=values, **options)

    def serve(self, app: Any) -> Any:
        return waitress_server(app)


class Flask(WSGI):
    def make(self, values: Any, **options: Any) -> Any:
        import flask

        from pooling.web.flask import Pooling

        app = flask.Flask("site")
        Pooling(app, self.container, values=values, **options)
        app.add_url_rule("/who", "who", lambda: self.ask(self.container))
        app.add_url_rule("/health", "health", lambda: "well")
        return app


class Django(WSGI):
    def make(self, values: Any, **options: Any) -> Any:
        django_site.configure(self.container, VALUES=values, **in_settings(options))
        from django.core.handlers.wsgi import WSGIHandler

        django_site.asked = self.ask
        return WSGIHandler()


ALL = [ASGI, Starlette, FastAPI, Litestar, DjangoAsync, WSGI, Flask, Django]


def url_of(served: Any) -> str:
    """Where a server that `serve` has started is."""
    return served if isinstance(served, str) else served.url
