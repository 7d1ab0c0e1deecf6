"""Which host a configuration connects to, and whether the workspace agrees."""

from __future__ import annotations

import logging
from functools import partial

import psycopg
import pytest

from lakebase import ConfigurationError, CredentialError, LakebasePoolConfig, _http, endpoints
from lakebase._lookups import Lookups
from lakebase._workers import Workers
from lakebase.credentials import credential_source
from lakebase.endpoints import endpoint_hosts, host_problem, with_endpoint_host
from lakebase.hosts import EndpointHosts, direct_host, is_local_pooler, is_pooled_host, pooled_host

DIRECT = "ep-cool-sun-d1.database.us-east-1.cloud.databricks.com"
POOLED = "ep-cool-sun-d1-pooler.database.us-east-1.cloud.databricks.com"


@pytest.mark.parametrize(
    ("direct", "pooled"),
    [
        (DIRECT, POOLED),
        ("ep-x.database.azuredatabricks.net", "ep-x-pooler.database.azuredatabricks.net"),
        ("EP-X.example", "EP-X-pooler.example"),
    ],
)
def test_the_poolers_name_follows_the_rule_both_ways(direct: str, pooled: str) -> None:
    assert pooled_host(direct) == pooled_host(pooled) == pooled
    assert direct_host(direct) == direct_host(pooled) == direct
    assert is_pooled_host(pooled)
    assert not is_pooled_host(direct)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "::1", "instance-1.database.example", "ep-x", "my-pooler.x"]
)
def test_a_name_that_is_no_endpoints_is_left_alone(host: str) -> None:
    assert pooled_host(host) == direct_host(host) == host
    assert not is_pooled_host(host)


def config(**fields: object) -> LakebasePoolConfig:
    return LakebasePoolConfig(
        **{"database": "d", "user": "u", "endpoint": "projects/p/branches/b/endpoints/e", "password": "p", **fields}
    )


HOSTS = EndpointHosts("ep-x.example", "ep-x-ro.example", "ep-x-pooler.example", None)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"host": "ep-x.example"}, None),
        ({"host": "EP-X.Example"}, None),
        ({"host": "ep-x.example", "pooled": True}, None),
        ({"host": "ep-x-ro.example", "read_only": True}, None),
        ({"host": "ep-other.example"}, "not one of"),
        ({"host": "ep-x.example", "read_only": True}, "direct host"),
        ({"host": "ep-x-ro.example"}, "read-only host"),
        ({"host": "ep-x-pooler.example"}, "pooled host"),
    ],
)
def test_a_configured_host_is_weighed_against_the_endpoints(fields: dict, problem: str | None) -> None:
    found = host_problem(config(**fields), HOSTS)
    assert (found is None) is (problem is None)
    assert problem is None or problem in (found or "")


def test_nothing_known_is_nothing_wrong() -> None:
    assert host_problem(config(host="ep-x.example"), EndpointHosts(None)) is None


def test_the_workspace_tells_an_endpoints_and_an_instances_hosts(lakebase_user) -> None:
    lake = lakebase_user.lake
    client = lake.workspace_client(lakebase_user.name)
    branch = lake.endpoint.rpartition("/endpoints/")[0]
    for found in (
        endpoint_hosts(client, endpoint=lake.endpoint),
        endpoint_hosts(client, endpoint=branch),
        endpoint_hosts(client, instance_name=lake.instance_name),
    ):
        assert found.direct == lake.host


def test_the_host_can_come_from_the_workspace_alone(lakebase_user) -> None:
    lake = lakebase_user.lake
    asked = lakebase_user.config(host=None)
    assert asked.host is None
    found = with_endpoint_host(asked)
    assert found.host == lake.host
    password = credential_source(found.resolved({})).password()
    psycopg.connect(**found.connect_kwargs(), password=password).close()


def test_a_host_that_the_endpoint_does_not_offer_is_refused(lakebase_user) -> None:
    with pytest.raises(ConfigurationError, match="readable secondaries"):
        with_endpoint_host(lakebase_user.config(host=None).merged({"read_only": True}))
    with pytest.raises(ConfigurationError, match="endpoint is missing"):
        with_endpoint_host(LakebasePoolConfig())


def test_a_workspace_that_refuses_is_a_credential_error(lakebase_user) -> None:
    with lakebase_user.lake.fail_workspace(403, path="/endpoints"), pytest.raises(CredentialError, match="PermissionD"):
        with_endpoint_host(lakebase_user.config())


def test_a_wrong_host_is_logged_once_after_the_first_credential(
    lakebase_user, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(monkeypatch)
    wrong = lakebase_user.config(host="ep-old.example").resolved({})
    with caplog.at_level(logging.WARNING, "lakebase"):
        for _ in range(2):
            source = credential_source(wrong)
            assert source.password()
            _wait_for_mints()
    warnings = [record.getMessage() for record in caplog.records if record.name == "lakebase"]
    assert len(warnings) == 1
    assert "ep-old.example" in warnings[0]
    assert lakebase_user.lake.host in warnings[0]


def test_an_identity_that_may_not_ask_leaves_it_to_the_next(
    lakebase_user, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(monkeypatch)
    wrong = lakebase_user.config(host="ep-old.example").resolved({})
    with caplog.at_level(logging.WARNING, "lakebase"):
        with lakebase_user.lake.fail_workspace(403, path="/endpoints"):
            assert credential_source(wrong).password()
            _wait_for_mints()
        assert not [record for record in caplog.records if record.name == "lakebase"]
        assert credential_source(wrong).password()
        _wait_for_mints()
    assert len([record for record in caplog.records if record.name == "lakebase"]) == 1


def test_identities_that_never_may_are_asked_three_times_in_all(lakebase_user, monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch)
    with lakebase_user.lake.fail_workspace(403, path="/endpoints") as fault:
        for _ in range(5):
            assert credential_source(lakebase_user.config().resolved({})).password()
            _wait_for_mints()
        assert fault.hits == 3


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin as a new process does, which has asked the workspace nothing."""
    monkeypatch.setattr(endpoints, "_asked", {})
    monkeypatch.setattr(endpoints, "_problems", {})
    monkeypatch.setattr(endpoints, "_hosts", Lookups())
    monkeypatch.setattr(_http, "_all", {})
    monkeypatch.setattr(_http, "Workers", partial(Workers, idle=0.05))  # the tests wait for the end of its threads


def _wait_for_mints() -> None:
    import threading

    for thread in threading.enumerate():
        if thread.name == "lakebase-mint":
            thread.join(30)


def test_read_only_connections_go_to_the_secondaries(lakebase_local) -> None:
    from lakebase import create_lakebase_pool
    from lakebase.local import LocalLakebase

    with LocalLakebase(read_only=True, pooler="off") as lake:
        config = lake.config(read_only=True)
        assert with_endpoint_host(config).host == lake.read_only_host == config.host
        assert host_problem(config, endpoint_hosts(lake.workspace_client(), endpoint=lake.endpoint)) is None
        assert with_endpoint_host(lake.config()).host == lake.host
        with create_lakebase_pool(config) as pool, pool.connection() as connection:
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                connection.execute("CREATE TABLE never (a int)")


@pytest.mark.parametrize(("host", "is_one"), [("127.0.0.2", True), ("127.0.0.1", False), ("localhost", False)])
def test_the_pooler_of_a_local_lakebase_listens_beside_it(host: str, is_one: bool) -> None:
    assert is_local_pooler(host) is is_one
