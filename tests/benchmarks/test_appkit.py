"""Side by side with AppKit: what is missing is said, AppKit is installed once, and each side does what it is asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lakebase.local import LocalLakebase
from tests.benchmarks import __main__ as program
from tests.benchmarks import npm
from tests.benchmarks.appkit import (
    CAN_BE_KEPT_ON_A_CORE,
    CAN_HAVE_UVLOOP,
    Load,
    Side,
    Stage,
    figures,
    on_one_core,
    run_process,
)
from tests.benchmarks.measure import BenchmarkError

ROOT = Path(__file__).resolve().parents[2]
APPKIT_IS_HERE = npm.cache_folder().exists() and shutil.which("node") is not None


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """An empty folder for programs, and the cache, in place of the user's own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def add_program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("name", program.APPKIT_RACES)
def test_without_node_each_race_of_appkit_says_how_to_get_it(name, programs, capsys):
    if name == "budget":
        assert program.main(["appkit", "--smoke", "--no-plot", "--only", "budget"]) == 0
        return
    assert program.main(["appkit", "--smoke", "--no-plot", "--only", name]) == 1
    assert "there is no node on the PATH. Install Node 20 or newer" in capsys.readouterr().err


def test_a_node_that_is_too_old_is_named(programs, capsys):
    add_program(programs, "node", "echo v18.20.1")
    assert program.main(["appkit", "--smoke", "--no-plot"]) == 1
    assert "is Node 18.20.1, and AppKit needs a newer one. Install Node 20" in capsys.readouterr().err


def test_node_without_npm_is_said(programs, capsys):
    add_program(programs, "node", "echo v20.1.0")
    assert program.main(["appkit", "--smoke", "--no-plot"]) == 1
    assert "there is no npm on the PATH" in capsys.readouterr().err


def test_where_npm_fails_its_last_words_are_shown_and_nothing_stays(programs, capsys):
    add_program(programs, "node", "echo v20.1.0")
    add_program(programs, "npm", "echo 'npm error code ENOTFOUND' >&2; exit 7")
    assert program.main(["appkit", "--smoke", "--no-plot"]) == 1
    shown = capsys.readouterr().err
    assert "npm could not install AppKit 0.38.1 and ended with 7" in shown
    assert "npm error code ENOTFOUND" in shown
    assert list(npm.cache_folder().parent.iterdir()) == []


def test_appkit_is_installed_once_in_its_exact_version(programs):
    add_program(programs, "npm", 'echo run >> "$XDG_CACHE_HOME/runs"; : > node_modules')
    told = []
    assert npm.install(told.append) == npm.install(told.append) == npm.cache_folder() / "node_modules"
    assert (npm.cache_folder().parents[1] / "runs").read_text() == "run\n"
    assert len(told) == 1
    assert '"@databricks/appkit": "0.38.1"' in (npm.cache_folder() / "package.json").read_text()


def test_an_interrupted_installation_leaves_nothing_behind(programs):
    add_program(programs, "node", "echo v20.1.0")
    add_program(programs, "npm", "kill -INT $PPID; exec /bin/sleep 60")
    command = [sys.executable, "-m", "tests.benchmarks", "appkit", "--smoke", "--no-plot"]
    ended = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 130
    assert ended.stderr.splitlines()[-1].startswith("Interrupted.")
    assert list(npm.cache_folder().parent.iterdir()) == []


def test_a_process_that_fails_is_named_with_its_last_words():
    side = Side("Ours", [sys.executable, "-c", "raise SystemExit('no such host')"], {}, is_ours=True)
    with pytest.raises(BenchmarkError) as failed:
        run_process(side, "{}")
    assert str(failed.value) == "the process of Ours ended with 1. Its last words:\nno such host"


def test_figures_are_of_the_answers_in_order():
    found = figures({"answered": [(0.0, 4.0), (0.0, 1.0), (1.0, 2.0), (2.0, 3.0)], "errors": {"53300": 2}})
    assert (found["first"], found["half"], found["last"]) == (1.0, 2.5, 4.0)
    assert (found["rate"], found["warm"]) == (1.0, 1.0)
    assert (found["longest"], found["failed"]) == (4.0, 2)


def test_without_an_answer_there_are_only_failures():
    assert figures({"answered": [], "errors": {"53300": 2}}) == {"failed": 2}


@pytest.fixture(scope="module")
def stage():
    with LocalLakebase(max_connections=20) as lake:
        yield Stage(lake, 4, npm.Node(shutil.which("node") or "node", ""), npm.cache_folder() / "node_modules")


SIDES = [
    "asyncio",
    pytest.param("uvloop", marks=pytest.mark.skipif(not CAN_HAVE_UVLOOP, reason="there is no uvloop for Windows")),
    "threads",
    pytest.param("appkit", marks=pytest.mark.skipif(not APPKIT_IS_HERE, reason="AppKit is not installed here")),
]


@pytest.mark.parametrize("side", SIDES)
def test_each_side_logs_every_user_in_and_answers_all_requests(stage, side):
    found = stage.run(getattr(stage, side), Load.first_requests(4, 0.0), None)
    assert found["logins"] == 4
    assert found["failed"] == 0
    assert 0 < found["first"] <= found["half"] <= found["last"]
    assert found["start"] > 0


@pytest.mark.skipif(not CAN_BE_KEPT_ON_A_CORE, reason="only Linux can do that")
def test_a_side_on_one_core_does_the_same(stage):
    side = on_one_core(stage.threads)
    assert side.name == "LakebasePoolManager, on one core"
    found = stage.run(side, Load.first_requests(4, 0.0), None)
    assert (found["logins"], found["failed"]) == (4, 0)


@pytest.mark.parametrize("side", ["asyncio", "threads"])
def test_a_limit_for_all_users_is_handed_to_ours(stage, side):
    found = stage.run(getattr(stage, side), Load(4, [0, 1, 2, 3, 0, 1], 2), 1)
    assert found["logins"] >= 4, "each user after the first closes another's connection"
    assert found["failed"] == 0
