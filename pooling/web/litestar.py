"""Litestar: a plugin that starts and stops a container with the app, and opens a request for every connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from litestar.exceptions import HTTPException, NotAuthorizedException
from litestar.exceptions.responses import create_exception_response
from litestar.middleware import DefineMiddleware
from litestar.plugins import InitPlugin
from litestar.utils.scope.state import ScopeState

from ..errors import UnauthenticatedError
from ._answering import check_container, checked_release, note_refusal
from ._timing import checked_server_timing
from .asgi import RequestContextMiddleware, headers
from .outcome import note_error

if TYPE_CHECKING:
    from litestar import Litestar, Request, Response
    from litestar.config.app import AppConfig

    from ._answering import Release
    from .asgi import Values

__all__ = ["PoolingPlugin", "RequestContextMiddleware", "headers"]


class PoolingPlugin(InitPlugin):
    """
    `Litestar(plugins=[PoolingPlugin(container)])`.

    An `UnauthenticatedError` without a handler of the app is answered as a `NotAuthorizedException` is.

    Args:
        container: The container that serves the requests.
        values: Returns a request's values, given the ASGI scope.
        timeout: As for `Container.stop`.
        release: When pooled values go back, as for `RequestContextMiddleware`.
        server_timing: Whether answers get a `Server-Timing` header, as of `RequestContextMiddleware`.
    """

    def __init__(
        self,
        container: Any,
        *,
        values: Values | None = None,
        timeout: float | None = None,
        release: Release = "end",
        server_timing: bool = False,
    ) -> None:
        check_container(container)
        self.container = container
        self.values = values
        self.timeout = timeout
        self.release: Release = checked_release(release)
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
                server_timing=self.server_timing,
                answer=_have_answered,
            ),
        )
        app_config.after_exception.append(_note)
        app_config.exception_handlers.setdefault(UnauthenticatedError, _refuse)
        return app_config


async def _have_answered(scope: Any, _receive: Any, _send: Any, failure: Exception) -> bool:
    """Have the app's exception handlers answer, which refuse to once a response was begun: this one was not sent."""
    ScopeState.from_scope(scope).response_started = False
    raise failure


def _refuse(request: Request[Any, Any, Any], error: Any) -> Response[Any]:
    return create_exception_response(request, NotAuthorizedException(note_refusal(error)))


def _note(error: Exception, _scope: Any) -> None:
    note_error(error, status=error.status_code if isinstance(error, HTTPException) else None)
