"""The app's tests: on a real Postgres, without an account. The fixtures come with `lakebase-pooling[local]`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from app import app
from fastapi.testclient import TestClient

from lakebase import create_lakebase_pool
from lakebase.local import LocalLakebase
from lakebase.local.pytest_plugin import LakebaseUser


@pytest.fixture(scope="session")
def database(lakebase_local: LocalLakebase) -> LocalLakebase:
    schema = Path(__file__).with_name("schema.sql").read_bytes()
    with create_lakebase_pool(lakebase_local.config()) as pool, pool.connection() as conn:
        conn.execute(schema)
    return lakebase_local


@pytest.fixture
def client(database: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    for name, value in database.environment().items():
        monkeypatch.setenv(name, value)
    with TestClient(app) as client:
        yield client


def test_only_its_owner_sees_a_note(client: TestClient, database: LocalLakebase, lakebase_user: LakebaseUser) -> None:
    bob = {"X-Forwarded-Email": "bob@corp.example", "X-Forwarded-Access-Token": database.add_user("bob@corp.example")}
    assert client.post("/notes", headers=lakebase_user.headers, json={"text": "mine"}).status_code == 201
    seen = client.get("/notes", headers=lakebase_user.headers).json()
    assert [(note["owner"], note["text"]) for note in seen] == [(lakebase_user.name, "mine")]
    assert client.get("/notes", headers=bob).json() == []


def test_a_request_has_to_prove_its_user(client: TestClient, lakebase_user: LakebaseUser) -> None:
    made_up = {**lakebase_user.headers, "X-Forwarded-Access-Token": "made up"}
    assert client.get("/notes").status_code == 401
    assert client.get("/notes", headers=made_up).status_code == 401
    assert client.get("/health").status_code == 200
