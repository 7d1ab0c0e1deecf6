"""The `Server-Timing` header: what a request waited for pools, for creates and for its checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING

from .._engine.tracing import FOLLOWERS, Follower
from ..errors import ConfigurationError

if TYPE_CHECKING:
    from .._engine.tracing import Acquisition

__all__ = ["HEADER", "Timings", "checked_server_timing", "timed_checkpoint", "timing_request"]

HEADER = "Server-Timing"


class Timings:
    """
    Seconds of one request.

    Attributes:
        pool: Acquiring resources, of acquisitions that waited or ran a hook.
        create: Creating those resources among them that were made meanwhile; a part of `pool`.
        checkpoint: Making durable what the request did; `None` before that.
    """

    __slots__ = ("checkpoint", "create", "pool")

    def __init__(self) -> None:
        self.pool = 0.0
        self.create = 0.0
        self.checkpoint: float | None = None

    def header(self) -> str:
        """The header's value, in milliseconds."""
        parts = [f"pool;dur={self.pool * 1000:.1f}"]
        if self.create:
            parts.append(f"create;dur={self.create * 1000:.1f}")
        if self.checkpoint is not None:
            parts.append(f"checkpoint;dur={self.checkpoint * 1000:.1f}")
        return ", ".join(parts)


#: The timings of the current request; `None` where no middleware asks for them.
timings_var: ContextVar[Timings | None] = ContextVar("pooling.timings", default=None)


class _Waits(Follower):
    """Adds each acquisition to the timings of its request."""

    def ended(self, take: Acquisition, now: float, error: BaseException | None) -> None:
        timings = timings_var.get()
        if timings is None:
            return
        timings.pool += now - take.began
        slot = take.slot
        if error is None and slot is not None and slot.uses == 1 and slot.born_at >= take.began:
            timings.create += min(slot.made_in, now - take.began)


_WAITS = _Waits()


def checked_server_timing(wanted: object) -> bool:
    """
    Check a `server_timing` argument, and have acquisitions be timed if it is true.

    Raises:
        ConfigurationError: It is neither `True` nor `False`.
    """
    if not isinstance(wanted, bool):
        raise ConfigurationError(f"server_timing={wanted!r}: expected True or False", field="server_timing")
    if wanted:
        FOLLOWERS.add(_WAITS)
    return wanted


@contextmanager
def timing_request(wanted: bool) -> Iterator[Timings | None]:
    """Add up the times of a request in this block, if that is wanted."""
    if not wanted:
        yield None
        return
    timings = Timings()
    token = timings_var.set(timings)
    try:
        yield timings
    finally:
        timings_var.reset(token)


def timed_checkpoint() -> AbstractContextManager[None]:
    """Around a request's checkpoint."""
    timings = timings_var.get()
    return nullcontext() if timings is None else _timed(timings)


@contextmanager
def _timed(timings: Timings) -> Iterator[None]:
    began = time.monotonic()
    try:
        yield
    finally:
        timings.checkpoint = (timings.checkpoint or 0.0) + time.monotonic() - began
