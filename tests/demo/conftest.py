"""The demo's app, served over real HTTP on a local Lakebase for these tests alone."""

import httpx
import pytest

from lakebase import create_lakebase_pool
from lakebase.demo.app import App, create_app
from lakebase.demo.dataset import Dataset
from lakebase.demo.server import Server
from lakebase.local import LocalLakebase
from tests.web.servers import PLAIN

ANN, BOB = "ann@corp.example", "bob@corp.example"


@pytest.fixture(scope="session")
def lake(request):
    with LocalLakebase(pooler="off", postgres=request.config.getoption("--lakebase-postgres")) as lake:
        yield lake


@pytest.fixture(scope="session")
def dataset(lake):
    """The tables, with twelve notes of each of two users."""
    for user in (ANN, BOB):
        lake.add_user(user)
    with Dataset(lake) as dataset:
        dataset.create([ANN, BOB])
        yield dataset


@pytest.fixture(scope="session")
def owner(lake, dataset):
    """A pool of the tables' owner, to whom row-level security does not apply."""
    with create_lakebase_pool(lake.config(), max_size=1, name="owner") as pool:
        yield pool


@pytest.fixture
def parts():
    """The app's container."""
    return App()


@pytest.fixture
def app(lake, dataset, parts):
    return create_app(lake.config(lake.client_id, max_size=2, timeout=30), parts)


@pytest.fixture
async def server(app):
    async with Server(app) as server:
        yield server


@pytest.fixture
async def http(server):
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60, **PLAIN) as http:
        yield http


@pytest.fixture
def headers(lake):
    """The headers of a request of that user."""

    def of(user, token=None, request="r"):
        token = lake.token(user) if token is None else token
        return {"X-Forwarded-Email": user, "X-Forwarded-Access-Token": token, "X-Request-Id": request}

    return of
