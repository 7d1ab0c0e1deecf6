"""A browser of a user, whose requests come as through the proxy of Databricks Apps."""

from __future__ import annotations

import os
import re
import select
import shutil
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager

__all__ = ["CHROMIUM", "adding"]

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
#: The program, or `None` where there is none; `.ci/get-chromium` installs one.
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
REQUEST_LINE = re.compile(rb"\A[A-Z]+ \S+ HTTP/1\.1\r\n")


@contextmanager
def adding(headers: Mapping[str, str], address: str) -> Iterator[str]:
    """
    A proxy that adds headers to each request, WebSockets included, which a browser itself does not do; its URL.

    Args:
        headers: Who the user is, and what proves it.
        address: The host and port of the server.
    """
    host, _, port = address.partition(":")
    added = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()

    def serve(client: socket.socket) -> None:
        with closing(client), socket.create_connection((host, int(port))) as server:
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(1 << 16)
                    if not data:
                        return
                    if ready is client:
                        # A browser sends the head of a request at once, and nothing else looks like one.
                        server.sendall(REQUEST_LINE.sub(lambda line: line[0] + added, data))
                    else:
                        client.sendall(data)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=serve, args=[client], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        listener.shutdown(socket.SHUT_RDWR)
