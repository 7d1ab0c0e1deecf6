"""One app pool, and every transaction one user's: directly and through the pooler."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import psycopg
import psycopg_pool
import pytest

from lakebase import (
    AsyncUserScopedPool,
    ConfigurationError,
    IdentityError,
    LakebasePoolConfig,
    LoginError,
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
def owner(lakebase_local) -> dict[str, Any]:
    """How the tables' owner connects."""
    lake = lakebase_local
    return {**lake.config().connect_kwargs(), "password": lake.mint(lake.admin_user), "autocommit": True}


@pytest.fixture(scope="module")
def shop(lakebase_local, owner) -> Iterator[Shop]:
    lake, admin = lakebase_local, owner
    lake.add_password_role("scope_app", PASSWORD)
    with psycopg.connect(**admin) as connection:
        for user in (ANN.user, BOB.user):
            connection.execute(f'CREATE ROLE "{user}" LOGIN')
            connection.execute(f'GRANT "{user}" TO scope_app')
        connection.execute('CREATE ROLE "pay@scope.example" LOGIN')
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
    with (
        psycopg_pool.ConnectionPool("host=unused", open=False) as pool,
        pytest.raises(ConfigurationError, match="setting"),
    ):
        UserScopedPool(pool, **given)


@pytest.mark.parametrize("kind", [UserScopedPool, AsyncUserScopedPool])
def test_what_is_no_pool_is_refused(kind: Any) -> None:
    with pytest.raises(ConfigurationError, match="pool is of type int: expected the app's pool") as refused:
        kind(3)
    assert refused.value.field == "pool"


def named(user: str) -> UserIdentity:
    """An identity with a name that none may have."""
    identity = UserIdentity("ann")
    object.__setattr__(identity, "user", user)
    return identity


LONG = "l" * 63


@pytest.mark.parametrize("name", ["none", LONG + "x"])
def test_a_name_that_is_no_role_of_its_own_acts_for_no_one(shop: Shop, owner, name: str) -> None:
    with pytest.raises(IdentityError):
        UserIdentity(name)
    with psycopg.connect(**owner) as connection:
        connection.execute(f'CREATE ROLE "{LONG}"')
        connection.execute(f'GRANT "{LONG}" TO scope_app')
    try:
        with create_lakebase_pool(shop.config, max_size=1) as pool:
            with pool.connection() as connection:  # what the check is for
                taken = connection.execute("SELECT set_config('role', %s, true), current_user", [name]).fetchone()
                assert taken == (("none", "scope_app") if name == "none" else (LONG, LONG))
            scoped = UserScopedPool(pool, as_role=True)
            with pytest.raises(psycopg.OperationalError, match="in place of"), scoped.connection(identity=named(name)):
                pytest.fail("the block must not run")
            with scoped.connection(identity=ANN) as connection:
                assert connection.execute("SELECT current_user").fetchone() == (ANN.user,)
    finally:
        with psycopg.connect(**owner) as connection:
            connection.execute(f'DROP ROLE "{LONG}"')


CASES = {
    "Ann@Scope.example": (LoginError, "It has 'ann@scope.example': Postgres tells upper from lower case"),
    "eve@scope.example": (LoginError, "has no role 'eve@scope.example'. Create it, and grant it"),
    "pay@scope.example": (LoginError, 'It may after GRANT "pay@scope.example" TO "scope_app"'),
}


@pytest.mark.parametrize("name", CASES)
def test_a_role_that_cannot_be_taken_on_is_told_with_the_likely_cause(shop: Shop, name: str) -> None:
    error, words = CASES[name]
    with psycopg_pool.ConnectionPool(
        kwargs={**shop.config.connect_kwargs(), "password": PASSWORD, "autocommit": True}, max_size=1, min_size=1
    ) as pool:
        scoped = UserScopedPool(pool, as_role=True)
        with pytest.raises(error, match=re.escape(words)), scoped.connection(identity=UserIdentity(name)):
            pytest.fail("the block must not run")
        with pool.connection() as connection:
            assert connection.autocommit, "as it was"
            assert connection.execute("SELECT current_user").fetchone() == ("scope_app",)


async def test_it_is_told_in_asyncio_too(shop: Shop) -> None:
    async with create_async_lakebase_pool(shop.config, max_size=1) as pool:
        scoped = AsyncUserScopedPool(pool, as_role=True)
        with pytest.raises(LoginError, match="upper from lower case"):
            async with scoped.connection(identity=UserIdentity("ANN@scope.example")):
                pytest.fail("the block must not run")
        async with scoped.connection(identity=BOB) as connection:
            assert await (await connection.execute("SELECT current_user")).fetchone() == (BOB.user,)


ACTS_FOR = "SELECT coalesce(current_setting('app.user', true), ''), current_user"


@pytest.mark.parametrize(("setting", "as_role"), [("app.user", False), ("app.user", True), (None, True)])
def test_the_user_ends_with_the_transaction_even_if_nothing_clears_the_session(shop: Shop, setting, as_role) -> None:
    with create_lakebase_pool(shop.config, max_size=1) as pool:
        scoped = UserScopedPool(pool, setting=setting, as_role=as_role, session_reset=None)
        for error in (None, psycopg.Rollback()):
            with scoped.connection(identity=ANN) as connection:
                acts_for = connection.execute(ACTS_FOR).fetchone()
                assert acts_for == (ANN.user if setting else "", ANN.user if as_role else "scope_app")
                if error:
                    raise error
            with pool.connection() as connection:
                assert connection.execute(ACTS_FOR).fetchone() == ("", "scope_app")
        with scoped.connection(identity=ANN) as connection:
            connection.execute("COMMIT")  # which the driver does not see
            assert connection.execute(ACTS_FOR).fetchone() == ("", "scope_app")


async def test_nor_does_it_last_longer_in_asyncio(shop: Shop) -> None:
    async with create_async_lakebase_pool(shop.config, max_size=1) as pool:
        scoped = AsyncUserScopedPool(pool, as_role=True, session_reset=None)
        async with scoped.connection(identity=ANN) as connection:
            assert await (await connection.execute(ACTS_FOR)).fetchone() == (ANN.user, ANN.user)
        async with pool.connection() as connection:
            assert await (await connection.execute(ACTS_FOR)).fetchone() == ("", "scope_app")


@pytest.mark.parametrize("fails", ["the commit", "acting on"])
def test_after_a_failed_checkpoint_nothing_more_is_done_as_the_app(shop: Shop, owner, fails: str) -> None:
    with create_lakebase_pool(shop.config, max_size=1) as pool, pytest.raises(ZeroDivisionError):
        with UserScopedPool(pool, as_role=True).connection(identity=BOB) as connection:
            connection.execute("SELECT 1")
            if fails == "the commit":
                connection.execute("CREATE TEMP TABLE later (n int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)")
                connection.execute("INSERT INTO later VALUES (1), (1)")
            else:
                with psycopg.connect(**owner) as other:
                    other.execute(f'REVOKE "{BOB.user}" FROM scope_app')
            try:
                with pytest.raises(psycopg.Error):
                    UserScopedPool(pool, as_role=True).checkpoint(connection)
            finally:
                with psycopg.connect(**owner) as other:
                    other.execute(f'GRANT "{BOB.user}" TO scope_app')
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
            raise ZeroDivisionError


LEFT = {
    "a setting of the session": ("SELECT set_config('app.user', %s, false)", [BOB.user]),
    "a role": (f'SET ROLE "{BOB.user}"', []),
}


@pytest.mark.parametrize("kind", LEFT)
def test_what_a_block_leaves_in_the_session_is_seen_by_no_other_borrower(config, kind) -> None:
    statement, parameters = LEFT[kind]
    with create_lakebase_pool(config, max_size=1) as pool:
        scoped = UserScopedPool(pool)
        with scoped.connection(identity=ANN) as connection:
            connection.execute(statement, parameters)
        with pool.connection() as connection:
            assert connection.execute(OWNERS).fetchall() == []
            assert connection.execute("SELECT current_user").fetchone() == ("scope_app",)
        with scoped.connection(identity=ANN) as connection:
            assert connection.execute(OWNERS).fetchall() == [(ANN.user,)]


def test_nor_where_the_block_fails_after_a_commit_of_its_own(config) -> None:
    with create_lakebase_pool(config, max_size=1) as pool:
        with pytest.raises(ZeroDivisionError), UserScopedPool(pool).connection(identity=ANN) as connection:
            connection.execute("SELECT set_config('app.user', %s, false)", [BOB.user])
            connection.execute("COMMIT AND CHAIN")
            raise ZeroDivisionError
        with pool.connection() as connection:
            assert connection.execute(OWNERS).fetchall() == []


@pytest.mark.parametrize("kind", LEFT)
async def test_nor_in_asyncio(config, kind) -> None:
    statement, parameters = LEFT[kind]
    async with create_async_lakebase_pool(config, max_size=1) as pool:
        scoped = AsyncUserScopedPool(pool)
        async with scoped.connection(identity=ANN) as connection:
            await connection.execute(statement, parameters)
        async with pool.connection() as connection:
            assert await (await connection.execute(OWNERS)).fetchall() == []
            assert await (await connection.execute("SELECT current_user")).fetchone() == ("scope_app",)


def test_a_block_on_psycopgs_own_pool_leaves_nothing_either(shop: Shop) -> None:
    info = {**shop.config.connect_kwargs(), "password": PASSWORD}
    configured = []
    with psycopg_pool.ConnectionPool(
        kwargs=info, min_size=1, max_size=1, open=True, configure=configured.append
    ) as pool:
        with UserScopedPool(pool).connection(identity=ANN) as connection:
            connection.execute("SELECT set_config('app.user', %s, false)", [BOB.user])
        with pool.connection() as connection:
            assert connection.execute(OWNERS).fetchall() == []
            assert not connection.autocommit
    assert len(configured) == 2, "once more for the cleared session"


def test_without_a_reset_the_session_stays_as_the_block_left_it(shop: Shop) -> None:
    with create_lakebase_pool(shop.config, max_size=1) as pool:
        with UserScopedPool(pool, session_reset=None).connection(identity=ANN) as connection:
            connection.execute("SET statement_timeout = '7s'")
        with pool.connection() as connection:
            assert connection.execute("SELECT current_setting('statement_timeout')").fetchone() == ("7s",)


def test_in_autocommit_the_block_is_a_transaction_all_the_same(shop: Shop) -> None:
    def configure(connection) -> None:
        connection.autocommit = True

    with create_lakebase_pool(shop.config, max_size=1, configure=configure) as pool:
        scoped = UserScopedPool(pool)
        with pytest.raises(ZeroDivisionError), scoped.connection(identity=ANN) as connection:
            assert connection.execute(OWNERS).fetchall() == [(ANN.user,)]
            connection.execute("INSERT INTO scoped_notes VALUES (%s, 'gone')", [ANN.user])
            raise ZeroDivisionError
        with scoped.connection(identity=ANN) as connection:
            assert connection.execute("SELECT count(*) FROM scoped_notes WHERE body = 'gone'").fetchone() == (0,)
        with pool.connection() as connection:
            assert connection.autocommit


def test_a_rollback_that_is_asked_for_ends_the_block_quietly(shop: Shop) -> None:
    with create_lakebase_pool(shop.config, max_size=1) as pool:
        with UserScopedPool(pool).connection(identity=ANN) as connection:
            connection.execute("INSERT INTO scoped_notes VALUES (%s, 'gone')", [ANN.user])
            raise psycopg.Rollback
        with UserScopedPool(pool).connection(identity=ANN) as connection:
            assert connection.execute("SELECT count(*) FROM scoped_notes WHERE body = 'gone'").fetchone() == (0,)


def test_it_is_psycopgs_pool_by_type_and_lends_in_blocks_only(shop: Shop) -> None:
    with create_lakebase_pool(shop.config, name="scoped", max_size=3) as pool:
        scoped = UserScopedPool(pool)
        assert isinstance(scoped, psycopg_pool.ConnectionPool)
        assert issubclass(AsyncUserScopedPool, psycopg_pool.AsyncConnectionPool)
        assert (scoped.name, scoped.max_size, scoped.closed) == ("scoped", 3, False)
        with pytest.raises(psycopg.NotSupportedError, match="Use connection"):
            scoped.getconn()
