"""What all resources of the workspace API share: errors, times, finished operations, and lists in pages."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from ..http_server import Request, Response

__all__ = ["ApiError", "Operations", "as_list", "as_page", "as_text", "as_timestamp", "not_found", "spec_of"]

_PAGE = 100


class ApiError(Exception):
    """The answer to a request that is refused."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.response: Response = Response(status, {"error_code": code, "message": message}, dict(headers or {}))


def not_found(what: str, name: object) -> ApiError:
    """The error for something that does not exist."""
    return ApiError(404, "NOT_FOUND", f"{what} {name!r} does not exist")


def as_timestamp(unix: float) -> str:
    """A time as protobuf writes it in JSON."""
    return (datetime.fromtimestamp(0, UTC) + timedelta(seconds=unix)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def as_text(name: str, value: Any, default: str = "") -> str:
    """
    A field's text, or the default where it is missing.

    Raises:
        ValueError: It is something else.
    """
    if value is None:
        return default
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text")  # noqa: TRY004
    return value


def as_list(name: str, value: Any) -> list[str]:
    """
    A field's texts, none where it is missing.

    Raises:
        ValueError: It is something else.
    """
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{name} must be a list of names")
    return list(value)


def spec_of(request: Request) -> dict[str, Any]:
    """
    The `spec` of the resource in a request's body.

    Raises:
        ValueError: It is no object.
    """
    spec = request.json().get("spec", {})
    if not isinstance(spec, dict):
        raise ValueError("spec must be an object")  # noqa: TRY004
    return spec


def as_page(request: Request, field: str, all_of_them: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """
    The page of a list that a request asks for; a token for the next one, if there is one, is its first index.

    Raises:
        ValueError: The request's size or token is none.
    """
    size, token = request.query.get("page_size", str(_PAGE)), request.query.get("page_token", "0")
    if not (size.isascii() and size.isdecimal() and len(size) < 5 and token.isascii() and token.isdecimal()):
        raise ValueError("page_size must be a number, and page_token that of an earlier answer")
    first, most = int(token[:9]), int(size) or _PAGE
    found: dict[str, Any] = {field: list(all_of_them[first : first + most])}
    if first + most < len(all_of_them):
        found["next_page_token"] = str(first + most)
    return found


class Operations:
    """The operations that created or deleted something: all are done at once, and can be asked for afterwards."""

    _MOST = 1_000

    def __init__(self) -> None:
        self._done: dict[str, dict[str, Any]] = {}

    def finish(self, name: str, response: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The operation on the resource of that name, with what it has led to."""
        operation = {"name": f"{name}/operations/{uuid.uuid4()}", "done": True, "response": dict(response or {})}
        self._done[str(operation["name"])] = operation
        while len(self._done) > self._MOST:
            del self._done[next(iter(self._done))]
        return operation

    def get(self, name: str) -> dict[str, Any]:
        """The operation of that name."""
        try:
            return self._done[name]
        except KeyError:
            raise not_found("operation", name) from None
