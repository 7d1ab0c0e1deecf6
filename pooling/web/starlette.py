"""Starlette, and what is built on it: a container that lives as long as the app, and a request for each of its own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException, WebSocketException
from starlette.middleware.exceptions import ExceptionMiddleware

from .asgi import RequestContextMiddleware, headers
from .outcome import note_error

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from .asgi import Values

__all__ = ["RequestContextMiddleware", "headers", "install", "lifespan"]


def install(app: Starlette, container: Any, *, values: Values | None = None, timeout: float | None = None) -> None:
    """
    Give an app its container: started and stopped with it, and a request of it for every connection.

    What a handler raises counts as an error for the release hooks of the pools, also where an exception handler makes
    a response of it. The handlers of an app that is mounted in this one are its own: give it to `install` as well.

    Args:
        app: The app, before it serves.
        container: What serves its requests.
        values: Makes a request's values from the ASGI scope.
        timeout: As for `Container.stop`.
    """
    inner = app.router.lifespan_context
    app.router.lifespan_context = lifespan(container, inner, timeout=timeout)
    app.add_middleware(RequestContextMiddleware, container=container, values=values)
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

    The container starts before the app serves and stops after its last request; it is `app.state.container` meanwhile.
    For an app that adds `RequestContextMiddleware` where it wants it; `install` does both.

    Args:
        container: What to start and stop.
        inner: The app's own lifespan, run while the container is running.
        timeout: As for `Container.stop`.
    """

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


class NotingHandlers(dict[Any, Any]):
    """
    An app's exception handlers, which tell the request of each exception before they answer it.

    Only `items` gives handlers that do: the framework asks for them when it serves for the first time, so those added
    until then are in.

    Args:
        handlers: By exception class or status.
        is_harmless: Whether an exception says nothing of how something was used.
    """

    def __init__(self, handlers: Mapping[Any, Any], is_harmless: Callable[[Exception], bool] | None = None) -> None:
        super().__init__(handlers)
        self._is_harmless = is_harmless

    def items(self) -> Any:
        """The handlers as the framework is to call them."""
        return {key: self._noting(handler) for key, handler in super().items()}.items()

    def _noting(self, handler: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def note(error: Exception) -> None:
            if self._is_harmless is None or not self._is_harmless(error):
                note_error(error, status=error.status_code if isinstance(error, HTTPException) else None)

        if inspect.iscoroutinefunction(inspect.unwrap(handler)) or inspect.iscoroutinefunction(
            getattr(handler, "__call__", None)  # noqa: B004 - an object whose call is a coroutine function
        ):

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
