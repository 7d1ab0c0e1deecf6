"""Real servers for the tests of leases: Redis, a server that counts its connections, and a proxy that can stop."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Self

import pytest

from pooling._engine.lease_book import LeaseBook
from tests.ports import free_port

LIMIT = 30.0


def until(is_so, what: str = "", seconds: float = LIMIT) -> None:
    """Return as soon as `is_so()` is true; fail if that takes too long."""
    ends = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < ends, what or "still not so"
        time.sleep(0.002)  # sleeps: between two looks


def find_redis() -> str | None:
    """The program of a Redis server: of this machine, or fetched by `.ci/get-redis`."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    fetched = cache / "lakebase-pooling" / "redis" / "redis-server"
    return str(fetched) if fetched.exists() else shutil.which("redis-server")


class RedisServer:
    """A Redis server that keeps nothing on disk."""

    def __init__(self, directory: Path) -> None:
        program = find_redis()
        if program is None:
            pytest.skip("no redis-server on this machine; .ci/get-redis fetches one on Debian")
        self._program = program
        self._directory = directory
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(
            [self._program, *options, "--dir", str(self._directory)], stdout=subprocess.DEVNULL
        )
        until(self._answers, "Redis does not start")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as client:
            client.sendall(b"PING\r\n")
            return client.recv(100).startswith(b"+PONG")
        return False

    def clear(self, *names: str) -> None:
        """
        Remove all data, and enter books without leases: the server is known to be new.

        Else it would give no place for a ttl, since it has just been started and might have lost a book.
        """
        import redis

        with redis.Redis.from_url(self.url) as client:
            client.flushall()
            for name in names:
                client.hset(f"pooling:leases:{name}", mapping={"version": "0", "book": LeaseBook().dumps()})

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(LIMIT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


class Loop:
    """A thread that serves sockets until the end of the block."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.server = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.server.setblocking(False)
        self.port = int(self.server.getsockname()[1])
        self._ends = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self.selector.register(self.server, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ends = True
        self._thread.join(LIMIT)
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self.selector.close()

    def _run(self) -> None:
        while not self._ends:
            ready = [key.fileobj for key, _ in self.selector.select(0.05)]
            # First what has ended: a client that closes one connection and opens another has one.
            for sock in sorted(ready, key=lambda sock: sock is self.server):
                if sock is not self.server:
                    self.read(sock)
                    continue
                with contextlib.suppress(BlockingIOError):
                    while True:
                        self.accept(self.server.accept()[0])

    def accept(self, client: socket.socket) -> None:
        raise NotImplementedError

    def read(self, sock: socket.socket) -> None:
        raise NotImplementedError


class Counter(Loop):
    """A server that knows how many connections it has, and how many it had at most."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.most = 0

    def accept(self, client: socket.socket) -> None:
        client.setblocking(False)
        self.selector.register(client, selectors.EVENT_READ)
        self.count += 1
        self.most = max(self.most, self.count)

    def read(self, sock: socket.socket) -> None:
        try:
            is_open = bool(sock.recv(4096))
        except ConnectionError:
            is_open = False
        if not is_open:
            self.selector.unregister(sock)
            sock.close()
            self.count -= 1


class Proxy(Loop):
    """Passes bytes on to a port, unless it is told to hold them."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._target = port
        self._peers: dict[socket.socket, socket.socket] = {}
        self._passes = threading.Event()
        self._passes.set()

    def hold(self) -> None:
        self._passes.clear()

    def go_on(self) -> None:
        self._passes.set()

    def __exit__(self, *error: object) -> None:
        self.go_on()
        super().__exit__(*error)

    def accept(self, client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self._target))
        for one, other in ((client, server), (server, client)):
            self._peers[one] = other
            self.selector.register(one, selectors.EVENT_READ)

    def read(self, sock: socket.socket) -> None:
        if not self._passes.wait(LIMIT) or sock not in self._peers:
            return
        try:
            data = sock.recv(65536)
            if data:
                self._peers[sock].sendall(data)
                return
        except OSError:
            pass
        other = self._peers.pop(sock)
        self._peers.pop(other, None)
        for each in (sock, other):
            self.selector.unregister(each)
            each.close()
