"""Where `lakebase top` looks: the live page of an app, or a local Lakebase."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode, urlsplit

if TYPE_CHECKING:
    from .local.registry import Record

__all__ = ["LocalSource", "PageSource", "Source", "SourceError"]

_ROWS = 200  # more than a terminal has lines


class SourceError(Exception):
    """There is nothing to show; the message says why and what to try."""


class Source(Protocol):
    """Something that can be watched."""

    name: str

    def read(self, *, sort: str) -> dict[str, Any]:
        """
        What is to be shown now: the content of `pools.json`, or `{"local": …}`.

        Raises:
            SourceError: It does not answer.
        """


class PageSource:
    """
    The live page of an app.

    Args:
        url: Of the page; `pools.json` at its end may be left out.
        headers: Sent with each request.
        query: Sent with each request, `pool` and `q`.

    Raises:
        SourceError: The address is none.
    """

    def __init__(self, url: str, headers: Mapping[str, str], query: Mapping[str, str]) -> None:
        from ._http import Connections

        given = urlsplit(url if "://" in url else f"http://{url}")
        if given.scheme not in {"http", "https"} or not given.hostname:
            raise SourceError(f"{url!r} is no address: expected one such as http://127.0.0.1:8000/pools/")
        if given.username is not None:
            raise SourceError("leave user and password out of the address: give them with --header")
        self.name = f"{given.scheme}://{given.netloc}{given.path}"
        self._path = given.path if given.path.endswith("/pools.json") else f"{given.path.rstrip('/')}/pools.json"
        self._headers = {"Accept": "application/json", **headers}
        self._query = dict(query)
        self._connections = Connections(f"{given.scheme}://{given.netloc}")

    def read(self, *, sort: str) -> dict[str, Any]:
        """As in `Source`."""
        import urllib3

        query = urlencode({**self._query, "sort": sort, "desc": int(sort != "key"), "limit": _ROWS})
        try:
            answer = self._connections.request("GET", f"{self._path}?{query}", headers=self._headers)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise SourceError(f"{self.name} does not answer: {type(error).__name__}. Does the app run?") from error
        try:
            found = json.loads(answer.data)
        except ValueError:
            found = None
        if answer.status == 200 and isinstance(found, dict) and found.get("version") == 1:
            return _only(found, self._query.get("pool"))
        told = found.get("error") if isinstance(found, dict) else None
        raise SourceError(f"{self.name}: {told}" if told else f"{self.name} {_strange(answer.status)}")


def _only(found: dict[str, Any], pool: str | None) -> dict[str, Any]:
    """What is of one pool; all of it if that is `None`."""
    if pool is None:
        return found
    parts = {"pools": "name", "holders": "pool", "waiters": "pool", "events": "pool"}
    kept = {part: [one for one in found[part] if one[name] == pool] for part, name in parts.items()}
    (of_pool,) = kept["pools"]
    budgets = [budget for budget in found["budgets"] if pool in budget["pools"]]
    return {**found, **kept, "budgets": budgets, "holding": of_pool["used"], "waiting": of_pool["waiting"]}


class LocalSource:
    """The local Lakebase of a record: what its gateway counts."""

    def __init__(self, record: Record) -> None:
        self.name = f"local Lakebase {record.name!r}"
        self._record = record

    @classmethod
    def find(cls, name: str | None) -> LocalSource:
        """
        The one that is named, else the only one.

        Raises:
            SourceError: There is none, or several of them.
        """
        from .local.errors import LocalLakebaseError
        from .local.registry import find_record

        try:
            return cls(find_record(name))
        except LocalLakebaseError as error:
            raise SourceError(f"{error}. For an app, give the address of its live page") from error

    def read(self, *, sort: str) -> dict[str, Any]:
        """As in `Source`."""
        from .local.errors import LocalLakebaseError
        from .local.order_client import send_order

        try:
            found = send_order(self._record.orders_address, self._record.orders_token, "status")
        except LocalLakebaseError as error:
            raise SourceError(str(error)) from error
        return {"local": {**found, "pid": self._record.pid}}


def _strange(status: int) -> str:
    if status == 200:
        return "is no live page of this library: it answers something else"
    if status in {301, 302, 303, 307, 308}:
        return f"leads elsewhere (status {status}): a page to sign in? Give what it wants with --header"
    return f"answers with status {status}: is the live page mounted there? Give its path, too, such as /pools/"
