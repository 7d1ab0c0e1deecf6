"""A separate local Lakebase for these tests, and the environment of an app on it."""

import itertools
import os

import pytest

from lakebase.local import LocalLakebase

numbers = itertools.count(1)


@pytest.fixture(scope="session")
def lake(request):
    with LocalLakebase(pooler="off", postgres=request.config.getoption("--lakebase-postgres")) as lake:
        yield lake


@pytest.fixture
def user(lake):
    """A user that no other test has."""
    name = f"live{next(numbers)}@corp.example"
    lake.add_user(name)
    return name


@pytest.fixture
def deployed(lake, monkeypatch):
    """The environment that Databricks Apps sets, and nothing else of the kind."""
    for name in tuple(os.environ):
        if name.startswith(("PG", "DATABRICKS_", "LAKEBASE_")):
            monkeypatch.delenv(name)
    for name, value in {**lake.environment(), "DATABRICKS_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch
