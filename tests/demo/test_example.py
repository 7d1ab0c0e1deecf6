"""The example app is the demo's, and its own tests pass where somebody has copied the folder."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "fastapi_app"


@pytest.mark.parametrize("name", ["app.py", "schema.sql"])
def test_the_example_is_the_app_that_the_demo_runs(name):
    assert (EXAMPLE / name).read_text() == (ROOT / "lakebase" / "demo" / name).read_text(), (
        f"cp lakebase/demo/{name} examples/fastapi_app/"
    )


def test_the_examples_own_tests_pass(tmp_path, request):
    folder = tmp_path / "app"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    is_installed = any(point.name == "lakebase_local" for point in entry_points(group="pytest11"))
    plugin = [] if is_installed else ["-p", "lakebase.local.pytest_plugin"]
    options = [f"--postgres={request.config.getoption('--postgres')}", "-p", "no:cacheprovider", "-p", "no:asyncio"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-W", "ignore:Using", *plugin, *options],
        cwd=folder, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "3 passed" in ended.stdout
