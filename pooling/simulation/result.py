"""What a simulation has found."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ..errors import ConfigurationError
from ..options import is_seconds


@dataclass(frozen=True, slots=True)
class WaitGoal:
    """
    What the waits for a resource should be.

    Args:
        share: Of the requests, from 0 to 1.
        seconds: How long this share may wait at most.

    Raises:
        ConfigurationError: A value that cannot work.
    """

    share: float
    seconds: float

    def __post_init__(self) -> None:
        if not (is_seconds(self.share) and 0 < self.share <= 1):
            raise ConfigurationError(f"share={self.share!r}: expected a number above 0, at most 1", field="share")
        if not (is_seconds(self.seconds) and self.seconds >= 0):
            raise ConfigurationError(f"seconds={self.seconds!r}: expected seconds, 0 or more", field="seconds")


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulationResult:
    """
    What the pools did under a workload, without its warm-up.

    Args:
        is_complete: Whether all requests were simulated; `False` if it was known before that the goal is missed.
        requests: Requests that ended, those that timed out included.
        timeouts: Requests that got no resource within their `timeout`.
        seconds: Virtual seconds that passed, those of all parts added up.
        throughput: Requests served per second.
        created: Resources made.
        creates_per_request: `created` for each request.
        evicted: Resources destroyed because another key needed their place.
        mean_size: Resources at an instant, on average; those being created or destroyed included.
        peak_size: Most resources of all processes, in the warm-up, too: at one instant if they share a limit, else the
            peak of each added up.
        peak_size_of_one: The peak of the process that had most.
        mean_in_use: Resources that were lent at an instant, on average.
        peak_in_use: At most.
        mean_wait: Seconds that a served request waited for its resource, on average.
        waits: Seconds that each served request waited, in ascending order.
        lost: Further requests, which ended with their process.
        claims: How often processes asked the store of their shared limit.
        recoveries: Seconds from the end of each process until its places of the shared limit were free for others.
    """

    is_complete: bool
    requests: int
    timeouts: int
    seconds: float
    throughput: float
    created: int
    creates_per_request: float
    evicted: int
    mean_size: float
    peak_size: int
    peak_size_of_one: int
    mean_in_use: float
    peak_in_use: int
    mean_wait: float
    waits: Sequence[float] = field(repr=False)
    lost: int = 0
    claims: int = 0
    recoveries: Sequence[float] = ()

    def wait(self, share: float) -> float:
        """
        The seconds that this share of the requests waited at most.

        Args:
            share: From 0 to 1: 0.5 for the median, 1 for the longest wait. A request that timed out has waited longer
                than all that were served, so with too many of these the answer is `math.inf`.
        """
        place = max(math.ceil(share * self.requests), 1) - 1
        return self.waits[place] if place < len(self.waits) else math.inf

    def meets(self, goal: WaitGoal) -> bool:
        """Whether as many requests as wanted waited no longer than wanted."""
        return self.is_complete and self.wait(goal.share) <= goal.seconds

    def as_dict(self) -> dict[str, Any]:
        """All numbers by name, with percentiles in place of `waits`; an infinite one is `None`."""
        numbers = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "waits"}
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)):
            wait = self.wait(share)
            numbers[f"wait_{name}"] = wait if wait < math.inf else None
        return numbers


def merged(results: Sequence[SimulationResult]) -> SimulationResult:
    """The result of several simulations as that of one: those of the parts of a workload."""
    served = sum(len(one.waits) for one in results)
    requests = sum(one.requests for one in results)
    seconds = math.fsum(one.seconds for one in results)
    created = sum(one.created for one in results)

    def mean(name: str) -> float:
        return math.fsum(getattr(one, name) * one.seconds for one in results) / seconds if seconds else 0.0

    return SimulationResult(
        is_complete=all(one.is_complete for one in results),
        requests=requests,
        timeouts=sum(one.timeouts for one in results),
        seconds=seconds,
        throughput=served / seconds if seconds else math.inf,
        created=created,
        creates_per_request=created / requests if requests else 0.0,
        evicted=sum(one.evicted for one in results),
        mean_size=mean("mean_size"),
        peak_size=max(one.peak_size for one in results),
        peak_size_of_one=max(one.peak_size_of_one for one in results),
        mean_in_use=mean("mean_in_use"),
        peak_in_use=max(one.peak_in_use for one in results),
        mean_wait=math.fsum(one.mean_wait * len(one.waits) for one in results) / served if served else 0.0,
        waits=array("d", sorted(wait for one in results for wait in one.waits)),
        lost=sum(one.lost for one in results),
        claims=sum(one.claims for one in results),
        recoveries=tuple(seconds for one in results for seconds in one.recoveries),
    )
