"""Connecting to Postgres whatever the environment of the process says."""

import psycopg
import pytest

from lakebase.local import LocalLakebase, LocalLakebaseError
from tests.local.clients import connection_settings
from tests.local.owner import children_of_this_process, temporary_directories


def test_it_starts_with_the_environment_of_another_one(own_tempdir, monkeypatch):
    with LocalLakebase() as first:
        for name, value in {**first.environment(), "PGOPTIONS": "-c nonsense=1", "PGHOSTADDR": "127.0.0.9"}.items():
            monkeypatch.setenv(name, value)
        with LocalLakebase() as second:
            second.add_user("ann@corp.example")
            monkeypatch.delenv("PGOPTIONS")
            monkeypatch.delenv("PGHOSTADDR")
            psycopg.connect(**connection_settings(second, "ann@corp.example")).close()


FOREIGN = {
    "PGCHANNELBINDING": "require",
    "PGCLIENTENCODING": "LATIN1",
    "PGCONNECT_TIMEOUT": "x",
    "PGGSSENCMODE": "require",
    "PGLOADBALANCEHOSTS": "x",
    "PGPASSFILE": "/nowhere",
    "PGREQUIREAUTH": "scram-sha-256",
    "PGREQUIREPEER": "another-user",
    "PGSSLMAXPROTOCOLVERSION": "TLSv1.1",
    "PGSSLMODE": "verify-full",
    "PGSSLNEGOTIATION": "direct",
    "PGTARGETSESSIONATTRS": "standby",
}


def test_it_works_whatever_variables_and_service_are_set_for_libpq(own_tempdir, tmp_path, monkeypatch):
    services = tmp_path / "pg_service.conf"
    services.write_text(
        "[theirs]\nhost=db.example\nsslcert=/nowhere\nrequirepeer=another-user\noptions=-c nonsense=1\n"
    )
    for name, value in {**FOREIGN, "PGSERVICEFILE": str(services), "PGSERVICE": "theirs"}.items():
        monkeypatch.setenv(name, value)
    with LocalLakebase(pooler="off") as lake:
        password = lake.mint(lake.admin_user)
        lake.add_password_role("reporting", "secret")
        for name in (*FOREIGN, "PGSERVICE"):
            monkeypatch.delenv(name)  # the test's own client honours them
        # That one has no effect on its connection by TLS; it would on what the gateway asks Postgres meanwhile.
        monkeypatch.setenv("PGREQUIREPEER", "another-user")
        psycopg.connect(**connection_settings(lake, lake.admin_user, password)).close()


def test_an_undefined_service_is_named_at_once(own_tempdir, monkeypatch):
    running = children_of_this_process()
    monkeypatch.setenv("PGSERVICE", "not_defined_anywhere")
    with pytest.raises(LocalLakebaseError, match=r"PGSERVICE='not_defined_anywhere'.*Unset it"):
        LocalLakebase(pooler="off").start()
    assert (children_of_this_process(), temporary_directories()) == (running, set())
