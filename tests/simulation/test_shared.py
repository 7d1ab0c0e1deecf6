"""Processes under one limit: the real leases, under a virtual clock, over thousands of random schedules."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pooling import ConfigurationError, PoolingServiceOptions
from pooling.simulation import Kill, Sharing, Workload, simulate
from pooling.simulation._events import Events
from pooling.simulation._leases import SimulatedStore
from pooling.simulation._pools import Places, SimulatedPools
from pooling.simulation._processes import Processes
from tests.core.model import BrokenPromiseError
from tests.simulation.shared_schedules import SharedSchedule
from tests.simulation.test_fairness import Visitor

BATCHES, BATCH = 5, 40
WORKLOAD = Workload(users=40, requests=900, warm_up=100, rate=300.0, create_time=0.05, use_time=0.01)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_the_shared_limit_holds_and_every_borrower_is_served_or_dies_with_its_process(batch):
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        try:
            SharedSchedule(seed).run()
        except BrokenPromiseError as error:
            raise AssertionError(f"SharedSchedule({seed}): {error}") from error


class OneTooMany(SimulatedStore):
    """Says that a process has one place more than the book."""

    def enter(self, claim):
        answer = super().enter(claim)
        one = answer is not None and answer.places > 0
        return answer and answer._replace(places=answer.places + one, goal=answer.goal + one)


class ForgetsTheLiving(SimulatedStore):
    """Frees the places of a process that has not died."""

    def enter(self, claim):
        self.book.forget(next(iter(self.members)))
        return super().enter(claim)


@pytest.mark.parametrize("broken", [OneTooMany, ForgetsTheLiving])
def test_a_store_that_breaks_a_promise_is_found_out(broken):
    with pytest.raises(BrokenPromiseError):
        for seed in range(BATCHES * BATCH):
            SharedSchedule(seed, broken).run()


def test_a_shared_limit_is_used_where_it_is_needed_and_never_exceeded():
    uneven = replace(WORKLOAD, users=4, skew=[0.85, 0.05, 0.05, 0.05])
    fixed = simulate(uneven, max_total=2, max_size=8, replicas=4, sticky=True)
    for sharing in (Sharing.files(), Sharing.redis(), Sharing.postgres()):
        shared = simulate(uneven, max_total=8, max_size=8, replicas=4, sticky=True, sharing=sharing)
        assert shared.peak_size <= 8
        assert shared.peak_size_of_one > 2
        assert shared.claims > 0
        assert shared.mean_wait < fixed.mean_wait / 2
    assert fixed.claims == 0


@pytest.mark.parametrize(
    ("sharing", "within"),
    [(Sharing.files(), 0.5), (Sharing.redis(lease_ttl=2.0), 2.5), (Sharing.postgres(lease_ttl=2.0), 2.5)],
)
def test_the_places_of_a_process_that_died_come_back(sharing, within):
    result = simulate(WORKLOAD, max_total=8, replicas=3, sharing=sharing, kills=[Kill(2.0, 1)])
    assert len(result.recoveries) == 1
    assert 0.0 <= result.recoveries[0] <= within
    assert result.lost > 0
    assert result.requests + result.lost == WORKLOAD.requests
    assert result.peak_size <= 8


def test_a_store_that_is_away_lets_processes_go_on_with_what_they_have():
    steady = Sharing(lease_ttl=30.0)
    there, away = (
        simulate(WORKLOAD, max_total=8, replicas=2, sharing=sharing)
        for sharing in (steady, replace(steady, away=[(1.0, 3.0)]))
    )
    assert away.requests == there.requests == WORKLOAD.requests
    assert away.throughput == pytest.approx(there.throughput, rel=0.2)
    assert away.peak_size <= 8


def test_a_process_that_died_is_replaced_also_where_each_has_a_limit_for_itself():
    result = simulate(WORKLOAD, max_total=8, kills=[Kill(1.0, restart_after=0.5), Kill(2.0, restart_after=0.0)])
    assert result.lost > 0
    assert result.requests + result.lost == WORKLOAD.requests


def test_the_same_seed_gives_the_same_result_with_a_shared_limit():
    settings = {"max_total": 8, "replicas": 3, "sharing": Sharing.redis(), "kills": [Kill(1.0, 2)]}
    results = [simulate(WORKLOAD, seed=seed, **settings) for seed in (1, 1, 2)]
    assert results[0] == results[1]
    assert results[0] != results[2]


@pytest.mark.parametrize(
    ("sharing", "crowds"),
    [(Sharing.redis(), (30, 30, 30)), (Sharing.files(), (200, 30, 30)), (Sharing.postgres(), (200, 30, 30))],
)
def test_busy_processes_are_served_alike_however_many_borrowers_each_has(sharing, crowds):
    events, places = Events(), Places()
    store = SimulatedStore(events, sharing, 9, lambda: 0.002)
    options = PoolingServiceOptions(max_size=9, timeout=60.0)
    processes = Processes(
        events,
        len(crowds),
        lambda budget: SimulatedPools(
            events, options, create_time=lambda: 0.05, jitter=lambda: 0.5, budget=budget, places=places
        ),
        places=places,
        store=store,
    )
    visitors = [
        [Visitor(pools, "key", float) for _ in range(crowd)]
        for crowd, pools in zip(crowds, processes.live, strict=True)
    ]
    while events.now < 2.0:
        events.step()
    served = sorted(sum(len(visitor.waits) for visitor in crowd) for crowd in visitors)
    assert places.peak <= 9
    assert served[-1] <= 1.4 * served[0]


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("latency", lambda: Sharing(latency=-1.0)),
        ("lease_ttl", lambda: Sharing(lease_ttl=0.0)),
        ("idle_after", lambda: Sharing(idle_after=-1.0)),
        ("block", lambda: Sharing(block=0)),
        ("away", lambda: Sharing(away=[(1.0, float("inf"))])),
        ("at", lambda: Kill(-1.0)),
        ("restart_after", lambda: Kill(1.0, restart_after=float("inf"))),
        ("process", lambda: Kill(1.0, -1)),
        ("kills", lambda: simulate(WORKLOAD, replicas=2, kills=[Kill(1.0, 2)])),
        ("max_total", lambda: simulate(WORKLOAD, replicas=2, sharing=Sharing())),
    ],
)
def test_what_cannot_be_shared_is_refused_by_the_name_of_its_field(field, make):
    with pytest.raises(ConfigurationError) as error:
        make()
    assert error.value.field == field
