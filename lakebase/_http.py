"""
Requests to a workspace over connections that are kept alive and shared by all users.

The environment decides about proxies and trusted certificates as it does for the Databricks SDK, which uses
`requests`: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, `REQUESTS_CA_BUNDLE` and `CURL_CA_BUNDLE`. It is read
when there are no connections to a workspace, and one is needed.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pooling.locks import make_lock

from ._slow_imports import slow_import
from ._workers import Workers

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from urllib3 import BaseHTTPResponse, PoolManager

__all__ = ["Connections", "connections_to"]

#: Requests to one workspace at once, each on its own thread and connection.
MOST_REQUESTS = 32
#: Seconds for each step of one request: connecting, and waiting for the answer.
HTTP_TIMEOUT = 10.0


class Connections:
    """
    Kept-alive connections to one workspace, and the threads that wait for its answers.

    There are none before the first request, and after a while without any.

    Args:
        url: The workspace's, with a scheme and without a path.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.workers = Workers(MOST_REQUESTS, on_quiet=self._close)
        self._lock = make_lock()
        self._pool: PoolManager | None = None

    def prepare(self) -> PoolManager:
        """Load what requests need. Connects to nothing; blocks for a tenth of a second, once in a process."""
        with self._lock:
            if self._pool is None:
                with slow_import():
                    import urllib3  # noqa: F401

                self._pool = _pool_for(self.url)
            return self._pool

    def request(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes | None = None
    ) -> BaseHTTPResponse:
        """
        The answer to one request, read to its end; no redirection is followed. Blocks.

        Raises:
            HTTPError: There was none; it is urllib3's.
            OSError: The trusted certificates could not be read.
        """
        return self.prepare().request(
            method, self.url + path, headers=headers, body=body, timeout=HTTP_TIMEOUT, retries=False, redirect=False
        )

    def _close(self) -> None:
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.clear()


_all: dict[str, Connections] = {}


def connections_to(url: str) -> Connections:
    """The connections to this workspace, the same for all callers of a process. Does no I/O."""
    return _all.get(url) or _all.setdefault(url, Connections(url))


def _after_fork() -> None:
    # The sockets are the parent's, and its threads do not exist here.
    _all.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _pool_for(url: str) -> PoolManager:
    import urllib3

    settings: dict[str, Any] = {"maxsize": MOST_REQUESTS}
    proxy = _proxy_for(url)
    if url.startswith("https:"):
        settings["ssl_context"] = _trust(*_certificates())
    if proxy is None:
        return urllib3.PoolManager(**settings)
    if proxy.startswith("https:"):
        settings["proxy_ssl_context"] = _trust(*_certificates())
    if proxy.startswith("socks"):
        from urllib3.contrib.socks import SOCKSProxyManager  # needs PySocks, as it does for the SDK

        return SOCKSProxyManager(proxy, **settings)
    if user := urlsplit(proxy).netloc.rpartition("@")[0]:
        settings["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=unquote(user))
    return urllib3.ProxyManager(proxy, **settings)


def _proxy_for(url: str) -> str | None:
    """The proxy that requests to this address go through, as the environment or the system has it."""
    from urllib.request import getproxies, proxy_bypass

    address = urlsplit(url)
    if proxy_bypass(address.netloc):
        return None
    proxies = getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def _certificates() -> tuple[str | None, str | None]:
    """The file, or else the folder, of trusted certificates."""
    import certifi

    path = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or certifi.where()
    return (None, path) if Path(path).is_dir() else (path, None)


@cache
def _trust(file: str | None, folder: str | None) -> ssl.SSLContext:
    """The client's side of TLS; reading a hundred certificates takes longer than a request."""
    import ssl

    return ssl.create_default_context(cafile=file, capath=folder)
