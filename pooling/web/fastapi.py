"""
FastAPI: a container that lives as long as the app, requests, and what handlers need, as dependencies.

Handlers decorated with `pooling.di.inject` need none of this file. `Depends(Inject(App.repo))` works as well,
and `Injected[...]` is short for it; both run in the event loop, without a thread of the framework's pool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError

from ..context import RequestContext
from ..di import Inject
from ..errors import RequestContextError
from . import starlette
from .asgi import RequestContextMiddleware, headers
from .starlette import lifespan

if TYPE_CHECKING:
    from dependency_injector import providers

    from .asgi import Values

__all__ = ["CurrentRequest", "Injected", "RequestContextMiddleware", "headers", "install", "lifespan"]

T = TypeVar("T")


class _Injected:
    """`Injected[App.repo]` is `Depends(Inject(App.repo))`, typed as the value: for defaults and for `Annotated`."""

    @overload
    def __getitem__(self, target: providers.Provider[T]) -> T: ...
    @overload
    def __getitem__(self, target: str | tuple[Any, str]) -> Any: ...
    def __getitem__(self, target: Any) -> Any:
        return Depends(Inject(target))

    def __repr__(self) -> str:
        return "pooling.web.fastapi.Injected"


Injected = _Injected()


async def _current() -> RequestContext:
    ctx = RequestContext.current()
    if ctx is None:
        raise RequestContextError(
            "no request is open: add the middleware, pooling.web.fastapi.install(app, container), before serving"
        )
    return ctx


#: The open request, for a handler that wants its values: `ctx: Annotated[RequestContext, CurrentRequest]`.
CurrentRequest = Depends(_current)


def install(app: FastAPI, container: Any, *, values: Values | None = None, timeout: float | None = None) -> None:
    """
    Give an app its container: started and stopped with it, and a request of it for every connection.

    What a handler raises counts as an error for the release hooks of the pools, also where an exception handler makes
    a response of it, as of an `HTTPException`.

    Args:
        app: The app, before it serves.
        container: What serves its requests.
        values: Makes a request's values from the ASGI scope.
        timeout: As for `Container.stop`.
    """
    starlette.install(app, container, values=values, timeout=timeout)
    app.exception_handlers = starlette.NotingHandlers(app.exception_handlers, _is_a_refusal)


def _is_a_refusal(error: Exception) -> bool:
    """Whether the framework itself raised it, before a handler had begun; a handler can raise such an error, too."""
    if not isinstance(error, RequestValidationError | WebSocketRequestValidationError):
        return False
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return at is not None and at.tb_frame.f_globals.get("__name__", "").partition(".")[0] == "fastapi"
