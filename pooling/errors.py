"""
The exceptions of this package, as one tree.

Every message names the pool, what was wanted, the option whose limit stopped it, the step, the counts at that
instant, and one thing to try. The same facts are attributes, so that code need not parse text.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .stats import Holder

__all__ = [
    "ConfigurationError",
    "CreateError",
    "MissingValueError",
    "PoolClosedError",
    "PoolCounts",
    "PoolExhaustedError",
    "PoolTimeoutError",
    "PoolingError",
    "ReleaseError",
    "RequestContextError",
    "UnauthenticatedError",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCounts:
    """
    The pool's numbers at the instant an error was raised.

    Args:
        max_total: The limit that this pool shares with others, or `None`.
        leased: How many places of a limit of several processes this one has; `None` if it is no such limit, or all.
        squeezed_to: The lower limit that `PoolBudget.squeeze` has set for a while, or `None`.
        total: Places taken by all pools that share the limit.
        pools: How many of these pools have a place.
    """

    borrowed: int
    idle: int
    creating: int
    closing: int
    waiting: int
    max_size: int
    max_total: float | None = None
    leased: float | None = None
    squeezed_to: float | None = None
    total: int = 0
    pools: int = 0

    def __str__(self) -> str:
        closing = f", {self.closing} being destroyed" if self.closing else ""
        text = (
            f"{self.borrowed} of max_size={self.max_size} borrowed, {self.idle} idle, "
            f"{self.creating} being created{closing}, {self.waiting} queued"
        )
        if self.max_total is None or self.max_total == inf:
            return text
        squeezed = "" if self.squeezed_to is None else f" (squeezed to {self.squeezed_to} for now)"
        pools = "1 pool" if self.pools == 1 else f"{self.pools} pools"
        if self.leased is None:
            return f"{text}; {self.total} of max_total={self.max_total}{squeezed} used by {pools}"
        others = self.max_total - self.leased
        here = f"of max_total={self.max_total} of all processes this one has {self.leased}{squeezed}"
        return f"{text}; {here}, others up to {others}; {self.total} used here by {pools}"


class PoolingError(Exception):
    """
    Root of all errors raised by this package.

    Attributes:
        pool: Name of the pool, or `None` if the error concerns no single pool.
        key: The key of a keyed pool, else `None`.
        step: The step that failed: `queueing`, `creating`, `validating`,
            `acquire hook`, `release hook`, …; `None` if there was none.
        counts: The pool's numbers at that instant, or `None`.
    """

    def __init__(
        self,
        message: str,
        *,
        pool: str | None = None,
        key: Any = None,
        step: str | None = None,
        counts: PoolCounts | None = None,
    ) -> None:
        super().__init__(message)
        self.pool = pool
        self.key = key
        self.step = step
        self.counts = counts


class PoolTimeoutError(PoolingError, TimeoutError):
    """
    No resource could be acquired within the timeout.

    `step` says where the time went. `__cause__` is the last create failure, if
    there was one since the last successful create.

    Attributes:
        timeout: The timeout in seconds.
        limit: The limit that kept the borrower waiting, such as `max_size=8` or `max_total=50`; `None` if none did.
        holders: The borrowers that had a resource for longest, at most three.
    """

    def __init__(
        self,
        message: str,
        *,
        timeout: float | None = None,
        limit: str | None = None,
        holders: tuple[Holder, ...] = (),
        **facts: Any,
    ) -> None:
        super().__init__(message, **facts)
        self.timeout = timeout
        self.limit = limit
        self.holders = holders


class PoolClosedError(PoolingError):
    """
    The pool was stopped before or during the call.

    Attributes:
        waited: Seconds that the borrower had waited.
    """

    def __init__(self, message: str, *, waited: float = 0.0, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.waited = waited


class PoolExhaustedError(PoolingError):
    """
    The caller may not queue: `max_waiting` borrowers already do, or the caller asked not to wait.

    Attributes:
        limit: The option that forbids it, such as `max_waiting=0` or `max_keys`, or `acquire_nowait`.
        holders: As in `PoolTimeoutError`.
    """

    def __init__(
        self, message: str, *, limit: str | None = None, holders: tuple[Holder, ...] = (), **facts: Any
    ) -> None:
        super().__init__(message, **facts)
        self.limit = limit
        self.holders = holders


class CreateError(PoolingError):
    """
    A resource could not be created, and trying again would not help.

    `__cause__` is what the factory raised. A factory may raise this error
    itself to say that a failure is final.
    """


class ReleaseError(PoolingError):
    """
    A resource could not be given back: it is not out, belongs to another pool, or its release hook failed.

    After a failed hook the resource has been destroyed and its place is free.
    """


class RequestContextError(PoolingError):
    """A request-scoped value was asked for outside of an open request, or cannot be taken in this one."""


class MissingValueError(RequestContextError, KeyError):
    """The request carries no value of that name. Also a `KeyError`."""

    def __str__(self) -> str:
        return Exception.__str__(self)  # that of a `KeyError` is in quotes

    def __init__(self, message: str, *, missing: Any = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.missing = missing


class UnauthenticatedError(PoolingError):
    """
    A request does not say who sends it, or does not prove it.

    For code that chooses a pool by the request's user, to raise or to derive its own error from. The web integrations
    answer it with status 401, unless the app has a handler for it.
    """


class ConfigurationError(PoolingError, ValueError):
    """
    A setting is missing or has a value that cannot work; raised at construction.

    Attributes:
        field: The setting's name.
    """

    def __init__(self, message: str, *, field: str | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.field = field
