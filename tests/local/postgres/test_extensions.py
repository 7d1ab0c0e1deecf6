"""Extensions that users of Lakebase create, on the embedded Postgres."""

from __future__ import annotations

import psycopg
import pytest

USES = {
    "databricks_auth": "SELECT 'databricks_create_role'::regproc",
    "earthdistance": "SELECT earth() > 0",
    "hstore": "SELECT 'a=>1'::hstore",
    "pg_stat_statements": "SELECT count(*) FROM pg_stat_statements",
    "pg_trgm": "SELECT similarity('a', 'b')",
    "postgres_fdw": "CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw",
    "vector": "SELECT '[1,2]'::vector <-> '[3,4]'",
}


@pytest.mark.parametrize("name", USES)
def test_the_admin_creates_it_and_uses_it(lakebase_local, name) -> None:
    lake = lakebase_local
    settings = {**lake.config().connect_kwargs(), "password": lake.mint(lake.admin_user)}
    with psycopg.connect(**settings) as admin:
        if admin.info.server_version < 180000:
            pytest.skip("before Postgres 18, extensions are those that the server lets this role create")
        admin.execute(f'CREATE EXTENSION IF NOT EXISTS "{name}" CASCADE')
        assert admin.execute(USES[name])
        admin.rollback()


def test_what_lakebase_does_not_offer_stays_refused(lakebase_local) -> None:
    lake = lakebase_local
    settings = {**lake.config().connect_kwargs(), "password": lake.mint(lake.admin_user)}
    with psycopg.connect(**settings) as admin, pytest.raises(psycopg.errors.InsufficientPrivilege):
        admin.execute("CREATE EXTENSION file_fdw")
