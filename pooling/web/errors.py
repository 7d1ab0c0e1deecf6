"""
What a client is told when a request fails for a reason that is no mistake in the app.

`answer_error` is one pure function for all frameworks; the integrations' option `errors` takes it, or another one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from ..errors import PoolClosedError, PoolExhaustedError, PoolTimeoutError, UnauthenticatedError

__all__ = ["AnswerError", "ErrorAnswer", "answer_error", "try_later", "unauthorized"]

#: Seconds after which a client may try again, where nothing better is known.
RETRY_AFTER = 1.0

#: The most bytes of a websocket's close reason (RFC 6455, section 5.5).
_MOST_REASON = 123


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """
    The answer to a request that failed.

    Args:
        status: The HTTP status.
        detail: What to tell the client: nothing secret, and nothing of the inside.
        headers: Further headers, such as `Retry-After`.
    """

    status: int
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        """`{"detail": …}` as JSON."""
        return json.dumps({"detail": self.detail}, ensure_ascii=False).encode()

    @property
    def close_code(self) -> int:
        """
        The code that closes a websocket instead: 1013, try again later, for a status of 500 or more; else 1008.

        See https://www.iana.org/assignments/websocket/websocket.xhtml#close-code-number.
        """
        return 1013 if self.status >= 500 else 1008

    @property
    def close_reason(self) -> str:
        """The detail, as far as a websocket's close frame has room for it."""
        return self.detail.encode()[:_MOST_REASON].decode(errors="ignore")


#: Says how an error is answered; `None` leaves it to the framework, which mostly answers with status 500.
AnswerError: TypeAlias = Callable[[BaseException], ErrorAnswer | None]


def answer_error(error: BaseException) -> ErrorAnswer | None:
    """
    How an error of a pool is answered.

    A request without a user is answered with status 401, in the error's words. A pool that has no resource in time, may
    let nobody queue, or is closing is answered with 503 and `Retry-After`.
    """
    if isinstance(error, UnauthenticatedError):
        return unauthorized(str(error))
    if isinstance(error, PoolTimeoutError | PoolExhaustedError | PoolClosedError):
        return try_later()
    return None


def unauthorized(detail: str) -> ErrorAnswer:
    """
    The answer to a request that does not say who sends it, or does not prove it: status 401.

    Args:
        detail: What to tell the client.
    """
    return ErrorAnswer(401, detail, {"WWW-Authenticate": "Bearer"})


def try_later(seconds: float | None = None, detail: str = "the service is busy; try again in a moment") -> ErrorAnswer:
    """
    The answer to a request that may succeed later, with nothing changed: status 503.

    Args:
        seconds: When; `None` is a second.
        detail: What to tell the client.
    """
    wait = RETRY_AFTER if seconds is None else seconds
    return ErrorAnswer(503, detail, {"Retry-After": str(max(1, -int(-wait // 1)))})
