"""The tutorial: its commands do what the page shows, in the order of the page, and its tests pass on a copy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import httpx
import pytest
import yaml

from tests.docs.pages import ROOT, SHELLS, Block, blocks
from tests.ports import free_port
from tests.web.servers import PLAIN

PAGE = ROOT / "docs" / "tutorial.md"
FOLDER = ROOT / "examples" / "tutorial"


def shell_block(beginning: str) -> str:
    """The commands of the page's block that begins so."""
    (found,) = (block for block in blocks(PAGE) if block.language in SHELLS and block.text.startswith(beginning))
    return found.text


def block_after(text: str) -> Block:
    """The block that follows the one with this text: what it prints."""
    found = blocks(PAGE)
    return found[next(number for number, block in enumerate(found) if block.text == text) + 1]


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """The environment of a reader, whose `lakebase` and `python` are those of this tree."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PG", "DATABRICKS_", "LAKEBASE_"))
    }
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    # Another one that runs on this machine is not found in that directory.
    return {**kept, "PATH": programs, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(tmp_path_factory.mktemp("run"))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A copy of the checkout's folder of the app."""
    checkout = tmp_path_factory.mktemp("checkout")
    shutil.copytree(FOLDER, checkout / "examples" / "tutorial", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    shutil.copy(ROOT / "pyproject.toml", checkout)  # the settings of its own tests are not the app's
    return checkout


@pytest.fixture(scope="module")
def lakebase(environment, folder) -> Iterator[None]:
    """`lakebase local up`, as the page starts it, until the end of the module."""
    with subprocess.Popen(
        shell_block("lakebase local up").split(), env=environment, cwd=folder, stdout=subprocess.PIPE, text=True
    ) as up:
        assert up.stdout is not None
        printed = next((line for line in up.stdout if "export PGHOST" in line), None)
        assert printed, "it prints the environment when it is up"
        reader = threading.Thread(target=up.stdout.read)
        reader.start()
        yield
        up.terminate()
        reader.join()


def run(script: str, environment: dict[str, str], folder: Path) -> str:
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=environment, cwd=folder, stdout=subprocess.PIPE, text=True, check=True, timeout=120,
    )  # fmt: skip
    return ended.stdout


def test_what_the_page_types_prints_what_it_shows(lakebase, environment, folder):
    run(shell_block("cd examples/tutorial"), environment, folder)
    port = str(free_port())
    serve = shell_block('eval "$(lakebase local env)"').replace("8000", port).replace("uvicorn", "exec uvicorn")
    app = folder / "examples" / "tutorial"
    with subprocess.Popen(["bash", "-euc", f"{serve} --log-level warning"], env=environment, cwd=app) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}/health")
            call = shell_block("ann=$(lakebase local token")
            assert run(call.replace("8000", port), environment, app) == block_after(call).text + "\n"
        finally:
            server.terminate()


def wait_for(url: str) -> None:
    """Wait until a server answers."""
    transport = httpx.HTTPTransport(retries=0, **PLAIN)
    pause = threading.Event()
    with httpx.Client(transport=transport) as client:
        for _ in range(600):
            try:
                assert client.get(url).status_code == 200
                return
            except httpx.TransportError:
                pause.wait(0.05)
    raise AssertionError("it did not start")


def test_without_an_environment_the_app_says_what_is_missing(environment, folder):
    ended = subprocess.run(
        ["uvicorn", "app:app", "--port", str(free_port())],
        env=environment, cwd=folder / "examples" / "tutorial", stderr=subprocess.PIPE, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode != 0
    said = [line for line in ended.stderr.splitlines() if "ConfigurationError: " in line]
    assert "PGHOST" in said[-1]
    assert "lakebase local up" in said[-1]


def test_its_tests_pass(environment, folder, request):
    options = ["-q", "-W", "error", "-W", "ignore:Using", "-p", "no:cacheprovider"]
    # Its own plugin alone: loading those of other packages takes seconds.
    options += [
        "-p",
        "lakebase.local.pytest_plugin",
        f"--lakebase-postgres={request.config.getoption('--lakebase-postgres')}",
    ]
    printed = run(
        " ".join([shell_block("python -m pytest"), *options]),
        {**environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        folder / "examples" / "tutorial",
    )
    assert "2 passed" in printed


def test_its_table_is_the_one_of_the_demo():
    """The demo's is in the package, and this one in the reader's folder."""
    demo = files("lakebase.demo").joinpath("schema.sql").read_text()
    _, _, statements = (FOLDER / "schema.sql").read_text().partition("\n")
    assert statements in demo


def test_its_files_for_databricks_say_what_the_sdk_knows():
    from databricks.sdk.service.apps import App

    read = {name: yaml.safe_load((FOLDER / name).read_text()) for name in ("app.yaml", "databricks.yml")}
    (given,) = read["databricks.yml"]["resources"]["apps"].values()
    assert App.from_dict(given).as_dict() == given, "a name that the SDK does not know is dropped"
    (resource,) = given["resources"]
    (variable,) = read["app.yaml"]["env"]
    assert variable == {"name": "LAKEBASE_ENDPOINT", "valueFrom": resource["name"]}
    assert given["user_api_scopes"] == ["postgres"]
    module, _, name = read["app.yaml"]["command"][1].partition(":")
    assert (FOLDER / f"{module}.py").exists()
    assert f"\n{name} = FastAPI(" in (FOLDER / f"{module}.py").read_text()
