"""Flask: an extension that opens a request for every request the app serves."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flask import got_request_exception

from ..context import RequestContext
from .wsgi import RequestContextMiddleware

if TYPE_CHECKING:
    from flask import Flask

__all__ = ["Pooling"]


class Pooling:
    """
    `Pooling(app, container)`, or `Pooling(container=container)` and later `init_app(app)`.

    The request ends where the server closes the body, and not in the framework's teardown, which comes before a
    streamed body and twice with `stream_with_context`.

    Args:
        app: The app, or `None` to give it later.
        container: What serves the requests. Pools that were not started with it start by their first use. If it
            is running when the process ends, it is stopped.
        values: Makes a request's values from the WSGI environ.
    """

    def __init__(
        self,
        app: Flask | None = None,
        container: Any = None,
        *,
        values: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
    ) -> None:
        self.container = container
        self.values = values
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Serve the requests of this app; may be called for several."""
        app.extensions["pooling"] = self
        app.wsgi_app = RequestContextMiddleware(  # type: ignore[method-assign]
            app.wsgi_app, self.container, values=self.values
        )
        got_request_exception.connect(_note_error, app)
        if self.container is not None:
            atexit.register(self._stop)

    def _stop(self) -> None:
        if self.container.is_running:
            self.container.stop()


def _note_error(_sender: Any, exception: BaseException, **_: Any) -> None:
    """The app makes a response of what a view raised; the release hooks are to see it all the same."""
    ctx = RequestContext.current()
    if ctx is not None:
        ctx.error = exception
