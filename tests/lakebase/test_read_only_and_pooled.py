"""`read_only` and `pooled`: neither is ever quietly something else."""

from __future__ import annotations

import copy
import logging
import pickle
from types import SimpleNamespace

import psycopg
import pytest

from lakebase import (
    ConfigurationError,
    CredentialError,
    LakebasePoolConfig,
    LakebasePoolManager,
    create_async_lakebase_pool,
    create_lakebase_pool,
    endpoints,
    with_endpoint_host,
)
from lakebase._lookups import Lookups
from lakebase.endpoints import host_problem
from lakebase.hosts import EndpointHosts

DIRECT = "ep-x.database.eu.cloud.databricks.com"
POOLED = "ep-x-pooler.database.eu.cloud.databricks.com"
ENDPOINT = "projects/p/branches/b/endpoints/e"
NATIVE = {"database": "d", "user": "u", "password": "p"}
OWN = EndpointHosts("db.example", "ro.example", "pool.example", "pool-ro.example")


def given_by_workspace(hosts: EndpointHosts):
    """A workspace client of an endpoint with these hosts."""
    names = {
        "host": hosts.direct,
        "read_only_host": hosts.read_only,
        "read_write_pooled_host": hosts.pooled,
        "read_only_pooled_host": hosts.read_only_pooled,
    }
    asked: list[str] = []

    def get_endpoint(name: str) -> object:
        asked.append(name)
        return SimpleNamespace(status=SimpleNamespace(hosts=SimpleNamespace(**names)))

    return SimpleNamespace(postgres=SimpleNamespace(get_endpoint=get_endpoint), asked=asked)


# --- pooled -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "db.example"])
def test_pooled_with_a_host_without_a_known_pooler_is_refused(host):
    with pytest.raises(ConfigurationError, match="with_endpoint_host") as refused:
        LakebasePoolConfig(**NATIVE, host=host, pooled=True)
    assert refused.value.field == "pooled"
    with pytest.raises(ConfigurationError, match="with_endpoint_host"):
        LakebasePoolConfig(host=host).merged({"pooled": True, **NATIVE})
    with pytest.raises(ConfigurationError, match="with_endpoint_host"):
        LakebasePoolConfig(**NATIVE, pooled=True).resolved({"PGHOST": host})


def test_pooled_with_a_provisioned_instance_is_refused():
    with pytest.raises(ConfigurationError, match="no built-in pooler") as refused:
        LakebasePoolConfig(**NATIVE, host=DIRECT, pooled=True, instance_name="shop")
    assert refused.value.field == "pooled"


def test_the_workspaces_answer_is_the_pooler_whatever_it_is_called():
    client = given_by_workspace(OWN)
    config = with_endpoint_host(LakebasePoolConfig(**NATIVE, endpoint=ENDPOINT, pooled=True), client)
    for same in (config, copy.deepcopy(config), pickle.loads(pickle.dumps(config)), config.resolved({})):
        assert (same.host, same.server_host) == ("pool.example", "pool.example")
        assert same.direct_config().server_host == "db.example"
        assert same.merged({"read_only": True}).server_host == "pool-ro.example"
        assert type(same.connect_kwargs()["host"]) is str
    direct = with_endpoint_host(LakebasePoolConfig(**NATIVE, endpoint=ENDPOINT), client)
    assert direct.server_host == "db.example"
    assert direct.merged({"pooled": True}).server_host == "pool.example"
    assert direct.merged({"host": "other.example"}).server_host == "other.example"
    assert direct.merged({"max_size": 2}).endpoint_hosts == OWN


def test_what_the_workspace_says_there_is_not_is_refused():
    alone = with_endpoint_host(
        LakebasePoolConfig(**NATIVE, endpoint=ENDPOINT), given_by_workspace(EndpointHosts("db.example"))
    )
    for field in ("pooled", "read_only"):
        with pytest.raises(ConfigurationError, match="no host for") as refused:
            alone.merged({field: True})
        assert refused.value.field == field


def test_a_base_configuration_for_the_pooler_leaves_the_password_to_the_users():
    base = LakebasePoolConfig(host=DIRECT, database="d", pooled=True)
    assert base.merged({"user": "ann", "password": "hers"}).resolved({}).server_host == POOLED
    manager = LakebasePoolManager(base)
    assert manager.get_pool("ann", {"user": "ann", "password": "hers"}).config.server_host == POOLED
    with pytest.raises(ConfigurationError, match="native"):
        manager.get_pool("bob", {"user": "bob", "token": "dapi-bobs"})
    with pytest.raises(ConfigurationError, match="native") as refused:
        base.merged({"user": "eve"}).resolved({})
    assert refused.value.field == "pooled"
    for mints in ({"endpoint": ENDPOINT}, {"instance_name": "shop"}, {"token": "dapi-x", "user": "x"}):
        with pytest.raises(ConfigurationError, match="native"):
            LakebasePoolConfig(host=DIRECT, pooled=True, **mints)


def test_a_local_poolers_configuration_knows_the_direct_host_and_port(lakebase_local):
    if lakebase_local.pooled_host is None:
        pytest.skip("no PgBouncer on this machine")
    lakebase_local.add_password_role("both_ways", "native")
    config = lakebase_local.config("both_ways", password="native", pooled=True)
    direct = config.direct_config()
    assert (direct.server_host, direct.port) == (lakebase_local.host, lakebase_local.port)
    with create_lakebase_pool(direct, kwargs={"autocommit": True}) as pool, pool.connection() as connection:
        connection.execute("LISTEN direct")
        assert connection.execute("SELECT count(*) FROM pg_listening_channels()").fetchone() == (1,)


# --- read_only --------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "_hosts", Lookups())
    monkeypatch.setattr(endpoints, "_noted", set())


def test_a_read_only_session_refuses_to_write_on_whatever_server(lakebase_local):
    lakebase_local.add_password_role("reads", "native")
    config = lakebase_local.config("reads", password="native").merged({"read_only": True})
    for kwargs in (None, {"options": "-c work_mem=1MB"}):
        with create_lakebase_pool(config, kwargs=kwargs) as pool, pool.connection() as connection:
            assert connection.info.host == lakebase_local.host
            if kwargs:
                assert connection.execute("SHOW work_mem").fetchone() == ("1MB",)
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                connection.execute("CREATE TABLE never (a int)")
    with psycopg.connect(**config.connect_kwargs(), password="native", autocommit=True) as connection:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("CREATE TABLE never (a int)")


def test_the_poolers_startup_gets_no_options():
    config = LakebasePoolConfig(**NATIVE, host=DIRECT, pooled=True, read_only=True)
    assert "options" not in config.connect_kwargs()
    assert "options" in config.direct_config().connect_kwargs()
    assert "options" not in LakebasePoolConfig(**NATIVE, host=DIRECT).connect_kwargs()
    own = LakebasePoolConfig(**NATIVE, host=DIRECT, read_only=True, libpq_params={"options": "-c work_mem=1MB"})
    assert own.connect_kwargs()["options"] == "-c work_mem=1MB -c default_transaction_read_only=on"


@pytest.mark.parametrize("is_async", [False, True])
async def test_through_the_pooler_each_transaction_begins_read_only(lakebase_local, is_async):
    # A local endpoint by the name of a pooler: what matters is what the driver sends.
    lakebase_local.add_password_role("reads", "native")
    given = EndpointHosts(lakebase_local.host, None, lakebase_local.host, lakebase_local.host)
    config = lakebase_local.config("reads", password="native").merged(
        {"read_only": True, "pooled": True, "host": lakebase_local.host, "endpoint_hosts": given}
    )
    if is_async:
        async with create_async_lakebase_pool(config) as pool, pool.connection() as connection:
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                await connection.execute("CREATE TABLE never (a int)")
    else:
        with create_lakebase_pool(config) as pool, pool.connection() as connection:
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                connection.execute("CREATE TABLE never (a int)")


@pytest.mark.parametrize("is_async", [False, True])
async def test_the_secondaries_host_is_asked_for_before_the_first_connection(caplog, is_async):
    from lakebase.local import LocalLakebase

    with LocalLakebase(read_only=True, pooler="off") as lake:
        primary = lake.config().merged({"read_only": True, "port": lake.read_only_port})
        assert primary.server_host == lake.host != lake.read_only_host
        if is_async:
            async with create_async_lakebase_pool(primary) as pool, pool.connection() as connection:
                assert connection.info.host == lake.read_only_host
        else:
            with create_lakebase_pool(primary) as pool, pool.connection() as connection:
                assert connection.info.host == lake.read_only_host
    assert not [record for record in caplog.records if record.name == "lakebase"]


def test_it_is_asked_for_once_for_all_users_pools():
    client = given_by_workspace(OWN)
    base = LakebasePoolConfig(host="db.example", database="d", endpoint=ENDPOINT, read_only=True)
    for user in ("ann", "bob"):
        config = base.merged({"user": user, "workspace_client": client})
        assert endpoints.is_host_to_be_found(config)
        found = endpoints.completed(config)
        assert found.server_host == "ro.example"
        assert not endpoints.is_host_to_be_found(found)
    assert client.asked == [ENDPOINT]


def test_an_endpoint_without_secondaries_is_told_to_the_borrower(lakebase_user):
    config = lakebase_user.config().merged({"read_only": True})
    with create_lakebase_pool(config, timeout=20) as pool, pytest.raises(ConfigurationError) as refused:
        pool.getconn()
    assert "readable secondaries" in str(refused.value)
    assert (refused.value.field, refused.value.step) == ("read_only", "creating")


def test_a_private_name_of_the_endpoint_is_kept_with_a_warning(caplog):
    client = given_by_workspace(OWN)
    config = LakebasePoolConfig(
        host="link.private", database="d", user="u", endpoint=ENDPOINT, read_only=True, workspace_client=client
    )
    assert endpoints.completed(config).server_host == "link.private"
    assert "link.private" in caplog.text
    assert "ro.example" in caplog.text


def test_where_the_workspace_may_not_be_asked_the_host_is_kept_with_a_warning(lakebase_user, caplog):
    config = lakebase_user.config().merged({"read_only": True})
    with lakebase_user.lake.fail_workspace(403, path="/endpoints"):
        found = endpoints.completed(config)
    assert found.server_host == lakebase_user.lake.host
    assert "PermissionDenied" in caplog.text
    assert "read-only transactions" in caplog.text
    with (
        lakebase_user.lake.fail_workspace(500, path="/endpoints"),
        pytest.raises(CredentialError) as failed,
    ):
        endpoints.completed(config)
    assert failed.value.is_transient


def test_a_host_of_unknown_kind_is_warned_of_once(caplog):
    caplog.set_level(logging.WARNING)
    config = LakebasePoolConfig(**NATIVE, host=DIRECT, read_only=True)
    for _ in range(3):
        create_lakebase_pool(config)
    (record,) = caplog.records
    assert DIRECT in record.getMessage()
    assert "with_endpoint_host" in record.getMessage()
    caplog.clear()
    known = with_endpoint_host(config.merged({"endpoint": ENDPOINT}), given_by_workspace(OWN))
    create_lakebase_pool(known)
    create_lakebase_pool(LakebasePoolConfig(**NATIVE, host=DIRECT))
    assert not caplog.records


@pytest.mark.parametrize(
    ("hosts", "fields", "problem"),
    [
        (EndpointHosts(DIRECT), {"host": DIRECT, "read_only": True}, "no host for pooled=False, read_only=True"),
        (EndpointHosts(None), {"host": DIRECT, "read_only": True}, "no host for"),
        (EndpointHosts(DIRECT, "ro.example"), {"host": "ro.example", "read_only": True}, None),
        (EndpointHosts("ep-y.example"), {"host": DIRECT, "pooled": True}, "no host for pooled=True"),
        (EndpointHosts(DIRECT), {"host": DIRECT, "pooled": True}, None),  # by the rule: older SDKs do not know it
        (EndpointHosts(None), {"host": DIRECT}, None),
    ],
)
def test_a_kind_of_host_that_the_workspace_does_not_have_is_a_problem(hosts, fields, problem):
    found = host_problem(LakebasePoolConfig(**NATIVE, endpoint=ENDPOINT, **fields), hosts)
    assert (found is None) is (problem is None)
    assert problem is None or problem in (found or "")
