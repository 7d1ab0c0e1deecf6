"""The directory for data and certificates that stay."""

from pathlib import Path

import psycopg
import pytest

from lakebase.local import LocalLakebase, LocalLakebaseError
from tests.local.clients import connection_settings
from tests.local.owner import temporary_directories


def test_data_and_certificates_stay_in_the_data_directory(own_tempdir, tmp_path):
    kept = tmp_path / "kept"
    with LocalLakebase(kept) as lake:
        ca = lake.ca_file.read_text()
        lake.add_password_role("reporting", "secret")
        with psycopg.connect(**connection_settings(lake, lake.admin_user), autocommit=True) as connection:
            connection.execute("create table kept as select 7 as i")
            connection.execute("grant select on kept to reporting")
    assert temporary_directories() == set()
    with LocalLakebase(kept) as lake:
        assert lake.ca_file.read_text() == ca
        with psycopg.connect(**connection_settings(lake, "reporting", "secret")) as connection:
            assert connection.execute("select i from kept").fetchone() == (7,)
        with pytest.raises(LocalLakebaseError, match="in use"):
            LocalLakebase(kept).start()
        psycopg.connect(**connection_settings(lake, "reporting", "secret")).close()
    assert {path.stat().st_mode & 0o077 for path in (kept, kept / "pgdata")} == {0}


def test_a_data_directory_that_cannot_be_used_is_named_and_nothing_stays(own_tempdir, tmp_path):
    file = tmp_path / "file"
    file.touch()
    for impossible in (file, file / "below", Path("/proc/x")):
        with pytest.raises(LocalLakebaseError, match=f"data_dir='{impossible}' cannot be used: "):
            LocalLakebase(impossible).start()
    assert temporary_directories() == set()
