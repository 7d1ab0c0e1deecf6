"""The demo's app, served by uvicorn on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import uvicorn

if TYPE_CHECKING:
    from types import TracebackType

    from fastapi import FastAPI

__all__ = ["Server"]

_TICK = 0.005
# Seconds for requests in flight to end.
_STOP_TIMEOUT = 10
# Seconds. Longer than clients keep an idle connection, so that the client closes it first: the server could close it
# just as the next request is on its way. uvicorn and httpx both close after 5 s by default, which is a race.
_KEEP_ALIVE = 75


class _Quiet(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave Ctrl-C to the demo, which stops this server too."""
        yield


class Server:
    """
    Serves an app in this loop, from `async with` to its end, on a free port.

    At the end it refuses new connections, finishes the requests that are being served, and stops the app.
    """

    def __init__(self, app: FastAPI) -> None:
        self._socket = socket.socket()
        self._server = _Quiet(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="on",
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=_STOP_TIMEOUT,
            )
        )
        self._serving: asyncio.Task[Any] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        host, port = self._socket.getsockname()
        return f"http://{host}:{port}"

    async def __aenter__(self) -> Self:
        self._socket.bind(("127.0.0.1", 0))
        self._serving = asyncio.create_task(self._serve())
        try:
            while not self._server.started and not self._serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(_TICK)
        except BaseException:
            await self.stop()
            raise
        if self._serving.done():
            await self.stop()
        return self

    async def _serve(self) -> None:
        try:
            await self._server.serve(sockets=[self._socket])
        except SystemExit as error:  # what uvicorn raises when the app's lifespan fails
            raise RuntimeError("the app could not be started: see its log above") from error

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.stop()

    async def refuse(self) -> None:
        """Begin to stop: once this returns, new connections are refused, while requests in flight go on."""
        self._server.should_exit = True
        while any(server.is_serving() for server in self._server.servers):  # noqa: ASYNC110 - nor for this
            await asyncio.sleep(_TICK)

    async def stop(self) -> None:
        """Stop, and wait until everything has stopped."""
        self._server.should_exit = True
        if self._serving is not None:
            await asyncio.wait({self._serving})
            if not self._serving.cancelled() and (error := self._serving.exception()) is not None:
                raise error
        self._socket.close()
