"""When a ledger may open again after creates have failed."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

TRIES_APART = 0.2  # seconds at least from a failed create to the next one for a borrower that came during the pause


class Backoff:
    """
    The failed creates of one pool, and the pauses after them.

    A pool whose creates work shares `CALM` with all others.
    """

    __slots__ = (
        "failed_at",
        "failures",
        "fill_at",
        "last_error",
        "last_is_final",
        "last_was_made",
        "probe_at",
        "retry_at",
    )

    def __init__(self) -> None:
        self.failures = 0  # in a row
        self.failed_at = -inf  # when the last of them happened
        self.retry_at = -inf  # no open for a waiter before this, but
        self.probe_at = inf  # one at this instant, for a borrower that came too late for the last attempt
        self.fill_at = -inf  # no open for `min_size` before this
        self.last_error: BaseException | None = None
        self.last_is_final = False
        self.last_was_made = False  # whether it was of a resource that had been made and was no good

    def pause(
        self,
        error: BaseException,
        now: float,
        options: Any,
        jitter: Callable[[], float],
        *,
        is_final: bool,
        was_made: bool,
    ) -> None:
        """Pause before the next create, for longer after each failure."""
        self.failures += 1
        self.failed_at, self.probe_at = now, inf
        self.last_error, self.last_is_final, self.last_was_made = error, is_final, was_made
        pause = min(options.create_backoff * 2.0 ** min(self.failures - 1, 30), options.create_backoff_max)
        self.fill_at = now + pause * (0.75 + 0.5 * jitter())
        # An interrupted create says nothing about the next, for which a loop that is shutting down has no time.
        self.retry_at = -inf if is_final and isinstance(error, Exception) else self.fill_at

    def probe(self, now: float, options: Any) -> None:
        """Have one attempt made during the pause: a borrower that comes after a failure does not know of it."""
        apart = max(TRIES_APART, options.create_backoff)
        self.probe_at = min(self.probe_at, max(now, self.failed_at + apart))

    def end_pause(self) -> None:
        """Open again as soon as something is wanted."""
        self.retry_at = self.fill_at = -inf
        self.probe_at = inf


CALM = Backoff()
