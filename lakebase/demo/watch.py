"""The demo's live page."""

from __future__ import annotations

import asyncio
import webbrowser
from typing import TYPE_CHECKING, Any

from pooling.web.asgi import headers
from pooling.web.dashboard import Dashboard

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["PAGE", "mount_page", "open_page"]

PAGE = "/pools/"
_LOOPBACK = "127.0.0.1"


def mount_page(app: FastAPI) -> None:
    """Add the live page to an app, for browsers on this machine. Its users are made up, so their names are shown."""
    app.mount(PAGE.rstrip("/"), Dashboard(_is_from_here, show_keys=True))


async def open_page(url: str) -> None:
    """Open the page of the app at this address in the user's browser, if there is one."""
    await asyncio.to_thread(webbrowser.open, f"{url}{PAGE}")


def _is_from_here(scope: Any) -> bool:
    """Whether a browser on this machine asks, by the address itself: no other site has a name for it."""
    host, _, _ = headers(scope).get("host", "").partition(":")
    client = scope.get("client")
    return host == _LOOPBACK and client is not None and client[0] == _LOOPBACK
