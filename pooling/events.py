"""Events of a pool, and the observer that receives them."""

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
        duration: Seconds that creating, waiting, using or destroying took; `None` if nothing was timed.
        reason: Why a resource was destroyed, or at which step a borrower gave up; else empty.
        error: The exception, or `None`.
        stack: The borrower's stack, as text; only for leaks.
        metric_prefix: What the names of the pool's metrics begin with; see `PoolFactory`.
    """

    pool: str
    key: Any = None
    value: Any = None
    duration: float | None = None
    reason: str = ""
    error: BaseException | None = None
    stack: str = ""
    metric_prefix: str = "pooling.resource"


class PoolObserver:
    """
    Receives a pool's events. Override the methods you need; a method that is not overridden costs nothing.

    Methods are called without the pool's lock, in the thread or task in which the event happened.
    They cannot veto: an exception is logged and dropped. They must not block.
    """

    def on_created(self, event: PoolEvent) -> None:
        """A resource was created in `duration` seconds."""

    def on_create_failed(self, event: PoolEvent) -> None:
        """A create failed with `error`."""

    def on_acquired(self, event: PoolEvent) -> None:
        """A resource was lent; `duration` is the time its borrower waited."""

    def on_released(self, event: PoolEvent) -> None:
        """A resource was released and can be lent again; `duration` is how long it was out."""

    def on_destroyed(self, event: PoolEvent) -> None:
        """A resource was destroyed because of `reason`; `error` is set if its destroy hook failed."""

    def on_timeout(self, event: PoolEvent) -> None:
        """A borrower got no resource within its timeout; `reason` is the step, `duration` the time it waited."""

    def on_leaked(self, event: PoolEvent) -> None:
        """A resource has been out for longer than `leak_timeout`."""


#: Names of all events.
EVENTS = tuple(name for name in vars(PoolObserver) if name.startswith("on_"))
