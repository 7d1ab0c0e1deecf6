"""When a ledger may open again after creates have failed."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

TRIES_APART = 0.2  # least seconds from a failed create to the next attempt for a borrower that came during the pause


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
        self.retry_at = -inf  # no create for a waiter before this, except at `probe_at`
        self.probe_at = inf  # one create at this instant, for a borrower that came after the last attempt had begun
        self.fill_at = -inf  # no create for `min_size` before this
        self.last_error: BaseException | None = None
        self.last_is_final = False
        self.last_was_made = False  # whether the resource had been made and then failed its check

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
        # An interrupted create says nothing about the next one, but still pauses: the loop may be closing.
        self.retry_at = -inf if is_final and isinstance(error, Exception) else self.fill_at

    def probe(self, now: float, options: Any) -> None:
        """Schedule one attempt during the pause, for a borrower that came after the failure."""
        apart = max(TRIES_APART, options.create_backoff)
        self.probe_at = min(self.probe_at, max(now, self.failed_at + apart))

    def end_pause(self) -> None:
        """Allow creates again without a pause."""
        self.retry_at = self.fill_at = -inf
        self.probe_at = inf


CALM = Backoff()
