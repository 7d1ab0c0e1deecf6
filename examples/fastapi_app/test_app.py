"""
The app's tests: on a real Postgres, without an account.

`lakebase_local` and `lakebase_user` come with `lakebase-pooling[local]`, as a plugin of pytest.
"""

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from lakebase import create_lakebase_pool
from lakebase.demo.app import create_app
from lakebase.local import LocalLakebase
from lakebase.local.pytest_plugin import LakebaseUser


@pytest.fixture(scope="session")
def database(lakebase_local: LocalLakebase) -> LocalLakebase:
    schema = Path(inspect.getfile(create_app)).with_name("schema.sql").read_bytes()
    with create_lakebase_pool(lakebase_local.config()) as pool, pool.connection() as conn:
        conn.execute(schema)
    return lakebase_local


@pytest.fixture
def client(database: LocalLakebase) -> Iterator[TestClient]:
    app = create_app(database.config(database.client_id))
    with TestClient(app) as client:
        yield client


def test_only_its_owner_sees_a_note(client: TestClient, database: LocalLakebase, lakebase_user: LakebaseUser) -> None:
    database.add_user("another@corp.example")
    other = {
        "X-Forwarded-Email": "another@corp.example",
        "X-Forwarded-Access-Token": database.token("another@corp.example"),
    }
    assert client.post("/notes", headers=lakebase_user.headers, json={"texts": ["mine"]}).status_code == 201
    seen = client.get("/notes", headers=lakebase_user.headers).json()
    assert [(note["owner"], note["text"]) for note in seen] == [(lakebase_user.name, "mine")]
    assert client.get("/notes", headers=other).json() == []


def test_notes_are_written_all_or_none(client: TestClient, lakebase_user: LakebaseUser) -> None:
    answer = client.post("/notes", headers=lakebase_user.headers, json={"texts": ["fine", ""]})
    assert answer.status_code == 422
    assert client.get("/notes", headers=lakebase_user.headers).json() == []


def test_a_request_without_a_user_is_refused(client: TestClient) -> None:
    assert client.get("/notes").status_code == 401
