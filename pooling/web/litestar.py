"""Litestar: a plugin that starts and stops a container with the app, and opens a request for every connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ..extras import Extra

with Extra("litestar"):
    from litestar import MediaType, Response
    from litestar.exceptions import HTTPException, WebSocketException
    from litestar.exceptions.responses import create_debug_response, create_exception_response
    from litestar.middleware import DefineMiddleware
    from litestar.plugins import InitPlugin
    from litestar.utils.scope.state import ScopeState

from ._answering import check_container, checked_errors, checked_release
from ._timing import checked_server_timing
from .asgi import EXCHANGE, RequestContextMiddleware, headers
from .errors import answer_error
from .outcome import note_error

if TYPE_CHECKING:
    from litestar import Litestar, Request
    from litestar.config.app import AppConfig

    from ._answering import Release
    from .asgi import Exchange, Values
    from .errors import AnswerError

__all__ = ["PoolingPlugin", "RequestContextMiddleware", "headers"]


class PoolingPlugin(InitPlugin):
    """
    `Litestar(plugins=[PoolingPlugin(container)])`.

    An error without an exception handler of the app is answered by `errors`, as an `HTTPException` of its status is.

    Args:
        container: The container that serves the requests.
        values: Returns a request's values, given the ASGI scope.
        timeout: As for `Container.stop`.
        release: When pooled values go back, as for `RequestContextMiddleware`.
        errors: Says how an error is answered, such as `lakebase.answer_error`; `None` answers none.
        server_timing: Whether answers get a `Server-Timing` header, as of `RequestContextMiddleware`.
    """

    def __init__(
        self,
        container: Any,
        *,
        values: Values | None = None,
        timeout: float | None = None,
        release: Release = "end",
        errors: AnswerError | None = answer_error,
        server_timing: bool = False,
    ) -> None:
        check_container(container)
        self.container = container
        self.values = values
        self.timeout = timeout
        self.release: Release = checked_release(release)
        self.errors: AnswerError | None = checked_errors(errors)
        self.server_timing: bool = checked_server_timing(server_timing)

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Called by the framework."""

        @asynccontextmanager
        async def lifespan(_app: Litestar) -> AsyncIterator[None]:
            async with self.container.running(self.timeout):
                yield

        app_config.lifespan.insert(0, lifespan)
        middleware: Any = RequestContextMiddleware  # its types are those of any ASGI app, not of this framework
        app_config.middleware.insert(
            0,
            DefineMiddleware(
                middleware,
                container=self.container,
                values=self.values,
                release=self.release,
                errors=self.errors,
                server_timing=self.server_timing,
                answer=_have_answered,
            ),
        )
        app_config.after_exception.append(_note)
        app_config.exception_handlers.setdefault(Exception, _answer)  # so every other one comes before it
        return app_config


async def _have_answered(scope: Any, _receive: Any, _send: Any, failure: Exception) -> bool:
    """Have the app's exception handlers answer, which refuse to once a response was begun: this one was not sent."""
    ScopeState.from_scope(scope).response_started = False
    raise failure


def _answer(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """Answer what no handler of the app is for."""
    handlers = request.app.exception_handlers
    exchange: Exchange | None = request.scope.get(EXCHANGE)  # type: ignore[assignment]
    found = None if exchange is None else exchange.find_answer(error)
    if found is not None:
        handler: Any = handlers.get(found.status) or handlers.get(HTTPException) or _respond
        refusal = HTTPException(found.detail, status_code=found.status, headers=dict(found.headers))
        return handler(request, refusal)  # type: ignore[no-any-return]
    # What the framework would do without this handler:
    if not isinstance(error, HTTPException) and 500 in handlers:
        return handlers[500](request, error)
    if request.app.debug and getattr(error, "status_code", 500) == 500:
        return create_debug_response(request, error)
    return create_exception_response(request, error)


def _respond(_: Request[Any, Any, Any], refusal: HTTPException) -> Response[Any]:
    """As `create_exception_response`, but JSON also where the handler returns text."""
    content = {"status_code": refusal.status_code, "detail": refusal.detail}
    return Response(content, status_code=refusal.status_code, headers=refusal.headers, media_type=MediaType.JSON)


def _note(error: Exception, scope: Any) -> None:
    note_error(error, status=error.status_code if isinstance(error, HTTPException) else None)
    if scope["type"] == "websocket":
        exchange: Exchange | None = scope.get(EXCHANGE)
        found = None if exchange is None else exchange.find_answer(error)
        if found is not None:
            # The framework asks no handler about a websocket, and closes it by what this exception says.
            raise WebSocketException(detail=found.close_reason, code=found.close_code) from error
