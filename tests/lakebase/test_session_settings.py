"""A schema and time limits: in force from a session's start, and through the pooler from a transaction's."""

from __future__ import annotations

import math
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from lakebase import (
    ConfigurationError,
    LakebasePool,
    LakebasePoolConfig,
    LakebasePoolManager,
    create_async_lakebase_pool,
    create_lakebase_pool,
    lakebase_pg_config,
)
from lakebase._session_settings import parsed_options, with_options
from lakebase.drivers import lakebase_orm_config

GIVEN = {"schema": "Sales", "statement_timeout": 4.5, "idle_in_transaction_timeout": math.inf, "lock_timeout": 0.25}
SHOWN = ('"Sales", public', "4500ms", "0", "250ms")
SHOW = (
    "SELECT current_setting('search_path'), current_setting('statement_timeout'), "
    "current_setting('idle_in_transaction_session_timeout'), current_setting('lock_timeout')"
)


@pytest.fixture
def pooled(lakebase_local) -> LakebasePoolConfig:
    """A configuration for the pooler, with the settings."""
    if lakebase_local.pooled_host is None:
        pytest.skip(f"no PgBouncer on this machine: {lakebase_local.why_no_pooler}")
    lakebase_local.add_password_role("settled", "native")
    return lakebase_local.config("settled", password="native", pooled=True, **GIVEN)


# --- a direct connection ----------------------------------------------------------------------------------------------


def test_a_session_begins_with_them_and_goes_back_to_them(lakebase_user) -> None:
    config = lakebase_user.config(**GIVEN, libpq_params={"options": "-c work_mem=1MB -c lock_timeout=7"})
    with create_lakebase_pool(config, session_reset="discard", max_size=1) as pool:
        with pool.connection() as connection:
            connection.execute("SET statement_timeout = 1")
            connection.execute("SET search_path = public")
        with pool.connection() as connection:
            assert connection.execute(SHOW).fetchone() == SHOWN
            assert connection.execute("SHOW work_mem").fetchone() == ("1MB",)
        assert pool.schema == "Sales"


async def test_so_it_does_in_asyncio_with_options_of_the_pools_own(lakebase_user) -> None:
    pool = create_async_lakebase_pool(lakebase_user.config(**GIVEN), kwargs={"options": "-c work_mem=1MB"})
    async with pool, pool.connection() as connection:
        assert await (await connection.execute(SHOW)).fetchone() == SHOWN
        assert await (await connection.execute("SHOW work_mem")).fetchone() == ("1MB",)


def test_a_users_pool_has_those_of_the_base(lakebase_user) -> None:
    base = {**GIVEN, "schema": None}
    with LakebasePoolManager(lakebase_user.config(**base)) as manager:
        pool = manager.get_pool("ann", {"schema": "hers"})
        with pool.connection() as connection:
            assert connection.execute(SHOW).fetchone() == ('"hers", public', *SHOWN[1:])


@pytest.mark.parametrize("name", ["public", "with space", 'qu"ote', "back\\slash", "über", "$user"])
def test_a_schema_is_taken_by_its_name_whatever_that_is(lakebase_user, name: str) -> None:
    with create_lakebase_pool(lakebase_user.config(schema=name)) as pool, pool.connection() as connection:
        (path,) = connection.execute("SHOW search_path").fetchone() or ("",)
        quoted = sql.Identifier(name).as_string(connection)
        assert path == (quoted if name == "public" else f"{quoted}, public")


@given(st.dictionaries(st.sampled_from(["a", "b.c", "search_path"]), st.text(min_size=1), min_size=1))
def test_what_is_put_into_options_is_found_there(settings: dict[str, str]) -> None:
    options = with_options("-c a=first --d=1", settings)
    assert parsed_options(options) == {"a": "first", "d": "1", **settings}


def test_options_that_are_no_settings_are_told(lakebase_user) -> None:
    with pytest.raises(ConfigurationError, match="no settings of the form"):
        lakebase_pg_config(lakebase_user.config(libpq_params={"options": "-F"}), driver="asyncpg")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, value) for name in list(GIVEN)[1:] for value in (0, -1, True, "5", float("nan"), 1e-4, 3e6)),
        *(("schema", value) for value in ("", " ", "x" * 64, "ü" * 32, "pg_temp", 5, "a\0b")),
        ("create_schema", True),
        ("create_schema", "yes"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigurationError) as refused:
        LakebasePoolConfig(**{field: value})
    assert refused.value.field == field


# --- through the pooler -----------------------------------------------------------------------------------------------


def test_through_the_pooler_each_transaction_begins_with_them_and_no_other_has_them(pooled) -> None:
    plain = pooled.merged({**dict.fromkeys(GIVEN), "user": "settled", "password": "native"})
    with create_lakebase_pool(pooled) as pool, create_lakebase_pool(plain) as other:
        for _ in range(3):
            with pool.connection() as connection:
                assert connection.execute(SHOW).fetchone() == SHOWN
                connection.commit()
                assert connection.execute(SHOW).fetchone() == SHOWN
            with other.connection() as connection:
                assert connection.execute(SHOW).fetchone() == ('"$user", public', "0", "0", "0")


def test_the_drivers_other_ways_into_a_transaction_have_them_too(pooled) -> None:
    with create_lakebase_pool(pooled, connection_class=psycopg.Connection[tuple[Any, ...]]) as pool:
        with pool.connection() as connection:
            assert isinstance(connection, psycopg.Connection)
            connection.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            assert connection.execute("SHOW lock_timeout").fetchone() == ("250ms",)
        with pool.connection() as connection:
            connection.autocommit = True
            assert connection.execute("SHOW lock_timeout").fetchone() == ("0",)
            with connection.transaction(), connection.transaction():
                assert connection.execute(SHOW).fetchone() == SHOWN
        with pool.connection() as connection, connection.pipeline():
            assert connection.execute(SHOW).fetchone() == SHOWN
        with pool.connection() as connection:
            connection.read_only = True
            assert connection.execute("SHOW transaction_read_only").fetchone() == ("on",)
            assert connection.execute(SHOW).fetchone() == SHOWN


async def test_so_it_is_in_asyncio(pooled) -> None:
    async with create_async_lakebase_pool(pooled) as pool:
        for _ in range(2):
            async with pool.connection() as connection:
                assert await (await connection.execute(SHOW)).fetchone() == SHOWN


def test_beginning_so_takes_no_further_round_trip(pooled, tmp_path) -> None:
    plain = pooled.merged({**dict.fromkeys(GIVEN), "user": "settled", "password": "native"})
    answers = []
    for config in (plain, pooled):
        with create_lakebase_pool(config) as pool, pool.connection() as connection:
            with (tmp_path / "trace").open("w+") as trace:
                connection.pgconn.trace(trace.fileno())
                connection.execute("SELECT 1")
                connection.pgconn.untrace()
                answers.append((tmp_path / "trace").read_text().count("ReadyForQuery"))
    assert answers == [2, 2]


def test_a_time_limit_cancels_and_leaves_a_connection_that_works(pooled) -> None:
    with create_lakebase_pool(pooled, statement_timeout=0.05, max_size=1) as pool:
        with pytest.raises(psycopg.errors.QueryCanceled), pool.connection() as connection:
            connection.execute("SELECT pg_sleep(10)")
        with pool.connection() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_driver_that_connects_by_itself_cannot_have_them_through_the_pooler(pooled) -> None:
    with pytest.raises(ConfigurationError, match="search_path, statement_timeout"):
        lakebase_pg_config(pooled)
    assert "options" in lakebase_pg_config(pooled.direct_config())


# --- other drivers ----------------------------------------------------------------------------------------------------


async def test_other_drivers_have_them(lakebase_user) -> None:
    config = lakebase_user.config(**GIVEN)
    with psycopg.connect(**lakebase_pg_config(config)) as connection:
        assert connection.execute(SHOW).fetchone() == SHOWN
    asyncpg = pytest.importorskip("asyncpg")
    connection = await asyncpg.connect(**lakebase_pg_config(config, driver="asyncpg"))
    assert tuple(await connection.fetchrow(SHOW)) == SHOWN
    await connection.close()
    with pytest.raises(ConfigurationError, match="schema="):
        lakebase_orm_config(config.merged({"ssl_mode": "require"}), drivername="postgresql+asyncpg")
    assert "search_path" in lakebase_orm_config(config)["query"]["options"]


# --- a schema that is made --------------------------------------------------------------------------------------------


@pytest.fixture
def own(lakebase_local):
    """The app, which may make schemas, and a name for one."""
    admin = lakebase_local.config(max_size=4)
    yield admin.merged({"schema": "Its own", "create_schema": True})
    with LakebasePool(config=admin) as pool, pool.connection() as connection:
        connection.execute('DROP SCHEMA IF EXISTS "Its own" CASCADE')


def test_the_first_connection_makes_the_schema(own, lakebase_user) -> None:
    with create_lakebase_pool(own) as pool, pool.connection() as connection:
        connection.execute("CREATE TABLE thing (a int)")
        assert connection.execute("SELECT current_schema()").fetchone() == ("Its own",)
    # One who may not make it may use it.
    user = lakebase_user.config(schema="Its own", create_schema=True)
    with create_lakebase_pool(user) as pool, pool.connection() as connection:
        assert connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'Its own'").fetchone() == (1,)


async def test_connections_that_make_it_at_once_do_not_mind(own) -> None:
    async with create_async_lakebase_pool(own, min_size=4, max_creating=4) as pool:
        await pool.wait()
        assert pool.get_stats()["pool_size"] == 4
        assert "connections_errors" not in pool.get_stats()


def test_who_may_not_make_it_is_told_what_to_grant(lakebase_user) -> None:
    config = lakebase_user.config(schema="nobodys", create_schema=True)
    with create_lakebase_pool(config) as pool, pytest.raises(ConfigurationError) as refused:
        pool.getconn()
    grant = f'GRANT CREATE ON DATABASE "{config.database}" TO "{lakebase_user.name}"'
    assert grant in str(refused.value)
    assert refused.value.field == "create_schema"
