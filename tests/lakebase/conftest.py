"""Fixtures of the tests of `lakebase`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest


@pytest.fixture
def no_ambient_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of this machine's for a workspace or a database."""
    for name in [name for name in os.environ if name.startswith(("DATABRICKS_", "PG", "LAKEBASE_"))]:
        if name != "LAKEBASE_LOCAL_TEMPLATES":
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", "/nonexistent")


@pytest.fixture
def admin(lakebase_local) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the role that owns the database."""
    name = lakebase_local.admin_user
    settings = lakebase_local.config(name).connect_kwargs()
    with psycopg.connect(**settings, password=lakebase_local.mint(name), autocommit=True) as connection:
        yield connection


@pytest.fixture
def schema(admin: psycopg.Connection[Any]) -> Iterator[str]:
    """An empty schema of the database's owner, which no other test has."""
    admin.execute("DROP SCHEMA IF EXISTS clinic CASCADE")
    admin.execute("CREATE SCHEMA clinic")
    yield "clinic"
    admin.execute("DROP SCHEMA clinic CASCADE")
