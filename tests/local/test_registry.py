"""The local Lakebases that run from a command line, by name."""

import os
import signal

import psutil

from tests.local.commands import Up, lakebase, left_behind


def test_the_next_command_removes_what_a_killed_one_left(home):
    with Up() as up:
        up.end(signal.SIGKILL)
        _, alive = psutil.wait_procs(up.started, timeout=60)
        assert not alive
    assert lakebase("local", "status")[:2] == (3, "no local Lakebase runs\n")
    assert [path.name for path in left_behind(home) if path.is_file()] == []


def test_two_at_once_do_not_clash(home):
    with Up() as one, Up() as two:
        assert one.environment["PGPORT"] != two.environment["PGPORT"]
        assert "'local-2'" in two.text
        assert (
            "# Others run, too (local), so that all commands need a name: lakebase local env --name local-2" in two.text
        )
        assert "Others run" not in one.text
        status, _, errors = lakebase("local", "down")
        assert (status, errors) == (
            1,
            "lakebase local down: several local Lakebases run (local, local-2): say which, as --name local\n",
        )
        assert lakebase("local", "down", "local-2")[:2] == (0, "local-2: stopped\n")
        assert lakebase("local", "status")[1].startswith("local: ACTIVE")
        assert lakebase("local", "down", "--all")[:2] == (0, "local: stopped\n")
    assert left_behind(home) == []


def test_a_name_that_runs_already_is_refused(home):
    with Up("--name", "mine"):
        status, text, errors = lakebase("local", "up", "--name", "mine")
        assert (status, text) == (1, "")
        assert (
            errors == "lakebase local up: a local Lakebase 'mine' runs already: `lakebase local down mine` stops it\n"
        )
        assert lakebase("local", "status", "other")[2].endswith("no local Lakebase 'other' runs (there run: mine)\n")


def test_a_directory_for_records_that_cannot_be_made_is_one_line(home, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "nowhere"))
    status, _, errors = lakebase("local", "up")
    assert status == 1
    assert errors.startswith(f"lakebase local up: {home / 'nowhere'}{os.sep}lakebase-local-")
    assert "cannot be made (No such file or directory): set XDG_RUNTIME_DIR" in errors
    assert errors.count("\n") == 1
