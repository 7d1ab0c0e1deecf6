"""Flask: an extension that opens a request for every request the app serves."""

from __future__ import annotations

import atexit
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..extras import Extra

with Extra("flask"):
    from flask import request
    from werkzeug.exceptions import HTTPException, default_exceptions
    from werkzeug.wrappers import Response

from ..context import RequestContext
from ._answering import check_container, checked_errors, checked_release, find_answer, prepare_answer
from ._timing import checked_server_timing
from .errors import answer_error
from .outcome import note_error, note_status
from .wsgi import IS_PREPARED, RequestContextMiddleware

if TYPE_CHECKING:
    from flask import Flask

    from ._answering import Release
    from .errors import AnswerError, ErrorAnswer

__all__ = ["Pooling"]


class Pooling:
    """
    `Pooling(app, container)`, or `Pooling(container=container)` and later `init_app(app)`.

    The request ends when the server closes the body, not in the framework's teardown, which comes before a
    streamed body is sent, and twice with `stream_with_context`. If an answer cannot be given because a checkpoint of
    the pools failed, as a commit can, the app's error handlers answer that error. Other errors without a handler of the
    app are answered by `errors`, as `abort` with their status is; without a handler of the app for that, with
    `{"detail": …}`.

    Args:
        app: The app, or `None` to call `init_app` later.
        container: The container that serves the requests. Pools that were not started start at their first use. If the
            container is running when the process ends, it is stopped.
        values: Returns a request's values, given the WSGI environ.
        release: When pooled values go back, as for `pooling.web.wsgi.RequestContextMiddleware`.
        errors: Says how an error is answered, such as `lakebase.answer_error`; `None` answers none.
        server_timing: Whether answers get a `Server-Timing` header, as of `pooling.web.asgi.RequestContextMiddleware`.
    """

    def __init__(
        self,
        app: Flask | None = None,
        container: Any = None,
        *,
        values: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
        release: Release = "end",
        errors: AnswerError | None = answer_error,
        server_timing: bool = False,
    ) -> None:
        if container is not None:
            check_container(container)
        self.container: Any = container
        self.values = values
        self.release: Release = checked_release(release)
        self.errors: AnswerError | None = checked_errors(errors)
        self.server_timing: bool = checked_server_timing(server_timing)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Serve the requests of this app; may be called for several."""
        app.extensions["pooling"] = self
        app.wsgi_app = RequestContextMiddleware(  # type: ignore[method-assign]
            app.wsgi_app,
            self.container,
            values=self.values,
            release=self.release,
            errors=self.errors,
            server_timing=self.server_timing,
        )
        answer = app.handle_user_exception

        def answer_noted(error: Exception) -> Any:
            # The app turns the error into a response; release hooks still have to see it.
            note_error(error, status=_status(error) if isinstance(error, HTTPException) else None)
            return answer(error)

        @functools.wraps(answer)
        def answer_all(error: Exception) -> Any:
            try:
                return answer_noted(error)
            except Exception as raised:
                found = find_answer(self.errors, error) if raised is error else None
                if found is None:
                    raise
            return app.handle_http_exception(_as_exception(found))

        app.handle_user_exception = answer_all  # type: ignore[method-assign,assignment]
        respond = app.full_dispatch_request

        @functools.wraps(respond)
        def respond_truly() -> Any:
            # Here, and not only in the middleware outside, so that the app's error handlers answer a failure.
            response = respond()
            ctx = RequestContext.current()
            if ctx is None:
                return response
            note_status(ctx, response.status_code)
            try:
                prepare_answer(ctx, response.status_code, self.release)
            except Exception as error:  # noqa: BLE001 - raised again, unless the app has a handler for it
                return app.finalize_request(answer_noted(error))
            request.environ[IS_PREPARED] = ctx
            return response

        app.full_dispatch_request = respond_truly  # type: ignore[method-assign]
        if self.container is not None:
            atexit.register(self._stop)

    def _stop(self) -> None:
        if self.container.is_running:
            self.container.stop()


def _status(error: HTTPException) -> int | None:
    """The status of the response that was passed to `abort`, or of the exception."""
    return error.code if error.response is None else getattr(error.response, "status_code", None)


def _as_exception(answer: ErrorAnswer) -> HTTPException:
    """The answer as what `abort` raises, which the app's handlers of its status may answer."""
    response = Response(answer.body, answer.status, dict(answer.headers), content_type="application/json")
    return default_exceptions.get(answer.status, HTTPException)(answer.detail, response)
