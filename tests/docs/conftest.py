"""The environment that the documents' examples are written for."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.local.commands import Up


@pytest.fixture
def plain_environment(monkeypatch) -> pytest.MonkeyPatch:
    """No variable of this kind is set, so an example cannot reach another database or workspace."""
    enter_environment(monkeypatch, {})
    return monkeypatch


@pytest.fixture
def documented_environment(lakebase_local, plain_environment):
    """A local Lakebase in the environment variables that `lakebase local env` prints; returns it."""
    enter_environment(plain_environment, lakebase_local.environment())
    return lakebase_local


def enter_environment(patch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    """Set these variables, and no other by which an app finds its database or workspace."""
    for name in list(os.environ):
        if name.startswith(("PG", "DATABRICKS_", "LAKEBASE_")):
            patch.delenv(name)
    for name, value in variables.items():
        patch.setenv(name, value)


@pytest.fixture(scope="session")
def local_up(request, tmp_path_factory) -> Iterator[dict[str, str]]:
    """`lakebase local up`, once for all documents; the variables of a reader's shell that has its environment."""
    shell = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        # Another one that runs on this machine is not found in that directory.
        "XDG_RUNTIME_DIR": str(tmp_path_factory.mktemp("run")),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in shell.items():
            patch.setenv(name, value)
        with Up("--postgres", str(request.config.getoption("--lakebase-postgres"))) as up:
            yield {**shell, **up.environment}


class Reader:
    """Types what is not Python, into the shell that the Python runs in."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def export(self, script: str) -> None:
        """Run lines that set variables; later examples have these."""
        shown = self._run(["bash", "-euc", f"{script}\nenv -0"])
        for name, _, value in (entry.partition("=") for entry in shown.split("\0") if entry):
            if name not in {"_", "SHLVL", "PWD"} and os.environ.get(name) != value:
                self._patch.setenv(name, value)

    def psql(self, statements: str) -> None:
        """Run SQL as the owner of the database."""
        self._run(["lakebase", "local", "psql", "-q", "-v", "ON_ERROR_STOP=1"], statements)

    def _run(self, command: list[str], given: str = "") -> str:
        ended = subprocess.run(command, input=given, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout


@pytest.fixture
def reader(local_up, plain_environment) -> Reader:
    """A reader whose shell has the environment of `lakebase local up`."""
    for name, value in local_up.items():
        plain_environment.setenv(name, value)
    return Reader(plain_environment)
