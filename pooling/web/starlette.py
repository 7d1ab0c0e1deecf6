"""Starlette, and frameworks built on it: a container that runs as long as the app, and a request per connection."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from ..extras import Extra

with Extra("starlette"):
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException, WebSocketException
    from starlette.middleware import Middleware
    from starlette.middleware.exceptions import ExceptionMiddleware
    from starlette.requests import Request
    from starlette.responses import JSONResponse

from ._answering import check_container
from .asgi import EXCHANGE, RequestContextMiddleware, headers, send_answer
from .errors import answer_error
from .outcome import note_error

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from ._answering import Release
    from .asgi import App, Exchange, Message, Receive, Scope, Send, Values
    from .errors import AnswerError, ErrorAnswer

__all__ = ["RequestContextMiddleware", "headers", "install", "lifespan"]


def install(
    app: Starlette,
    container: Any,
    *,
    values: Values | None = None,
    timeout: float | None = None,
    release: Release = "end",
    errors: AnswerError | None = answer_error,
    server_timing: bool = False,
) -> None:
    """
    Start and stop a container with an app, and open a request for each connection.

    An exception of a handler counts as an error for the pools' release hooks, also if an exception handler turns it
    into a response. A mounted app has separate exception handlers: call `install` for it, too. If an answer cannot be
    given because a checkpoint of the pools failed, as a commit can, the app's exception handlers answer that error.
    Other errors that no exception handler of the app has answered, except one for `Exception`, are answered by
    `errors`, as an `HTTPException` of their status is; without a handler of the app for that, with `{"detail": …}`.

    Args:
        app: The app, before it serves.
        container: The container that serves its requests.
        values: Returns a request's values, given the ASGI scope.
        timeout: As for `Container.stop`.
        release: When pooled values go back, as for `RequestContextMiddleware`.
        errors: Says how an error is answered, such as `lakebase.answer_error`; `None` answers none.
        server_timing: Whether answers get a `Server-Timing` header, as of `RequestContextMiddleware`.
    """
    check_container(container)
    inner = app.router.lifespan_context
    app.router.lifespan_context = lifespan(container, inner, timeout=timeout)
    app.add_middleware(
        RequestContextMiddleware,
        container=container,
        values=values,
        release=release,
        errors=errors,
        server_timing=server_timing,
        answer=functools.partial(_answer, app),
    )
    # Inside of all other middlewares, so that these see answers, and add to them what they add to others.
    app.user_middleware.append(Middleware(_ErrorAnswers, site=app))
    own = ExceptionMiddleware(app.router)
    app.exception_handlers.setdefault(HTTPException, own.http_exception)
    app.exception_handlers.setdefault(WebSocketException, own.websocket_exception)
    app.exception_handlers = NotingHandlers(app.exception_handlers)


def lifespan(
    container: Any,
    inner: Callable[[Any], AbstractAsyncContextManager[Any]] | None = None,
    *,
    timeout: float | None = None,
) -> Callable[[Starlette], AbstractAsyncContextManager[Any]]:
    """
    A lifespan for the app: `Starlette(lifespan=lifespan(container))`.

    The container starts before the app serves and stops after its last request; meanwhile it is
    `app.state.container`. For an app that adds `RequestContextMiddleware` itself; `install` does both.

    Args:
        container: The container to start and stop.
        inner: The app's lifespan, which runs while the container is running.
        timeout: As for `Container.stop`.
    """
    check_container(container)

    @asynccontextmanager
    async def run(app: Starlette) -> AsyncIterator[Any]:
        async with container.running(timeout):
            app.state.container = container
            if inner is None:
                yield None
                return
            async with inner(app) as state:
                yield state

    return run


async def _answer(app: Starlette, scope: Scope, receive: Receive, send: Send, failure: Exception) -> bool:
    """Have the app's exception handlers answer, as if the handler had raised the error; raises it if there is none."""

    async def fail(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise failure

    handlers = {key: handler for key, handler in app.exception_handlers.items() if key not in (500, Exception)}
    await ExceptionMiddleware(fail, handlers)(scope, receive, send)
    return True


class _ErrorAnswers:
    """
    Answers the errors that no exception handler of the app has answered.

    Args:
        app: The ASGI app inside.
        site: The app that it is a middleware of.
    """

    def __init__(self, app: App, *, site: Starlette) -> None:
        self._app = app
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_begun = False

        async def send_noted(message: Message) -> None:
            nonlocal is_begun
            is_begun = is_begun or message["type"] == "http.response.start"  # which a middleware outside may hold back
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        except Exception as error:
            exchange: Exchange | None = scope.get(EXCHANGE)
            answer = None if is_begun or exchange is None else exchange.find_answer(error)
            if answer is None:
                raise
            if scope["type"] == "http":
                response = await self._respond(Request(scope, receive), answer)
                await response(scope, receive, send)
            else:
                await send_answer(scope, send, answer)

    async def _respond(self, request: Request, answer: ErrorAnswer) -> Any:
        """What the app makes of such a status."""
        handlers = self._site.exception_handlers
        handler: Any = handlers.get(answer.status) or handlers[HTTPException]
        if getattr(handler, "__func__", None) is ExceptionMiddleware.http_exception:  # which answers with plain text
            return JSONResponse({"detail": answer.detail}, answer.status, answer.headers)
        refusal = HTTPException(answer.status, answer.detail, answer.headers)
        if _is_coroutine_function(handler):
            return await handler(request, refusal)
        return await run_in_threadpool(handler, request, refusal)


def _is_coroutine_function(handler: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(inspect.unwrap(handler)) or inspect.iscoroutinefunction(
        getattr(handler, "__call__", None)  # noqa: B004 - an object whose call is a coroutine function
    )


class NotingHandlers(dict[Any, Any]):
    """
    An app's exception handlers, wrapped so that they note each exception on the request before they answer it.

    Only `items` returns the wrapped handlers. The framework calls it when it serves for the first time, so handlers
    added until then are included.

    Args:
        handlers: By exception class or status.
        is_harmless: Whether an exception is no error for the pools.
    """

    def __init__(self, handlers: Mapping[Any, Any], is_harmless: Callable[[Exception], bool] | None = None) -> None:
        super().__init__(handlers)
        self._is_harmless = is_harmless

    def items(self) -> Any:
        """The wrapped handlers."""
        return {key: self._noting(handler) for key, handler in super().items()}.items()

    def _noting(self, handler: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def note(error: Exception) -> None:
            if self._is_harmless is None or not self._is_harmless(error):
                note_error(error, status=error.status_code if isinstance(error, HTTPException) else None)

        if _is_coroutine_function(handler):

            @functools.wraps(handler)
            async def answer(connection: Any, error: Exception) -> Any:
                note(error)
                return await handler(connection, error)

            return answer

        @functools.wraps(handler)
        def answer_in_thread(connection: Any, error: Exception) -> Any:
            note(error)
            return handler(connection, error)

        return answer_in_thread
