"""A request for each request of a WSGI app, until its body is closed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..context import RequestContext
from .outcome import note_status, note_unfinished

__all__ = ["RequestContextMiddleware"]

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]


class RequestContextMiddleware:
    """
    Opens a `RequestContext` around each request, and ends it when the server closes the body.

    So a body that is made while it is sent still has its pooled values. A response of status 500 or more counts as an
    error, which the release hooks of the pools get to see; so does a body that is closed between its first part and
    its end, as when the client has gone. The request is current while the app runs and
    while each part of the body is made, and nowhere in between: a server may make parts of several bodies by turns
    in one thread, or the parts of one in several.

    Args:
        app: The WSGI app inside.
        container: The container that serves the requests. Without one, injected functions use the one that runs.
        values: Makes the request's values from the environ, such as who is asking.
    """

    def __init__(
        self, app: App, container: Any = None, *, values: Callable[[Environ], Mapping[str, Any]] | None = None
    ) -> None:
        self.app = app
        self.container = container
        self.values = values

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        values = self.values(environ) if self.values is not None else {}
        title = f"{environ.get('REQUEST_METHOD', '')} {environ.get('PATH_INFO', '')}"
        ctx = RequestContext.served_by(self.container, title, values)

        def start(status: str, *rest: Any, **named: Any) -> Any:
            note_status(ctx, int(status[:3]) if status[:3].isdigit() else 0)
            return start_response(status, *rest, **named)

        try:
            with ctx.active():
                body = self.app(environ, start)
        except BaseException as error:
            ctx.close(error)
            raise
        return ClosingBody(body, ctx, may_be_cut=environ.get("REQUEST_METHOD") == "HEAD")


class ClosingBody:
    """
    A response's body that ends its request when it is closed.

    Args:
        may_be_cut: Whether it is no error that it is closed after its first part and before its end.
    """

    __slots__ = ("_body", "_ctx", "_error", "_is_whole", "_parts")

    def __init__(self, body: Iterable[bytes], ctx: RequestContext, *, may_be_cut: bool = False) -> None:
        self._body = body
        self._ctx = ctx
        self._parts: Iterator[bytes] | None = None
        self._is_whole = may_be_cut
        self._error: BaseException | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            with self._ctx.active():
                if self._parts is None:
                    self._parts = iter(self._body)
                return next(self._parts)
        except StopIteration:
            self._is_whole = True
            self.close()  # some test clients do not
            raise
        except BaseException as error:
            self._error = error
            raise

    def close(self) -> None:
        """End the request; the server calls this, also when the client has gone."""
        if self._ctx.is_closed:
            return
        if self._parts is not None and not self._is_whole:  # nobody asks for that of a 304
            note_unfinished(self._ctx)
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                with self._ctx.active():
                    close()
        except BaseException as error:
            self._error = self._error or error
            raise
        finally:
            self._ctx.close(self._error)
