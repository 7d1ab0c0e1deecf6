"""
A request for each HTTP request and websocket of an ASGI app, and a container that starts
and stops with the server.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self

from .._backends.offload import in_background
from .._request.answer import agive_back, has_to_prepare, keeps_values, may_release_early
from ..context import RequestContext
from ._answering import aprepare_answer, check_container, checked_errors, checked_release, find_answer
from ._timing import HEADER, Timings, checked_server_timing, timing_request
from .errors import answer_error
from .outcome import note_status, note_unfinished

if TYPE_CHECKING:
    from types import TracebackType

    from ._answering import Release
    from .errors import AnswerError, ErrorAnswer

__all__ = ["ContainerLifespan", "RequestContextMiddleware", "headers"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Values = Callable[[Scope], Mapping[str, Any] | Awaitable[Mapping[str, Any]]]
#: Answers a connection whose answer could not be given because of an error, or returns `False`.
Answer = Callable[[Scope, Receive, Send, Exception], Awaitable[bool]]


#: Codes with which a websocket's client closes in good order: done, going away, or no code (RFC 6455).
_FAREWELLS = {1000, 1001, 1005}

#: Messages with a body or a part of one; also those of the extensions for sending files.
_BODIES = {"http.response.body", "http.response.pathsend", "http.response.zerocopysend"}

#: The key of a scope under which the code inside finds the `Exchange`.
EXCHANGE = "pooling.exchange"

#: Messages with which an answer begins.
_STARTS = {"http.response.start", "websocket.accept", "websocket.http.response.start"}


class RequestContextMiddleware:
    """
    Opens a `RequestContext` around each HTTP request and websocket, and ends it after the last use.

    Before the first byte of the answer goes out, the checkpoint of each pooled value runs, such as a commit. If that
    fails, the error is raised in place of the answer, and the server answers with 500.

    The request ends when the app returns: after a streamed body and after background tasks, when a websocket closes, on
    an error or a cancellation, which is passed to the pools' release hooks. If the client disconnects, the request
    ends when the code that serves it ends. A response that was not sent to its end counts as an error, and so does one
    of status 500 or more. A websocket that its client closes in good order does not.

    An error that no handler inside has answered is answered by `errors`: a request without a user with status 401, a
    pool that has nothing in time with 503, a websocket by closing it. A failed checkpoint is none of these, and neither
    is what fails when the answer has begun.

    Args:
        app: The ASGI app inside.
        container: The container that serves the requests. Without one, injected functions use the one that runs.
        values: Returns the request's values, such as the user, given the ASGI scope; may be a coroutine
            function. An exception of it goes to the server, or to an error middleware outside of this one. A
            `LazyValue` is not made for requests that do not need it.
        release: `"end"` gives pooled values back when the app returns; `"response"` ends the request as soon as the
            last part of the response was sent, so background tasks cannot use it; `"handler"` gives pooled values back
            before the response begins, so a stream and background tasks take others. `Inject[App.repo, "handler"]`
            says so for one dependency.
        errors: Says how an error is answered, as `lakebase.answer_error` does for an app on Lakebase. `None` answers
            none, so that the server answers with 500.
        server_timing: Whether answers get a `Server-Timing` header: how long the request waited for pools, of that for
            creates, and how long its checkpoint took. Each client sees these times.
        answer: Answers in place of the server when the answer could not be given; returns whether it did.
    """

    def __init__(
        self,
        app: App,
        container: Any = None,
        *,
        values: Values | None = None,
        release: Release = "end",
        errors: AnswerError | None = answer_error,
        answer: Answer | None = None,
        server_timing: bool = False,
    ) -> None:
        if container is not None:
            check_container(container)
        self.app = app
        self.container = container
        self.values = values
        self.release: Release = checked_release(release)
        self.errors: AnswerError | None = checked_errors(errors)
        self.answer = answer
        self.server_timing: bool = checked_server_timing(server_timing)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        with timing_request(self.server_timing) as timings:
            await self._serve(scope, receive, send if timings is None else _showing(timings, send))

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            values: Any = self.values(scope) if self.values is not None else {}
            if inspect.isawaitable(values):
                values = await values
        except Exception as error:
            found = find_answer(self.errors, error)
            if found is None:
                raise
            await send_answer(scope, send, found)
            return
        title = f"{scope.get('method', 'WEBSOCKET')} {scope.get('path', '')}"
        ctx = RequestContext.served_by(self.container, title, values)
        exchange = Exchange(
            ctx, receive, send, release=self.release, errors=self.errors, may_be_cut=scope.get("method") == "HEAD"
        )
        scope[EXCHANGE] = exchange
        with ctx.active():
            async with exchange:
                try:
                    await self.app(scope, exchange.receive, exchange.send)
                except Exception as error:
                    if exchange.unanswered is None:
                        found = exchange.find_answer(error)
                        if found is None:
                            raise
                        await send_answer(scope, exchange.send, found)
                finally:
                    scope.pop(EXCHANGE, None)  # it refers to the server's parts, which refer to the scope
                if exchange.unanswered is not None:
                    await self._answer(scope, exchange, exchange.unanswered)

    async def _answer(self, scope: Scope, exchange: Exchange, failure: Exception) -> None:
        """Have a failure answered that the app inside did not answer."""
        if self.answer is None or not await self.answer(scope, exchange.receive, exchange.send, failure):
            raise failure


async def send_answer(scope: Scope, send: Send, answer: ErrorAnswer) -> None:
    """Answer a request, or close a websocket; one that was not accepted yet is then answered by the server with 403."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": answer.close_code, "reason": answer.close_reason})
        return
    body = answer.body
    about = {"content-type": "application/json", "content-length": str(len(body)), **answer.headers}
    pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in about.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


def _showing(timings: Timings, send: Send) -> Send:
    """A `send` that adds the timings to the headers of an answer, when these go out."""

    def show(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            shown = (HEADER.lower().encode(), timings.header().encode())
            message = {**message, "headers": [*message.get("headers", ()), shown]}
        return send(message)

    return show


class ContainerLifespan:
    """
    Starts a container when the server starts, before the app inside starts, and stops it after that has shut down.

    A failed start is reported to the server, which then exits. The app inside need not have a lifespan. For Starlette
    and FastAPI there is also `pooling.web.starlette.lifespan`.

    Args:
        app: The ASGI app inside.
        container: The container to start and stop.
        timeout: As for `Container.stop`.
    """

    def __init__(self, app: App, container: Any, *, timeout: float | None = None) -> None:
        check_container(container)
        self.app = app
        self.container = container
        self.timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, or the life of the server."""
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return
        message = await receive()
        try:
            await self.container.astart()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"})
            raise
        inner = _InnerLifespan(message, receive, send)
        async with AsyncExitStack() as undo:  # after an error of the app, and if the server cancels
            undo.push_async_callback(self._stop, inner, send)
            await self._live(scope, inner, receive, send)
            undo.pop_all()
        try:
            await self.container.astop(self.timeout)
        except Exception as error:
            if inner.failure is None:
                await send({"type": "lifespan.shutdown.failed", "message": f"{type(error).__name__}: {error}"})
            raise
        await send(inner.failure or inner.farewell or {"type": "lifespan.shutdown.complete"})

    async def _stop(self, inner: _InnerLifespan, send: Send) -> None:
        """Stop the container, and then send what the app inside said at its end."""
        await self.container.astop(self.timeout)
        if inner.farewell is not None:
            await send(inner.farewell)

    async def _live(self, scope: Scope, inner: _InnerLifespan, receive: Receive, send: Send) -> None:
        """Run the app's lifespan until the server shuts down, or has been told that the app cannot start."""
        try:
            await self.app(scope, inner.receive, inner.send)
        except Exception:
            if inner.began:
                raise
        if inner.failure is not None:
            return
        if not inner.began:  # the app has no lifespan
            await send({"type": "lifespan.startup.complete"})
        if not inner.was_told_to_stop:
            await receive()


class _InnerLifespan:
    """The lifespan messages as the app inside sees them; its last one is held back until the container has stopped."""

    def __init__(self, startup: Message, receive: Receive, send: Send) -> None:
        self._startup: Message | None = startup
        self._receive = receive
        self._send = send
        self.began = False
        self.was_told_to_stop = False
        self.failure: Message | None = None
        self.farewell: Message | None = None

    async def receive(self) -> Message:
        if self._startup is not None:
            message, self._startup = self._startup, None
            return message
        message = await self._receive()
        self.was_told_to_stop = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "lifespan.startup.failed":
            self.failure = message
        elif message["type"].startswith("lifespan.shutdown"):
            self.farewell = message
        else:
            self.began = True
            await self._send(message)


def headers(scope: Mapping[str, Any]) -> dict[str, str]:
    """
    The headers of a request, names in lower case; the values of a repeated header are joined by commas.

    A value is read as UTF-8 where it is, else as Latin-1.
    """
    found: dict[str, str] = {}
    pairs: Iterable[tuple[bytes, bytes]] = scope.get("headers", ())
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1").lower(), _text(raw_value)
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


class Exchange:
    """
    Follows the messages of a request and its response, to know how it ends.

    Args:
        release: When pooled values go back.
        errors: Says how errors are answered.
        may_be_cut: Whether the response may end early without an error.

    Attributes:
        is_answered: Whether an answer was begun, or a websocket closed, so that no other one can be given.
        unanswered: Why the answer could not be given, as long as no other one has been given; else `None`.
    """

    __slots__ = (
        "_ctx",
        "_ending",
        "_errors",
        "_is_begun",
        "_is_complete",
        "_is_whole",
        "_left",
        "_missing",
        "_receive",
        "_release",
        "_send",
        "is_answered",
        "unanswered",
    )

    def __init__(
        self,
        ctx: RequestContext,
        receive: Receive,
        send: Send,
        *,
        release: Release,
        errors: AnswerError | None,
        may_be_cut: bool,
    ) -> None:
        self._ctx = ctx
        self._errors = errors
        self._receive = receive
        self._send = send
        self._release: Release = release
        self._is_begun = False
        self._is_whole = may_be_cut  # whether the response is complete, or counts as complete
        self._missing: int | None = None  # bytes of the body still to come, if its length is known
        self._left: int | None = None  # the code with which a websocket's client closed
        self._ending: asyncio.Future[None] | None = None
        self._is_complete = False
        self.is_answered: bool = False
        self.unanswered: Exception | None = None

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._note_cut()  # now, since a middleware in between may send an end of the response itself
        elif message["type"] == "websocket.disconnect":
            self._left = message.get("code")
            self.is_answered = True
        return message

    def send(self, message: Message) -> Awaitable[None]:
        kind = message["type"]
        if kind in _STARTS:
            status = message.get("status")
            if status is not None:
                note_status(self._ctx, status)
            # A websocket's handler goes on after this, with its values.
            release = None if kind == "websocket.accept" else self._release
            if has_to_prepare(self._ctx, release):
                return self._prepare_and_send(message, status or 0, release)
            self._note_begun(message)
        elif kind in _BODIES:
            if self._missing is not None:
                self._missing -= len(message.get("body", b""))
            self._is_complete = not message.get("more_body", False)
            if self._is_complete or (self._missing is not None and self._missing <= 0):
                self._is_whole = True
            if self._is_complete and (self._release == "response" or may_release_early(self._ctx)):
                return self._send_last(message)
        elif kind == "websocket.close":
            self.unanswered = None
            self.is_answered = True
            if self._release == "response":
                return self._send_last(message)
        return self._send(message)

    def find_answer(self, error: Exception) -> ErrorAnswer | None:
        """The answer to an error, if one can still be given and the error did not keep another one from going out."""
        if self.is_answered or self.unanswered is not None:
            return None
        return find_answer(self._errors, error, self._ctx)

    async def _prepare_and_send(self, message: Message, status: int, release: Release | None) -> None:
        """Send the beginning of the answer, unless it would not be true."""
        try:
            await aprepare_answer(self._ctx, status, release)
        except Exception as error:
            self.unanswered = error
            raise
        self._note_begun(message)
        await self._send(message)

    def _note_begun(self, message: Message) -> None:
        self.unanswered = None
        if message["type"] != "websocket.accept":  # a websocket can still be closed with a code
            self.is_answered = True
        if message["type"] == "http.response.start":
            self._is_begun = True
            self._missing = _length(message.get("headers", ()))

    async def _send_last(self, message: Message) -> None:
        """Send the last message, and give back what is not needed afterwards."""
        await self._send(message)
        if self._release == "response" and not keeps_values(self._ctx):
            await self.end(None)
        else:
            await agive_back(self._ctx, "response", self._release)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.end(exc)

    async def end(self, error: BaseException | None) -> None:
        """
        End the request in a separate task.

        A caller that is cancelled repeatedly, as by anyio, stops waiting; the release goes on.
        """
        if self._left in _FAREWELLS and getattr(error, "code", None) == self._left:
            error = None  # it only says that the client closed in good order
        if error is None:
            self._note_cut()
        if self._ending is None:
            self._ending = in_background(self._ctx.aclose(error))
        try:
            await asyncio.shield(self._ending)
        except asyncio.CancelledError:
            if not self._ending.done():
                await asyncio.shield(self._ending)
            raise

    def _note_cut(self) -> None:
        if self._is_begun and not self._is_whole:
            note_unfinished(self._ctx)


def _length(pairs: Iterable[tuple[bytes, bytes]]) -> int | None:
    for name, value in pairs:
        if name.lower() == b"content-length" and value.isdigit():
            return int(value)
    return None
