"""One app pool, and every transaction one user's: directly and through the pooler."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psycopg
import pytest

from lakebase import (
    AsyncUserScopedPool,
    ConfigurationError,
    IdentityError,
    LakebasePoolConfig,
    UserIdentity,
    UserScopedPool,
    create_async_lakebase_pool,
    create_lakebase_pool,
)
from pooling import RequestContext

ANN, BOB = UserIdentity("ann@scope.example"), UserIdentity("bob@scope.example")
PASSWORD = "sc0pe-pw"
OWNERS = "SELECT DISTINCT owner FROM scoped_notes"


@dataclass
class Shop:
    """A table under row-level security, and how the app's role connects to it."""

    config: LakebasePoolConfig
    pooled: LakebasePoolConfig | None


@pytest.fixture(scope="module")
def shop(lakebase_local) -> Iterator[Shop]:
    lake = lakebase_local
    admin = {**lake.config().connect_kwargs(), "password": lake.mint(lake.admin_user), "autocommit": True}
    lake.add_password_role("scope_app", PASSWORD)
    with psycopg.connect(**admin) as connection:
        for user in (ANN.user, BOB.user):
            connection.execute(f'CREATE ROLE "{user}" LOGIN')
            connection.execute(f'GRANT "{user}" TO scope_app')
        connection.execute("CREATE TABLE scoped_notes (owner text, body text)")
        connection.execute(
            "INSERT INTO scoped_notes SELECT o, 'x' FROM unnest(%s::text[]) o, generate_series(1, 3)",
            [[ANN.user, BOB.user]],
        )
        connection.execute("ALTER TABLE scoped_notes ENABLE ROW LEVEL SECURITY")
        connection.execute(
            "CREATE POLICY own ON scoped_notes"
            " USING (owner = current_setting('app.user', true) OR owner = current_user)"
        )
        connection.execute("GRANT SELECT, INSERT ON scoped_notes TO PUBLIC")
        connection.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")
    common = {
        "database": lake.database,
        "user": "scope_app",
        "password": PASSWORD,
        "ssl_root_cert": lake.ca_file,
        "max_size": 2,
    }
    direct = LakebasePoolConfig(host=lake.host, port=lake.port, **common)
    pooled = None
    if lake.pooled_host is not None:
        pooled = LakebasePoolConfig(host=lake.pooled_host, port=lake.pooled_port, pooled=True, **common)
    yield Shop(direct, pooled)
    with psycopg.connect(**admin) as connection:
        connection.execute("DROP TABLE scoped_notes")


@pytest.fixture(params=["direct", "pooled"])
def config(request, shop: Shop) -> LakebasePoolConfig:
    chosen = shop.config if request.param == "direct" else shop.pooled
    if chosen is None:
        pytest.skip("no PgBouncer on this machine")
    return chosen


def test_many_requests_at_once_see_their_own_rows_only(config) -> None:
    with create_lakebase_pool(config) as pool:
        scoped = UserScopedPool(pool)

        def request(number: int) -> bool:
            identity = (ANN, BOB)[number % 2]
            with RequestContext(identity=identity), scoped.connection() as connection:
                return connection.execute(OWNERS).fetchall() == [(identity.user,)]

        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(request, range(80)))
        with pool.connection() as connection:
            assert connection.execute(OWNERS).fetchall() == []
        assert pool.get_stats()["connections_num"] <= 2


async def test_asyncio_requests_do_too(config) -> None:
    async with create_async_lakebase_pool(config) as pool:
        scoped = AsyncUserScopedPool(pool)

        async def request(number: int) -> None:
            identity = (ANN, BOB)[number % 2]
            async with RequestContext(identity=identity), scoped.connection() as connection:
                assert await (await connection.execute(OWNERS)).fetchall() == [(identity.user,)]

        await asyncio.gather(*(request(number) for number in range(40)))


def test_the_users_role_can_be_taken_on_for_the_transaction(config) -> None:
    with create_lakebase_pool(config) as pool:
        scoped = UserScopedPool(pool, setting=None, as_role=True)
        for identity in (ANN, BOB, ANN):
            with scoped.connection(identity=identity) as connection:
                assert connection.execute("SELECT current_user").fetchone() == (identity.user,)
                assert connection.execute(OWNERS).fetchall() == [(identity.user,)]
        with pool.connection() as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("scope_app",)


def test_the_block_is_the_transaction_and_cannot_end_inside(config) -> None:
    with create_lakebase_pool(config) as pool:
        scoped = UserScopedPool(pool)
        for end in ("commit", "rollback"):
            with pytest.raises(psycopg.ProgrammingError), scoped.connection(identity=ANN) as connection:
                getattr(connection, end)()
        with pytest.raises(ZeroDivisionError), scoped.connection(identity=ANN) as connection:
            connection.execute("INSERT INTO scoped_notes VALUES (%s, 'lost')", [ANN.user])
            1 / 0  # noqa: B018
        with scoped.connection(identity=ANN) as connection:
            assert connection.execute("SELECT count(*) FROM scoped_notes WHERE body = 'lost'").fetchone() == (0,)
        with pool.connection() as connection:
            assert connection.execute(OWNERS).fetchall() == []


def test_a_checkpoint_commits_and_goes_on_as_the_same_user(config) -> None:
    with create_lakebase_pool(config) as pool:
        scoped = UserScopedPool(pool)
        with pytest.raises(ZeroDivisionError), RequestContext(identity=ANN) as ctx:
            connection = ctx.acquire(scoped)
            connection.execute("INSERT INTO scoped_notes VALUES (%s, 'kept')", [ANN.user])
            ctx.checkpoint()
            assert connection.execute(OWNERS).fetchall() == [(ANN.user,)]
            connection.execute("INSERT INTO scoped_notes VALUES (%s, 'lost')", [ANN.user])
            1 / 0  # noqa: B018
        with scoped.connection(identity=ANN) as connection:
            seen = connection.execute("SELECT DISTINCT body FROM scoped_notes WHERE body <> 'x'").fetchall()
            assert seen == [("kept",)]
        with pool.connection() as connection:
            assert connection.execute(OWNERS).fetchall() == []


@pytest.mark.parametrize("identity", [None, "ann@scope.example", UserIdentity("ann@scope.example", from_request=True)])
def test_without_a_proven_identity_no_connection_is_taken(shop: Shop, identity) -> None:
    with create_lakebase_pool(shop.config) as pool:
        scoped = UserScopedPool(pool)
        with RequestContext(identity=identity), pytest.raises(IdentityError), scoped.connection():
            pass
        with pytest.raises(IdentityError, match="has no user"), scoped.connection():
            pass
        assert "connections_num" not in pool.get_stats()


@pytest.mark.parametrize("given", [{"setting": None}, {"setting": "search_path"}])
def test_a_setting_that_cannot_be_is_refused(given) -> None:
    with pytest.raises(ConfigurationError, match="setting"):
        UserScopedPool(None, **given)  # type: ignore[arg-type]
