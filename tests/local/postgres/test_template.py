"""Copies of one data directory, for processes that make many."""

import os

import pytest

from lakebase.local.postgres.template import fill_from_template


@pytest.fixture
def initdb(tmp_path):
    program = tmp_path / "initdb"
    program.touch()
    return program


@pytest.fixture
def templates(tmp_path, monkeypatch):
    monkeypatch.setenv("LAKEBASE_LOCAL_TEMPLATES", str(tmp_path / "templates"))
    return tmp_path / "templates"


def made(tmp_path, initdb, name, meanwhile=lambda: None):
    """A data directory of that name, and whether `initdb` ran for it."""
    data = tmp_path / name
    data.mkdir(mode=0o700)
    ran = []

    def initialise():
        (data / "PG_VERSION").write_text("18")
        (data / "base").mkdir(mode=0o700)
        ran.append(True)
        meanwhile()

    fill_from_template(data, initdb, initialise)
    assert (data / "PG_VERSION").read_text() == "18"
    assert {path.stat().st_mode & 0o077 for path in (data, data / "base")} == {0}
    return bool(ran)


def test_the_second_server_gets_a_copy_that_is_its_own(tmp_path, initdb, templates):
    assert made(tmp_path, initdb, "one")
    (tmp_path / "one" / "PG_VERSION").write_text("changed by its server")
    assert not made(tmp_path, initdb, "two")


def test_without_the_variable_nothing_is_kept(tmp_path, initdb, monkeypatch):
    monkeypatch.delenv("LAKEBASE_LOCAL_TEMPLATES", raising=False)
    assert made(tmp_path, initdb, "one")
    assert made(tmp_path, initdb, "two")
    assert {path.name for path in tmp_path.iterdir()} == {"initdb", "one", "two"}


def test_another_postgres_has_another_template(tmp_path, initdb, templates):
    assert made(tmp_path, initdb, "one")
    os.utime(initdb, (1, 1))
    assert made(tmp_path, initdb, "two")


def test_two_processes_that_make_the_template_at_once_leave_one(tmp_path, initdb, templates):
    assert made(tmp_path, initdb, "one", meanwhile=lambda: made(tmp_path, initdb, "two"))
    assert not made(tmp_path, initdb, "three")
    assert len(list(templates.iterdir())) == 1
