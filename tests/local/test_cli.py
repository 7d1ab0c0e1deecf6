"""`lakebase local …`, as a user runs it, in its own processes."""

import os
import re
import signal
import subprocess
import sys

import psutil
import psycopg
import pytest

from tests.local.commands import Up, lakebase, left_behind


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_cleanly_and_leaves_nothing(home, number):
    with Up() as up:
        status, errors = up.end(number)
        assert status == 0
        assert errors.strip() == "# stopped"
        _, alive = psutil.wait_procs(up.started, timeout=60)
    assert not alive
    assert left_behind(home) == []


def test_an_app_in_its_environment_works(home):
    code = """if True:
        import psycopg
        from databricks.sdk import WorkspaceClient
        import os
        token = WorkspaceClient().postgres.generate_database_credential(endpoint=os.environ["LAKEBASE_ENDPOINT"]).token
        print(psycopg.connect(password=token).execute("select current_user").fetchone()[0])
    """
    with Up() as up:
        app = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **up.environment},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert app.stdout.strip() == up.environment["DATABRICKS_CLIENT_ID"], app.stderr
        _, printed, _ = lakebase("local", "env")
        assert dict(re.findall(r"^export (\w+)=(\S+)$", printed, flags=re.MULTILINE)) == up.environment


def test_psql_opens_as_the_owner_or_as_a_user(home, tmp_path, monkeypatch):
    """What psql is given, seen by one that prints it: not every machine has the real one."""
    fake = tmp_path / "bin" / "psql"
    fake.parent.mkdir()
    fake.write_text(
        '#!/bin/sh\necho "$PGUSER $PGSSLMODE $PGDATABASE $PGSERVICE$PGOPTIONS$*"\n'
        'test -n "$PGPASSWORD" && test -f "$PGSSLROOTCERT"\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PGSERVICE", "not_defined_anywhere")  # meant for a client of another database
    monkeypatch.setenv("PGOPTIONS", "-c nonsense=1")
    with Up():
        owner = (0, "admin@lakebase.local verify-full databricks_postgres -c select 1\n")
        for passed_on in (("-c", "select 1"), ("--", "-c", "select 1"), ("--name=local", "-c", "select 1")):
            assert lakebase("local", "psql", *passed_on)[:2] == owner
        # What looks like an option of its own is psql's after the first that is not.
        status, text, _ = lakebase("local", "psql", "--name", "local", "-A", "--user", "x", "--help")
        assert (status, text.rstrip().endswith("-A --user x --help")) == (0, True)
        assert lakebase("local", "psql", "--user", "ann@corp.example")[1].startswith("ann@corp.example verify-full")


def test_without_a_psql_on_the_path_the_embedded_one_is_taken(home, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with Up():
        status, text, errors = lakebase(
            "local", "psql", "--user", "ann@corp.example", "--", "-Atc", "select current_user"
        )
        assert (status, text) == (0, "ann@corp.example\n")
        assert "No psql on the PATH" in errors


def test_the_command_that_gets_a_pooler_runs_its_script(home, tmp_path):
    fake = tmp_path / "pgbouncer"
    fake.write_text("#!/bin/sh\necho PgBouncer 1.25.1\n")
    fake.chmod(0o755)
    status, text, errors = lakebase("local", "get-pooler", str(tmp_path))
    assert (status, text, errors) == (0, f"there is one: {fake}, PgBouncer 1.25.1\n", "")


def test_with_its_output_closed_it_runs_and_stops(home):
    command = f"exec {sys.executable} -m lakebase local up --pooler off <&- >&- 2>{home}/errors"
    process = subprocess.Popen(["bash", "-c", command])
    while not lakebase("local", "status")[1].startswith("local: ACTIVE"):
        assert process.poll() is None
    assert lakebase("local", "down")[:2] == (0, "local: stopped\n")
    assert process.wait(60) == 0
    assert (home / "errors").read_text() == "\n# stopped\n"


def test_a_taken_port_is_one_line(home):
    with Up() as up:
        taken = {
            "--port": up.environment["PGPORT"],
            "--workspace-port": up.environment["DATABRICKS_HOST"].rpartition(":")[2],
        }
        for option, port in taken.items():
            status, text, errors = lakebase("local", "up", option, port)
            assert (status, text) == (1, "")
            assert errors == (
                f"lakebase local up: cannot listen on 127.0.0.1:{port}: Address already in use. "
                f"Give another {option}, or 0 for any free one\n"
            )
        assert lakebase("local", "status")[1].startswith("local: ACTIVE")


def test_with_a_data_directory_the_next_run_has_the_same_tokens_and_data(home):
    kept, environments = home / "kept", []
    for number in range(2):
        with Up("--data-dir", str(kept), "--user", "ann@corp.example") as up:
            environments.append(up.environment)
            sql = (
                "create table if not exists runs (n int)",
                f"insert into runs values ({number})",
                "select count(*) from runs",
            )
            _, password, _ = lakebase("local", "token", up.environment["PGUSER"], "--password")
            libpq = {
                name.removeprefix("PG").lower(): value
                for name, value in up.environment.items()
                if name.startswith("PG")
            }
            libpq["dbname"] = libpq.pop("database")
            with psycopg.connect(**libpq, password=password.strip()) as connection:
                for statement in sql:
                    rows = connection.execute(statement)
                assert rows.fetchone() == (number + 1,)
    same = ("DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET", "PGSSLROOTCERT")
    assert [environments[0][name] for name in same] == [environments[1][name] for name in same]
    assert [path.stat().st_mode & 0o077 for path in (kept / "identities.json", kept / "tls" / "server.key")] == [0, 0]


def test_arguments_that_cannot_work_are_one_line(home):
    for arguments, words in (
        (("up", "--port", "70000"), "--port 70000: expected 0 to 65535"),
        (("up", "--postgres", "/nowhere"), "no Postgres found for --postgres '/nowhere'"),
        (("up", "--name", "../x"), "'../x' is no name"),
        (("up", "--data-dir", "/etc/passwd"), "--data-dir '/etc/passwd' cannot be used: "),
        (("up", "--data-dir", "/proc/x"), "--data-dir '/proc/x' cannot be used: "),
        (("up", "--wake-after", "nan"), "--wake-after nan: expected seconds"),
        (("up", "--user", ""), "'' is no name of a role or user"),
        (("up", "--user", "pg_x"), "'pg_x' is no name of a role or user: Postgres keeps this name to itself"),
        (("down",), "no local Lakebase runs: `lakebase local up` starts one"),
        (("down", "one", "--name", "two"), "two names were given (one, two): give one"),
        (("token", "ann@corp.example"), "no local Lakebase runs"),
    ):
        status, _, errors = lakebase("local", *arguments)
        assert status == 1, arguments
        assert errors.count("\n") == 1
        assert words in errors
    assert left_behind(home) == []


def test_when_postgres_dies_it_says_so_and_ends(home):
    with Up() as up:
        next(
            child for child in up.started if "postgres" in child.name() and child.ppid() != 1 and is_postmaster(child)
        ).kill()
        _, errors = up.process.communicate(timeout=60)
        assert up.process.returncode == 1
        assert "postgres has ended with status -9" in errors
    assert left_behind(home) == []


def is_postmaster(process):
    return "postgres" not in process.parent().name()
