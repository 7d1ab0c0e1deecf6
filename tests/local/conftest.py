"""A local Lakebase for these tests alone: they break it on purpose."""

import itertools
import tempfile
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from lakebase.local import LocalLakebase
from tests.local.clients import connection_settings
from tests.local.owner import ROOT

numbers = itertools.count(1)


@pytest.fixture(scope="session")
def shared_lake(request):
    with LocalLakebase(read_only=True, postgres=request.config.getoption("--lakebase-postgres")) as lake:
        yield lake


@pytest.fixture
def lake(shared_lake):
    yield shared_lake
    shared_lake.clear_faults()


@pytest.fixture
def user(lake):
    """The name of a user that no other test has."""
    name = f"person{next(numbers)}@corp.example"
    lake.add_user(name)
    return name


@pytest.fixture
def settings(lake, user):
    """Keyword arguments of `psycopg.connect` for that user."""
    return connection_settings(lake, user)


@pytest.fixture
def connection(settings):
    with psycopg.connect(**settings) as connection:
        yield connection


@pytest.fixture
def admin(lake):
    with psycopg.connect(**connection_settings(lake, lake.admin_user), autocommit=True) as connection:
        yield connection


@pytest.fixture
def client(lake, user):
    """The SDK's client of that user."""
    return lake.workspace_client(user)


@pytest.fixture
def threads():
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.fixture
def own_tempdir(tmp_path_factory, short_path, monkeypatch):
    """An empty directory that is also this process's directory for temporary files."""
    tmp_path_factory.getbasetemp()  # made before, in the usual place
    monkeypatch.setenv("TMPDIR", str(short_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return short_path


@pytest.fixture
def home(short_path, monkeypatch):
    """Empty directories for temporary files and for the records of those that run."""
    (short_path / "tmp").mkdir()
    (short_path / "run").mkdir()
    monkeypatch.setenv("TMPDIR", str(short_path / "tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path / "run"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return short_path
