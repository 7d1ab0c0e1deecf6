"""What a request to the workspace ends with if it fails. The errors have the names that they have in the SDK."""
# ruff: noqa: N818

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import Refusal

__all__ = [
    "InvalidAnswer",
    "PermissionDenied",
    "Unauthenticated",
    "Unreachable",
    "WorkspaceError",
    "error_for",
    "refusal_of",
]


class WorkspaceError(Exception):
    """
    The workspace refused a request, or did not answer it.

    Attributes:
        is_transient: Whether the same request may succeed later.
        retry_after: Seconds before which the workspace wants no other attempt; `None` if it said nothing.
    """

    is_transient = False
    retry_after: float | None = None


class BadRequest(WorkspaceError):
    """The workspace does not understand the request."""


class Unauthenticated(WorkspaceError):
    """There is no token, or one of a kind that the workspace does not accept."""


class PermissionDenied(WorkspaceError):
    """The token is invalid, or its owner may not do this with it."""


class NotFound(WorkspaceError):
    """There is no such thing, or none that the token's owner may see."""


class TooManyRequests(WorkspaceError):
    """The workspace throttles."""

    is_transient = True


class InternalError(WorkspaceError):
    """The workspace failed."""

    is_transient = True


class TemporarilyUnavailable(WorkspaceError):
    """The workspace is not available at the moment."""

    is_transient = True


class DeadlineExceeded(WorkspaceError):
    """The workspace, or something on the way to it, took too long."""

    is_transient = True


class Unreachable(WorkspaceError):
    """There was no answer."""

    is_transient = True


class InvalidAnswer(WorkspaceError):
    """What answered is not a workspace."""


_BY_STATUS: dict[int, type[WorkspaceError]] = {
    400: BadRequest,
    401: Unauthenticated,
    403: PermissionDenied,
    404: NotFound,
    429: TooManyRequests,
    503: TemporarilyUnavailable,
    504: DeadlineExceeded,
}


def error_for(status: int, words: str, retry_after: str | None) -> WorkspaceError:
    """The error for an HTTP status, with the workspace's words and its `Retry-After`, if it sent one."""
    kind = _BY_STATUS.get(status, InternalError if status >= 500 else WorkspaceError)
    error = kind(words)
    if error.is_transient and retry_after is not None and retry_after.isdecimal():
        error.retry_after = float(retry_after)
    return error


# The workspace answers with 403 to a token that it does not know, to one without the scope, and to a user without the
# right: only its words tell them apart.
_OF_SCOPE = re.compile(r"\bscopes?\b", re.IGNORECASE)
_OF_TOKEN = re.compile(r"(invalid|expired)\b.{0,30}\btoken|token\b.{0,30}\b(invalid|expired)|ExpiredJwt", re.IGNORECASE)


def refusal_of(error: Exception) -> Refusal | None:
    """What the workspace has against the token of a request; `None` if something else failed."""
    if isinstance(error, Unauthenticated):
        return "token"
    if not isinstance(error, PermissionDenied | BadRequest):
        return None
    if isinstance(error, PermissionDenied) and _OF_SCOPE.search(str(error)):
        return "scope"
    if _OF_TOKEN.search(str(error)):
        return "token"
    return "permission" if isinstance(error, PermissionDenied) else None
