"""Runs a workload on simulated pools."""

from __future__ import annotations

import gc
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import fsum, inf
from typing import TYPE_CHECKING

from . import _ending
from ._arrivals import Arrivals, arrivals_of
from .result import SimulationResult
from .workload import Workload, sampler_of, user_sampler_of

if TYPE_CHECKING:
    from random import Random

    from .._engine.slots import Slot, Waiter
    from ._events import Events
    from ._pools import SimulatedPools
    from ._processes import Processes
    from .result import WaitGoal

PROGRESS_STEPS = 100  # how often progress is reported, at least,
LONGEST_STEP = 10_000  # and after so many requests at most


class Request:
    """One request: waits for a resource, uses it, gives it back."""

    __slots__ = ("arrived_at", "is_counted", "pools", "served_at", "simulation", "slot", "user", "waiter")

    def __init__(
        self, simulation: Simulation, user: int, pools: SimulatedPools, now: float, *, is_counted: bool
    ) -> None:
        self.simulation = simulation
        self.user = user
        self.pools = pools
        self.arrived_at = now
        self.served_at = inf
        self.is_counted = is_counted  # else it is of the warm-up
        self.waiter: Waiter | None = None
        self.slot: Slot | None = None

    def served(self) -> None:
        """Begin to use the resource."""
        self.simulation.begin_use(self)

    def timed_out(self) -> None:
        """End without a resource."""
        self.simulation.time_out(self)

    def lost(self) -> None:
        """End with its process."""
        self.simulation.lose(self)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without Python's collection of reference cycles: a simulation leaves none, and would be searched in vain."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Simulation:
    """
    A workload on the pools of some processes.

    Args:
        workload: What to run.
        processes: Where requests go.
        random: All random numbers.
        events: The clock.
        sticky: Whether all requests of a user go to one process.
        goal: Stop when it is missed.
        progress: Is told how many requests have ended, and of how many.
    """

    def __init__(
        self,
        workload: Workload,
        processes: Processes,
        random: Random,
        events: Events,
        *,
        sticky: bool = False,
        goal: WaitGoal | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.events = events
        self.processes = processes
        self.total = workload.warm_up + workload.requests
        self.arrived = 0
        self.has_all = False  # whether all requests have arrived
        self.ended = 0
        self.timeouts = 0
        self.lost = 0
        self.waits = array("d")
        self._warm_up = workload.warm_up
        self._sticky = sticky
        self._progress = progress
        self._step = max(min(self.total // PROGRESS_STEPS, LONGEST_STEP), 1)
        self._next_report = self._step  # when so many requests have ended
        self._random = random
        self._use_time = sampler_of(workload.use_time, random)
        self._arrivals: Arrivals = arrivals_of(workload, user_sampler_of(workload, random), random)
        self._goal = goal
        self._may_be_late = inf if goal is None else int(workload.requests * (1 - goal.share))
        self._late = 0
        self._unjudged: deque[Request] = deque()  # requests of which it is not known whether they are late
        self._used_for = 0.0
        self._in_use = self._peak_in_use = 0
        self._began_at = events.now  # when requests began to be counted
        self._before = (0, 0, 0.0, 0)

    def run(self) -> SimulationResult:
        """Run until all requests have ended."""
        with _no_collection():
            self.processes.begin(Request.lost)
            self._arrivals.begin(self)
            self.events.run()
        return self._result()

    # -- requests --------------------------------------------------------------

    def arrive(self, user: int) -> None:
        """A request of this user arrives, unless all have."""
        if self.has_all:
            return
        pools = self._process_of(user)
        if pools is None:  # all have died; the next one that begins gets the request
            self.events.at(self.processes.next_start, self.arrive, user)
            return
        if self.arrived == self._warm_up:
            self._begin_to_count()
        self.arrived += 1
        self.has_all = self.arrived >= self.total
        request = Request(self, user, pools, self.events.now, is_counted=self.arrived > self._warm_up)
        if self._goal is not None and request.is_counted:
            self._unjudged.append(request)
            if self._unjudged[0].arrived_at + self._goal.seconds < request.arrived_at:
                self._judge(self._goal.seconds)
        pools.acquire(user, request)

    def _judge(self, seconds: float) -> None:
        """Count the requests that have waited for longer than the goal allows."""
        unjudged, now = self._unjudged, self.events.now
        while unjudged[0].arrived_at + seconds < now:
            request = unjudged.popleft()
            if request.served_at - request.arrived_at > seconds:
                self._late += 1
                if self._late > self._may_be_late:
                    self.events.stop()

    def _process_of(self, user: int) -> SimulatedPools | None:
        live = self.processes.live
        if len(live) <= 1:
            return live[0] if live else None
        return live[user % len(live) if self._sticky else int(self._random.random() * len(live))]

    def begin_use(self, request: Request) -> None:
        """A request has got its resource."""
        now = request.served_at = self.events.now
        seconds = self._use_time()
        self._in_use += 1
        self._peak_in_use = max(self._peak_in_use, self._in_use)
        if request.is_counted:
            self._used_for += seconds
        self.events.at(now + seconds, self._end_use, request)

    def _end_use(self, request: Request) -> None:
        self._in_use -= 1
        if request.pools.is_dead:
            self.lose(request)
            return
        request.pools.release(request)
        if request.is_counted:
            self.waits.append(request.served_at - request.arrived_at)
        self._end(request)

    def time_out(self, request: Request) -> None:
        """A request got no resource in time."""
        self.timeouts += request.is_counted
        self._end(request)

    def lose(self, request: Request) -> None:
        """A request ended with its process."""
        self.lost += request.is_counted
        self._end(request)

    def _end(self, request: Request) -> None:
        self.ended += 1
        if self.ended >= self.total:
            self.events.stop()
        if self.ended >= self._next_report:
            self._report()
        self._arrivals.ended(self, request.user)

    def _report(self) -> None:
        """Say how far it is, now and then, and see whether to go on."""
        self._next_report = min(self._next_report + self._step, self.total)
        _ending.check()
        if self._progress is not None:
            self._progress(self.ended, self.total)

    # -- numbers -----------------------------------------------------------------

    def _begin_to_count(self) -> None:
        self._began_at = self.events.now
        self._before = self._counts()

    def _counts(self) -> tuple[int, int, float, int]:
        """Creates, evictions, the seconds of all places, and claims."""
        every = self.processes.every
        return (
            sum(pools.created for pools in every),
            sum(pools.evicted for pools in every),
            sum(pools.used_seconds() for pools in every),
            self.processes.claims,
        )

    def _result(self) -> SimulationResult:
        created, evicted, used, claims = (
            after - before for after, before in zip(self._counts(), self._before, strict=True)
        )
        seconds = self.events.now - self._began_at
        served = len(self.waits)
        requests = served + self.timeouts
        peaks = [pools.peak_used for pools in self.processes.every]
        return SimulationResult(
            is_complete=self.ended >= self.total,
            requests=requests,
            timeouts=self.timeouts,
            seconds=seconds,
            throughput=served / seconds if seconds else inf,
            created=int(created),
            creates_per_request=created / requests if requests else 0.0,
            evicted=int(evicted),
            mean_size=used / seconds if seconds else 0.0,
            peak_size=self.processes.peak_at_once if self.processes.store is not None else sum(peaks),
            peak_size_of_one=max(peaks),
            mean_in_use=self._used_for / seconds if seconds else 0.0,
            peak_in_use=self._peak_in_use,
            mean_wait=fsum(self.waits) / served if served else 0.0,
            waits=array("d", sorted(self.waits)),
            lost=self.lost,
            claims=int(claims),
            recoveries=self.processes.recoveries,
        )
