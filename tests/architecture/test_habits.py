"""Habits that keep the tests quick and steady."""

from __future__ import annotations

import ast

from tests.architecture.source import ROOT, Source, sources
from tests.conftest import QUICK

# A line may end in this comment and a reason, where sleeping is itself what the test is about.
EXCUSE = "# sleeps: "

# Areas of which each test takes long: they race pools, send thousands of signals, start
# programs, or run type checkers.
SLOW = {"benchmarks", "clusters", "interrupts", "recipes", "types"}

# What must give a reason, and how many arguments it has without one.
REASONED = {"pytest.mark.skip": 0, "pytest.mark.skipif": 1, "pytest.mark.xfail": 0, "pytest.skip": 0, "pytest.xfail": 0}


def _dotted(node: ast.expr) -> str:
    """A name with its dots; empty for what is no name."""
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def sleeps(source: Source) -> list[int]:
    """The lines that call `time.sleep`, or `asyncio.sleep` for longer than one turn of the loop."""
    names = {"time.sleep", "asyncio.sleep", "anyio.sleep", "trio.sleep"}
    names |= {found.name for found in source.imports() if found.name == "sleep"}
    lines = []
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call) or _dotted(node.func) not in names:
            continue
        one_turn = len(node.args) == 1 and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0
        if _dotted(node.func) == "time.sleep" or not one_turn:
            lines.append(node.lineno)
    return lines


def test_locks_are_made_by_the_functions_that_know_of_interrupts():
    # A latch is opened by another thread than the one that took it. For the workers' condition no caller waits.
    others = {"pooling/_backends/threads.py", "pooling/_single_flight.py", "lakebase/_workers.py", "pooling/locks.py"}
    wrong = [
        f"{source.where}:{node.lineno}"
        for source in sources("pooling", "lakebase")
        if source.where not in others
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and _dotted(node.func) in {"threading.Lock", "threading.RLock"}
    ]
    assert not wrong, f"use make_lock or make_rlock of pooling.locks: {wrong}"


def test_no_test_sleeps_to_get_its_timing_right():
    wrong = [
        f"{source.where}:{line}"
        for source in sources("tests")
        if not source.where.startswith("tests/benchmarks/")
        for line in sleeps(source)
        if EXCUSE not in source.lines[line - 1]
    ]
    assert not wrong, f"wait for an event, gate a hook or move the clock (or say why in '{EXCUSE}…'): {wrong}"


def test_no_test_is_skipped_or_expected_to_fail_without_a_reason():
    wrong = []
    for source in sources("tests"):
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Call):
                continue
            name = _dotted(node.func)
            if (
                name in REASONED
                and len(node.args) <= REASONED[name]
                and not any(k.arg == "reason" for k in node.keywords)
            ):
                wrong.append(f"{source.where}:{node.lineno} {name}")
    assert not wrong


def test_a_planted_sleep_is_found(tmp_path):
    file = tmp_path / "planted.py"
    file.write_text(
        "import time\nfrom time import sleep\ntime.sleep(0)\nasyncio.sleep(0)\nasyncio.sleep(1)\nsleep(2)\n"
    )
    assert sleeps(Source(file)) == [3, 5, 6]


def test_the_quick_subset_has_tests_of_every_area():
    tests = ROOT / "tests"
    for entry in QUICK:
        place, _, test = entry.partition("::")
        assert (tests / place).exists(), entry
        assert not test or f"def {test}(" in (tests / place).read_text(encoding="utf-8"), entry
    areas = {file.parent.relative_to(tests).parts[0] for file in tests.rglob("test_*.py")}
    assert areas - {entry.partition("/")[0] for entry in QUICK} <= SLOW
