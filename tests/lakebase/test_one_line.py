"""A pool from an endpoint, an instance, or a project and branch alone: the workspace knows the rest."""

from __future__ import annotations

import pytest

from lakebase import (
    ConfigurationError,
    CredentialError,
    LakebasePoolConfig,
    create_async_lakebase_pool,
    create_lakebase_pool,
    lakebase_pg_config,
)
from lakebase.endpoints import completed
from lakebase.local import LocalLakebase

WHO = "SELECT current_user"


@pytest.fixture(scope="module")
def lake():
    with LocalLakebase(pooler="off") as lake:
        yield lake


@pytest.fixture
def known(lake):
    """What no workspace can know: that this Lakebase is a local one."""
    token = lake.add_user("ann@one.example")
    common = {"workspace_url": lake.workspace_url, "port": lake.port, "ssl_root_cert": str(lake.ca_file)}
    return {**common, "token": token, "user": "ann@one.example"}


def given(lake, way):
    parts = lake.endpoint.split("/")
    return {
        "an endpoint": {"endpoint": lake.endpoint},
        "a branch": {"endpoint": "/".join(parts[:4])},
        "a project and branch": {"project": parts[1], "branch": parts[3]},
        "an instance": {"instance_name": lake.instance_name},
    }[way]


@pytest.mark.parametrize("way", ["an endpoint", "a branch", "a project and branch", "an instance"])
def test_the_host_is_asked_for_before_the_first_connection(lake, known, way) -> None:
    with create_lakebase_pool(**known, **given(lake, way)) as pool:
        assert (pool.host, pool.username) == (None, "ann@one.example")
        with pool.connection() as connection:
            assert connection.execute(WHO).fetchone() == ("ann@one.example",)
        assert pool.host == lake.host


async def test_so_it_is_in_asyncio(lake, known) -> None:
    async with create_async_lakebase_pool(**known, endpoint=lake.endpoint) as pool, pool.connection() as connection:
        assert await (await connection.execute(WHO)).fetchone() == ("ann@one.example",)


def test_the_role_is_that_of_the_client(lake, known, monkeypatch) -> None:
    from databricks.sdk import WorkspaceClient

    monkeypatch.setenv("DATABRICKS_CLIENT_ID", "the-apps")
    monkeypatch.setenv("PGUSER", "the-apps-role")
    client = WorkspaceClient(host=lake.workspace_url, token=known["token"], auth_type="pat")
    del known["token"], known["user"]
    with create_lakebase_pool(**known, workspace_client=client, endpoint=lake.endpoint) as pool:
        assert pool.username is None
        with pool.connection() as connection:
            assert connection.execute(WHO).fetchone() == ("ann@one.example",)
        assert pool.username == "ann@one.example"


def test_settings_for_other_pools_have_it_too(lake, known) -> None:
    assert lakebase_pg_config(**known, endpoint=lake.endpoint)["host"] == lake.host


def test_a_workspace_that_does_not_answer_is_asked_again(lake, known) -> None:
    config = LakebasePoolConfig(**known, endpoint=lake.endpoint + "-unknown", database="d")
    with pytest.raises(CredentialError):
        completed(config.resolved({}))


@pytest.mark.parametrize(
    "settings", [{"project": "p"}, {"branch": "b"}, {"project": "p", "branch": "b", "endpoint": "e"}]
)
def test_half_a_branch_is_refused(settings) -> None:
    with pytest.raises(ConfigurationError, match="give both, or endpoint="):
        create_lakebase_pool(**settings)
