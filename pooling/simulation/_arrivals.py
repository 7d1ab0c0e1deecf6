"""When the requests of a workload come."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from math import inf
from typing import TYPE_CHECKING, Protocol

from .workload import Workload, sampler_of, weights_of

if TYPE_CHECKING:
    from random import Random

    from ._events import Events


AT_ONCE = 50_000  # first requests of users who think that are put in order at a time,
SAMPLED = 1000  # as far as so many of them tell
LAST = sys.float_info.max


class Target(Protocol):
    """What requests arrive at."""

    events: Events

    @property
    def has_all(self) -> bool:
        """Whether no further request is wanted."""

    def arrive(self, user: int) -> None:
        """A request of this user arrives."""


class Arrivals(Protocol):
    """Says when requests come."""

    def begin(self, target: Target) -> None:
        """Let the first requests arrive."""

    def ended(self, target: Target, user: int) -> None:
        """A request of this user has ended."""


class Workers:
    """
    As many requests under way all the time, each of any user.

    Args:
        count: How many.
        next_user: Gives the user of the next request.
    """

    def __init__(self, count: int, next_user: Callable[[], int]) -> None:
        self.count = count
        self.next_user = next_user

    def begin(self, target: Target) -> None:
        """Let each worker send its first request."""
        for _ in range(self.count):
            target.arrive(self.next_user())

    def ended(self, target: Target, user: int) -> None:
        """Let the worker send its next request."""
        target.arrive(self.next_user())


class Poisson:
    """
    Requests that do not depend on each other.

    Args:
        rate: How many per second.
        next_user: Gives the user of the next request.
        random: Random numbers.
    """

    def __init__(self, rate: float, next_user: Callable[[], int], random: Random) -> None:
        self.rate = rate
        self.next_user = next_user
        self.random = random

    def begin(self, target: Target) -> None:
        """Let the next request arrive after a random while."""
        target.events.at(target.events.now + self.random.expovariate(self.rate), self._arrive, target)

    def _arrive(self, target: Target) -> None:
        if target.has_all:
            return  # at a high rate, millions would come until those under way have ended
        self.begin(target)
        target.arrive(self.next_user())

    def ended(self, target: Target, user: int) -> None:
        """No other request waits for the end of this one."""


class Thinkers:
    """
    Users of whom each waits for a while before the next request.

    Args:
        users: How many.
        think_time: Gives the time a user of average activity waits.
        weights: The share of each user in all requests; `None` if they are equal.
        random: Random numbers.
    """

    def __init__(
        self,
        users: int,
        think_time: Callable[[], float],
        weights: Sequence[float] | None,
        random: Random,
    ) -> None:
        self.users = users
        self.think_time = think_time
        self.weights = weights
        self.random = random

    def begin(self, target: Target) -> None:
        """Let the first request of each user come at a random instant of the first wait."""
        draw = self.random.random
        firsts = array("d", [draw() * self._wait(user) for user in range(self.users)])
        self._arrive_next(target, _in_order(firsts))

    def _arrive_next(self, target: Target, firsts: Iterator[tuple[float, int]]) -> None:
        """Have the next first request arrive: one event at a time, since there may be a million of them."""
        first = next(firsts, None)
        if first is not None:
            when, user = first
            target.events.at(when, lambda _: self._arrive(target, user, firsts), None)

    def _arrive(self, target: Target, user: int, firsts: Iterator[tuple[float, int]]) -> None:
        if target.has_all:
            return
        self._arrive_next(target, firsts)
        target.arrive(user)

    def ended(self, target: Target, user: int) -> None:
        """Let the user think about the next one."""
        when = target.events.now + self._wait(user)
        if when < inf:
            target.events.at(when, target.arrive, user)

    def _wait(self, user: int) -> float:
        """Seconds until the next request of this user; `inf` for one that never asks."""
        if self.weights is None:
            return self.think_time()
        weight = self.weights[user] * self.users
        return self.think_time() / weight if weight else inf


def _in_order(firsts: array[float]) -> Iterator[tuple[float, int]]:
    """The instants and their users, the earliest first; sorts a part at a time, for few may be wanted."""
    sample = sorted(firsts[:: max(len(firsts) // SAMPLED, 1)])
    parts = len(firsts) // AT_ONCE + 1
    low = -1.0
    for high in (*(sample[len(sample) * part // parts] for part in range(1, parts)), LAST):
        yield from sorted((when, user) for user, when in enumerate(firsts) if low < when <= high)
        low = max(low, high)


def arrivals_of(workload: Workload, next_user: Callable[[], int], random: Random) -> Arrivals:
    """When the requests of this workload come."""
    if workload.workers is not None:
        return Workers(workload.workers, next_user)
    if workload.rate is not None:
        return Poisson(workload.rate, next_user, random)
    assert workload.think_time is not None
    return Thinkers(workload.users, sampler_of(workload.think_time, random), weights_of(workload), random)
