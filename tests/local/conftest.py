"""A local Lakebase of these tests' own: they break it on purpose."""

import itertools

import psycopg
import pytest

from lakebase.local import LocalLakebase

numbers = itertools.count(1)


@pytest.fixture(scope="session")
def shared_lake(request):
    with LocalLakebase(read_only=True, postgres=request.config.getoption("--postgres")) as lake:
        yield lake


@pytest.fixture
def lake(shared_lake):
    yield shared_lake
    shared_lake.clear_faults()


@pytest.fixture
def user(lake):
    """The name of a user whom no other test has."""
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


def connection_settings(lake, user, password=None):
    return {
        "host": lake.host,
        "port": lake.port,
        "dbname": lake.database,
        "user": user,
        "password": lake.mint(user) if password is None else password,
        "sslmode": "verify-full",
        "sslrootcert": str(lake.ca_file),
        "connect_timeout": 20,
    }
