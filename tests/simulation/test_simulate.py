"""What `simulate` reports, for loads whose numbers are known."""

from __future__ import annotations

import math
from random import Random

import pytest

from pooling import ConfigurationError, Histogram
from pooling.simulation import WaitGoal, Workload, simulate
from pooling.simulation._events import Events
from pooling.simulation.workload import user_sampler_of

ONE_USER = {"users": 1, "use_time": 1.0, "create_time": 0.0}


def test_two_workers_share_the_one_resource_of_their_user():
    result = simulate(Workload(workers=2, requests=100, **ONE_USER), max_size=1)
    assert result.created == 1
    assert (result.requests, result.timeouts, result.evicted) == (100, 0, 0)
    assert result.seconds == pytest.approx(99.0, abs=1.5)
    assert result.throughput == pytest.approx(1.0, rel=0.02)
    assert (result.wait(0), result.wait(0.5), result.wait(1)) == (0.0, 1.0, 1.0)
    assert (result.peak_size, result.peak_in_use) == (1, 1)
    assert result.mean_in_use == pytest.approx(1.0, rel=0.02)


def test_requests_of_a_poisson_process_wait_as_long_as_queueing_theory_says():
    """Pollaczek and Khinchine: with half of the time in use, uses of 1 s wait for half a second on average."""
    result = simulate(
        Workload(rate=0.5, requests=15_000, warm_up=1000, **ONE_USER), max_size=1, timeout=math.inf, max_idle=math.inf
    )
    assert result.mean_wait == pytest.approx(0.5, rel=0.12)
    assert result.throughput == pytest.approx(0.5, rel=0.03)


def test_users_who_think_send_as_many_requests_as_their_pauses_allow():
    result = simulate(Workload(users=50, think_time=9.0, use_time=1.0, create_time=0.0, requests=5000, warm_up=500))
    assert result.throughput == pytest.approx(5.0, rel=0.03)
    assert result.mean_in_use == pytest.approx(5.0, rel=0.05)


@pytest.mark.parametrize("arrives", [{"rate": 50.0}, {"think_time": 2.0}, {"workers": 3}])
def test_a_skewed_load_needs_fewer_creates_than_an_even_one(arrives):
    even, skewed = (
        simulate(Workload(users=100, skew=skew, requests=4000, create_time=0.02, **arrives), max_total=20)
        for skew in (0.0, 1.2)
    )
    assert skewed.created < even.created * 0.8
    assert skewed.evicted < even.evicted


def test_a_user_without_weight_sends_no_request():
    workload = Workload(users=3, skew=[1.0, 0.0, 2.0], rate=10.0, requests=300)
    assert simulate(workload, max_idle=math.inf, max_size=1).created == 2


def test_a_request_that_gets_nothing_in_its_timeout_is_counted_as_such():
    result = simulate(
        Workload(users=1, use_time=10.0, create_time=0.0, workers=3, requests=30), max_size=1, timeout=1.0
    )
    assert result.timeouts > 20
    assert result.requests == 30
    assert len(result.waits) == 30 - result.timeouts
    assert result.wait(1) == math.inf
    assert result.as_dict()["wait_max"] is None


def test_the_same_seed_gives_the_same_result_and_another_one_another():
    workload = Workload(users=20, workers=10, requests=2000)
    results = [simulate(workload, max_total=10, seed=seed) for seed in (1, 1, 2)]
    assert results[0] == results[1]
    assert results[0] != results[2]


def test_a_measured_histogram_stands_for_its_durations():
    measured = Histogram()
    for seconds in (0.01, 0.012, 0.02, 0.3):
        measured.record(seconds)
    result = simulate(Workload(users=1, use_time=measured, create_time=0.0, workers=1, requests=5000))
    assert result.mean_in_use == pytest.approx(1.0)
    assert 1 / result.throughput == pytest.approx(measured.mean, rel=0.05)


def test_replicas_have_pools_and_limits_for_themselves():
    workload = Workload(users=10, rate=100.0, requests=2000)
    one, spread, sticky = (
        simulate(workload, max_size=1, max_idle=math.inf, **settings)
        for settings in ({}, {"replicas": 4}, {"replicas": 4, "sticky": True})
    )
    assert (one.created, spread.created, sticky.created) == (10, 40, 10)
    limited = simulate(workload, max_size=1, max_total=2, replicas=4)
    assert limited.peak_size == 8
    assert limited.peak_size_of_one == 2


def test_the_warm_up_is_not_counted():
    workload = Workload(users=10, workers=2, requests=1000, warm_up=500)
    result = simulate(workload, max_size=1, max_idle=math.inf)
    assert (result.requests, result.created) == (1000, 0)
    assert result.wait(1) <= 0.005


def test_idle_resources_are_destroyed_after_max_idle_also_in_virtual_time():
    workload = Workload(users=1, rate=0.1, requests=500, create_time=0.0)
    assert simulate(workload, max_idle=1000.0).created == 1
    assert simulate(workload, max_idle=1.0).created > 300


def test_a_goal_that_is_missed_ends_the_simulation():
    workload = Workload(users=1000, rate=1000.0, requests=5000)
    goal = WaitGoal(0.99, 0.1)
    result = simulate(workload, max_total=5, goal=goal)
    assert not result.is_complete
    assert not result.meets(goal)
    assert result.requests < 500
    met = simulate(workload, max_total=200, goal=goal)
    assert met.is_complete
    assert met.meets(goal)
    assert not met.meets(WaitGoal(0.99, 0.01))


def test_a_goal_that_is_just_met_stops_nothing():
    workload = Workload(workers=2, requests=100, **ONE_USER)
    goal = WaitGoal(1.0, 1.0)
    assert simulate(workload, max_size=1, goal=goal).meets(goal)


def test_several_jobs_simulate_all_requests_and_give_one_result():
    workload = Workload(users=20, rate=100.0, requests=1001, warm_up=200, create_time=0.05)
    told = []
    alone = simulate(workload, max_total=10)
    parts = simulate(workload, max_total=10, jobs=2, progress=lambda *seen: told.append(seen))
    assert parts.requests == len(parts.waits) == 1001
    assert parts == simulate(workload, max_total=10, jobs=2)
    assert list(parts.waits) == sorted(parts.waits)
    assert parts.throughput == pytest.approx(alone.throughput, rel=0.2)
    assert parts.mean_wait == pytest.approx(alone.mean_wait, rel=0.3)
    assert parts.peak_size == 10
    assert told[-1] == (2 * 701, 2 * 701)


def test_progress_is_told_up_to_the_end():
    told = []
    simulate(Workload(users=1, workers=1, requests=900, warm_up=100), progress=lambda *seen: told.append(seen))
    assert told[-1] == (1000, 1000)
    assert len(told) == 100
    assert told == sorted(told)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("users", {"users": 0}),
        ("requests", {"requests": 1.5}),
        ("warm_up", {"warm_up": -1}),
        ("workers", {"workers": 1, "rate": 1.0}),
        ("workers", {"workers": None}),
        ("workers", {"workers": 0}),
        ("rate", {"workers": None, "rate": 0}),
        ("use_time", {"use_time": -1.0}),
        ("create_time", {"create_time": Histogram()}),
        ("skew", {"skew": -1.0}),
        ("skew", {"skew": [1.0]}),
        ("skew", {"skew": [0.0, 0.0]}),
    ],
)
def test_a_workload_that_cannot_be_is_refused_by_the_name_of_its_field(field, values):
    with pytest.raises(ConfigurationError) as error:
        Workload(**{"users": 2, "workers": 1, **values})
    assert error.value.field == field


@pytest.mark.parametrize(
    "options", [{"min_size": 1}, {"max_waiting": 0}, {"priorities": 2}, {"max_sise": 3}, {"jobs": 0}]
)
def test_options_that_are_not_simulated_or_not_known_are_refused(options):
    with pytest.raises(ConfigurationError) as error:
        simulate(Workload(users=1, workers=1), **options)
    assert error.value.field == next(iter(options))


@pytest.mark.parametrize(("share", "seconds"), [(0, 1), (1.1, 1), (0.5, -1), (math.nan, 1)])
def test_a_goal_that_cannot_be_is_refused(share, seconds):
    with pytest.raises(ConfigurationError):
        WaitGoal(share, seconds)


def test_the_work_does_not_grow_with_the_rate(monkeypatch):
    """Requests that come after the last one that is wanted are not made."""
    steps, step = 0, Events.step

    def counted(events):
        nonlocal steps
        steps += 1
        assert steps < 10_000
        return step(events)

    monkeypatch.setattr(Events, "step", counted)
    result = simulate(Workload(users=5, rate=1e9, requests=200, warm_up=100, create_time=0.06))
    assert result.requests == 200


@pytest.mark.parametrize("skew", [1.0, [3, 0, 1, 0]])
def test_the_user_of_a_request_is_drawn_by_the_weights(skew):
    """As a search among all users would find it."""
    users = len(skew) if isinstance(skew, list) else 3000
    weights = skew if isinstance(skew, list) else [1 / (number + 1) for number in range(users)]
    sample = user_sampler_of(Workload(users=users, workers=1, skew=skew), Random(5))
    assert [sample() for _ in range(2000)] == Random(5).choices(range(users), weights, k=2000)
