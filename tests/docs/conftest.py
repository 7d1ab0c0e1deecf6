"""The environment that the documents' examples are written for."""

import os

import pytest


@pytest.fixture
def documented_environment(lakebase_local, monkeypatch):
    """
    A local Lakebase in the environment variables that `lakebase local env` prints; returns it.

    No other variable of this kind is set, so an example cannot reach another database or workspace.
    """
    for name in list(os.environ):
        if name.startswith(("PG", "DATABRICKS_", "LAKEBASE_")):
            monkeypatch.delenv(name)
    for name, value in lakebase_local.environment().items():
        monkeypatch.setenv(name, value)
    return lakebase_local
