"""`lakebase local …`, as a person uses it: in processes of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import psycopg
import pytest

from lakebase import cli

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(short_path, monkeypatch):
    """Directories of this test's own for temporary files and records of running ones."""
    (short_path / "tmp").mkdir()
    (short_path / "run").mkdir()
    monkeypatch.setenv("TMPDIR", str(short_path / "tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path / "run"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return short_path


class Up:
    """A `lakebase local up` that has said all it says."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lakebase", "local", "up", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        lines = []
        while line := self.process.stdout.readline():
            lines.append(line)
            if line.startswith("# A user's token"):
                break
        self.text = "".join(lines)
        self.environment = dict(re.findall(r"^export (\w+)=(\S+)$", self.text, flags=re.MULTILINE))
        if self.process.poll() is None:
            self.started = psutil.Process(self.process.pid).children(recursive=True)

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors

    def __enter__(self):
        assert self.environment, self.process.communicate()
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.end()
        self.process.stdout.close()
        self.process.stderr.close()


def lakebase(*arguments):
    result = subprocess.run([sys.executable, "-m", "lakebase", *arguments], capture_output=True, text=True, timeout=60)
    return result.returncode, result.stdout, result.stderr


def left_behind(home):
    return [path for path in home.rglob("*") if path not in (home / "tmp", home / "run") and path.is_relative_to(home)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_cleanly_and_leaves_nothing(home, number):
    with Up() as up:
        status, errors = up.end(number)
        assert status == 0
        assert errors.strip() == "# stopped"
        _, alive = psutil.wait_procs(up.started, timeout=60)
    assert not alive
    assert left_behind(home) == []


def test_killed_it_leaves_nothing_that_the_next_command_does_not_clear_up(home):
    with Up() as up:
        up.end(signal.SIGKILL)
        _, alive = psutil.wait_procs(up.started, timeout=60)
        assert not alive
    assert lakebase("local", "status")[:2] == (3, "no local Lakebase runs\n")
    assert [path.name for path in left_behind(home) if path.is_file()] == []


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


def test_the_commands_for_one_that_runs(home):
    with Up("--user", "ann@corp.example") as up:
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
            assert "bob@corp.example: 1 connections, 1 since the start" in text

            assert lakebase("local", "suspend", "--wake-after", "0")[:2] == (0, "local: IDLE\n")
            with pytest.raises(psycopg.OperationalError):
                connection.execute("select 1")

        assert lakebase("local", "down")[:2] == (0, "local: stopped\n")
        assert up.process.wait(60) == 0
    assert left_behind(home) == []


def test_an_order_that_cannot_be_carried_out_is_one_line_on_the_side_that_gave_it(home):
    with Up() as up:
        for arguments, words in (
            (("token", ""), "'' is no name of a role or user"),
            (("token", "pg_x", "--password"), "'pg_x' is a name that"),
            (("psql", "--user", "pg_x"), "'pg_x' is a name that"),
            (("suspend", "--wake-after", "nan"), "wake_after=nan: expected seconds"),
        ):
            status, text, errors = lakebase("local", *arguments)
            assert (status, text) == (1, "")
            assert errors.startswith(f"lakebase local {arguments[0]}: {words}")
            assert errors.count("\n") == 1
        assert up.end() == (0, "\n# stopped\n")


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
    monkeypatch.setenv("PGSERVICE", "not_defined_anywhere")  # a client's, which neither command is
    monkeypatch.setenv("PGOPTIONS", "-c nonsense=1")
    with Up():
        owner = (0, "admin@lakebase.local verify-full databricks_postgres -c select 1\n")
        assert lakebase("local", "psql", "--", "-c", "select 1")[:2] == owner
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


def test_two_at_once_do_not_clash(home):
    with Up() as one, Up() as two:
        assert one.environment["PGPORT"] != two.environment["PGPORT"]
        assert "'local-2'" in two.text
        status, _, errors = lakebase("local", "down")
        assert (status, errors) == (1, "lakebase local down: several run: say which (local, local-2)\n")
        assert lakebase("local", "down", "local-2")[:2] == (0, "local-2: stopped\n")
        assert lakebase("local", "status")[1].startswith("local: ACTIVE")
        assert lakebase("local", "down", "--all")[:2] == (0, "local: stopped\n")
    assert left_behind(home) == []


def test_a_port_that_runs_already_is_one_line(home):
    with Up() as up:
        taken = {
            "--port": up.environment["PGPORT"],
            "--workspace-port": up.environment["DATABRICKS_HOST"].rpartition(":")[2],
        }
        for option, port in taken.items():
            status, text, errors = lakebase("local", "up", option, port)
            name = option.removeprefix("--").replace("-", "_")
            assert (status, text) == (1, "")
            assert errors == (
                f"lakebase local up: cannot listen on 127.0.0.1:{port}: Address already in use. "
                f"Give another {name}=, or 0 for any free one\n"
            )
        assert lakebase("local", "status")[1].startswith("local: ACTIVE")


def test_a_name_that_runs_already_is_refused(home):
    with Up("--name", "mine"):
        status, text, errors = lakebase("local", "up", "--name", "mine")
        assert (status, text) == (1, "")
        assert (
            errors == "lakebase local up: a local Lakebase 'mine' runs already: `lakebase local down mine` stops it\n"
        )
        assert lakebase("local", "status", "other")[2].endswith("no local Lakebase 'other' runs (mine)\n")


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


def test_what_cannot_work_is_one_line(home):
    for arguments, words in (
        (("up", "--port", "70000"), "port=70000"),
        (("up", "--postgres", "/nowhere"), "no Postgres found for postgres='/nowhere'"),
        (("up", "--name", "../x"), "'../x' is no name"),
        (("up", "--data-dir", "/etc/passwd"), "data_dir '/etc/passwd' cannot be used: "),
        (("up", "--data-dir", "/proc/x"), "data_dir '/proc/x' cannot be used: "),
        (("up", "--wake-after", "nan"), "wake_after=nan: expected seconds"),
        (("up", "--user", ""), "'' is no name of a role or user"),
        (("up", "--user", "pg_x"), "'pg_x' is a name that Postgres or the local Lakebase keeps to itself"),
        (("down",), "no local Lakebase runs: `lakebase local up` starts one"),
        (("token", "ann@corp.example"), "no local Lakebase runs"),
    ):
        status, _, errors = lakebase("local", *arguments)
        assert status == 1, arguments
        assert errors.count("\n") == 1
        assert words in errors
    assert left_behind(home) == []


def test_a_place_for_its_records_that_cannot_be_made_is_one_line(home, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "nowhere"))
    status, _, errors = lakebase("local", "up")
    assert status == 1
    assert errors.startswith(f"lakebase local up: {home / 'nowhere'}{os.sep}lakebase-local-")
    assert "cannot be made (No such file or directory): set XDG_RUNTIME_DIR" in errors
    assert errors.count("\n") == 1


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


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, capsys):
    def missing(_):
        raise ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn")

    monkeypatch.setattr(cli.importlib, "import_module", missing)
    assert cli.main(["demo"]) == 2
    assert "pip install 'lakebase-pooling[local]'" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["demo", "--users", "0"], ["demo", "--requests", "x"], ["nothing"], []])
def test_arguments_that_make_no_sense_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: lakebase" in capsys.readouterr().err
