"""Real servers on the way to a workspace: one that speaks TLS, and a proxy."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from lakebase.local.gateway.certificates import Certificates

CREDENTIAL = {"token": "minted", "expire_time": "2999-01-01T00:00:00Z"}


class Workspace(ThreadingHTTPServer):
    """Mints the same credential for everyone, and notes what it was asked."""

    daemon_threads = True

    def __init__(self, directory: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.clients: set[tuple[str, int]] = set()
        self.scheme = "http"
        if directory is not None:
            certificates = Certificates(directory, ("127.0.0.1", "localhost"))
            self.ca_file = certificates.ca_file
            self.socket = certificates.server_context().wrap_socket(self.socket, server_side=True)
            self.scheme = "https"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: clients of these tests go away in the middle of a handshake."""


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    status, answer, extra = 200, json.dumps(CREDENTIAL).encode(), {}
    server: Workspace

    def do_GET(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        self.rfile.read(size)
        self.server.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        self.server.clients.add(self.client_address)
        self.send_response(self.status)
        for name, value in {**self.extra, "Content-Length": str(len(self.answer))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.answer)

    do_POST = do_GET  # noqa: N815

    def do_CONNECT(self) -> None:
        """Be a proxy, whose client says where to."""
        self.server.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        host, _, port = self.path.partition(":")
        with socket.create_connection((host, int(port))) as target:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_copy, args=(target, self.connection), daemon=True)
            back.start()
            _copy(self.connection, target)
            back.join()
        self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except (OSError, ssl.SSLError):
        pass


@contextmanager
def serving(server: Workspace) -> Iterator[Workspace]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def answering(server: Workspace, status: int, answer: bytes, **headers: str) -> Iterator[None]:
    """Meanwhile, answer something else."""
    handler = type("Handler", (_Answering,), {"status": status, "answer": answer, "extra": headers})
    before, server.RequestHandlerClass = server.RequestHandlerClass, handler
    try:
        yield
    finally:
        server.RequestHandlerClass = before
