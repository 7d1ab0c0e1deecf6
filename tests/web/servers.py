"""Real servers on loopback, each in its own thread."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Self

import httpx
import uvicorn
import waitress.server

# For clients of plain HTTP: to read the certificates of all authorities takes each of them 20 ms of processor time.
PLAIN = {"verify": False}


class Uvicorn:
    """uvicorn, stopped gracefully at the end of the block."""

    def __init__(self, app, lifespan: str = "auto", port: int = 0) -> None:
        config = uvicorn.Config(
            app, host="127.0.0.1", port=0, lifespan=lifespan, log_level="critical", ws="websockets-sansio"
        )
        self.server = uvicorn.Server(config)
        self.started = threading.Event()
        self.failed: BaseException | None = None
        startup = self.server.startup

        async def announce(sockets=None):
            await startup(sockets)
            self.started.set()

        self.server.startup = announce
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # for the port of one that has just stopped
        self.socket.bind(("127.0.0.1", port))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.server.run(sockets=[self.socket])
        except BaseException as error:
            self.failed = error
        finally:
            self.started.set()

    def __enter__(self) -> Self:
        self.thread.start()
        assert self.started.wait(30)
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()
        self.socket.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def waitress_server(app) -> Iterator[str]:
    """waitress, a WSGI server with threads."""
    server = waitress.server.create_server(app, host="127.0.0.1", port=0, threads=4, clear_untrusted_proxy_headers=True)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.effective_port}"
    finally:
        with contextlib.suppress(OSError):  # the loop was awake, and has closed what was to wake it
            server.trigger.pull_trigger(server.close)  # in its own loop
        thread.join(30)
        assert not thread.is_alive()


def eventually(condition, timeout: float = 20.0, every: float = 0.002) -> None:
    """Wait until a server in another thread has finished what it does after the client has its answer."""
    pause = threading.Event()
    for _ in range(int(timeout / every)):
        if condition():
            return
        pause.wait(every)
    raise AssertionError("it did not come to that")


def nothing_is_out(container) -> None:
    """Wait until the pool of a site has everything back."""
    eventually(lambda: container.things().borrowed == 0)


def get(url, path="/", **options) -> httpx.Response:
    return httpx.get(url + path, timeout=30, **PLAIN, **options)
