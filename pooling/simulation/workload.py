"""What is asked of the pools: how many users, how often, for how long."""

from __future__ import annotations

import math
from array import array
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..options import is_seconds
from ..stats import Histogram

if TYPE_CHECKING:
    from random import Random

MOST_PARTS = 16  # power of 2: parts of the unit interval in which the user of a random number is looked for

Duration = float | Histogram


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """
    The requests of many users, of which each needs one resource of its user for a while.

    Exactly one of `workers`, `rate` and `think_time` says when requests come. Durations are seconds, or a `Histogram`
    that a pool has measured (`PoolStats.create_time`, `PoolStats.use_time`).

    Args:
        users: How many users there are. Each has a pool for itself.
        requests: How many requests to simulate.
        warm_up: How many further requests come first and are not counted.
        workers: This many requests are under way all the time: as one ends, the next begins, of any user.
        rate: Requests per second, independent of each other (Poisson).
        think_time: Each user waits this long from the end of a request to the next one.
        use_time: How long a request needs its resource.
        create_time: How long it takes to make a resource.
        destroy_time: How long it takes to destroy one.
        skew: How unequal users are. A number is the exponent of a Zipf distribution: 0 for equal users, 1 for users of
            whom the n-th sends 1/n as many requests as the first. A sequence has a weight for each user.

    Raises:
        ConfigurationError: A value that cannot work.
    """

    users: int
    requests: int = 10_000
    warm_up: int = 0
    workers: int | None = None
    rate: float | None = None
    think_time: Duration | None = None
    use_time: Duration = 0.005
    create_time: Duration = 0.05
    destroy_time: Duration = 0.0
    skew: float | Sequence[float] = 0.0

    def __post_init__(self) -> None:
        for name, least in (("users", 1), ("requests", 1), ("warm_up", 0)):
            check_whole(name, getattr(self, name), least)
        if [self.workers, self.rate, self.think_time].count(None) != 2:
            raise ConfigurationError(
                f"workers={self.workers!r}, rate={self.rate!r}, think_time={self.think_time!r}: expected exactly one "
                "of them; it says when requests come",
                field="workers",
            )
        if self.workers is not None:
            check_whole("workers", self.workers, 1)
        if self.rate is not None and not (is_seconds(self.rate) and 0 < self.rate < math.inf):
            raise ConfigurationError(f"rate={self.rate!r}: expected requests per second, above 0", field="rate")
        for name in ("think_time", "use_time", "create_time", "destroy_time"):
            check_duration(name, getattr(self, name))
        _check_skew(self.skew, self.users)


def check_whole(name: str, value: object, least: int) -> None:
    """
    Check a count.

    Raises:
        ConfigurationError: It is not a whole number of at least `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{name}={value!r}: expected a whole number, at least {least}", field=name)


def check_duration(name: str, value: Duration | None) -> None:
    """
    Check a duration; `None` is none.

    Raises:
        ConfigurationError: It is neither seconds nor a histogram that has some.
    """
    if isinstance(value, Histogram):
        if not value.count:
            raise ConfigurationError(f"{name}={value!r}: the histogram has no durations", field=name)
    elif value is not None and not (is_seconds(value) and 0 <= value < math.inf):
        raise ConfigurationError(f"{name}={value!r}: expected seconds, 0 or more, or a Histogram", field=name)


def _check_skew(skew: float | Sequence[float], users: int) -> None:
    weights = skew if isinstance(skew, Sequence) else [skew]
    if not all(is_seconds(weight) and 0 <= weight < math.inf for weight in weights):
        raise ConfigurationError(f"skew={skew!r}: expected numbers, 0 or more", field="skew")
    if isinstance(skew, Sequence) and (len(skew) != users or not sum(skew)):
        raise ConfigurationError(
            f"skew: expected a weight for each of users={users}, of which one is above 0; got {len(skew)}", field="skew"
        )


def sampler_of(duration: Duration, random: Random) -> Callable[[], float]:
    """
    A function that gives one duration after the other.

    Those of a histogram are spread evenly over their bucket, and have the mean that was measured.
    """
    if not isinstance(duration, Histogram):
        constant = float(duration)
        return lambda: constant
    buckets = [(upper / 2, min(upper, duration.max), count) for upper, count in duration.buckets()]
    totals = list(accumulate(count for _, _, count in buckets))
    middle = sum((lower + upper) / 2 * count for lower, upper, count in buckets) / totals[-1]
    scale = duration.mean / middle if middle else 0.0
    draw = random.random

    def sample() -> float:
        lower, upper, _ = buckets[bisect(totals, draw() * totals[-1])]
        return (lower + (upper - lower) * draw()) * scale

    return sample


def weights_of(workload: Workload) -> Sequence[float] | None:
    """The share of each user in all requests; `None` if they are equal."""
    skew = workload.skew
    if isinstance(skew, Sequence):
        return _shares(skew)
    return _zipf_shares(workload.users, skew) if skew else None


@lru_cache(maxsize=2)  # the simulations of one search have the same users
def _zipf_shares(users: int, exponent: float) -> array[float]:
    return _shares([(number + 1) ** -exponent for number in range(users)])


def _shares(weights: Sequence[float]) -> array[float]:
    total = sum(weights)
    return array("d", [weight / total for weight in weights])


class _Shares:
    """The shares of all users, for a quick search of the one whose share a number falls into."""

    def __init__(self, shares: Sequence[float]) -> None:
        self._totals = array("d", accumulate(shares))
        self._last = len(shares) - 1
        self._parts = parts = 2 ** min(len(shares).bit_length(), MOST_PARTS)
        self._firsts = array("l", [bisect(self._totals, part / parts) for part in range(parts)])
        self._firsts.append(len(shares))

    def user_of(self, number: float) -> int:
        """The user of a number from 0 to 1."""
        part = int(number * self._parts)
        return min(bisect(self._totals, number, self._firsts[part], self._firsts[part + 1]), self._last)


@lru_cache(maxsize=2)
def _zipf(users: int, exponent: float) -> _Shares:
    return _Shares(_zipf_shares(users, exponent))


def user_sampler_of(workload: Workload, random: Random) -> Callable[[], int]:
    """A function that gives the user of each request, a number below `users`."""
    skew, users, draw = workload.skew, workload.users, random.random
    if not skew:
        return lambda: int(draw() * users)
    shares = _Shares(_shares(skew)) if isinstance(skew, Sequence) else _zipf(users, skew)
    user_of = shares.user_of
    return lambda: user_of(draw())
