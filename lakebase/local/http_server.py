"""A small HTTP/1.1 server: JSON in, JSON out, connections kept alive, and no more than the local Lakebase needs."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["HttpServer", "Request", "Response"]

logger: logging.Logger = logging.getLogger("lakebase.local")

_LONGEST_HEAD = 32_768
_LONGEST_BODY = 1_000_000
_MOST_NESTED = 100
_MOST_CONNECTIONS = 1_000
# Seconds for a whole request to arrive, from the end of the one before it; also for an answer to be taken.
_TIMEOUT = 60.0
# Seconds to take and drop what a refused client still sends: closing at once would reset the connection, and the client
# might never see the answer.
_LINGER = 1.0


@dataclass(frozen=True, slots=True, repr=False)
class Request:
    """A request; header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """
        The body as a JSON object; without a body, an empty object.

        Raises:
            ValueError: The body is something else, or nested too deeply to be written again.
        """
        try:
            found = json.loads(self.body or b"{}")
        except RecursionError:
            found = None
        if found is None or _is_nested_deeper(found, _MOST_NESTED):
            raise ValueError(f"a body may be nested {_MOST_NESTED} levels deep")
        if not isinstance(found, dict):
            raise ValueError("not a JSON object")  # noqa: TRY004
        return found

    def form(self) -> dict[str, str]:
        """The body as form fields, the first value of each."""
        return {key: values[0] for key, values in parse_qs(self.body.decode("utf-8", "replace")).items()}


@dataclass(frozen=True, slots=True, repr=False)
class Response:
    """An answer with a JSON body."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


class _Refused(Exception):  # noqa: N818
    """The bytes of the client are no request that this server takes. Its connection is closed after the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.response = Response(status, {"error_code": "BAD_REQUEST", "message": message})


class HttpServer:
    """
    Serves one handler on one socket. Everything but the constructor runs on the loop.

    Args:
        handler: Answers a request. It may take as long as it likes.
        timeout: Seconds in which a client must send a request, and take its answer.
        most_connections: How many are open at most; further ones are dropped.
    """

    def __init__(
        self,
        handler: Callable[[Request], Awaitable[Response]],
        *,
        timeout: float = _TIMEOUT,
        most_connections: int = _MOST_CONNECTIONS,
    ) -> None:
        self._handler = handler
        self._timeout = timeout
        self._most_connections = most_connections
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, host: str, port: int) -> int:
        """Listen, and return the port; 0 takes a free one."""
        self._server = await asyncio.start_server(self._accept, host, port, backlog=512, limit=_LONGEST_HEAD)
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    async def close(self) -> None:
        """Stop listening and drop the connections."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.connections >= self._most_connections:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            try:
                keep_alive = True
                while keep_alive:
                    async with asyncio.timeout(self._timeout):
                        request, keep_alive = await self._read(reader, writer)
                    response = await self._handled(request)
                    await self._write(writer, response, keep_alive=keep_alive, has_body=request.method != "HEAD")
            except _Refused as refused:
                await self._write(writer, refused.response, keep_alive=False)
                writer.write_eof()
                async with asyncio.timeout(_LINGER):
                    while await reader.read(65_536):
                        pass
        except (OSError, EOFError):
            pass  # the client is gone, or too slow
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            writer.close()

    async def _handled(self, request: Request) -> Response:
        try:
            return await self._handler(request)
        except Exception:
            # Without an answer, clients would assume a broken network and retry until their timeout.
            logger.exception("no answer to %s %s", request.method, request.path)
            return Response(500, {"error_code": "INTERNAL_ERROR", "message": "the local server failed; see its log"})

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[Request, bool]:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise _Refused(431, f"the head of a request may have {_LONGEST_HEAD} bytes") from None
        first, *lines = head.decode("latin-1").split("\r\n")
        words = first.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise _Refused(400, "no HTTP request")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
        }
        try:
            url = urlsplit(words[1])
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
        except ValueError as error:
            raise _Refused(400, f"no URL: {error}") from None
        size = _body_size(headers)
        if headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(size)
        keep_alive = words[2] == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        return Request(words[0], unquote(url.path), query, headers, body), keep_alive

    async def _write(
        self, writer: asyncio.StreamWriter, response: Response, *, keep_alive: bool, has_body: bool = True
    ) -> None:
        body = json.dumps(response.body).encode()
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "keep-alive" if keep_alive else "close",
            **response.headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        text = f"HTTP/1.1 {response.status} {_phrase(response.status)}\r\n{head}\r\n".encode()
        writer.write(text + body if has_body else text)
        try:
            async with asyncio.timeout(self._timeout):
                await writer.drain()
        except TimeoutError:
            writer.transport.abort()  # closing would wait until the rest is taken
            raise


def _body_size(headers: Mapping[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise _Refused(411, "a body must come with its Content-Length")
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdecimal()):
        raise _Refused(400, "Content-Length must be a number of bytes")
    # By its length first: Python refuses to convert thousands of digits.
    if len(text) > 20 or int(text) > _LONGEST_BODY:
        raise _Refused(413, f"a body may have {_LONGEST_BODY} bytes")
    return int(text)


def _is_nested_deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects are in one another more than so many times, found without recursion."""
    layer = [value]
    for _ in range(levels + 1):
        inner: list[Any] = []
        for item in layer:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        if not inner:
            return False
        layer = inner
    return True


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # a status that is not registered
        return "Unknown"
