"""
FastAPI: a container that runs as long as the app, a request per connection, and providers as dependencies.

Handlers decorated with `pooling.di.inject` need only `install`. `Depends(Inject(App.repo))` works as well,
and `Injected[...]` is short for it; both run in the event loop, not in the framework's thread pool.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ..extras import Extra

with Extra("fastapi"):
    from fastapi import Depends, FastAPI
    from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
    from fastapi.params import Depends as DependsParameter

from ..binding import is_provider
from ..context import RequestContext
from ..di import Inject
from ..di._markers import Marker
from ..errors import ConfigurationError, RequestContextError
from . import starlette
from .asgi import RequestContextMiddleware, headers
from .errors import answer_error
from .starlette import lifespan

if TYPE_CHECKING:
    from dependency_injector import providers

    from ._answering import Release
    from .asgi import Values
    from .errors import AnswerError

__all__ = ["CurrentRequest", "Injected", "RequestContextMiddleware", "headers", "install", "lifespan"]

T = TypeVar("T")


class _Injected:
    """
    `Injected[App.repo]` is `Depends(Inject[App.repo])`, typed as the value: for defaults and for `Annotated`.

    `Injected[App.repo, "handler"]` gives the pooled values it needs back when the handler has returned, so a stream
    does not keep them. If another dependency of the request needs one for longer, it stays as long.
    """

    @overload
    def __getitem__(self, target: providers.Provider[T] | tuple[providers.Provider[T], Release]) -> T: ...
    @overload
    def __getitem__(self, target: str | tuple[Any, str] | tuple[Any, str, Release]) -> Any: ...
    def __getitem__(self, target: Any) -> Any:
        return Depends(Inject[target])

    def __repr__(self) -> str:
        return "pooling.web.fastapi.Injected"


Injected: _Injected = _Injected()


async def _current() -> RequestContext:
    ctx = RequestContext.current()
    if ctx is None:
        raise RequestContextError(
            "no request is open: add the middleware, pooling.web.fastapi.install(app, container), before serving"
        )
    return ctx


#: The open request, for a handler that wants its values: `ctx: Annotated[RequestContext, CurrentRequest]`.
CurrentRequest: Any = Depends(_current)


def install(
    app: FastAPI,
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
    into a response, as with `HTTPException`.

    Args:
        app: The app, before it serves.
        container: The container that serves its requests.
        values: Returns a request's values, given the ASGI scope.
        timeout: As for `Container.stop`.
        release: When pooled values go back, as for `RequestContextMiddleware`.
        errors: Says how an error is answered that no exception handler of the app has answered, as of
            `pooling.web.starlette.install`.
        server_timing: Whether answers get a `Server-Timing` header, as of `RequestContextMiddleware`.
    """
    starlette.install(
        app, container, values=values, timeout=timeout, release=release, errors=errors, server_timing=server_timing
    )
    app.router.lifespan_context = _checking_routes(app, app.router.lifespan_context, release)
    app.dependency_overrides = _Overrides(app.dependency_overrides)
    app.exception_handlers = starlette.NotingHandlers(app.exception_handlers, _is_a_refusal)


# --- handlers that are generators ------------------------------------------------------------------------------------


def _checking_routes(app: FastAPI, inner: Callable[[Any], Any], release: Release) -> Callable[[Any], Any]:
    """Check the routes when the app starts, which has all of them then."""

    def run(scope_app: Any) -> Any:
        for route in app.routes:
            _check_route(route, release)
        return inner(scope_app)

    return run


def _check_route(route: Any, release: Release) -> None:
    """
    Refuse a generator as a handler that gives pooled values back when it has returned: its body runs only then.

    Raises:
        ConfigurationError: The route has one.
    """
    dependant = getattr(route, "dependant", None)
    handler = inspect.unwrap(dependant.call) if dependant is not None and dependant.call is not None else None
    if not (inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler)):
        return
    for marker in _markers_of(dependant):
        if (marker.release or release) == "handler":
            raise ConfigurationError(
                f"{route.path}: the handler {handler.__qualname__} is a generator, whose body runs after it has "
                f'returned, and the pooled values of {marker!r} would be given back before. Mark it "end", as in '
                'Injected[App.repo, "end"], or take values inside with pooling.di.part',
                field="release",
            )


def _markers_of(dependant: Any) -> Iterator[Marker[Any]]:
    for part in dependant.dependencies:
        if isinstance(part.call, Marker):
            yield part.call
        yield from _markers_of(part)


# --- overrides -------------------------------------------------------------------------------------------------------


class _Overrides(dict[Any, Any]):
    """
    An app's `dependency_overrides`, whose keys may also be `Injected[App.repo]`, `Inject[App.repo]` or `App.repo`.

    They replace each dependency on the provider, also one that is marked with when its values go back.
    """

    def __init__(self, given: Mapping[Any, Any]) -> None:
        super().__init__({_plain(key): value for key, value in given.items()})

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(_plain(key), value)

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(_plain(key))

    def __delitem__(self, key: Any) -> None:
        super().__delitem__(_plain(key))

    def __contains__(self, key: object) -> bool:
        return super().__contains__(_plain(key))

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(_plain(key), default)

    def pop(self, key: Any, *default: Any) -> Any:
        return super().pop(_plain(key), *default)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        return super().setdefault(_plain(key), default)

    def update(self, *given: Any, **named: Any) -> None:
        for key, value in dict(*given, **named).items():
            self[key] = value


def _plain(key: Any) -> Any:
    """The marker that a key means, without when its values go back; other keys as they are."""
    if isinstance(key, DependsParameter):
        key = key.dependency
    if is_provider(key):
        return Inject(key)
    return key.without_release() if isinstance(key, Marker) else key


def _is_a_refusal(error: Exception) -> bool:
    """Whether the framework raised it before a handler began; a handler may raise an error of the same class."""
    if not isinstance(error, RequestValidationError | WebSocketRequestValidationError):
        return False
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return at is not None and at.tb_frame.f_globals.get("__name__", "").partition(".")[0] == "fastapi"
