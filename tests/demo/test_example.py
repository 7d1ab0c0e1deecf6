"""The example folder: its tests pass on the app of the package, and on a copy that a reader has made."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "fastapi_app"
APP = ROOT / "lakebase" / "demo"


@pytest.fixture
def folder(tmp_path):
    """A copy of the example folder."""
    return shutil.copytree(
        EXAMPLE, tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache", "app.py", "schema.sql")
    )


def run_tests(folder, request):
    options = [f"--postgres={request.config.getoption('--postgres')}", "-p", "no:cacheprovider"]
    # Its own plugin alone: loading those of other packages takes seconds.
    plugins = ["-p", "lakebase.local.pytest_plugin"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-W", "ignore:Using", *plugins, *options],
        cwd=folder, capture_output=True, text=True, timeout=120, env=environment,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "3 passed" in ended.stdout


def test_its_tests_pass(folder, request):
    run_tests(folder, request)


def test_its_tests_pass_on_a_copy_of_the_app(folder, request):
    for name in ("app.py", "schema.sql"):
        shutil.copy(APP / name, folder)
    app = (folder / "app.py").read_text()
    (folder / "app.py").write_text(app.replace('title="Notes"', 'title="Copy"'))
    for name in ("test_app.py", "app.yaml"):
        text = (folder / name).read_text()
        assert "lakebase.demo.app" in text
        (folder / name).write_text(text.replace("lakebase.demo.app", "app"))
    with (folder / "test_app.py").open("a") as tests:
        tests.write("\n    assert client.app.title == 'Copy'\n")
    run_tests(folder, request)


def test_its_readme_links_to_the_app():
    text = (EXAMPLE / "README.md").read_text()
    for name in ("app.py", "schema.sql"):
        assert f"(../../lakebase/demo/{name})" in text
        assert (APP / name).is_file()
