"""Finds the smallest limits with which the waits for a connection meet a goal, by simulating the pools."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Any, Self

from pooling.errors import ConfigurationError
from pooling.simulation import SimulationProcesses, SimulationResult, WaitGoal, Workload, simulate

from .limits import POOLER_CLIENT_CONNECTIONS, direct_connections, smallest_compute

if TYPE_CHECKING:
    from pooling import PoolingServiceOptions
    from pooling.simulation import Sharing

#: The values of `max_size` among which the smallest is searched.
SIZES = (1, 2, 3, 4, 6, 8, 12, 16)
#: Multiples of the chosen `max_total` that the table and the picture show beside it.
SHOWN = (0.25, 0.5, 0.75, 1.5, 2.0)
UNLIMITED = 1_000_000_000  # connections
SAMPLE = 20_000  # most requests of a simulation of the search
LARGER_SAMPLE = 60_000  # requests of a simulation that corrects what was found by samples, before that of all
RESERVE = (
    0.1  # part of the requests that may miss the goal which must not do so in it: its waits differ from those of all
)
CORRECTIONS, CORRECTION = 2, 0.04  # how often, and by what share, to raise what a sample found too low
EXACTNESS = 0.02  # of a `max_total` that is found by samples: part of it
PARTS = 2  # in which all requests are simulated, and simulations of the search at a time; on any machine, so that the
# same seed gives the same plan
FILL = 20  # a warm-up of a sample has at most so many requests for each connection,
SHORTEST_WARM_UP = 500  # but not fewer than these
LARGEST = 32.0  # CU; larger ones take no more connections
BETTER = 0.95  # a limit binds if the mean wait without it is below this share

Limits = tuple[int, int]  # `max_total` and `max_size`
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """
    Where the pools run, and which of their limits are given.

    Args:
        replicas: Processes that have pools.
        sticky: Whether all requests of a user go to one of them.
        sharing: How they share one limit; `None` if each has one for itself.
        compute_units: Upper end of the endpoint's range; `None` to find the smallest.
        pooled: Whether connections go through the built-in pooler.
        max_total: Most connections of one process, or of all if they share the limit; `None` to find the smallest.
        max_size: Most connections of a user in one process; `None` to find the smallest.
        options: The other settings of each user's pool.
        seed: Of the random numbers.
    """

    replicas: int = 1
    sticky: bool = False
    sharing: Sharing | None = None
    compute_units: float | None = None
    pooled: bool = False
    max_total: int | None = None
    max_size: int | None = None
    options: PoolingServiceOptions
    seed: int = 1

    @property
    def connection_limit(self) -> int:
        """Most connections that the endpoint takes from all processes."""
        if self.pooled:
            return POOLER_CLIENT_CONNECTIONS
        return direct_connections(self.compute_units or LARGEST)

    @property
    def limit_name(self) -> str:
        """What `connection_limit` is, in words."""
        if self.pooled:
            return "clients of the built-in pooler"
        return f"direct connections at {self.compute_units or LARGEST:g} CU"

    @property
    def limits(self) -> int:
        """How many processes, or groups that share one, have a limit for themselves."""
        return self.replicas if self.sharing is None else 1

    @property
    def connections_of_one(self) -> int:
        """Most connections that may be under one limit."""
        return self.connection_limit // self.limits

    def peak_of_one(self, result: SimulationResult) -> int:
        """Most connections that were under one limit."""
        return result.peak_size_of_one if self.sharing is None else result.peak_size


@dataclass(frozen=True, slots=True)
class Candidate:
    """Limits, and what the pools did with them."""

    max_total: int
    max_size: int
    result: SimulationResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """
    What was found.

    Args:
        deployment, workload, goal: What was asked.
        chosen: The smallest limits that meet the goal, or those that come nearest.
        others: Other values of `max_total`, in ascending order, with what the pools did with them.
        fixed: Where processes share a limit: what they would do with an equal part of it each.
        compute_units: The smallest compute that takes the connections; `None` if none does.
        binding: The limits that make requests wait: `max_total`, `max_size`, or what bounds `max_total`.
    """

    deployment: Deployment
    workload: Workload
    goal: WaitGoal
    chosen: Candidate
    others: list[Candidate]
    fixed: Candidate | None
    compute_units: float | None
    binding: list[str]

    @property
    def meets_goal(self) -> bool:
        """Whether the chosen limits meet the goal and the endpoint takes the connections."""
        return self.chosen.result.meets(self.goal) and self.connections <= self.deployment.connection_limit

    @property
    def connections(self) -> int:
        """Most connections of all processes together."""
        return self.chosen.max_total * self.deployment.limits


def make_plan(workload: Workload, deployment: Deployment, goal: WaitGoal, progress: Progress | None = None) -> Plan:
    """
    Find the smallest `max_size`, then the smallest `max_total`, then the smallest compute.

    The search simulates at most `SAMPLE` requests each time and stops where the goal is missed; what it chose is then
    simulated with all requests. If these are more than a sample, it uses two processors.

    Args:
        workload: What is asked of the pools.
        deployment: Where they run.
        goal: What the waits should be.
        progress: Is called now and then with what is being simulated, and how many requests of how many have ended.

    Raises:
        ConfigurationError: There are more processes than connections.
    """
    if deployment.connections_of_one < 1:
        raise ConfigurationError(
            f"replicas={deployment.replicas}: more than the {deployment.connection_limit} {deployment.limit_name}",
            field="replicas",
        )
    with Search(workload, deployment, goal, progress) as search:
        roomy = search.find_size(deployment.max_total or deployment.connections_of_one)
        if deployment.max_total is None:
            chosen = search.confirm(search.find_total(roomy), roomy.max_size)
        else:
            chosen = search.simulate_all(deployment.max_total, roomy.max_size)
        return Plan(
            deployment=deployment,
            workload=workload,
            goal=goal,
            chosen=chosen,
            others=search.find_others(chosen),
            fixed=search.simulate_fixed(chosen),
            compute_units=_smallest_compute(chosen, deployment),
            binding=search.find_binding(chosen),
        )


def _smallest_compute(chosen: Candidate, deployment: Deployment) -> float | None:
    if deployment.pooled:  # the pooler opens a server connection for each transaction that is under way
        return smallest_compute(chosen.result.peak_in_use)
    return smallest_compute(chosen.max_total * deployment.limits)


class Search:
    """
    The simulations of one plan.

    A context manager: its end stops the process that shares the work.
    """

    def __init__(self, workload: Workload, deployment: Deployment, goal: WaitGoal, progress: Progress | None) -> None:
        self.workload = workload
        self.deployment = deployment
        self.goal = goal
        self.progress = progress
        # Where the goal is missed by far, how far does not matter.
        self.lenient = WaitGoal(goal.share, max(10 * goal.seconds, 1.0))
        self.samples: dict[Limits, Candidate] = {}
        self.misses: set[Limits] = set()  # limits with which a sample ended as soon as the goal was missed
        self.at_once = PARTS if workload.requests > SAMPLE else 1
        self._others = SimulationProcesses(PARTS - 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._others.__exit__(*error)

    def simulate(
        self, max_total: int, max_size: int, workload: Workload, goal: WaitGoal | None = None, jobs: int = 1
    ) -> Candidate:
        """Simulate these limits, until `goal` is missed, by far if `None`."""
        report, what = self.progress, _name_of(max_total, max_size)
        result = simulate(
            workload,
            **self._settings(max_total, max_size, goal),
            jobs=jobs,
            progress=None if report is None else lambda ended, total: report(what, ended, total),
        )
        return Candidate(max_total, max_size, result)

    def _settings(self, max_total: int, max_size: int, goal: WaitGoal | None) -> dict[str, Any]:
        deployment = self.deployment
        return {
            "options": replace(deployment.options, max_size=max_size),
            "max_total": max_total,
            "replicas": deployment.replicas,
            "sticky": deployment.sticky,
            "sharing": deployment.sharing,
            "seed": deployment.seed,
            "goal": goal or self.lenient,
        }

    def simulate_all(self, max_total: int, max_size: int) -> Candidate:
        """Simulate these limits with all requests."""
        if self.sample_of(max_total) == self.workload:
            return self.simulate_sample(max_total, max_size)
        return self.simulate(max_total, max_size, self.workload, jobs=self.at_once)

    def confirm(self, max_total: int, max_size: int) -> Candidate:
        """Simulate with all requests the limits that were found by samples; slightly more, if these fall just short."""
        if not self.meets(max_total, max_size):
            return self.simulate_all(max_total, max_size)
        if self.workload.requests > 4 * LARGER_SAMPLE:  # a correction with all requests would take too long
            max_total = self._correct_by_larger_samples(max_total, max_size)
        *totals, last = self._raised(max_total)
        for total in totals:
            chosen = self.simulate_all(total, max_size)
            if chosen.result.meets(self.goal):
                return chosen
        return self.simulate_all(last, max_size)

    def _correct_by_larger_samples(self, max_total: int, max_size: int) -> int:
        """The first of a few values of `max_total` with which a larger sample meets the goal with a reserve."""
        *totals, last = self._raised(max_total)
        workload = replace(self.workload, requests=LARGER_SAMPLE)  # with all of its warm-up, in which queues grow
        reserve = WaitGoal(1 - (1 - self.goal.share) * (1 - RESERVE), self.goal.seconds)
        found = self._simulate_each([(total, max_size) for total in totals], lambda _: workload, reserve)
        return next((total for total in totals if found[total, max_size].result.meets(self.goal)), last)

    def _raised(self, max_total: int) -> list[int]:
        """This `max_total`, and to what it is raised if it falls short."""
        totals = [max_total]
        for _ in range(CORRECTIONS):
            more = totals[-1] + max(round(totals[-1] * CORRECTION), 1)
            totals.append(min(more, self.deployment.connections_of_one))
        return list(dict.fromkeys(totals))

    def simulate_sample(self, max_total: int, max_size: int) -> Candidate:
        """Simulate these limits with some of the requests, once."""
        self.simulate_samples([(max_total, max_size)])
        return self.samples[max_total, max_size]

    def simulate_samples(self, limits: Iterable[Limits], goal: WaitGoal | None = None) -> None:
        """Simulate each of these limits with some of the requests, once, until `goal` is missed; two at a time."""
        known = self.samples if goal is None else self.samples.keys() | self.misses
        wanted = [one for one in dict.fromkeys(limits) if one not in known]
        for one, candidate in self._simulate_each(wanted, self.sample_of, goal).items():
            if goal is None or candidate.result.meets(goal):
                self.samples[one] = candidate
            else:
                self.misses.add(one)

    def _simulate_each(
        self, wanted: Sequence[Limits], workload_for: Callable[[int], Workload], goal: WaitGoal | None
    ) -> dict[Limits, Candidate]:
        """Simulate each of these limits until `goal` is missed; if there is much to do, in two processes."""
        elsewhere = wanted[1:] if self.at_once > 1 else ()
        calls = {
            (total, size): self._others.submit(simulate, workload_for(total), **self._settings(total, size, goal))
            for total, size in elsewhere
        }
        found = {}
        for total, size in (*wanted[:1], *reversed(wanted[1:])):  # the other process begins with the second
            call = calls.get((total, size))
            if call is None or call.cancel():
                found[total, size] = self.simulate(total, size, workload_for(total), goal)
            else:
                found[total, size] = Candidate(total, size, call.result())
        return found

    def simulate_unlimited(self, max_size: int) -> Candidate:
        """A sample without a limit; `max_total` of the result is how many connections there were."""
        sample = self.simulate_sample(UNLIMITED, max_size)
        return replace(sample, max_total=self.deployment.peak_of_one(sample.result))

    def simulate_fixed(self, chosen: Candidate) -> Candidate | None:
        """A sample in which each process has an equal part of the shared limit; `None` if none is shared."""
        deployment = self.deployment
        if deployment.sharing is None or chosen.max_total < deployment.replicas:
            return None
        settings = self._settings(chosen.max_total // deployment.replicas, chosen.max_size, None)
        settings["sharing"] = None
        result = simulate(self.sample_of(chosen.max_total), **settings)
        return Candidate(chosen.max_total // deployment.replicas, chosen.max_size, result)

    def sample_of(self, max_total: int) -> Workload:
        """Some of the requests; few pools are soon full, and need a short warm-up."""
        workload = self.workload
        share = min(SAMPLE / (workload.requests + workload.warm_up), 1.0)
        until_full = max(FILL * max_total * self.deployment.limits, SHORTEST_WARM_UP)
        return replace(
            workload,
            requests=max(round(workload.requests * share), 1),
            warm_up=min(round(workload.warm_up * share), until_full),
        )

    def find_size(self, max_total: int) -> Candidate:
        """The smallest `max_size` that meets the goal with this `max_total`; else the one with the shortest waits."""
        given = self.deployment.max_size
        sizes = SIZES if given is None else (given,)
        for first in range(0, len(sizes), self.at_once):
            self.simulate_samples((max_total, size) for size in sizes[first : first + self.at_once])
            for size in sizes[first : first + self.at_once]:
                if self.samples[max_total, size].result.meets(self.goal):
                    return self.samples[max_total, size]
        candidates = [self.samples[max_total, size] for size in sizes]
        return min(candidates, key=lambda one: (one.result.wait(self.goal.share), one.max_size))

    def find_total(self, roomy: Candidate) -> int:
        """
        The smallest `max_total` that meets the goal with the `max_size` of this candidate, which has room enough.

        A large one is found as exactly as samples tell.
        """
        deployment = self.deployment
        most = max(min(roomy.max_total, deployment.peak_of_one(roomy.result)), 1)
        if not roomy.result.meets(self.goal):
            return most
        too_few = 0
        enough = min(most, max(round(roomy.result.mean_in_use / deployment.limits), 1))  # no fewer can be
        while enough < most:
            totals = [min(enough * 2**times, most) for times in range(self.at_once)]
            self.simulate_samples(((total, roomy.max_size) for total in totals), self.goal)
            if self.meets(enough, roomy.max_size):
                break
            too_few, enough = enough, min(enough * 2, most)
        while enough - too_few > (1 if self.at_once == 1 else max(EXACTNESS * enough, 1)):
            step = (enough - too_few) / (self.at_once + 1)
            middles = sorted({max(int(too_few + step * number), too_few + 1) for number in range(1, self.at_once + 1)})
            self.simulate_samples(((middle, roomy.max_size) for middle in middles), self.goal)
            for middle in middles:
                if self.meets(middle, roomy.max_size):
                    enough = middle
                    break
                too_few = middle
        return enough

    def meets(self, max_total: int, max_size: int) -> bool:
        """Whether a sample meets the goal with these limits."""
        limits = max_total, max_size
        self.simulate_samples([limits], self.goal)
        return limits in self.samples and self.samples[limits].result.meets(self.goal)

    def find_others(self, chosen: Candidate) -> list[Candidate]:
        """Smaller and larger values of `max_total`, for comparison; the last is as many as are ever used."""
        size = chosen.max_size
        shown = sorted({round(chosen.max_total * times) for times in SHOWN} - {0, chosen.max_total})
        for_binding = [(chosen.max_total, size), (chosen.max_total, size * 2)]
        self.simulate_samples([(UNLIMITED, size), *for_binding, *((total, size) for total in shown)])
        unlimited = self.simulate_unlimited(size)
        most = min(unlimited.max_total, self.deployment.connections_of_one)
        others = [self.samples[total, size] for total in shown if total < most]
        return others + [unlimited] * (unlimited.max_total > chosen.max_total)

    def find_binding(self, chosen: Candidate) -> list[str]:
        """The limits without which requests would wait less: one of them, or both together."""
        deployment, size = self.deployment, chosen.max_size
        most = _mean_wait(self.simulate_sample(chosen.max_total, size)) * BETTER
        is_at_limit = chosen.max_total >= deployment.connections_of_one
        total = deployment.limit_name if is_at_limit else "max_total"
        names = []
        if _mean_wait(self.simulate_unlimited(size)) < most:
            names.append(total)
        if _mean_wait(self.simulate_sample(chosen.max_total, size * 2)) < most:
            names.append("max_size")
        if not names and _mean_wait(self.simulate_unlimited(size * 2)) < most:
            return [total, "max_size"]
        return names


def _name_of(max_total: int, max_size: int) -> str:
    return f"max_total={max_total if max_total < UNLIMITED else 'unlimited'} max_size={max_size}"


def _mean_wait(candidate: Candidate) -> float:
    """The mean wait; infinite if the goal was missed by far."""
    return candidate.result.mean_wait if candidate.result.is_complete else inf
