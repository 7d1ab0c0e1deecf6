"""What the tests of apps share: a container for threads, and a database that tells what was kept."""

import itertools

import pytest

from lakebase import create_lakebase_pool
from tests.web import truth_sites
from tests.web.apps import ThreadSite
from tests.web.truth_sites import Database, Gate

numbers = itertools.count(1)


@pytest.fixture
def container():
    with ThreadSite().running() as container:
        yield container


@pytest.fixture(scope="module")  # tests of other modules count the server's connections
def owner(lakebase_local):
    """A pool of the tables' owner."""
    with create_lakebase_pool(lakebase_local.config(), max_size=1, name="owner") as pool:
        with pool.connection() as connection:
            connection.execute(truth_sites.SCHEMA)
        yield pool


@pytest.fixture
def database(owner, lakebase_user):
    return Database(owner, lakebase_user.name)


@pytest.fixture
def config(lakebase_user):
    return lakebase_user.config()


@pytest.fixture
def n():
    return next(numbers)


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.event.set()
