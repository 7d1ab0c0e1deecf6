"""`simulate`, in one process or in several at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from random import Random
from typing import TYPE_CHECKING, Unpack

from .._engine.budget import Budget
from ..errors import ConfigurationError
from ..options import PoolingServiceOptions, PoolingServiceOptionsDict
from ._events import Events
from ._leases import SimulatedStore
from ._pools import Places, SimulatedPools
from ._processes import Processes
from ._run import Simulation
from .elsewhere import SimulationProcesses
from .result import SimulationResult, WaitGoal, merged
from .workload import Workload, check_whole, sampler_of

if TYPE_CHECKING:
    from .shared import Kill, Sharing

    Progress = Callable[[int, int], None]

SEEDS_APART = 1_000_003  # so that the parts of one simulation share no seed with another one's

_NOT_SIMULATED = {"min_size": 0, "max_waiting": None, "priorities": 1, "create_timeout": inf}


def simulate(
    workload: Workload,
    options: PoolingServiceOptions | PoolingServiceOptionsDict | None = None,
    *,
    max_total: float = inf,
    replicas: int = 1,
    sticky: bool = False,
    sharing: Sharing | None = None,
    kills: Sequence[Kill] = (),
    seed: int = 1,
    jobs: int = 1,
    goal: WaitGoal | None = None,
    progress: Callable[[int, int], None] | None = None,
    budget_type: type[Budget] = Budget,
    **options_as_keywords: Unpack[PoolingServiceOptionsDict],
) -> SimulationResult:
    """
    Find out what pools do under a workload, by running the pools' own rules under a virtual clock.

    The same arguments give the same result. Time that the program itself needs is not counted, nor are hooks other
    than create and destroy. Blocks, for up to about 50 µs for each request.

    Args:
        workload: Who asks for a resource, when, and for how long.
        options: Settings of each user's pool, as an object or a mapping.
        max_total: Most resources of one process, or of all if they share the limit; `math.inf` for no limit.
        replicas: Processes among which requests are spread; each has pools and a limit for itself.
        sticky: Whether all requests of a user go to one process; else each goes to any.
        sharing: How the processes share one limit, as by a `SharedBudget`; `None` if each has one for itself.
        kills: Processes that die.
        seed: Of the random numbers.
        jobs: In how many parts to simulate the requests, each on a processor of this machine. Each part has its own
            random numbers and its own warm-up; the result is of all. As with `multiprocessing`, a script that asks for
            more than one must be importable: call this below `if __name__ == "__main__":`.
        goal: Stop as soon as it is known that the waits do not meet it; `None` simulates all requests in any case.
        progress: Called now and then with the number of requests that have ended, and that of all.
        budget_type: The rules of the budget, for experiments.
        **options_as_keywords: Fields of `PoolingServiceOptions`; they win over `options`.

    Raises:
        ConfigurationError: A setting that cannot work, or one that is not simulated.
    """
    own = ("max_total", "replicas", "sticky", "sharing", "kills", "seed", "jobs", "goal", "progress")
    settings = PoolingServiceOptions.gathered(options, options_as_keywords, own)
    _refuse_what_is_not_simulated(settings)
    check_whole("replicas", replicas, 1)
    check_whole("jobs", jobs, 1)
    if sharing is not None:
        check_whole("max_total", max_total, 1)
    _check_kills(kills, replicas)
    setup = _Setup(settings, max_total, replicas, sticky, sharing, tuple(kills), goal, budget_type)
    if jobs == 1 or workload.requests < jobs:
        return setup.simulate(workload, seed, progress)
    return _simulate_in_parts(setup, workload, seed, jobs, progress)


def _refuse_what_is_not_simulated(options: PoolingServiceOptions) -> None:
    for name, value in _NOT_SIMULATED.items():
        given = getattr(options, name)
        if given != value:
            raise ConfigurationError(f"{name}={given!r}: the simulation knows only {name}={value!r}", field=name)


def _check_kills(kills: Sequence[Kill], replicas: int) -> None:
    for kill in kills:
        if kill.process >= replicas:
            raise ConfigurationError(f"{kill}: there are only replicas={replicas}, numbered from 0", field="kills")


@dataclass(frozen=True, slots=True)
class _Setup:
    """All of a simulation but its workload; another process can be given it."""

    options: PoolingServiceOptions
    max_total: float
    replicas: int
    sticky: bool
    sharing: Sharing | None
    kills: tuple[Kill, ...]
    goal: WaitGoal | None
    budget_type: type[Budget]

    def simulate(self, workload: Workload, seed: int, progress: Progress | None = None) -> SimulationResult:
        random, events = Random(seed), Events()  # noqa: S311 - nothing secret
        places = Places()
        processes = Processes(
            events,
            self.replicas,
            lambda budget: self._make_pools(workload, random, events, places, budget),
            places=places,
            store=self._make_store(random, events),
            kills=self.kills,
        )
        simulation = Simulation(
            workload, processes, random, events, sticky=self.sticky, goal=self.goal, progress=progress
        )
        return simulation.run()

    def _make_store(self, random: Random, events: Events) -> SimulatedStore | None:
        if self.sharing is None:
            return None
        return SimulatedStore(events, self.sharing, int(self.max_total), sampler_of(self.sharing.latency, random))

    def _make_pools(
        self, workload: Workload, random: Random, events: Events, places: Places, budget: Budget | None
    ) -> SimulatedPools:
        return SimulatedPools(
            events,
            self.options,
            max_total=self.max_total,
            create_time=sampler_of(workload.create_time, random),
            destroy_time=sampler_of(workload.destroy_time, random),
            jitter=random.random,
            budget_type=self.budget_type,
            budget=budget,
            places=places,
        )


def _simulate_in_parts(
    setup: _Setup, workload: Workload, seed: int, jobs: int, progress: Progress | None
) -> SimulationResult:
    """Simulate the first part here, so that its progress is seen, and each other part in a process of its own."""
    sizes = [workload.requests // jobs + (number < workload.requests % jobs) for number in range(jobs)]
    parts = [replace(workload, requests=size) for size in sizes]
    seeds = [seed + number * SEEDS_APART for number in range(jobs)]
    with SimulationProcesses(jobs - 1) as others:
        calls = [others.submit(setup.simulate, part, own) for part, own in zip(parts[1:], seeds[1:], strict=True)]
        first = setup.simulate(parts[0], seeds[0], _of_all(progress, jobs))
        return merged([first, *(call.result() for call in calls)])


def _of_all(progress: Progress | None, jobs: int) -> Progress | None:
    """The progress of all parts, of which the first is as fast as the others."""
    return None if progress is None else lambda ended, total: progress(ended * jobs, total * jobs)
