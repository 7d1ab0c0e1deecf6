"""Alembic's own command, as a reader runs it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("alembic", reason="of the extra recipes")

from lakebase import create_lakebase_pool
from tests.recipes.conftest import RECIPES


def run_alembic(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "alembic", "-c", "alembic_notes/alembic.ini", *arguments]
    environ = {**os.environ, **environment}
    return subprocess.run(command, env=environ, cwd=RECIPES, capture_output=True, text=True, timeout=120)


def test_the_tables_belong_to_their_owner_and_the_pooler_is_never_asked(documented_environment):
    lake = documented_environment
    with create_lakebase_pool(lake.config(), max_size=1) as pool:
        with pool.connection() as connection:
            connection.execute("drop table if exists notes, alembic_version")  # of other tests
            connection.execute("create role notes_owner")
            connection.execute(f'grant notes_owner to current_user, "{lake.client_id}"')
            connection.execute("grant create, usage on schema public to notes_owner")
        try:
            done = run_alembic("-x", "owner=notes_owner", "upgrade", "head", LAKEBASE_WARM_UP="0")
            assert done.returncode == 0, done.stderr
            with pool.connection() as connection:
                rows = connection.execute(
                    "select tablename, tableowner from pg_tables where tablename in ('notes', 'alembic_version')"
                )
                assert dict(rows) == {"notes": "notes_owner", "alembic_version": "notes_owner"}
        finally:
            with pool.connection() as connection:
                connection.execute("drop table if exists notes, alembic_version")
                connection.execute("drop owned by notes_owner")
                connection.execute("drop role notes_owner")


def test_the_statements_can_be_seen_without_a_database():
    shown = run_alembic("upgrade", "head", "--sql", LAKEBASE_ENDPOINT="", PGHOST="")
    assert shown.returncode == 0, shown.stderr
    assert "create policy own on notes" in shown.stdout


def test_the_poolers_host_is_refused():
    pooler = "ep-x-pooler.database.us-east-1.cloud.databricks.com"
    refused = run_alembic("upgrade", "head", PGHOST=pooler, PGUSER="u", PGDATABASE="d", LAKEBASE_WARM_UP="0")
    assert refused.returncode == 1
    assert "the endpoint's own host" in refused.stderr
