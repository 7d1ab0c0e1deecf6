"""The demo's app, served over real HTTP on a local Lakebase of these tests' own."""

import httpx
import pytest

from lakebase.demo._server import Server
from lakebase.demo._stage import Stage
from lakebase.demo.app import App, create_app
from lakebase.local import LocalLakebase

ANN, BOB = "ann@corp.example", "bob@corp.example"


@pytest.fixture(scope="session")
def lake(request):
    with LocalLakebase(pooler="off", postgres=request.config.getoption("--postgres")) as lake:
        yield lake


@pytest.fixture(scope="session")
def stage(lake):
    """Two users with twelve notes each, and the table's owner to look at them."""
    for user in (ANN, BOB):
        lake.add_user(user)
    with Stage(lake) as stage:
        stage.set_up([ANN, BOB])
        yield stage


@pytest.fixture
def parts():
    """The app's container."""
    return App()


@pytest.fixture
def app(lake, stage, parts):
    return create_app(lake.config(lake.client_id, max_size=2, timeout=10), parts)


@pytest.fixture
async def server(app):
    async with Server(app) as server:
        yield server


@pytest.fixture
async def http(server):
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=20) as http:
        yield http


@pytest.fixture
def headers(lake):
    """The headers of a request of that user."""

    def of(user, token=None, request="r"):
        token = lake.token(user) if token is None else token
        return {"X-Forwarded-Email": user, "X-Forwarded-Access-Token": token, "X-Request-Id": request}

    return of
