"""The numbers that a pool reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Histogram", "Holder", "PoolStats", "Waiting"]

BUCKETS = 28  # from under 1 µs to over 1 min, each twice as wide as the one before


class Histogram:
    """
    Durations, counted in buckets whose upper bounds are 1 µs, 2 µs, 4 µs, ….

    Recording costs one list update, so it can stay on.
    """

    __slots__ = ("_counts", "max", "sum")

    def __init__(self) -> None:
        self._counts: list[int] | None = None  # made by the first `record`
        self.sum: float = 0.0
        self.max: float = 0.0

    def record(self, seconds: float) -> None:
        """Count one duration."""
        counts = self._counts
        power = min(int(seconds * 1e6).bit_length(), BUCKETS - 1)
        if counts is None:
            counts = self._counts = [0] * (power + 1)
        elif power >= len(counts):
            counts += [0] * (power + 1 - len(counts))
        counts[power] += 1
        self.sum += seconds
        self.max = max(self.max, seconds)

    def add(self, other: Histogram) -> None:
        """Count the durations of another histogram too."""
        counts = self._counts = [] if self._counts is None else self._counts
        theirs = (other._counts or []).copy()
        counts += [0] * (len(theirs) - len(counts))
        for power, count in enumerate(theirs):
            counts[power] += count
        self.sum += other.sum
        self.max = max(self.max, other.max)

    @property
    def count(self) -> int:
        """Number of durations recorded."""
        return sum(self._counts or ())

    @property
    def mean(self) -> float:
        """Mean duration in seconds; 0 if none was recorded."""
        return self.sum / self.count if self._counts else 0.0

    def buckets(self) -> Iterator[tuple[float, int]]:
        """Pairs of upper bound in seconds and count, for the buckets that have durations."""
        for power, count in enumerate(self._counts or ()):
            if count:
                yield 2.0**power / 1e6, count

    def quantile(self, share: float) -> float:
        """Upper bound, in seconds, of the bucket with the quantile `share` (0 to 1); 0 if there are no durations."""
        left = share * self.count
        bound = 0.0
        for upper, count in self.buckets():
            bound = upper
            left -= count
            if left <= 0:
                break
        return min(bound, self.max)

    def copy(self) -> Histogram:
        """A copy that later durations do not change."""
        other = Histogram()
        other._counts = self._counts and self._counts.copy()
        other.sum, other.max = self.sum, self.max
        return other

    def __repr__(self) -> str:
        return f"<Histogram count={self.count} mean={self.mean:.6f} max={self.max:.6f}>"


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolStats:
    """
    A pool's numbers at one instant; totals count from the pool's construction.

    Args:
        size: Places taken: resources, and those being created or destroyed.
        available: Idle resources.
        borrowed: Resources out, those that are validated for a borrower or in a hook included.
        pending: Borrowers in the queue.
        acquired: Resources handed out.
        waited: How many of the `acquired` were waited for.
        timeouts: Borrowers that got no resource within their timeout.
        rejected: Borrowers that could not queue because of `max_waiting` or `acquire_nowait`.
        requested: Borrowers that asked for a resource, those still waiting included.
        queued: How many of the `requested` had to queue, those still waiting included.
        cancelled: Borrowers that were interrupted.
        dismissed: Borrowers that got another error: the pool was stopped, no resource can be created, the
            acquire hook failed.
        waited_in_vain: Seconds that borrowers queued without getting a resource.
        created: Resources created.
        create_failures: Creates that failed.
        destroyed: Resources destroyed.
        destroyed_by: `destroyed` by reason: `max_idle`, `max_lifetime`, `max_uses`, `invalid`, `broken`,
            `expired`, `resized`, `stopped`, ….
        wait_time: Seconds waited by the borrowers that had to wait and were served.
        create_time: Seconds that creates took.
        use_time: Seconds that resources were out; recorded only with `use_times=True`.
    """

    name: str
    min_size: int
    max_size: int
    size: int
    available: int
    borrowed: int
    pending: int
    creating: int
    closing: int
    acquired: int
    waited: int
    timeouts: int
    rejected: int
    created: int
    create_failures: int
    destroyed: int
    requested: int = 0
    queued: int = 0
    cancelled: int = 0
    dismissed: int = 0
    waited_in_vain: float = 0.0
    destroyed_by: Mapping[str, int] = field(default_factory=dict)
    wait_time: Histogram = field(default_factory=Histogram)
    create_time: Histogram = field(default_factory=Histogram)
    use_time: Histogram = field(default_factory=Histogram)


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """
    Who holds a resource.

    Which pools record their borrowers is said at `PoolingService.holders`.

    Args:
        pool: Name of the pool.
        key: The key of a keyed pool, such as the user; else `None`.
        resource: Type and id of the resource, never its `repr`, which may hold a secret.
        since: Seconds that it has been out; `None` if this borrower was not recorded.
        request: Name of the request it was borrowed in, such as `GET /orders`; `None` if there is none.
        call_site: The borrower's own line, such as `report.py:88 in build`; empty if only a framework's is known.
        runner: The borrower's task or thread, such as `task 'Task-7'`.
        step: Empty while the borrower has it. Else what is being done with it: it is assigned to the borrower
            (`queueing`), in `validating`, in the `acquire hook` or in the `release hook`.
    """

    pool: str
    key: Any = None
    resource: str = ""
    since: float | None = None
    request: str | None = None
    call_site: str = ""
    runner: str = ""
    step: str = ""

    @property
    def is_recorded(self) -> bool:
        """Whether more than the resource is known."""
        return self.since is not None

    def __str__(self) -> str:
        if self.since is None:
            return "at an unrecorded call site (from now on this pool records every borrower)"
        return f"{self.since:.1f} s ago{_whereabouts(self)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """
    Who waits for a resource.

    Args:
        pool: Name of the pool.
        key: The key of a keyed pool, such as the user; else `None`.
        since: Seconds that it has waited.
        left: Seconds until its timeout.
        priority: Which queue it waits in.
        request: As in `Holder`.
        call_site: As in `Holder`.
        runner: As in `Holder`.
    """

    pool: str
    key: Any = None
    since: float = 0.0
    left: float = 0.0
    priority: int = 0
    request: str | None = None
    call_site: str = ""
    runner: str = ""

    def __str__(self) -> str:
        return f"for {self.since:.1f} s{_whereabouts(self)}"


def _whereabouts(borrower: Holder | Waiting) -> str:
    """` at report.py:88 in build`, ` for request 'GET /'`, both, or the task or thread if there is neither."""
    text = f" at {borrower.call_site}" if borrower.call_site else ""
    if borrower.request is not None:
        return f"{text} for request {borrower.request!r}"
    return text or (f" for {borrower.runner}" if borrower.runner else "")
