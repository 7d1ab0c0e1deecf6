"""The benchmarks run. No test judges what they measure, since a loaded machine proves nothing."""

from __future__ import annotations

import importlib.util
import json

import pytest

from tests.benchmarks import __main__ as program
from tests.benchmarks import plot
from tests.benchmarks.measure import Metric, Race, Racer, Result, Scale, Target, run_race
from tests.benchmarks.report import table


@pytest.mark.parametrize("name", program.RACES)
def test_every_race_runs_to_its_table_its_figures_and_its_picture(name, tmp_path, capsys):
    figures, picture = tmp_path / "figures.json", tmp_path / "picture.png"

    assert program.main(["--smoke", "--only", name, "--json", str(figures), "--plot", str(picture)]) == 0

    printed = capsys.readouterr().out
    race = json.loads(figures.read_text())["races"].get(name)
    if race is None:
        assert "not " in printed, "a race without contenders says what is missing"
        return
    for racer, samples in race["samples"].items():
        assert racer in printed
        assert samples, f"{racer} was not measured"
        assert all(value >= 0 for values in samples.values() for value in values)
    assert set(race["ours"]) <= set(race["samples"])
    for target in race["targets"]:
        assert target["target"] in printed
    if importlib.util.find_spec("matplotlib") is not None:
        assert picture.read_bytes().startswith(b"\x89PNG")
    else:
        assert "matplotlib is not installed" in printed


def test_racers_take_turns_and_each_is_first_as_often():
    turns = []

    def racer(name):
        return Racer(name, lambda repetitions: turns.append(name) or {"seconds": 1.0})

    race = Race("turns", "", "", [racer("a"), racer("b")], repetitions=1)
    run_race(race, Scale(rounds=3, turn=0.0), lambda done, rounds: None)
    assert turns == ["a", "b", "b", "a", "a", "b"]


def result(**samples):
    targets = [
        Target("seconds", "ours", 1.5, "bare"),
        Target("seconds", "ours", 4.0, "peer", times_faster=True),
        Target("seconds", "ours", 2.0, "not installed"),
    ]
    racers = [Racer(name, lambda repetitions: {}, is_ours=name == "ours") for name in samples]
    race = Race("race", "", "", racers, reference="bare", targets=targets)
    return Result(race, {name: {"seconds": values} for name, values in samples.items()})


def test_ratios_are_taken_within_a_round_so_that_a_slow_machine_cancels_out():
    ratio = result(ours=[2.0, 20.0, 200.0], bare=[1.0, 10.0, 100.0], peer=[9.0] * 3).ratio("ours", "bare", "seconds")
    assert (ratio.low, ratio.median, ratio.high) == (2.0, 2.0, 2.0)


def test_targets_are_judged_by_the_median_and_those_of_missing_peers_not_at_all():
    missed = result(ours=[1.6e-6] * 3, bare=[1e-6] * 3, peer=[6e-6] * 3)
    met = result(ours=[1.4e-6] * 3, bare=[1e-6] * 3, peer=[6e-6] * 3)
    assert [verdict and verdict[1] for verdict in map(missed.reached, missed.race.targets)] == [False, False, None]
    assert [verdict and verdict[1] for verdict in map(met.reached, met.race.targets)] == [True, True, None]
    assert "✗ ours ≤ 1.5 × bare: 1.60" in table(missed)
    assert "✓ ours ≤ 1.5 × bare: 1.40" in table(met)


@pytest.mark.parametrize(("ours", "target"), [(0.9, 1.5), (0.1, 20.0), (100.0, 0.1)])
def test_the_picture_has_room_for_a_target_and_its_label(ours, target):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    racers = [Racer(name, lambda repetitions: {}, is_ours=name == "ours") for name in ("ours", "bare")]
    race = Race("race", "", "", racers, reference="bare", targets=[Target("seconds", "ours", target, "bare")])
    axes = Figure().add_subplot()
    plot.panel(axes, Result(race, {"ours": {"seconds": [ours] * 3}, "bare": {"seconds": [1.0] * 3}}))
    left, right = axes.get_xlim()
    assert left < target
    assert target * 1.25 < right


def test_a_race_that_does_not_exist_is_named_with_those_that_do():
    with pytest.raises(SystemExit, match="--only nonsense: no such race; there are threads,"):
        list(program.chosen(program.RACES, ["nonsense"]))


def test_rounds_that_are_asked_for_are_those_of_each_race(tmp_path):
    figures = tmp_path / "figures.json"
    program.main(["--smoke", "--no-plot", "--only", "contention", "--rounds", "3", "--json", str(figures)])
    samples = json.loads(figures.read_text())["races"]["contention"]["samples"]
    assert {len(racer["seconds"]) for racer in samples.values()} == {3}


def rates(**samples):
    metric = Metric("rate", "uses per second", "", more_is_better=True)
    targets = [Target("rate", "ours", 0.8, "peer"), Target("rate", "ours", 5)]
    racers = [Racer(name, lambda repetitions: {}) for name in samples]
    race = Race("race", "", "", racers, metrics=[metric], reference="peer", targets=targets)
    return Result(race, {name: {"rate": values} for name, values in samples.items()})


def test_where_more_is_better_the_most_is_first_and_a_target_is_the_least():
    met, missed = rates(ours=[8.0], peer=[10.0]), rates(ours=[4.0], peer=[10.0])
    assert met.in_order() == ["peer", "ours"]
    assert "uses per second ↑" in table(met)
    assert "÷ peer ↑" in table(met)
    assert "✓ ours ≥ 0.8 × peer: 0.80" in table(met)
    assert "✓ ours: uses per second ≥ 5.00: 8.00" in table(met)
    assert "✗ ours ≥ 0.8 × peer: 0.40" in table(missed)
    assert "✗ ours: uses per second ≥ 5.00: 4.00" in table(missed)
