"""What a simulation has found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulationResult:
    """
    What the pools did under a workload, without its warm-up.

    Args:
        requests: Requests that ended, those that timed out included.
        timeouts: Requests that got no resource within their `timeout`.
        seconds: Virtual seconds that passed.
        throughput: Requests served per second.
        created: Resources made.
        creates_per_request: `created` for each request.
        evicted: Resources destroyed because another key needed their place.
        mean_size: Resources at an instant, on average; those being created or destroyed included.
        peak_size: Most resources at once, in the warm-up, too.
        mean_wait: Seconds that a served request waited for its resource, on average.
        peak_size_of_one: As `peak_size`, in the process that had most.
        waits: Seconds that each served request waited, in ascending order.
    """

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
    mean_wait: float
    waits: Sequence[float] = field(repr=False)

    def wait(self, share: float) -> float:
        """
        The seconds that this share of the requests waited at most.

        Args:
            share: From 0 to 1: 0.5 for the median, 1 for the longest wait. A request that timed out has waited longer
                than all that were served, so with too many of these the answer is `math.inf`.
        """
        place = max(math.ceil(share * self.requests), 1) - 1
        return self.waits[place] if place < len(self.waits) else math.inf

    def as_dict(self) -> dict[str, Any]:
        """All numbers by name, with percentiles in place of `waits`; an infinite one is `None`."""
        numbers = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "waits"}
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)):
            wait = self.wait(share)
            numbers[f"wait_{name}"] = wait if wait < math.inf else None
        return numbers
