"""Answers the page's requests, whatever protocol they came by."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
import secrets
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any

from ... import telemetry
from . import actions
from .errors import RefusedError
from .events import EventLog
from .feed import Feed, Sample
from .keys import find_row, select
from .masking import Masking
from .reading import people_of

__all__ = [
    "MOST_BODY", "NOT_ALLOWED", "STREAM_HEADERS", "Answer", "Request", "Site", "json_answer", "refusal", "to_slash",
]  # fmt: skip

log: logging.Logger = logging.getLogger("pooling")

NOT_ALLOWED = "You may not see this page. The app decides who may, with the dashboard's authorize."
MOST_BODY = 10_000  # bytes of an action
_READS = ("", "pools.json", "keys.json", "key.json", "events")


@dataclass(frozen=True, slots=True)
class Request:
    """A request; names of headers in lower case, `path` below the place where the page is mounted."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    is_secure: bool = False
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is complete."""

    status: int
    body: bytes
    headers: list[tuple[str, str]] = field(default_factory=list)


class Site:
    """
    The page and its data.

    Args:
        show_keys: Whether keys and names are shown as they are.
        interval: Seconds between samples.
    """

    def __init__(self, *, show_keys: bool, interval: float) -> None:
        self._masking = Masking(show_keys=show_keys)
        self._events = EventLog()
        self._feed = Feed(self._masking, self._events, interval)
        self.interval = interval
        telemetry.observe(self._events)
        weakref.finalize(self, telemetry.unobserve, self._events).atexit = False

    def sample(self) -> Sample:
        """The latest sample."""
        return self._feed.sample()

    def message(self, *, can_act: bool) -> bytes:
        """The latest sample as a server-sent event."""
        return b"data: " + _dumped(self._overview(can_act=can_act)) + b"\n\n"

    def check(self, request: Request) -> None:
        """
        Check path and method.

        Raises:
            RefusedError: There is no such page, or it takes another method.
        """
        if request.path == "action":
            if request.method != "POST":
                raise RefusedError(405, "An action is sent with POST.", Allow="POST")
        elif request.path not in _READS:
            there = ", ".join(filter(None, _READS))
            raise RefusedError(404, f"There is nothing at {request.path[:100]!r}. There are the page itself, {there}.")
        elif request.method not in {"GET", "HEAD"}:
            raise RefusedError(405, "This can be read with GET.", Allow="GET, HEAD")

    def serve(self, request: Request, read_body: Callable[[], bytes], *, is_allowed: bool, can_act: bool) -> Answer:
        """
        The answer to any request, where none may stay open: a stream ends after one event.

        Args:
            request: Without a body.
            read_body: Reads it.
            is_allowed: Whether the request may see the page.
            can_act: Whether it may act on pools.
        """
        try:
            if not is_allowed:
                raise RefusedError(403, NOT_ALLOWED)
            self.check(request)
            if request.path == "events":
                retry = f"retry: {round(self.interval * 1000)}\n\n".encode()
                return Answer(200, retry + self.message(can_act=can_act), STREAM_HEADERS)
            if request.path == "action":
                request = replace(request, body=read_body())
            return self.answer(request, can_act=can_act)
        except RefusedError as error:
            return refusal(error)

    def answer(self, request: Request, *, can_act: bool) -> Answer:
        """
        The answer to a request that was checked and authorized.

        Raises:
            RefusedError: It cannot have what it wants.
        """
        match request.path:
            case "":
                return self._page(request)
            case "pools.json":
                body = self._overview(can_act=can_act)
                body["keys"] = select(self.sample().reading, request.query, self._masking)
            case "keys.json":
                body = select(self.sample().reading, request.query, self._masking)
            case "key.json":
                body = self._key(request.query, can_act=can_act)
            case "action":
                body = self._act(request, can_act=can_act)
            case _:  # the head of a stream
                return Answer(200, b"", STREAM_HEADERS)
        return json_answer(200, body)

    def _overview(self, *, can_act: bool) -> dict[str, Any]:
        return {**self.sample().overview, "can_act": can_act}

    def _key(self, query: Mapping[str, str], *, can_act: bool) -> dict[str, Any]:
        row = find_row(self.sample().reading, query.get("pool"), query.get("key"), self._masking)
        holders, waiters = people_of(row, self._masking)
        return {"row": row.as_json(self._masking), "holders": holders, "waiters": waiters, "can_act": can_act}

    def _act(self, request: Request, *, can_act: bool) -> dict[str, Any]:
        if not can_act:
            raise RefusedError(403, "This page is read-only for you. The app allows actions with allow_actions=….")
        actions.check_same_page(request.headers)
        wanted = actions.parse(request.body)
        sample = self.sample()
        if wanted["process"] != self._feed.process:
            raise RefusedError(409, "Another process than the one that the page shows got this. Try again.")
        if wanted["key"] is None and any(p["name"] == wanted["pool"] and p["is_keyed"] for p in sample.reading.pools):
            if wanted["action"] == "close":
                raise RefusedError(400, "Name a key, key=KEY: only one key at a time can be closed.")
            rows = [row for row in sample.reading.rows if row.pool == wanted["pool"]]
        else:
            rows = [find_row(sample.reading, wanted["pool"], wanted["key"], self._masking)]
        for row in rows:
            actions.perform(wanted["action"], row)
        done = f"{wanted['action']}, from the live page"
        self._events.note("action", wanted["pool"], done, rows[0].key if len(rows) == 1 else None)
        log.warning("pool %r: %s (%d of its pools)", wanted["pool"], done, len(rows))
        return {"done": wanted["action"]}

    def _page(self, request: Request) -> Answer:
        token = actions.cookie_token(request.headers) or secrets.token_urlsafe(32)
        body, policy = _template()
        cookie = f"{actions.COOKIE}={token}; HttpOnly; SameSite=Strict" + ("; Secure" if request.is_secure else "")
        headers = [("content-type", "text/html; charset=utf-8"), ("content-security-policy", policy)]
        # A token is letters, digits, `-` and `_`, also one that the browser sent.
        return Answer(200, body.replace(b"{{csrf}}", token.encode()), [*headers, ("set-cookie", cookie), *_PRIVATE])


#: Of every answer: nothing is kept, guessed, framed or told to other sites.
_PRIVATE = [
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
]

STREAM_HEADERS = [("content-type", "text/event-stream; charset=utf-8"), ("x-accel-buffering", "no"), *_PRIVATE]


def json_answer(status: int, body: dict[str, Any], headers: list[tuple[str, str]] | None = None) -> Answer:
    """An answer in JSON."""
    return Answer(status, _dumped(body), [("content-type", "application/json"), *(headers or []), *_PRIVATE])


def refusal(error: RefusedError) -> Answer:
    """The answer that says what is wrong."""
    return json_answer(error.status, {"error": error.sentence}, error.headers)


def to_slash(path: str) -> Answer:
    """The answer at the mount itself, where addresses that are relative to the page would go astray."""
    name = path.rpartition("/")[2]
    return json_answer(307, {"error": "The page is at this address with a slash."}, [("location", f"{name}/")])


def _dumped(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace")


@cache
def _template() -> tuple[bytes, str]:
    """The page, and a policy by which a browser runs its own script and style and nothing else."""
    body = files(__name__.rpartition(".")[0]).joinpath("page.html").read_bytes()
    hashes: dict[str, str] = {}
    for tag in (b"script", b"style"):
        found = re.search(b"<%b>(.*?)</%b>" % (tag, tag), body, re.DOTALL)
        assert found is not None
        hashes[tag.decode()] = base64.b64encode(hashlib.sha256(found[1]).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{hashes['script']}'; style-src 'sha256-{hashes['style']}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return body, policy
