"""`lakebase grant` prints SQL that gives what is missing, and with `--apply` runs it."""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import subprocess
import sys

import psycopg
import pytest

from lakebase.grant import add_arguments, main
from lakebase.roles import Access, check

numbers = itertools.count(1)


@pytest.fixture(autouse=True)
def environment(lakebase_local, monkeypatch):
    """That of the project's owner, and nothing else."""
    for name in [name for name in os.environ if name.startswith(("DATABRICKS_", "PG", "LAKEBASE_"))]:
        monkeypatch.delenv(name)
    for name, value in lakebase_local.environment(user=lakebase_local.admin_user).items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def admin(lakebase_local):
    """The project's owner."""
    settings = {**lakebase_local.config().connect_kwargs(), "password": lakebase_local.mint(lakebase_local.admin_user)}
    with psycopg.connect(**settings, autocommit=True) as connection:
        yield connection


@pytest.fixture
def schema(admin):
    """A schema of the owner's with a table."""
    name = f"granted{next(numbers)}"
    admin.execute(f"create schema {name}")
    admin.execute(f"create table {name}.notes (id serial, text text)")
    return name


def run(*words: str) -> tuple[int, str]:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    out = io.StringIO()
    return main(parser.parse_args(words), out), out.getvalue()


def test_a_dry_run_prints_sql_and_changes_nothing_and_the_sql_is_what_is_missing(admin, schema) -> None:
    identity = f"dry.{schema}@corp.example"
    status, text = run(identity, "--schema", schema, "--write")
    assert status == 1
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert f"-- Missing: USAGE on schema '{schema}'\n" in text
    assert text.endswith("statements in one transaction.\n")
    access = Access(identity, schemas=[schema], level="write")
    assert len(check(admin, access)) == 6
    admin.execute(text)
    assert check(admin, access) == []


def test_what_is_applied_is_not_missing_any_more(admin, schema) -> None:
    words = (f"ann.{schema}@corp.example", "--schema", schema, "--table", "notes")
    status, text = run(*words, "--apply")
    assert status == 0, text
    assert "-- Was missing: there is no role" in text
    assert run(*words)[0] == run(*words, "--apply")[0] == 0
    assert run(*words)[1].endswith("\n\n-- Nothing is missing.\n")


def test_what_is_left_out_is_the_role_alone(schema) -> None:
    status, text = run("0a1b2c3d-0000-4000-8000-00805f9b34fb")
    assert status == 1
    assert "(service_principal) is to log in" in text
    assert "'SERVICE_PRINCIPAL');\n" in text


def test_a_name_that_is_no_users_address_is_said_to_be_taken_for_one() -> None:
    assert "-- The name is taken for a user's, though it is no e-mail address: --group and" in run("data team")[1]
    for words in (("data team", "--group"), ("ann@corp.example",), ("0a1b2c3d-0000-4000-8000-00805f9b34fb",)):
        assert "taken for" not in run(*words)[1]


def test_json_has_the_same_for_programs(lakebase_local, schema) -> None:
    status, text = run("data team", "--group", "--schema", schema, "--usage", "--json")
    found = json.loads(text)
    assert status == 1
    assert [each["what"] for each in found.pop("missing")] == [
        "there is no role 'data team'",
        f"USAGE on schema '{schema}'",
    ]
    assert found == {
        "version": 1,
        "identity": "data team",
        "kind": "group",
        "database": lakebase_local.database,
        "connected_as": lakebase_local.admin_user,
        "applied": False,
    }


def test_one_who_may_not_grant_is_told_in_both_runs(lakebase_user, monkeypatch, capsys, schema) -> None:
    for name, value in lakebase_user.lake.environment(user=lakebase_user.name).items():
        monkeypatch.setenv(name, value)
    status, text = run(lakebase_user.name, "--schema", schema)
    assert status == 1
    assert "-- -> " in text
    assert text.endswith("--apply would refuse: see ->.\n")
    assert max(map(len, text.splitlines())) <= 80
    assert run(lakebase_user.name, "--schema", schema, "--apply") == (1, "")
    assert "may not: have this run by" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("public",), "Postgres keeps this name to itself"),
        (("x" * 64,), "64 bytes"),
        (("ann@corp.example", "--service-principal"), "application id"),
        (("ann", "--table", "notes"), "--table needs exactly one --schema"),
        (("ann", "--native-password"), "set PGPASSWORD"),
        (("ann", "--as", "nobody@corp.example"), "could not connect"),
        (("ann", "--database", "none"), "could not connect"),
    ],
)
def test_what_cannot_be_found_out_is_one_message_with_what_to_do(words, said, capsys, lakebase_local) -> None:
    assert run(*words) == (2, "")
    message = capsys.readouterr().err
    assert message.startswith("lakebase grant: ")
    assert said in message
    assert lakebase_local.admin_token not in message


def test_a_name_cannot_end_a_comment_and_become_a_statement(admin) -> None:
    name = "ann\n; select 1 / 0; --"
    admin.execute(run(name)[1])
    status, text = run(name)
    assert status == 0
    assert all(not line or line.startswith("-- ") for line in text.splitlines())


@pytest.mark.parametrize("schemas", [(), ("--schema", "a", "--schema", "b")])
def test_a_table_without_its_schema_is_refused_in_the_words_of_the_command(schemas, capsys) -> None:
    assert run("ann@corp.example", *schemas, "--table", "notes") == (2, "")
    assert capsys.readouterr().err == "lakebase grant: --table needs exactly one --schema\n"


def test_why_it_cannot_connect_is_printed_once() -> None:
    # In a process of its own: pytest takes what is logged.
    command = [sys.executable, "-m", "lakebase", "grant", "ann@corp.example", "--database", "nope"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("lakebase grant: ")
    assert ended.stderr.count('database "nope" does not exist') == 1
    assert "LoginError" not in ended.stderr
    assert "Check database= or PGDATABASE" in ended.stderr
