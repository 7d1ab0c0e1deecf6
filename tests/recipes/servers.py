"""Servers of recipes, each in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from tests.docs.pages import ROOT
from tests.ports import free_port
from tests.web.servers import PLAIN, eventually

RECIPES = ROOT / "examples" / "recipes"


@contextmanager
def listening(command: str) -> Iterator[str]:
    """
    A server in this process's environment, on a socket that listens from now on; its URL.

    Args:
        command: Python's arguments; `{fd}` is where the socket's number belongs.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=128) as sock:
        arguments = command.format(fd=sock.fileno()).split()
        environ = {**os.environ, "PYTHONPATH": f"{RECIPES}{os.pathsep}{ROOT}", "LAKEBASE_WARM_UP": "0"}
        server = subprocess.Popen([sys.executable, *arguments], env=environ, pass_fds=[sock.fileno()])
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.terminate()
            server.wait(30)


@contextmanager
def served(arguments_for: Callable[[int], list[str]], health: str) -> Iterator[str]:
    """
    A server that takes no socket, or loads for longer than a client waits; the host and port it listens on.

    Args:
        arguments_for: What follows `python -m`, given the port.
        health: The path of a page that answers 200 once the server is up.
    """
    port = free_port()
    command = [sys.executable, "-m", *arguments_for(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=dict(os.environ)) as server:
        try:
            address = f"127.0.0.1:{port}"
            eventually(lambda: server.poll() is not None or _answers(f"http://{address}{health}"), 60, every=0.05)
            yield address
        finally:
            server.terminate()
            server.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, **PLAIN).status_code == 200
    except httpx.TransportError:
        return False


def asked(
    url: str,
    path: str,
    tokens: Mapping[str, str] | None = None,
    user: str | None = None,
    method: str = "GET",
    **rest: Any,
) -> httpx.Response:
    """What a server answers to a user whose request comes through the proxy of Databricks Apps; or to none."""
    proved = {} if user is None else headers_of(tokens, user)
    return httpx.request(method, url + path, headers=proved, timeout=60, **PLAIN, **rest)


def headers_of(tokens: Mapping[str, str], user: str) -> dict[str, str]:
    """What the proxy of Databricks Apps adds to a user's request."""
    return {"x-forwarded-email": user, "x-forwarded-access-token": tokens[user]}
