"""An endpoint is enough: from whichever variable it comes, and whoever connects."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from lakebase import (
    AsyncLakebasePoolManager,
    ConfigurationError,
    CredentialError,
    LakebasePoolConfig,
    LakebasePoolManager,
    LoginError,
    UserIdentity,
    create_async_lakebase_pool,
    create_lakebase_pool,
    endpoints,
    lakebase_pg_config,
)
from lakebase._lookups import Lookups
from lakebase.drivers import lakebase_orm_config
from lakebase.hosts import EndpointHosts

ENDPOINT = "projects/shop/branches/main/endpoints/primary"
BRANCH = "projects/shop/branches/main"
WHO = "SELECT current_user"


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "_hosts", Lookups())
    monkeypatch.setattr(endpoints, "_roles", Lookups())
    monkeypatch.setattr(endpoints, "_problems", {})
    monkeypatch.setattr(endpoints, "_asked", {})


# --- variables --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "field", "value"),
    [
        ({"LAKEBASE_ENDPOINT": ENDPOINT, "PGENDPOINT": "projects/o/branches/o"}, "endpoint", ENDPOINT),
        ({"PGENDPOINT": ENDPOINT, "LAKEBASE_INSTANCE_NAME": "old"}, "endpoint", ENDPOINT),
        ({"LAKEBASE_AUTOSCALING_ENDPOINT": ENDPOINT}, "endpoint", ENDPOINT),
        ({"LAKEBASE_AUTOSCALING_PROJECT": "shop", "LAKEBASE_AUTOSCALING_BRANCH": "main"}, "endpoint", BRANCH),
        ({"LAKEBASE_AUTOSCALING_PROJECT": "projects/shop", "LAKEBASE_AUTOSCALING_BRANCH": BRANCH}, "endpoint", BRANCH),
        (
            {
                "LAKEBASE_AUTOSCALING_PROJECT": "shop",
                "LAKEBASE_AUTOSCALING_BRANCH": "main",
                "LAKEBASE_AUTOSCALING_ENDPOINT": "primary",
            },
            "endpoint",
            ENDPOINT,
        ),
        ({"LAKEBASE_INSTANCE_NAME": "shop"}, "instance_name", "shop"),
    ],
)
def test_the_templates_variables_are_read(environ: dict[str, str], field: str, value: str) -> None:
    config = LakebasePoolConfig.from_env(environ)
    assert getattr(config, field) == value
    assert (config.endpoint is None) is (field != "endpoint")
    assert (config.host, config.database) == (None, "databricks_postgres")
    assert config.resolved({}) == config
    # What the configuration has wins, and a password needs no endpoint.
    assert LakebasePoolConfig.from_env(environ, instance_name="mine").endpoint is None
    assert LakebasePoolConfig.from_env(environ, password="p", host="h", database="d").endpoint is None


def test_half_a_branch_and_nothing_are_told() -> None:
    with pytest.raises(ConfigurationError, match="LAKEBASE_ENDPOINT, whose host the workspace knows"):
        LakebasePoolConfig.from_env({"LAKEBASE_AUTOSCALING_PROJECT": "shop"})
    with pytest.raises(ConfigurationError, match="PGENDPOINT in the environment"):
        LakebasePoolConfig.from_env({"PGENDPOINT": "primary"})


@pytest.fixture
def service(tmp_path: Path) -> dict[str, str]:
    """An environment with a service file."""
    (tmp_path / "services").write_text(
        "# all of ours\n[other]\nhost=other.example\n\n[shop]\n  host=shop.example\nport=6543\ndbname=orders\n"
        "user=clerk\npassword=its=own\nsslmode=verify-full\nhost=second.example\nkeepalives_idle=30\n[last]\nuser=x\n",
        encoding="utf-8",
    )
    return {"PGSERVICE": "shop", "PGSERVICEFILE": str(tmp_path / "services")}


def test_a_service_is_read_as_libpq_reads_it(service: dict[str, str]) -> None:
    config = LakebasePoolConfig(application_name="a").resolved({**service, "PGHOST": "env.example", "PGAPPNAME": "b"})
    assert (config.host, config.port, config.database, config.user) == ("shop.example", 6543, "orders", "clerk")
    assert (config.password, config.ssl_mode, config.application_name) == ("its=own", "verify-full", "a")
    assert LakebasePoolConfig(host="mine.example").resolved(service).host == "mine.example"
    assert "its=own" not in repr(config)


def test_a_services_password_and_user_are_nobodys_who_has_a_token(service: dict[str, str]) -> None:
    ann = LakebasePoolConfig(user="ann", token="dapi-ann", endpoint=ENDPOINT).resolved(service)
    assert (ann.user, ann.password, ann.host) == ("ann", None, "shop.example")
    with pytest.raises(ConfigurationError, match="user= to the role of the token's owner"):
        LakebasePoolConfig(token="dapi-ann", endpoint=ENDPOINT).resolved(service)


def test_a_service_that_is_nowhere_is_told(service: dict[str, str], tmp_path: Path) -> None:
    for environ in ({**service, "PGSERVICE": "none"}, {"PGSERVICE": "shop", "HOME": str(tmp_path)}):
        with pytest.raises(ConfigurationError, match="in none of") as refused:
            LakebasePoolConfig().resolved(environ)
        assert str(tmp_path) in str(refused.value)
    with pytest.raises(ConfigurationError, match=r"verify.*PGSERVICE in the environment"):
        Path(service["PGSERVICEFILE"]).write_text("[shop]\nsslmode=verify\n", encoding="utf-8")
        LakebasePoolConfig().resolved(service)


# --- everybody connects -----------------------------------------------------------------------------------------------


@pytest.fixture
def deployed(lakebase_local, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An app's environment that has an endpoint, and nothing of where it is; the port is the local Lakebase's own."""
    given = lakebase_local.environment()
    for name in ("PGHOST", "PGDATABASE", "PGUSER", "LAKEBASE_ENDPOINT"):
        del given[name]
    for name, value in {**given, "PGENDPOINT": lakebase_local.endpoint}.items():
        monkeypatch.setenv(name, value)
    return lakebase_local


def asked(lake: Any) -> int:
    """How often the workspace was asked for the endpoint."""
    return sum(count for call, count in lake.stats().api_calls.items() if call.endswith(lake.endpoint))


async def test_pools_and_managers_of_both_kinds_need_no_more(deployed) -> None:
    before = asked(deployed)
    with create_lakebase_pool() as pool, pool.connection() as connection:
        assert connection.execute(WHO).fetchone() == (deployed.client_id,)
        assert (pool.host, pool.username) == (deployed.host, deployed.client_id)
    async with create_async_lakebase_pool() as apool, apool.connection() as aconnection:
        assert await (await aconnection.execute(WHO)).fetchone() == (deployed.client_id,)
    ann = UserIdentity("ann@zero.example", deployed.add_user("ann@zero.example"))
    with LakebasePoolManager() as manager, manager.for_user(ann).connection() as connection:
        assert connection.execute(WHO).fetchone() == (ann.user,)
    async with AsyncLakebasePoolManager() as amanager, amanager.for_user(ann).connection() as aconnection:
        assert await (await aconnection.execute(WHO)).fetchone() == (ann.user,)
    assert asked(deployed) - before == 1


async def test_so_do_other_drivers_and_frameworks(deployed) -> None:
    with psycopg.connect(**lakebase_pg_config()) as connection:
        assert connection.execute(WHO).fetchone() == (deployed.client_id,)
    assert lakebase_orm_config()["host"] == deployed.host
    sqlalchemy = pytest.importorskip("sqlalchemy")
    from lakebase.sqlalchemy import create_lakebase_engine

    with create_lakebase_pool() as pool, create_lakebase_engine(pool).connect() as connection:
        assert connection.scalar(sqlalchemy.text(WHO)) == deployed.client_id
    asyncpg = pytest.importorskip("asyncpg")
    connection = await asyncpg.connect(**await asyncio.to_thread(lakebase_pg_config, driver="asyncpg"))
    assert await connection.fetchval(WHO) == deployed.client_id
    await connection.close()


async def test_twenty_users_at_once_ask_once_and_the_loop_goes_on(deployed) -> None:
    names = [f"user{number}@zero.example" for number in range(20)]
    identities = [UserIdentity(name, deployed.add_user(name)) for name in names]
    before = asked(deployed)
    async with AsyncLakebasePoolManager() as manager:

        async def who(identity: UserIdentity) -> str:
            async with manager.for_user(identity).connection() as connection:
                return str(((await (await connection.execute(WHO)).fetchone()) or ("",))[0])

        with deployed.hold_workspace(path="/endpoints/"):
            tasks = [asyncio.create_task(who(identity)) for identity in identities]
            while asked(deployed) == before:
                await asyncio.sleep(0.001)  # sleeps: the loop goes on while the workspace is asked
            tasks[0].cancel()
            await asyncio.wait(tasks[:1])
            assert not any(task.done() for task in tasks[1:])
        assert await asyncio.gather(*tasks[1:]) == names[1:]
    assert asked(deployed) - before == 1


def test_who_may_not_ask_does_not_keep_others_from_it(deployed) -> None:
    ann = deployed.add_user("ann@zero.example")
    config = LakebasePoolConfig(user="ann@zero.example", token=ann).resolved()
    refused = config.merged({"token": "dapi-of-nobody", "user": "nobody"})
    found: list[Any] = []

    def complete(given: LakebasePoolConfig) -> None:
        try:
            found.append(endpoints.completed(given).host)
        except CredentialError as error:
            found.append(type(error))

    with deployed.delay_workspace(0.2, path="/endpoints/"):
        threads = [threading.Thread(target=complete, args=(given,)) for given in (refused, config, config)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert sorted(map(str, found)) == sorted(map(str, [CredentialError, deployed.host, deployed.host]))


# --- a host that changes, or is another's -----------------------------------------------------------------------------


class Workspace:
    """A workspace client of an endpoint that moves."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.asked = 0
        self.postgres = SimpleNamespace(get_endpoint=self._get_endpoint)

    def _get_endpoint(self, name: str) -> object:
        self.asked += 1
        return SimpleNamespace(status=SimpleNamespace(hosts=SimpleNamespace(host=self.host)))


@pytest.fixture
def moving(lakebase_local, monkeypatch: pytest.MonkeyPatch) -> LakebasePoolConfig:
    """A configuration of an endpoint that moves, whose answers are never too young to be doubted."""
    instants = iter(range(0, 10**9, 60))
    monkeypatch.setattr(endpoints, "_hosts", Lookups(clock=lambda: next(instants)))
    lakebase_local.add_password_role("mover", "native")
    config = lakebase_local.config("mover", password="native", host=None, max_size=2)
    return config.merged({"endpoint": ENDPOINT, "workspace_client": Workspace("127.0.0.77"), "password": "native"})


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_host_that_does_not_answer_is_asked_for_again(lakebase_local, moving, is_async) -> None:
    client: Any = moving.workspace_client
    config = moving.merged({"timeout": 20.0})
    if is_async:
        async with create_async_lakebase_pool(config) as apool:
            waiting = asyncio.create_task(apool.getconn())
            while not client.asked:
                await asyncio.sleep(0.001)  # sleeps: until the wrong host was given
            client.host = lakebase_local.host
            await apool.putconn(await waiting)
            assert apool.host == lakebase_local.host
    else:
        with create_lakebase_pool(config) as pool:
            with pytest.raises(psycopg.OperationalError):
                pool.getconn(timeout=0.05)
            client.host = lakebase_local.host
            pool.putconn(pool.getconn())
            assert pool.host == lakebase_local.host
    assert client.asked >= 2


def test_an_endpoint_that_moves_leaves_no_connection_to_the_old_host(lakebase_local, moving, caplog) -> None:
    client: Any = moving.workspace_client
    client.host = lakebase_local.host
    with create_lakebase_pool(moving) as pool:
        old = pool.getconn()
        pool.putconn(old)
        client.host = "localhost"
        pool.getconn()
        with lakebase_local.refuse("reset", count=1, user="mover"):
            assert pool.getconn().info.host == "localhost"
        assert "has moved from 127.0.0.1 to localhost" in caplog.text
        pool.putconn(old)
        assert pool.getconn() is not old


def test_a_workspace_that_does_not_answer_again_leaves_the_host_that_is_known(lakebase_local, moving) -> None:
    client: Any = moving.workspace_client
    client.host = lakebase_local.host
    with create_lakebase_pool(moving) as pool:
        pool.putconn(pool.getconn())
        pool.drain()
        client.postgres = SimpleNamespace()  # whatever is asked fails
        with lakebase_local.refuse("reset", count=1, user="mover"):
            pool.putconn(pool.getconn())
        assert pool.host == lakebase_local.host


def test_a_host_that_is_young_is_not_doubted_and_an_old_one_is(moving) -> None:
    lookups: Lookups[str] = Lookups(clock=lambda: clock[0])
    clock = [0.0]
    answers = iter("abc")
    assert lookups.get("k", lambda: next(answers)) == "a"
    clock[0] = 4.9
    lookups.doubt("k")
    assert lookups.get("k", lambda: next(answers)) == "a"
    clock[0] = 5.0
    lookups.doubt("k")
    assert lookups.get("k", lambda: next(answers)) == "b"
    lookups.doubt("k", at_once=True)
    assert lookups.get("k", lambda: next(answers)) == "c"


def test_a_child_of_a_fork_does_not_wait_for_its_parents_thread() -> None:
    lookups: Lookups[str] = Lookups()
    asking, answer = threading.Event(), threading.Event()

    def ask() -> str:
        asking.set()
        answer.wait(30)
        return "the parent's"

    parent = threading.Thread(target=lookups.get, args=("k", ask))
    parent.start()
    asking.wait(30)
    lookups.after_fork()
    assert lookups.get("k", lambda: "the child's") == "the child's"
    answer.set()
    parent.join(30)


def test_answers_do_not_pile_up() -> None:
    lookups: Lookups[int] = Lookups()
    for number in range(1100):
        assert lookups.get(number, lambda number=number: number) == number
    assert lookups.known(0) is None
    assert lookups.known(1099) == 1099


def test_a_wrong_native_password_is_no_reason_to_ask_the_workspace(lakebase_local) -> None:
    lakebase_local.add_password_role("mover", "native")
    config = lakebase_local.config("mover", password="wrong", endpoint=lakebase_local.endpoint)
    before = dict(lakebase_local.stats().api_calls)
    with create_lakebase_pool(config) as pool, pytest.raises(LoginError):
        pool.getconn()
    assert lakebase_local.stats().api_calls == before


def test_a_login_refused_by_anothers_host_names_that_host(lakebase_user, caplog) -> None:
    wrong = lakebase_user.config(host="localhost").merged({"user": "nobody", "token": lakebase_user.token})
    with caplog.at_level(logging.WARNING, "lakebase"):
        for _ in range(2):
            with (
                create_lakebase_pool(wrong) as pool,
                pytest.raises(LoginError, match="Likely cause: host='localhost' is"),
            ):
                pool.getconn()
    assert sum(record.getMessage().startswith("host='localhost'") for record in caplog.records) == 1


def test_the_poolers_host_is_asked_for_if_its_name_follows_no_rule(lakebase_local) -> None:
    if lakebase_local.pooled_host is None:
        pytest.skip(f"no PgBouncer on this machine: {lakebase_local.why_no_pooler}")
    lakebase_local.add_password_role("mover", "native")
    known = {"endpoint": lakebase_local.endpoint, "workspace_client": lakebase_local.workspace_client()}
    pooled = lakebase_local.config("mover", password="native").merged({"password": "native", "pooled": True, **known})
    assert pooled.server_host == lakebase_local.host
    with create_lakebase_pool(pooled) as pool, pool.connection() as connection:
        assert connection.info.host == lakebase_local.pooled_host


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_token_may_be_tried_at_the_pooler(lakebase_user, is_async) -> None:
    # A local endpoint that is also its pooler, and takes tokens as Lakebase's pooler may do.
    lake = lakebase_user.lake
    hosts = EndpointHosts(lake.host, None, lake.host)
    config = lakebase_user.config(oauth_through_pooler=True).merged(
        {"host": lake.host, "endpoint_hosts": hosts, "pooled": True}
    )
    if is_async:
        async with create_async_lakebase_pool(config, lock_timeout=3) as pool, pool.connection() as connection:
            assert await (await connection.execute("SHOW lock_timeout")).fetchone() == ("3s",)
    else:
        with create_lakebase_pool(config) as pool, pool.connection() as connection:
            assert connection.execute(WHO).fetchone() == (lakebase_user.name,)


def test_a_pooler_that_refuses_tokens_says_so_at_once(lakebase_user) -> None:
    lake = lakebase_user.lake
    if lake.pooled_host is None:
        pytest.skip(f"no PgBouncer on this machine: {lake.why_no_pooler}")
    with pytest.raises(ConfigurationError, match="oauth_through_pooler=True tries it"):
        lakebase_user.config(pooled=True)
    with create_lakebase_pool(lakebase_user.config(pooled=True, oauth_through_pooler=True)) as pool:
        with pytest.raises(LoginError, match=r"SASL authentication failed.*takes native passwords only"):
            pool.getconn()
