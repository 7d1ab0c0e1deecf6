"""The stores, a server that counts its connections, and processes with pools of such connections."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from lakebase import create_lakebase_pool
from lakebase.local import LocalLakebase
from pooling.leases import PostgresLeases
from tests.leases.servers import Counter, RedisServer
from tests.leases.worker import Worker, make_store

numbers = itertools.count(1)


@pytest.fixture(scope="session")
def redis(tmp_path_factory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


def lease_settings(lake: LocalLakebase) -> dict[str, Any]:
    """How to connect, as a role that may use the table of leases and nothing else."""
    return {
        "host": lake.host,
        "port": lake.port,
        "dbname": lake.database,
        "user": "lease_role",
        "password": "lease-pw",
        "sslmode": "require",
        "connect_timeout": 5,
    }


@pytest.fixture(scope="session")
def postgres(lakebase_local) -> dict[str, Any]:
    """How to connect to the leases of a local Lakebase."""
    lakebase_local.add_password_role("lease_role", "lease-pw")
    with create_lakebase_pool(lakebase_local.config(), max_size=1) as owner, owner.connection() as connection:
        connection.execute(PostgresLeases(psycopg.connect).create_sql("lease_role"))
    return lease_settings(lakebase_local)


@pytest.fixture(params=["files", "redis", "postgres"])
def spec(request, tmp_path) -> dict[str, Any]:
    """A store that no other test uses, as `tests.leases.worker` takes it."""
    if request.param == "files":
        return {"files": str(tmp_path / "leases")}
    if request.param == "redis":
        server = request.getfixturevalue("redis")
        server.clear(request.getfixturevalue("name"), "default")
        return {"redis": server.url}
    return {"postgres": request.getfixturevalue("postgres")}


@pytest.fixture
def name() -> str:
    return f"budget-{next(numbers)}"


@pytest.fixture
def store(spec):
    return make_store(spec)


@pytest.fixture
def counter() -> Iterator[Counter]:
    with Counter() as counter:
        yield counter


@pytest.fixture
def start(counter) -> Iterator[Callable[..., Worker]]:
    """Start a worker process."""
    workers: list[Worker] = []

    def start(store: dict[str, Any], *, limit: int, side: str = "threads", ttl: float = 30.0) -> Worker:
        worker = Worker(counter.port, store, limit=limit, side=side, ttl=ttl)
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.close()
