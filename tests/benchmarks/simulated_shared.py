"""The race of workers that share a limit, simulated: the load of `shared_process.py` on the pools' own rules."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

from pooling import Histogram, PoolingServiceOptions
from pooling._engine.slots import Slot, Waiter
from pooling.simulation import Sharing
from pooling.simulation._events import Events
from pooling.simulation._leases import SimulatedStore
from pooling.simulation._pools import Places, SimulatedPools
from pooling.simulation._processes import Processes
from pooling.simulation.workload import Duration, sampler_of

from .shared import FILES, QUARTER, REDIS, serve, ways
from .shared_process import BUSY, CREATE, LIMIT, QUIET, REDIS_TTL, TURN, USE, WORKERS

SECONDS = 6.0  # of each run
SIMULATIONS = 6
SHARINGS: dict[str, Callable[..., Sharing]] = {
    FILES: Sharing.files,
    REDIS: partial(Sharing.redis, lease_ttl=REDIS_TTL),
}


@dataclass(frozen=True)
class Outcome:
    """What the workers of a simulation did together."""

    uses: int
    longest: float  # wait, in seconds
    claims: int


class Task:
    """
    One use of a worker after the other, as far as its load asks for them.

    Args:
        race: Where it runs.
        worker: Its number.
        is_quiet: Whether it goes on while another worker is the busy one.
    """

    def __init__(self, race: SharedRace, worker: int, *, is_quiet: bool) -> None:
        self.race = race
        self.worker = worker
        self.is_quiet = is_quiet
        self.asked_at = 0.0
        self.waiter: Waiter | None = None
        self.slot: Slot | None = None

    def begin(self, _: object) -> None:
        """Ask for a resource, or look again when the next worker becomes the busy one."""
        events = self.race.events
        if events.now >= self.race.seconds:
            return
        turn = events.now // TURN
        if self.is_quiet or turn % WORKERS == self.worker:
            self.asked_at = events.now
            self.race.workers[self.worker].acquire(None, self)
        else:
            events.at((turn + 1) * TURN, self.begin, None)

    def served(self) -> None:
        """Use the resource."""
        race = self.race
        race.longest = max(race.longest, race.events.now - self.asked_at)
        race.events.at(race.events.now + race.use_time(), self.end, None)

    def end(self, _: object) -> None:
        """Give it back, and begin again."""
        self.race.uses += 1
        self.race.workers[self.worker].release(self)
        self.begin(None)

    def timed_out(self) -> None:
        raise AssertionError("there is no deadline")


class SharedRace:
    """
    All workers for a while.

    Args:
        sharing: How they share the limit; `None` gives each an equal part.
        seconds: Until no further use begins.
        use_time, create_time: Of a resource.
        seed: Of the random numbers.
    """

    def __init__(
        self,
        sharing: Sharing | None,
        seconds: float,
        use_time: Duration = USE,
        create_time: Duration = CREATE,
        seed: int = 1,
    ) -> None:
        numbers = random.Random(seed)
        self.events = Events()
        self.seconds = seconds
        self.use_time = sampler_of(use_time, numbers)
        self.uses = 0
        self.longest = 0.0
        options, places = PoolingServiceOptions(max_size=LIMIT, timeout=float("inf")), Places()
        store = None
        if sharing is not None:
            store = SimulatedStore(self.events, sharing, LIMIT, sampler_of(sharing.latency, numbers))
        processes = Processes(
            self.events,
            WORKERS,
            lambda budget: SimulatedPools(
                self.events,
                options,
                max_total=LIMIT // WORKERS,  # of its own budget
                create_time=sampler_of(create_time, numbers),
                jitter=numbers.random,
                budget=budget,
                places=places,
            ),
            places=places,
            store=store,
        )
        self.processes = processes
        self.workers = processes.live

    def run(self) -> Outcome:
        """Run until the last use has ended."""
        tasks = [Task(self, worker, is_quiet=number < QUIET) for worker in range(WORKERS) for number in range(BUSY)]
        for task in tasks:
            self.events.at(0.0, task.begin, None)
        while self.events.now < self.seconds + 1.0 and self.events.step():
            pass
        return Outcome(self.uses, self.longest, self.processes.claims)


def show_all() -> None:
    """Print what the rules do in each way to divide the limit."""
    for name in (QUARTER, *SHARINGS):
        outcome = SharedRace(SHARINGS[name]() if name in SHARINGS else None, SECONDS).run()
        print(
            f"{name:32} {outcome.uses / SECONDS:6.0f} uses/s  longest wait {outcome.longest * 1e3:4.0f} ms  "
            f"{outcome.claims / SECONDS / WORKERS:.2f} claims/s of each worker"
        )


def compare_all(most_apart: float) -> list[bool]:
    """Run each way for real and simulate it with the measured times; whether they agree, and the gain of each too."""
    with ways(with_redis=True) as found:
        rates = {name: compare(name, make()) for name, make in found.items()}
    agree = []
    for name, (simulated, real) in rates.items():
        gain, real_gain = simulated / rates[QUARTER][0], real / rates[QUARTER][1]
        difference = abs(simulated - real) / real
        agree.append(difference <= most_apart)
        print(
            f"{name:32} uses/s {simulated:5.0f} for {real:5.0f} ({difference:4.0%})  ÷ a quarter each {gain:.2f} for "
            f"{real_gain:.2f}{'' if agree[-1] else '  TOO FAR'}"
        )
    return agree


def compare(name: str, settings: dict[str, Any]) -> tuple[float, float]:
    """Uses per second, simulated and for real."""
    done = serve(settings, SECONDS)
    use_time, create_time, claim_time = (
        merged(getattr(each, field) for each in done) for field in ("use_time", "create_time", "claim_time")
    )
    sharing = SHARINGS[name](latency=claim_time) if name in SHARINGS else None
    outcomes = [SharedRace(sharing, SECONDS, use_time, create_time, seed).run() for seed in range(SIMULATIONS)]
    return fmean(outcome.uses for outcome in outcomes) / SECONDS, sum(each.uses for each in done) / SECONDS


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """All durations in one."""
    together = Histogram()
    for each in histograms:
        together.add(each)
    return together
