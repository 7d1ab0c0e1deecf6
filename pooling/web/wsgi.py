"""A request for each request of a WSGI app, until its body is closed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from ..context import RequestContext
from ._answering import (
    Answering,
    ClosedOnError,
    StreamedBody,
    check_container,
    checked_errors,
    checked_release,
    find_answer,
    prepare_answer,
)
from ._timing import HEADER, Timings, checked_server_timing, timing_request
from .errors import answer_error
from .outcome import note_status

if TYPE_CHECKING:
    from ._answering import Release
    from .errors import AnswerError, ErrorAnswer

__all__ = ["RequestContextMiddleware"]

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]

#: A key of the environ: a framework's extension has done what has to happen before the answer goes out.
IS_PREPARED = "pooling.is_prepared"
#: Statuses of responses whose body no client reads.
_WITHOUT_BODY = {204, 304}


class RequestContextMiddleware:
    """
    Opens a `RequestContext` around each request, and ends it when the server closes the body.

    When the app has returned, before the first byte of the answer goes out, the checkpoint of each pooled value runs,
    such as a commit. If that fails, the error is raised in place of the answer, and the server answers with 500.

    A body that is made while it is sent can use pooled values. A response of status 500 or more counts as an
    error for the pools' release hooks; so does a body that is closed between its first part and
    its end, as when the client disconnects. The request is current while the app runs and
    while each part of the body is made, but not in between: a server may make parts of several bodies by turns
    in one thread, or the parts of one body in several threads. A file that the server sends by itself
    (`wsgi.file_wrapper`) uses no pooled value, so its request ends before it is sent.

    An error that the app or its body raises before the first bytes of the response is answered by `errors`, as of
    `pooling.web.asgi.RequestContextMiddleware`.

    Args:
        app: The WSGI app inside.
        container: The container that serves the requests. Without one, injected functions use the one that runs.
        values: Returns the request's values, such as the user, given the environ. A `LazyValue` is not made for
            requests that do not need it.
        release: `"end"`, or the same `"response"`, gives pooled values back when the body is closed; `"handler"` does
            so before the response begins. `Inject[App.repo, "handler"]` says so for one dependency.
        errors: Says how an error is answered; `None` answers none.
        server_timing: Whether answers get a `Server-Timing` header, as of `pooling.web.asgi.RequestContextMiddleware`.
            The checkpoint, which comes after the headers, is not in it, unless a framework's extension runs it before.
    """

    def __init__(
        self,
        app: App,
        container: Any = None,
        *,
        values: Callable[[Environ], Mapping[str, Any]] | None = None,
        release: Release = "end",
        errors: AnswerError | None = answer_error,
        server_timing: bool = False,
    ) -> None:
        if container is not None:
            check_container(container)
        self.app = app
        self.container = container
        self.values = values
        self.release: Release = checked_release(release)
        self.errors: AnswerError | None = checked_errors(errors)
        self.server_timing: bool = checked_server_timing(server_timing)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        with timing_request(self.server_timing) as timings:
            return self._serve(environ, start_response if timings is None else _showing(timings, start_response))

    def _serve(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            values = self.values(environ) if self.values is not None else {}
        except Exception as error:
            found = find_answer(self.errors, error)
            if found is None:
                raise
            return _give_answer(start_response, found)
        title = f"{environ.get('REQUEST_METHOD', '')} {environ.get('PATH_INFO', '')}"
        ctx = RequestContext.served_by(self.container, title, values)
        head = _Head(ctx, self.release, self.errors, start_response, environ)
        with Answering(ctx):
            try:
                body = self.app(environ, head.start)
            except Exception as error:
                other = head.give_other(error)
                if other is None:
                    raise
                body = other
            is_file = _is_file(body, environ)
            if head.status or is_file:
                with ClosedOnError(body):
                    head.prepare()
                    if is_file:
                        ctx.close()
        if is_file:
            return body
        may_be_cut = environ.get("REQUEST_METHOD") == "HEAD"
        return (SizedBody if hasattr(body, "__len__") else ClosingBody)(body, ctx, head, may_be_cut=may_be_cut)


def _showing(timings: Timings, start_response: StartResponse) -> StartResponse:
    """A `start_response` that adds the timings to the headers."""

    def start(status: str, headers: list[tuple[str, str]], *rest: Any, **named: Any) -> Any:
        return start_response(status, [*headers, (HEADER, timings.header())], *rest, **named)

    return start


def _give_answer(start_response: StartResponse, answer: ErrorAnswer) -> list[bytes]:
    """Give an answer in place of one that was begun and not sent; the body. Called for an exception."""
    body = answer.body
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **answer.headers}
    start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", list(headers.items()), sys.exc_info())
    return [body]


def _is_file(body: Any, environ: Environ) -> bool:
    """Whether the server sends this body itself: it uses no pooled value, and the server has to recognize it."""
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)


class _Head:
    """
    The status and headers of a response: what they say about its body, and what has to happen before they go out.

    Attributes:
        is_gone: Whether a part of the body was given to the server, which sends the head before it.
        is_prepared: Whether what has to happen before it goes out was done.
        status: The status of the response; `0` before it has begun.
        missing: Bytes of the body still to come, if its length is known.
    """

    __slots__ = (
        "_ctx",
        "_environ",
        "_errors",
        "_release",
        "_start_response",
        "is_gone",
        "is_prepared",
        "missing",
        "status",
    )

    def __init__(
        self,
        ctx: RequestContext,
        release: Release,
        errors: AnswerError | None,
        start_response: StartResponse,
        environ: Environ,
    ) -> None:
        self._ctx = ctx
        self._environ = environ
        self._release: Release = release
        self._errors = errors
        self._start_response = start_response
        self.is_gone: bool = False
        self.is_prepared: bool = False
        self.status: int = 0
        self.missing: int | None = None

    def start(self, status: str, headers: list[tuple[str, str]], *rest: Any, **named: Any) -> Any:
        """What the app is given as `start_response`."""
        self._note(int(status[:3]) if status[:3].isdigit() else 0, headers)
        write = self._start_response(status, headers, *rest, **named)

        def write_prepared(part: bytes) -> Any:
            self.is_gone = True
            self.prepare()
            return write(part)

        return write_prepared

    def give_other(self, error: Exception) -> list[bytes] | None:
        """Answer an error, in place of an answer of which nothing has gone; the body. Called for an exception."""
        found = None if self.is_gone else find_answer(self._errors, error, self._ctx)
        return None if found is None else _give_answer(self.start, found)

    def _note(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """Note what the app gave; it may do so again after an error."""
        self.status = status
        note_status(self._ctx, status)
        for name, value in headers:
            if name.lower() == "content-length" and value.isdigit():
                self.missing = int(value)

    def prepare(self) -> None:
        """See `prepare_answer`; once for each response."""
        if not self.is_prepared:
            self.is_prepared = True
            if self._environ.pop(IS_PREPARED, None) is self._ctx:
                return
            with self._ctx.active():
                prepare_answer(self._ctx, self.status, self._release)


class ClosingBody(StreamedBody):
    """
    A response's body that ends its request when it is complete or closed.

    With a known length, the body is asked for one more part as soon as all bytes are made. A server reads no further,
    but the code after the last part has to run before the request ends.
    """

    __slots__ = ("_error", "_head", "_is_whole", "_later")

    def __init__(self, content: Iterable[bytes], ctx: RequestContext, head: _Head, *, may_be_cut: bool) -> None:
        super().__init__(content, ctx, may_be_cut=may_be_cut)
        self._head = head
        self._is_whole = False
        self._error: BaseException | None = None
        self._later: bytes | Exception | None = None  # the part or error that came of asking for more

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        later, self._later = self._later, None
        if isinstance(later, Exception):
            raise later
        part = self._make() if later is None else later
        head = self._head
        if head.missing is not None:
            head.missing -= len(part)
            if head.missing <= 0:
                self._look_ahead()
        return part

    def _look_ahead(self) -> None:
        try:
            self._later = self._make()
        except StopIteration:
            pass
        except Exception as error:  # noqa: BLE001 - for the server, when it asks for the next part or closes
            self._later = error

    def _make(self) -> bytes:
        try:
            part = self._first_or_next_part()
            if part:
                self._head.prepare()  # unless the app had given status and headers before
                self._head.is_gone = True
        except StopIteration:
            self._is_whole = True
            self._head.prepare()
            self.close()  # some test clients do not close the body
            raise
        except BaseException as error:
            self._error = error
            raise
        return part

    def _first_or_next_part(self) -> bytes:
        try:
            return self._next_part()  # type: ignore[no-any-return]
        except StopIteration:
            raise
        except Exception as error:
            other = self._head.give_other(error)
            if other is None:
                raise
            self._parts = iter(other)
            return other.pop()

    def close(self) -> None:
        """End the request. The server calls this, also when the client disconnects."""
        later, self._later = self._later, None
        if not self._ctx.is_closed:
            if not self._is_whole and self._head.status not in _WITHOUT_BODY:
                self._note_given_up()
            try:
                close = getattr(self._content, "close", None)
                if close is not None:
                    with self._ctx.active():
                        close()
            except BaseException as error:
                self._error = self._error or error
                raise
            finally:
                self._ctx.close(self._error)
        if isinstance(later, Exception):
            raise later


class SizedBody(ClosingBody):
    """A body with a known number of parts: for a single part, a server sends the length of the body."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self._content)
