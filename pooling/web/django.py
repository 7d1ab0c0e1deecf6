"""
Django: a middleware for sync and async views. The request ends when its response is closed.

In the settings::

    MIDDLEWARE = ["pooling.web.django.RequestContextMiddleware", ...]
    POOLING = {"CONTAINER": "shop.pools.app", "VALUES": "shop.pools.values"}

`CONTAINER` is a container or the path to import it from; `VALUES` returns the request's values, given the
`HttpRequest`, or is the path of such a function; `RELEASE` says when pooled values go back, and `ERRORS` how errors are
answered, as for `pooling.web.wsgi.RequestContextMiddleware`: with `"lakebase.answer_error"` also those of Lakebase. All
are optional.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NoReturn

from ..extras import Extra

with Extra("django"):
    from asgiref.sync import iscoroutinefunction, markcoroutinefunction
    from django.conf import settings
    from django.http import HttpResponse
    from django.utils.module_loading import import_string

from .._backends.offload import in_background, in_loop
from .._request.held import abandon, must_be_awaited
from ..context import RequestContext
from ..errors import ConfigurationError, RequestContextError
from ._answering import (
    Answering,
    ClosedOnError,
    StreamedBody,
    aprepare_answer,
    check_container,
    checked_errors,
    checked_release,
    find_answer,
    prepare_answer,
)
from ._dashboard.arguments import check_arguments, plain_decisions
from ._dashboard.errors import RefusedError
from ._dashboard.site import MOST_BODY, Request, Site, to_slash
from ._timing import HEADER, Timings, checked_server_timing, timing_request
from .errors import answer_error
from .outcome import note_error, note_status

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from ._answering import Release
    from .errors import AnswerError, ErrorAnswer

__all__ = ["Dashboard", "RequestContextMiddleware"]


_NAMES = ("CONTAINER", "VALUES", "RELEASE", "ERRORS", "SERVER_TIMING")


class RequestContextMiddleware:
    """
    Opens a `RequestContext` around each request.

    It ends when the view has answered, before the response goes out; with a streamed response, when its content is
    complete or given up, and what the view did is made durable before the response goes out. If that fails, as a commit
    can, the error is raised in place of the response.
    Other errors of a view or of `VALUES` are answered by `ERRORS`, unless a middleware inside of this one does it.
    Under ASGI use async views with asyncio pools; under WSGI plain views with pools for threads.

    Args:
        get_response: The next middleware or the view; passed by Django.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        given: Mapping[str, Any] = getattr(settings, "POOLING", {})
        _check_names(given)
        self.container: Any = _imported(given.get("CONTAINER"))
        if self.container is not None:
            check_container(self.container, "POOLING['CONTAINER']")
        self.values: Any = _imported(given.get("VALUES"))
        self.release: Release = checked_release(given.get("RELEASE", "end"))
        self.errors: AnswerError | None = checked_errors(_imported(given.get("ERRORS", answer_error)))
        self.server_timing: bool = checked_server_timing(given.get("SERVER_TIMING", False))
        self.is_async: bool = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Serve one request."""
        return self._answer_async(request) if self.is_async else self._answer(request)

    def _answer(self, request: HttpRequest) -> HttpResponseBase:
        with timing_request(self.server_timing) as timings:
            response = self._serve(request)
            _show(timings, response)
            return response

    async def _answer_async(self, request: HttpRequest) -> HttpResponseBase:
        with timing_request(self.server_timing) as timings:
            response = await self._serve_async(request)
            _show(timings, response)
            return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Called by the framework before it turns an exception of a view into a response."""
        ctx: RequestContext | None = getattr(request, "pooling_context", None)
        answer = find_answer(self.errors, exception, ctx)
        if answer is not None:
            return _response(answer)
        if ctx is not None:
            note_error(exception, ctx)
        return None

    def _open(self, request: HttpRequest) -> RequestContext:
        values = {} if self.values is None else self.values(request)
        ctx = RequestContext.served_by(self.container, f"{request.method} {request.path}", values)
        vars(request)["pooling_context"] = ctx  # for `process_exception`
        return ctx

    def _serve(self, request: HttpRequest) -> HttpResponseBase:
        try:
            ctx = self._open(request)
        except Exception as error:
            answer = find_answer(self.errors, error)
            if answer is None:
                raise
            return _response(answer)
        with Answering(ctx):
            response: Any = self.get_response(request)
            if must_be_awaited(ctx):
                _refuse_closed_loop(ctx)
            note_status(ctx, response.status_code)
            with ClosedOnError(response):
                prepare_answer(ctx, response.status_code, self.release)
                if not _is_streamed(response):
                    ctx.close()
                    return response
        _keep_open(request, response, ctx, None)
        return response

    async def _serve_async(self, request: HttpRequest) -> HttpResponseBase:
        try:
            ctx = self._open(request)
        except Exception as error:
            answer = find_answer(self.errors, error)
            if answer is None:
                raise
            return _response(answer)
        async with Answering(ctx):
            response: Any = await self.get_response(request)
            note_status(ctx, response.status_code)
            with ClosedOnError(response):
                await aprepare_answer(ctx, response.status_code, self.release)
                if not _is_streamed(response):
                    await ctx.aclose()
                    return response
        _keep_open(request, response, ctx, asyncio.get_running_loop())
        return response


def _show(timings: Timings | None, response: HttpResponseBase) -> None:
    """Add the timings to the headers."""
    if timings is not None:
        others = response.headers.get(HEADER)
        response.headers[HEADER] = timings.header() if others is None else f"{others}, {timings.header()}"


def _response(answer: ErrorAnswer) -> HttpResponse:
    return HttpResponse(
        answer.body, status=answer.status, content_type="application/json", headers=dict(answer.headers)
    )


class Dashboard:
    """
    `pooling.web.dashboard.WsgiDashboard` as a view, under WSGI and ASGI.

    Its route gives it the path below: `re_path(r"^pools(?P<path>/.*)?$", Dashboard(is_operator))`.

    Args:
        authorize: Is called with the `HttpRequest`, and says whether it may see the page: only `True` means yes.
        allow_actions: As for `pooling.web.dashboard.Dashboard`, with the `HttpRequest`.
        show_keys: As there.
        interval: As there.

    Raises:
        ConfigurationError: An argument that cannot work, or a coroutine function.
    """

    csrf_exempt = True  # the page has a token of its own

    def __init__(
        self,
        authorize: Callable[[HttpRequest], bool],
        *,
        allow_actions: bool | Callable[[HttpRequest], bool] = False,
        show_keys: bool = False,
        interval: float = 1.0,
    ) -> None:
        check_arguments(authorize, allow_actions, show_keys, interval)
        self._authorize, self._allow_actions = plain_decisions(authorize, allow_actions)
        self._site = Site(show_keys=show_keys, interval=interval)

    def __call__(self, request: HttpRequest, path: str | None = None) -> HttpResponse:
        """Serve one request."""
        given: Any = request  # without type information
        if path is None:
            answer = to_slash(request.path)
        else:
            answer = self._site.serve(
                Request(
                    method=request.method or "GET",
                    path=path.removeprefix("/"),
                    query=given.GET.dict(),
                    headers={name.lower(): value for name, value in given.headers.items()},
                    is_secure=request.is_secure(),
                ),
                lambda: _body(request),
                is_allowed=self._authorize.answer(request),
                can_act=self._allow_actions.answer(request),
            )
        response = HttpResponse(answer.body, status=answer.status)
        for name, value in answer.headers:
            response[name] = value
        return response


def _body(request: Any) -> bytes:
    if int(request.headers.get("content-length") or 0) > MOST_BODY:
        raise RefusedError(413, f"An action has at most {MOST_BODY} bytes.")
    return request.body  # type: ignore[no-any-return]


def _check_names(given: Mapping[str, Any]) -> None:
    """
    Check the keys of the setting `POOLING`.

    Raises:
        ConfigurationError: One is not known.
    """
    for name in given:
        if name not in _NAMES:
            meant = get_close_matches(str(name).upper(), _NAMES, 1)
            raise ConfigurationError(
                f"POOLING[{name!r}]: the keys of this setting are {', '.join(_NAMES)}"
                + (f"; did you mean {meant[0]}?" if meant else ""),
                field=str(name),
            )


def _imported(given: Any) -> Any:
    return import_string(given) if isinstance(given, str) else given


def _refuse_closed_loop(ctx: RequestContext) -> NoReturn:
    """
    Give up values of an asyncio pool that an async view has taken under WSGI.

    Raises:
        RequestContextError: Always.
    """
    abandon(ctx)
    raise RequestContextError(
        f"{ctx} holds values of an asyncio pool under WSGI, where Django runs an async view in an event loop that is "
        "closed when the view returns, so they cannot be committed or given back: serve the site with ASGI, or use "
        "plain views and pools for threads"
    )


def _is_streamed(response: Any) -> bool:
    """Whether code of the app makes the content; a server may send a file by itself, and has to recognize it."""
    return response.streaming and getattr(response, "file_to_stream", None) is None


def _keep_open(request: Any, response: Any, ctx: RequestContext, loop: asyncio.AbstractEventLoop | None) -> None:
    """Keep the request open until the content of its response is complete, or the framework closes the response."""
    kind = _AsyncParts if response.is_async else _Parts
    body = kind(response.streaming_content, ctx, loop, may_be_cut=request.method == "HEAD")
    response.streaming_content = body
    close = request.close

    def close_all() -> None:
        try:
            close()
        finally:
            body.close()

    # A middleware outside may replace this response, whose content is then not closed.
    request.close = close_all


class _Body(StreamedBody):
    """
    A streamed body that keeps its request open until it is complete or given up.

    The framework calls `close` when the response is closed, in any thread. Between the first part and the end that is
    an error, except for a HEAD request.
    """

    __slots__ = ("_loop",)

    def __init__(
        self, content: Any, ctx: RequestContext, loop: asyncio.AbstractEventLoop | None, *, may_be_cut: bool
    ) -> None:
        super().__init__(content, ctx, may_be_cut=may_be_cut)
        self._loop = loop

    def close(self) -> None:
        self._note_given_up()
        self._end(None)

    def _error(self, error: BaseException) -> BaseException | None:
        """The error that the request ends with if its body raised this one."""
        is_cut = isinstance(error, asyncio.CancelledError | GeneratorExit)
        return None if is_cut and self._may_be_cut else error

    def _end(self, error: BaseException | None) -> None:
        if self._ctx.is_closed:
            return
        if self._loop is None or self._loop.is_closed():
            self._ctx.close(error)
        elif in_loop():
            _ = in_background(self._ctx.aclose(error))
        else:
            asyncio.run_coroutine_threadsafe(self._ctx.aclose(error), self._loop).result()


class _Parts(_Body):
    """A body made by a plain iterator."""

    __slots__ = ()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            part: bytes = self._next_part()
        except StopIteration:
            self._end(None)
            raise
        except BaseException as error:
            self._end(self._error(error))
            raise
        return part


class _AsyncParts(_Body):
    """A body made by an async iterator."""

    __slots__ = ()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            with self._ctx.active():
                if self._parts is None:
                    self._parts = aiter(self._content)
                part: bytes = await anext(self._parts)
        except StopAsyncIteration:
            await self._ctx.aclose()
            raise
        except BaseException as error:
            await self._ctx.aclose(self._error(error))
            raise
        return part
