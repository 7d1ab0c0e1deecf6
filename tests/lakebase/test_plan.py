"""`lakebase plan` finds the smallest limits that meet a goal, and says which limit binds."""

from __future__ import annotations

import argparse
import io
import json
import sys
from dataclasses import replace

import pytest

from lakebase import _planning, cli
from lakebase._planning import Deployment, make_plan
from lakebase.limits import direct_connections, smallest_compute
from lakebase.plan import add_arguments, main
from pooling import ConfigurationError, Histogram, PoolingServiceOptions
from pooling.simulation import WaitGoal, Workload, simulate

# Ten users who always come back within `max_idle`: with ten connections only the first requests wait.
WORKLOAD = Workload(users=10, rate=50.0, requests=1500, warm_up=500, create_time=0.05)
DEPLOYMENT = Deployment(options=PoolingServiceOptions(max_idle=600.0), max_size=1)
GOAL = WaitGoal(0.9, 0.02)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(*arguments, screen=None):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    out, errors = io.StringIO(), screen or io.StringIO()
    status = main(parser.parse_args(["--requests", "2000", *arguments]), out, errors)
    return status, out.getvalue(), errors.getvalue()


def result_of(plan, max_total, max_size):
    return simulate(plan.workload, plan.deployment.options, max_total=max_total, max_size=max_size)


def test_the_plan_is_the_smallest_max_total_that_meets_the_goal():
    plan = make_plan(WORKLOAD, DEPLOYMENT, GOAL)
    chosen = plan.chosen
    assert plan.meets_goal
    assert 1 < chosen.max_total <= 10
    assert result_of(plan, chosen.max_total, 1).meets(GOAL)
    assert not result_of(plan, chosen.max_total - 1, 1).meets(GOAL)
    assert plan.compute_units == 0.5


def test_the_plan_is_the_smallest_max_size_that_meets_the_goal():
    # One user sends everything: a second request at the same time needs a second connection.
    workload = Workload(users=1, rate=100.0, use_time=0.015, requests=1500, warm_up=500)
    plan = make_plan(workload, replace(DEPLOYMENT, max_size=None), WaitGoal(0.95, 0.01))
    size = plan.chosen.max_size
    assert plan.meets_goal
    assert size > 1
    assert not result_of(plan, 100, {2: 1, 3: 2, 4: 3, 6: 4}[size]).meets(plan.goal)
    given = make_plan(workload, DEPLOYMENT, WaitGoal(0.95, 0.01))
    assert not given.meets_goal
    assert given.binding == ["max_total", "max_size"]  # there is no use for a second place without the other


def test_what_a_sample_finds_too_low_is_raised_until_all_requests_meet_the_goal(monkeypatch):
    chosen = make_plan(WORKLOAD, DEPLOYMENT, GOAL).chosen
    monkeypatch.setattr(_planning, "SAMPLE", 500)
    search = _planning.Search(WORKLOAD, DEPLOYMENT, GOAL, None)
    too_few = chosen.max_total - 1
    search.samples[too_few, 1] = chosen  # as if a sample with one fewer had met the goal
    corrected = search.confirm(too_few, 1)
    assert corrected.max_total == chosen.max_total
    assert corrected.result.meets(GOAL)
    assert corrected.result.requests == WORKLOAD.requests


def test_a_larger_sample_corrects_before_all_requests_are_simulated(monkeypatch):
    chosen = make_plan(WORKLOAD, DEPLOYMENT, GOAL).chosen
    monkeypatch.setattr(_planning, "LARGER_SAMPLE", WORKLOAD.requests // 5)
    simulated = []

    class Told(_planning.Search):
        def simulate(self, max_total, max_size, workload, goal=None, **settings):
            simulated.append((max_total, workload.requests))
            return super().simulate(max_total, max_size, workload, goal, **settings)

    search = Told(WORKLOAD, DEPLOYMENT, GOAL, None)
    too_few = chosen.max_total // 2
    search.samples[too_few, 1] = chosen  # as if a sample with half as many had met the goal
    corrected = search.confirm(too_few, 1)
    in_part = [total for total, requests in simulated if requests < WORKLOAD.requests]
    in_whole = [total for total, requests in simulated if requests == WORKLOAD.requests]
    assert in_part[0] == too_few < in_part[-1] < in_whole[0] <= corrected.max_total == in_whole[-1]


def test_what_binds_is_named():
    narrow = make_plan(WORKLOAD, replace(DEPLOYMENT, max_total=4), GOAL)
    assert not narrow.meets_goal
    assert narrow.binding == ["max_total"]
    wide = make_plan(WORKLOAD, replace(DEPLOYMENT, max_total=20, max_size=3), GOAL)
    assert wide.meets_goal
    assert wide.binding == []


def test_the_compute_bounds_the_connections_of_all_replicas():
    workload = Workload(users=600, rate=600.0, requests=1200, warm_up=1200, skew=0.0)
    small = make_plan(workload, replace(DEPLOYMENT, replicas=4, compute_units=0.5), WaitGoal(0.9, 0.01))
    assert small.chosen.max_total == direct_connections(0.5) // 4
    assert not small.meets_goal
    assert small.binding == ["direct connections at 0.5 CU"]
    free = make_plan(workload, replace(DEPLOYMENT, replicas=4, sticky=True), WaitGoal(0.9, 0.01))
    assert free.meets_goal
    assert free.compute_units == smallest_compute(free.connections) > 0.5


def test_through_the_pooler_its_clients_are_the_limit_and_transactions_need_the_compute():
    plan = make_plan(WORKLOAD, replace(DEPLOYMENT, pooled=True), GOAL)
    assert plan.deployment.connection_limit == 10_000
    assert plan.compute_units == smallest_compute(plan.chosen.result.peak_in_use)


def test_more_replicas_than_connections_are_refused():
    with pytest.raises(ConfigurationError, match=r"104 direct connections at 0.5 CU"):
        make_plan(WORKLOAD, replace(DEPLOYMENT, replicas=200, compute_units=0.5), GOAL)


@pytest.mark.parametrize(("connections", "size"), [(1, 0.5), (104, 0.5), (105, 1), (4000, 32), (4001, None)])
def test_the_smallest_compute_takes_the_connections(connections, size):
    assert smallest_compute(connections) == size


def one_line(text: str) -> str:
    """What the text says, wherever its lines end."""
    return " ".join(text.split())


def test_the_table_has_the_plan_and_its_neighbours():
    status, text, errors = run("--users", "10", "--rate", "50", "--goal", "p90=20ms", "--max-size", "1")
    assert status == 0
    assert errors == ""
    asked, rows, _ = text.split("\n\n")
    asked = one_line(asked)
    assert asked.startswith("10 users, 50 requests/s; a request uses its connection for 5 ms, a login takes 60 ms")
    assert asked.endswith("Goal: 90 % of the requests wait at most 20 ms for a connection (p90).")
    head, *rows = rows.splitlines()
    assert head.endswith("  p90 wait")
    marked = [row for row in rows if row.startswith(">")]
    assert len(marked) == 1
    assert "meets the goal" in one_line(text)
    assert "0.5 CU" in one_line(text)
    assert all(len(line) <= 80 for line in text.splitlines() if line not in {head, *rows})


def test_json_has_the_same_numbers_and_a_goal_that_is_missed_exits_with_1():
    status, text, _ = run("--users", "50", "--workers", "9", "--max-total", "3", "--goal", "p50=1ms", "--json")
    found = json.loads(text)
    assert status == 1
    assert (found["meets_goal"], found["max_total"], found["binding"]) == (False, 3, ["max_total"])
    assert found["goal"] == {"share": 0.5, "seconds": 0.001}
    assert found["result"]["wait_p50"] > 0.001
    assert all({"max_total", "max_size", "result"} <= one.keys() for one in found["others"])


def test_a_measured_histogram_can_stand_for_a_time():
    status, text, _ = run("--users", "5", "--think", "0.5s", "--login", "64ms:90,256ms:10", "--use", "4ms")
    assert status in {0, 1}
    text = one_line(text)
    assert "each waits 500 ms between requests" in text
    assert "(mean of 100 measured)" in text


def test_the_histogram_of_a_pool_can_be_given_as_the_documents_show():
    measured = Histogram()
    for number in range(1, 300):
        measured.record(number**2 * 1e-6)
    text = ",".join(f"{upper:.6f}s:{count}" for upper, count in measured.buckets())
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    given = parser.parse_args(["--users", "1", "--rate", "1", "--use", text]).use
    assert list(given.buckets()) == list(measured.buckets())
    assert given.mean == pytest.approx(measured.mean, rel=0.2)  # as exact as the buckets are


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_picture_is_drawn(tmp_path, suffix):
    file = tmp_path / f"plan.{suffix}"
    status, _, errors = run("--users", "10", "--rate", "50", "--goal", "p90=20ms", "--plot", str(file))
    assert status == 0
    assert file.stat().st_size > 5000
    assert str(file) in errors


def test_a_picture_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    status, text, errors = run("--users", "5", "--rate", "5", "--plot", str(tmp_path / "none" / "plan.png"))
    assert (status, text) == (2, "")
    assert "there is no folder" in errors
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, text, errors = run("--users", "5", "--rate", "5", "--plot", str(tmp_path / "plan.png"))
    assert (status, text) == (2, "")
    assert "lakebase-pooling[plot]" in errors


def test_progress_is_shown_on_a_terminal_and_removed():
    _, _, shown = run("--users", "5", "--rate", "50", screen=Terminal())
    assert "simulating max_total=" in shown
    assert "100% of" in shown
    assert shown.endswith("\r\x1b[K")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--users", "5"],
        ["--rate", "5"],
        ["--users", "0", "--rate", "5"],
        ["--users", "5", "--rate", "5", "--workers", "2"],
        ["--users", "5", "--rate", "many"],
        ["--users", "5", "--rate", "5", "--use", "5 parsecs"],
        ["--users", "5", "--rate", "5", "--use", "5"],
        ["--users", "5", "--rate", "5", "--use", "5:9"],
        ["--users", "5", "--rate", "5", "--goal", "p99=100"],
        ["--users", "5", "--rate", "5", "--use", "5ms:x"],
        ["--users", "5", "--rate", "5", "--goal", "50ms"],
        ["--users", "5", "--rate", "5", "--goal", "p101=50ms"],
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["plan", *arguments])
    assert ended.value.code == 2
    assert "lakebase plan" in capsys.readouterr().err


def test_a_share_above_all_is_refused_in_the_words_of_the_option(capsys):
    with pytest.raises(SystemExit):
        cli.main(["plan", "--users", "5", "--rate", "5", "--goal", "p101=50ms"])
    assert "'p101=50ms': expected a share of the requests, above p0 and at most p100" in capsys.readouterr().err


def test_processes_that_share_a_limit_need_fewer_connections_than_with_a_limit_each():
    load = ["--users", "12", "--rate", "60", "--skew", "2", "--sticky", "--replicas", "4", "--goal", "p90=20ms"]
    found = {}
    for store in ([], ["--store", "redis", "--store-latency", "3ms", "--block", "2"]):
        status, text, _ = run(*load, *store, "--json")
        assert status == 0
        found[bool(store)] = json.loads(text)
    shared, each = found[True], found[False]
    assert (shared["is_shared"], each["is_shared"], each["fixed"]) == (True, False, None)
    assert shared["connections"] == shared["max_total"] < each["connections"]
    assert shared["result"]["peak_size"] <= shared["max_total"]
    assert shared["result"]["claims"] > 0
    assert shared["fixed"]["max_total"] == shared["max_total"] // 4


def test_the_plan_says_what_sharing_takes_and_what_equal_parts_would_do():
    _, text, _ = run("--users", "12", "--rate", "60", "--replicas", "2", "--store", "files", "--max-total", "6")
    text = one_line(text)
    assert "2 processes that share one limit (a claim takes 0.5 ms)" in text
    assert "times a second in all" in text
    assert "With max_total=3 for each process in place of the shared limit, p99 would be" in text
    status, _, errors = run("--users", "5", "--rate", "5", "--block", "3")
    assert status == 2
    assert "give --store, too" in errors


def test_one_process_shares_a_limit_in_the_singular():
    _, text, _ = run("--users", "12", "--rate", "60", "--store", "files", "--max-total", "6")
    text = one_line(text)
    assert "1 process that shares a limit (a claim takes 0.5 ms)" in text
    assert "in place of the shared limit" not in text


def test_requests_that_all_time_out_are_not_said_not_to_wait():
    _, text, _ = run("--users", "5", "--workers", "20", "--timeout", "0s")
    text = one_line(text)
    assert "p99 is timeout" in text
    assert "Requests fail where no connection is free" in text
    assert "inf" not in text
    assert "No request waits" not in text


def test_one_connection_is_one():
    _, text, _ = run("--users", "1", "--rate", "1", "--max-total", "1", "--max-size", "1")
    text = one_line(text)
    assert text.startswith("1 user, ")
    assert "that takes 1 direct connection has" in text


def test_a_compute_that_does_not_exist_is_explained():
    status, _, errors = run("--users", "5", "--rate", "5", "--compute", "0.1")
    assert status == 2
    assert "compute_units=0.1" in errors
