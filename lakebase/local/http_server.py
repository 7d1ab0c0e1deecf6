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

logger = logging.getLogger("lakebase.local")

_LIMIT = 1_000_000


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
            ValueError: The body is something else.
        """
        found = json.loads(self.body or b"{}")
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


class HttpServer:
    """Serves one handler on one socket. Everything but the constructor runs on the loop."""

    def __init__(self, handler: Callable[[Request], Awaitable[Response]]) -> None:
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, host: str, port: int) -> int:
        """Listen, and return the port; 0 takes a free one."""
        self._server = await asyncio.start_server(self._accept, host, port, backlog=512)
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    async def close(self) -> None:
        """Stop listening and drop the connections."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            keep_alive = True
            while keep_alive:
                head = await reader.readuntil(b"\r\n\r\n")
                request, keep_alive = await self._read(head, reader)
                response = await self._handled(request)
                await self._write(writer, response, keep_alive=keep_alive)
        except ValueError as error:
            await self._write(
                writer, Response(400, {"error_code": "BAD_REQUEST", "message": str(error)}), keep_alive=False
            )
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client is gone, or does not speak HTTP
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

    async def _read(self, head: bytes, reader: asyncio.StreamReader) -> tuple[Request, bool]:
        first, *lines = head.decode("latin-1").split("\r\n")
        words = first.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise ValueError("no HTTP request")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
        }
        if "transfer-encoding" in headers:
            raise ValueError("a body must come with its Content-Length")
        size = int(headers.get("content-length", "0"))
        if not 0 <= size <= _LIMIT:
            raise ValueError(f"a body may have {_LIMIT} bytes")
        url = urlsplit(words[1])
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        body = await reader.readexactly(size)
        keep_alive = words[2] == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        return Request(words[0], unquote(url.path), query, headers, body), keep_alive

    async def _write(self, writer: asyncio.StreamWriter, response: Response, *, keep_alive: bool) -> None:
        body = json.dumps(response.body).encode()
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "keep-alive" if keep_alive else "close",
            **response.headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {response.status} {_phrase(response.status)}\r\n{head}\r\n".encode() + body)
        await writer.drain()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # a status that is not registered
        return "Unknown"
