"""Ports for servers that cannot be given a socket."""

from __future__ import annotations

import socket
import sys


def free_port() -> int:
    """
    A port of 127.0.0.1 on which nothing listens.

    On Linux this process keeps it to its end, so that nobody is given it before the server listens: a server that sets
    `SO_REUSEADDR`, as all do that can be started again at once, may do so nevertheless.
    """
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
        if sys.platform == "linux":
            sock.detach()
    return port
