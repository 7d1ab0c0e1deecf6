"""Starlette, and frameworks built on it: a container that runs as long as the app, and a request per connection."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException, WebSocketException
from starlette.middleware.exceptions import ExceptionMiddleware

from ..errors import UnauthenticatedError
from ._answering import check_container, note_refusal
from .asgi import RequestContextMiddleware, headers
from .outcome import note_error

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from ._answering import Release
    from .asgi import Receive, Scope, Send, Values

__all__ = ["RequestContextMiddleware", "headers", "install", "lifespan"]


def install(
    app: Starlette,
    container: Any,
    *,
    values: Values | None = None,
    timeout: float | None = None,
    release: Release = "end",
    server_timing: bool = False,
) -> None:
    """
    Start and stop a container with an app, and open a request for each connection.

    An exception of a handler counts as an error for the pools' release hooks, also if an exception handler turns it
    into a response. A mounted app has separate exception handlers: call `install` for it, too. If an answer cannot be
    given because a checkpoint of the pools failed, as a commit can, the app's exception handlers answer that error.
    An `UnauthenticatedError` without a handler of the app is answered as an `HTTPException` of status 401.

    Args:
        app: The app, before it serves.
        container: The container that serves its requests.
        values: Returns a request's values, given the ASGI scope.
        timeout: As for `Container.stop`.
        release: When pooled values go back, as for `RequestContextMiddleware`.
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
        server_timing=server_timing,
        answer=functools.partial(_answer, app),
    )
    own = ExceptionMiddleware(app.router)
    app.exception_handlers.setdefault(HTTPException, own.http_exception)
    app.exception_handlers.setdefault(WebSocketException, own.websocket_exception)
    app.exception_handlers.setdefault(UnauthenticatedError, _refusing(app))
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


def _refusing(app: Starlette) -> Callable[[Any, Any], Any]:
    """A handler of an `UnauthenticatedError`: what the app makes of a status 401."""

    async def refuse(connection: Any, error: UnauthenticatedError) -> Any:
        words = note_refusal(error)
        if connection.scope["type"] == "websocket":
            await connection.close(1008)
            return None
        handlers = app.exception_handlers
        answer: Any = handlers.get(401) or handlers[HTTPException]
        refusal = HTTPException(401, words)
        if _is_coroutine_function(answer):
            return await answer(connection, refusal)
        return await run_in_threadpool(answer, connection, refusal)

    return refuse


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
