"""What a page may do to a pool, if the app lets it: expire, suspend, resume, close a key."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .errors import RefusedError

if TYPE_CHECKING:
    from .reading import Row

__all__ = ["ACTIONS", "COOKIE", "check_same_page", "cookie_token", "parse", "perform"]

ACTIONS = ("expire", "suspend", "resume", "close")
COOKIE = "pooling_csrf"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{32,64}")
_PATIENCE = 5.0  # seconds for a pool's own loop to act


def cookie_token(headers: Mapping[str, str]) -> str | None:
    """The token that the browser has from an earlier load of the page."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return found.value if found is not None and _TOKEN.fullmatch(found.value) else None


def check_same_page(headers: Mapping[str, str]) -> None:
    """
    Check that our own page sent this, and not another site in a browser that is signed in here.

    Another site can make a browser send the cookie, but it can neither read it nor send the header without being
    allowed to; browsers also say where a request comes from.

    Raises:
        RefusedError: It did not.
    """
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise RefusedError(403, "Another site sent this. Use the page itself.")
    origin = headers.get("origin")
    if origin is not None and "sec-fetch-site" not in headers and urlsplit(origin).netloc != headers.get("host"):
        raise RefusedError(403, "Another site sent this. Use the page itself.")
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RefusedError(415, "Expected content-type: application/json.")
    cookie, given = cookie_token(headers), headers.get("x-csrf-token", "")
    if cookie is None or not secrets.compare_digest(cookie.encode(), given.encode("utf-8", "surrogateescape")):
        raise RefusedError(403, "The token that the page was given is missing or another one. Load the page again.")


def parse(body: bytes) -> dict[str, Any]:
    """
    The action of a request: `action`, `pool`, `key` (`None` for the whole pool), `process`, the one that it is for.

    Raises:
        RefusedError: It is none.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise RefusedError(400, "Expected a JSON object.") from None
    if not isinstance(found, dict) or not all(isinstance(found.get(name), str) for name in ("action", "pool")):
        raise RefusedError(400, "Expected a JSON object with action, pool, and key for one of its keys.")
    if found["action"] not in ACTIONS:
        raise RefusedError(400, f"action={found['action'][:100]!r}: expected one of {', '.join(ACTIONS)}.")
    if not isinstance(found.get("key"), str | None):
        raise RefusedError(400, "key: expected a text as the page shows it, or null for the whole pool.")
    if not isinstance(found.get("process"), str):
        raise RefusedError(400, "Say of which process, as pools.json names it in process.id: another one may get this.")
    return {"key": None, **found}


def perform(action: str, row: Row) -> None:
    """
    Do it, where the pool lives: an asyncio pool is changed in its own loop.

    Raises:
        RefusedError: It cannot be done to this row, or the pool's loop does not answer.
    """
    if action != "close":
        _in_its_loop(row.service, getattr(row.service, action))
    elif row.owner is None:
        raise RefusedError(400, f"The pool {row.pool!r} has no keys: only a key can be closed.")
    else:
        _in_its_loop(row.service, lambda: row.owner.close_key(row.key))


def _in_its_loop(service: Any, call: Callable[[], Any]) -> None:
    loop = getattr(service.engine.backend, "loop", None)
    if loop is None or loop.is_closed() or loop is _running_loop():
        call()
        return

    async def act() -> None:
        call()

    future = asyncio.run_coroutine_threadsafe(act(), loop)
    try:
        future.result(_PATIENCE)
    except TimeoutError:
        future.cancel()
        raise RefusedError(503, f"The pool's event loop did not answer within {_PATIENCE:g} s.") from None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
