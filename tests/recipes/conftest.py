"""Runs the examples of `examples/recipes` as their readers do, in the environment that a local Lakebase gives."""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType

import psycopg
import pytest

from lakebase import create_lakebase_pool, lakebase_pg_config
from lakebase.local import LocalLakebase
from lakebase.local.pytest_plugin import LakebaseUser
from tests.docs.conftest import documented_environment as documented_environment
from tests.docs.conftest import plain_environment as plain_environment
from tests.docs.pages import ROOT

numbers = itertools.count(1)
RECIPES = ROOT / "examples" / "recipes"


@pytest.fixture(scope="module")
def notes(lakebase_local) -> Iterator[LocalLakebase]:
    """The local Lakebase with the table of the web apps, which is dropped afterwards."""
    with create_lakebase_pool(lakebase_local.config(), max_size=1, name="owner") as pool:
        with pool.connection() as conn:
            conn.execute((RECIPES / "notes.sql").read_bytes())
        yield lakebase_local
        with pool.connection() as conn:
            conn.execute("drop table notes")


@pytest.fixture
def users(notes) -> tuple[LakebaseUser, LakebaseUser]:
    """Two new users, each with a note of their own."""
    found = []
    for _ in range(2):
        user = LakebaseUser(f"reader{next(numbers)}@corp.example", notes)
        notes.add_user(user.name)
        with psycopg.connect(**lakebase_pg_config(user.config())) as conn:
            conn.execute("insert into notes (text) values (%s)", [f"of {user.name}"])
        found.append(user)
    return found[0], found[1]


@pytest.fixture
def password_environment(documented_environment, monkeypatch, tmp_path) -> LocalLakebase:
    """
    The same environment with a role that has a native password, in libpq's service file.

    For recipes that begin many processes: none of these has to load what mints, which takes longest.
    """
    lake = documented_environment
    role = f"recipes{next(numbers)}"
    for name, value in password_variables(lake, role, tmp_path).items():
        monkeypatch.setenv(name, value)
    return lake


def password_variables(lake: LocalLakebase, role: str, directory: Path) -> dict[str, str]:
    """Make a role with a native password and a schema; the variables with which libpq logs in as this role."""
    lake.add_password_role(role, "recipes-pw")
    with create_lakebase_pool(lake.config(), max_size=1, timeout=120) as pool, pool.connection() as connection:
        connection.execute(f"create schema {role}")  # in which its tables are looked for first
        connection.execute(f"grant all on schema {role} to {role}")
    service = directory / "services"
    service.write_text(f"[recipes]\nuser={role}\npassword=recipes-pw\n", encoding="utf-8")
    return {"PGSERVICEFILE": str(service), "PGSERVICE": "recipes"}


@pytest.fixture
def load_recipe(documented_environment, monkeypatch) -> Callable[[str], ModuleType]:
    """Imports an example, with the environment of an app; each test imports it anew."""

    def load(name: str) -> ModuleType:
        path = RECIPES / name
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, path.stem, module)  # frameworks look for annotations there
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def run_recipe(documented_environment) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs an example as a program of its own, with the environment of an app, to its end."""

    def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", str(RECIPES / name), *arguments],
            env=dict(os.environ),
            stdout=subprocess.PIPE,  # what it writes to stderr is shown with a failure
            text=True,
            check=True,
            timeout=120,
        )

    return run


@pytest.fixture
def as_owner(documented_environment, monkeypatch) -> Callable[[], AbstractContextManager[None]]:
    """A block with the environment of the database's owner, in place of the app's."""
    import databricks.sdk as sdk  # on a busy machine its import takes longer than a pool waits

    assert sdk

    @contextmanager
    def owner() -> Iterator[None]:
        with monkeypatch.context() as environment:
            for name in ("DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET"):
                environment.delenv(name, raising=False)
            for name, value in documented_environment.environment(user=documented_environment.admin_user).items():
                environment.setenv(name, value)
            yield

    return owner
