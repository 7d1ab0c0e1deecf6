"""What a pool tells those who watch it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["PoolEvent", "PoolObserver"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolEvent:
    """
    Something that happened to a resource or a borrower.

    Args:
        pool: Name of the pool.
        key: The key of a keyed pool, else `None`.
        value: The resource concerned, or `None`.
        duration: Seconds: how long creating, waiting, using or destroying took; `None` where nothing was timed.
        reason: Why a resource was destroyed, or at which step a borrower gave up; else empty.
        error: What went wrong, or `None`.
        stack: Where the resource was borrowed, as text; only for leaks.
    """

    pool: str
    key: Any = None
    value: Any = None
    duration: float | None = None
    reason: str = ""
    error: BaseException | None = None
    stack: str = ""


class PoolObserver:
    """
    Watches a pool. Override what is wanted; a method left alone costs nothing.

    Methods are called outside the pool's lock, in whatever thread or task the thing happened
    in. They cannot veto: an exception is logged and dropped. They must not block.
    """

    def on_created(self, event: PoolEvent) -> None:
        """A resource was made; `duration` is what that took."""

    def on_create_failed(self, event: PoolEvent) -> None:
        """Making a resource failed with `error`."""

    def on_acquired(self, event: PoolEvent) -> None:
        """A resource was handed out; `duration` is what its borrower waited."""

    def on_released(self, event: PoolEvent) -> None:
        """A resource came back in good order; `duration` is how long it was out."""

    def on_destroyed(self, event: PoolEvent) -> None:
        """A resource was destroyed for `reason`; `error` if its destroy hook failed."""

    def on_timeout(self, event: PoolEvent) -> None:
        """A borrower went away empty-handed; `reason` is the step, `duration` what it had waited."""

    def on_leaked(self, event: PoolEvent) -> None:
        """A resource has been out for longer than `leak_timeout`."""


#: What an observer can be told of.
EVENTS = tuple(name for name in vars(PoolObserver) if name.startswith("on_"))
