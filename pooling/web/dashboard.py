"""
A live page of all pools of the process: who holds, who waits, the budget, and what happens.

`Dashboard` is an ASGI app, `WsgiDashboard` a WSGI app, to mount below any path of yours. They need nothing installed.
Nothing is served unless you mount one, and nothing without your `authorize`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from ..errors import ConfigurationError
from ._dashboard.arguments import Decision, check_arguments, plain_decisions
from ._dashboard.errors import RefusedError
from ._dashboard.site import MOST_BODY, NOT_ALLOWED, STREAM_HEADERS, Answer, Request, Site, refusal, to_slash

__all__ = ["Dashboard", "WsgiDashboard"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Authorize = Callable[[Scope], bool | Awaitable[bool]]
Environ = dict[str, Any]
StartResponse = Callable[..., Any]

#: Seconds for which a stream is open. Then the browser opens the next: a server that stops waits no longer.
_STREAM = 3.0


class Dashboard:
    """
    The page as an ASGI app.

    Mount it below a path, in Starlette and FastAPI by `app.mount("/pools", Dashboard(is_operator))`. Below that path
    are the page, `pools.json`, `keys.json`, `key.json` and `events`, a stream of server-sent events. All show the pools
    of the process that answers; with several workers, each request may reach another one.

    Args:
        authorize: Is called with the ASGI scope of each request, and says whether it may see the page: only `True`
            means yes. It may be a coroutine function. The scope has what your middleware put there, such as a session
            or a user.
        allow_actions: Whether the page may expire, suspend and resume pools and close keys; a callable like `authorize`
            decides for each request.
        show_keys: Whether keys of pools, names of requests and of tasks are shown as they are. By default, keys are
            shown as hashes, and a path without the parts that may be data.
        interval: Seconds between two samples. One sample serves all pages that are open.
        max_streams: Pages that are open at once; one more asks every 2 s instead.

    Raises:
        ConfigurationError: An argument that cannot work.
    """

    def __init__(
        self,
        authorize: Authorize,
        *,
        allow_actions: bool | Authorize = False,
        show_keys: bool = False,
        interval: float = 1.0,
        max_streams: int = 20,
    ) -> None:
        check_arguments(authorize, allow_actions, show_keys, interval)
        if isinstance(max_streams, bool) or not isinstance(max_streams, int) or max_streams < 1:
            raise ConfigurationError(
                f"max_streams={max_streams!r}: expected a whole number, at least 1", field="max_streams"
            )
        self._authorize = Decision("authorize", authorize)
        self._allow_actions = Decision("allow_actions", allow_actions)
        self._max_streams = max_streams
        self._streams = 0
        self._site = Site(show_keys=show_keys, interval=interval)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _path_below(scope)
        if path is None:
            await _send(send, scope, to_slash(scope["path"]))
            return
        try:
            if not await self._authorize.awaited_answer(scope):
                raise RefusedError(403, NOT_ALLOWED)
            can_act = await self._allow_actions.awaited_answer(scope)
            request = _request(scope, path, b"")
            self._site.check(request)
            if path == "events" and scope["method"] == "GET":
                await self._stream(receive, send, can_act=can_act)
                return
            if path == "action":
                request = _request(scope, path, await _body(receive))
            # In a thread: sampling thousands of keys would hold up the loop, and a pool may live in another loop.
            answer = await asyncio.to_thread(self._site.answer, request, can_act=can_act)
        except RefusedError as error:
            answer = refusal(error)
        await _send(send, scope, answer)

    async def _stream(self, receive: Receive, send: Send, *, can_act: bool) -> None:
        """Send a sample at each interval, until the client leaves or it is time for the next stream."""
        if self._streams >= self._max_streams:
            raise RefusedError(503, f"max_streams={self._max_streams} pages are open already.", Retry_After="5")
        self._streams += 1
        left = asyncio.ensure_future(_leaves(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _encoded(STREAM_HEADERS)})
            await _send_part(send, b"retry: 500\n\n")
            for _ in range(max(int(_STREAM / self._site.interval), 1)):
                await _send_part(send, await asyncio.to_thread(self._site.message, can_act=can_act))
                done, _ = await asyncio.wait({left}, timeout=self._site.interval)
                if done:
                    return
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._streams -= 1
            left.cancel()


class WsgiDashboard:
    """
    `Dashboard` as a WSGI app: for Flask and Django, and beside any WSGI app.

    A stream of events ends after one event, and the browser asks for the next after `interval` seconds: so no page
    keeps a thread or a worker busy.

    Args:
        authorize: As for `Dashboard`, with the WSGI environment; an ordinary function.
        allow_actions: As for `Dashboard`.
        show_keys: As for `Dashboard`.
        interval: As for `Dashboard`.

    Raises:
        ConfigurationError: An argument that cannot work, or a coroutine function.
    """

    def __init__(
        self,
        authorize: Callable[[Environ], bool],
        *,
        allow_actions: bool | Callable[[Environ], bool] = False,
        show_keys: bool = False,
        interval: float = 1.0,
    ) -> None:
        check_arguments(authorize, allow_actions, show_keys, interval)
        self._authorize, self._allow_actions = plain_decisions(authorize, allow_actions)
        self._site = Site(show_keys=show_keys, interval=interval)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        answer = self._answer(environ)
        reason = HTTPStatus(answer.status).phrase
        length = ("content-length", str(len(answer.body)))
        start_response(f"{answer.status} {reason}", [*answer.headers, length])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.body]

    def _answer(self, environ: Environ) -> Answer:
        path: str = environ.get("PATH_INFO", "")
        if not path:
            return to_slash(environ.get("SCRIPT_NAME", ""))
        request = Request(
            method=environ["REQUEST_METHOD"],
            path=path.removeprefix("/"),
            query=dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)),
            headers=_wsgi_headers(environ),
            is_secure=environ.get("wsgi.url_scheme") == "https",
        )
        return self._site.serve(
            request,
            lambda: _wsgi_body(environ),
            is_allowed=self._authorize.answer(environ),
            can_act=self._allow_actions.answer(environ),
        )


# --- ASGI ------------------------------------------------------------------------------------------------------------


def _path_below(scope: Scope) -> str | None:
    """The path below the mount; `None` at the mount itself without a slash, where relative addresses go astray."""
    below: str
    if isinstance(scope.get("path_params", {}).get("path"), str):  # a route such as /pools/{path:path}
        below = scope["path_params"]["path"]
        return below if below or scope["path"].endswith("/") else None
    below = scope["path"]
    root: str = scope.get("root_path", "")
    if root and below.startswith(root):  # older servers and frameworks give only what is below
        below = below[len(root) :]
    return below.removeprefix("/") if below else None


def _request(scope: Scope, path: str, body: bytes) -> Request:
    return Request(
        method=scope["method"],
        path=path,
        query=dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)),
        headers={name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]},
        is_secure=scope.get("scheme") == "https",
        body=body,
    )


async def _live(receive: Receive, send: Send) -> None:
    """Say yes to a server that starts and stops this as an app of its own."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _body(receive: Receive) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MOST_BODY:
            raise RefusedError(413, f"An action has at most {MOST_BODY} bytes.")
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return body


async def _leaves(receive: Receive) -> None:
    """Return when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, scope: Scope, answer: Answer) -> None:
    headers = [*answer.headers, ("content-length", str(len(answer.body)))]
    await send({"type": "http.response.start", "status": answer.status, "headers": _encoded(headers)})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})


async def _send_part(send: Send, part: bytes) -> None:
    await send({"type": "http.response.body", "body": part, "more_body": True})


def _encoded(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers]


# --- WSGI ------------------------------------------------------------------------------------------------------------


def _wsgi_headers(environ: Environ) -> dict[str, str]:
    found = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
    found["content-type"] = environ.get("CONTENT_TYPE", "")
    return found


def _wsgi_body(environ: Environ) -> bytes:
    length: str = environ.get("CONTENT_LENGTH") or "0"
    if not (length.isascii() and length.isdecimal()) or int(length) > MOST_BODY:
        raise RefusedError(413, f"An action has at most {MOST_BODY} bytes, and says how many.")
    body: bytes = environ["wsgi.input"].read(int(length))
    return body
