"""The Postgres behind the gateway: which one is taken, and what survives its restart."""

import psycopg
import pytest

from lakebase.local import LocalLakebase, LocalLakebaseError
from tests.local.owner import temporary_directories


@pytest.mark.parametrize("crash", [False, True])
def test_data_survives_a_restart_and_sessions_do_not(lake, user, connection, settings, admin, crash):
    admin.execute("create table if not exists kept (i int)")
    admin.execute("grant select on kept to public")
    admin.execute("truncate kept")
    admin.execute("insert into kept values (7)")
    lake.restart_postgres(crash=crash)
    with pytest.raises(psycopg.OperationalError):
        connection.execute("select 1")
    with psycopg.connect(**settings) as again:
        assert again.execute("select i from kept").fetchone() == (7,)


def test_a_missing_postgres_is_named_with_what_to_install(own_tempdir, tmp_path):
    with pytest.raises(LocalLakebaseError, match=r"looked in: .*nowhere.*lakebase-pooling\[local\]"):
        LocalLakebase(postgres=tmp_path / "nowhere").start()
    assert temporary_directories() == set()
