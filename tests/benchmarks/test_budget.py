"""The rows of the budget's table. What they measure is judged by no test."""

from __future__ import annotations

import re

from tests.benchmarks import __main__ as program
from tests.benchmarks.budget import LOADS, UNLIMITED, Load


def test_the_table_has_each_load_in_order_and_each_of_its_targets(capsys):
    assert program.main(["--smoke", "--no-plot", "--only", "budget"]) == 0
    printed = capsys.readouterr().out
    rows = re.findall(r"^▸ (.*?)  ", printed, re.MULTILINE)
    assert rows == [load.name for load in LOADS]
    verdicts = re.findall(r"^  [✓✗] (.*):", printed, re.MULTILINE)
    assert len(verdicts) == sum(len(list(load.targets())) for load in LOADS)
    assert f"{LOADS[1].name}: logins ÷ goal ≤ 1.30" in verdicts
    assert f"{LOADS[1].name} ≥ 0.85 × {UNLIMITED.name}" in verdicts
    assert f"{LOADS[1].name}: longest wait ÷ (create + use) ≤ 3.00" in verdicts


def test_every_run_draws_the_same_users():
    assert Load(100, 80).draw(50) == Load(100, 80).draw(50)


def test_the_first_of_skewed_users_asks_most():
    drawn = Load(100, 80, is_skewed=True).draw(4000)
    assert drawn.count(0) > 2 * drawn.count(4) > 4 * drawn.count(40)


def test_loads_are_told_apart_by_their_names():
    assert len({load.name for load in LOADS}) == len(LOADS)
