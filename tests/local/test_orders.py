"""Orders to one that runs: carried out, or refused with one line."""

import json
import re
import urllib.request

import psycopg
import pytest

from tests.local.commands import Up, lakebase, left_behind


def test_each_command_for_one_that_runs(home):
    with Up("--user", "ann@corp.example", "--pooler", "off") as up:
        assert "switched off" in up.text
        assert re.search(r"# Workspace token of ann@corp\.example.*\n#   dapi\w+", up.text)

        status, token, _ = lakebase("local", "token", "bob@corp.example")
        request = urllib.request.Request(
            up.environment["DATABRICKS_HOST"] + "/api/2.0/preview/scim/v2/Me",
            headers={"Authorization": f"Bearer {token.strip()}"},
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            assert json.load(response)["userName"] == "bob@corp.example"

        _, password, _ = lakebase("local", "token", "bob@corp.example", "--password")
        libpq = {
            name.removeprefix("PG").lower(): value for name, value in up.environment.items() if name.startswith("PG")
        }
        libpq["dbname"] = libpq.pop("database")
        with psycopg.connect(**{**libpq, "user": "bob@corp.example", "password": password.strip()}) as connection:
            assert connection.execute("select current_user").fetchone() == ("bob@corp.example",)
            status, text, _ = lakebase("local", "status")
            assert status == 0
            assert f"local: ACTIVE, process {up.process.pid}\n" in text
            assert "1 connections" in text
            # A hint is given once, when it starts.
            assert "get-pooler" not in text
            assert lakebase("local", "status", "--name", "local") == lakebase("local", "status", "local")
            assert "bob@corp.example: 1 connections, 1 since the start" in text

            assert lakebase("local", "suspend", "--wake-after", "0")[:2] == (0, "local: IDLE\n")
            with pytest.raises(psycopg.OperationalError):
                connection.execute("select 1")

        assert lakebase("local", "down", "--name", "local")[:2] == (0, "local: stopped\n")
        assert up.process.wait(60) == 0
    assert left_behind(home) == []


def test_an_order_that_cannot_be_carried_out_is_one_line(home):
    with Up() as up:
        for arguments, words in (
            (("token", ""), "'' is no name of a role or user"),
            (("token", "pg_x", "--password"), "'pg_x' is no name of a role or user: Postgres keeps"),
            (("psql", "--user", "pg_x"), "'pg_x' is no name of a role or user: Postgres keeps"),
            (("suspend", "--wake-after", "nan"), "--wake-after nan: expected seconds"),
        ):
            status, text, errors = lakebase("local", *arguments)
            assert (status, text) == (1, "")
            assert errors.startswith(f"lakebase local {arguments[0]}: {words}")
            assert errors.count("\n") == 1
        assert up.end() == (0, "\n# stopped\n")
