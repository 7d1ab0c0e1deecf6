"""What a language model's SQL can and cannot do, each tried on a real server as a user of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors

from lakebase import (
    AsyncLakebasePoolManager,
    AsyncRoutingPool,
    ConfigurationError,
    IdentityError,
    LakebasePoolManager,
    QueryResult,
    RoutingPool,
    UserIdentity,
    UserScopedPool,
    aread_only_query,
    create_async_lakebase_pool,
    create_lakebase_pool,
    read_only_query,
)
from pooling import RequestContext

ANN = "ann@sql.example"
BOB = "bob@sql.example"
OWN = "select body from sql_notes order by body"


@pytest.fixture(scope="module")
def owner(lakebase_local) -> Iterator[psycopg.Connection]:
    lake = lakebase_local
    admin = {**lake.config().connect_kwargs(), "password": lake.mint(lake.admin_user), "autocommit": True}
    with psycopg.connect(**admin) as connection:
        yield connection


@pytest.fixture(scope="module")
def notes(owner, lakebase_local) -> Iterator[None]:
    for user in (ANN, BOB):
        lakebase_local.add_user(user)
    owner.execute(f"""
        create table sql_notes (id serial, owner text not null default current_user, body text);
        insert into sql_notes (owner, body) values ('{ANN}', 'hers'), ('{BOB}', 'his');
        alter table sql_notes enable row level security;
        create policy own on sql_notes using (owner = current_user);
        grant select, insert, update, delete on sql_notes to public;
        grant usage on sequence sql_notes_id_seq to public;
        create table sql_secrets (secret text);
        create table sql_written (word text);
        create function sql_write(word text) returns text language sql security definer
            as 'insert into sql_written values ($1) returning word';
        create function sql_try(statement text) returns text language plpgsql as 'begin execute $1; return $1; end';
        create function sql_forever() returns text language plpgsql immutable
            as $$ begin return set_config('statement_timeout', '0', false); end $$;
    """)
    yield
    owner.execute("""
        drop function sql_write, sql_try, sql_forever;
        drop table sql_notes, sql_secrets, sql_written;
    """)


@pytest.fixture(scope="module")
def manager(lakebase_local) -> Iterator[LakebasePoolManager]:
    with LakebasePoolManager(lakebase_local.config(), max_total=4) as manager:
        yield manager


@pytest.fixture
def pool(manager, notes, lakebase_local) -> Any:
    return manager.for_user(UserIdentity(ANN, lakebase_local.token(ANN)))


def sees(pool: Any) -> dict[str, str]:
    """The session that the next borrower of the pool finds."""
    with pool.connection() as connection:
        row = connection.execute("""
            select current_user, session_user, current_setting('transaction_read_only') as read_only,
                current_setting('statement_timeout') as timeout, current_setting('work_mem') as memory,
                (select count(*) from pg_locks where pid = pg_backend_pid() and locktype = 'advisory') as locks,
                (select count(*) from pg_cursors where name like 'lakebase%') as cursors
        """)
        return dict(zip([column.name for column in row.description], row.fetchone(), strict=True))


def test_a_query_sees_what_its_user_may(pool):
    assert read_only_query(pool, OWN) == QueryResult(columns=["body"], rows=[("hers",)])
    assert read_only_query(pool, "table sql_notes;").rows == [(1, ANN, "hers")]
    assert read_only_query(pool, "with n as (select 1) select '100%s', '%(a)s', * from n").rows == [
        ("100%s", "%(a)s", 1)
    ]
    with pytest.raises(errors.InsufficientPrivilege):
        read_only_query(pool, "select * from sql_secrets")


def test_a_query_without_rows_has_its_columns(pool):
    assert read_only_query(pool, "select 1 as a, 2 as b where false") == QueryResult(columns=["a", "b"], rows=[])


WRITES = [
    ("insert into sql_notes (body) values ('x')", errors.SyntaxError),
    ("delete from sql_notes returning body", errors.SyntaxError),
    ("with gone as (delete from sql_notes returning body) select * from gone", errors.FeatureNotSupported),
    ("select body into sql_copy from sql_notes", errors.SyntaxError),
    ("select body from sql_notes for update", errors.ReadOnlySqlTransaction),
    ("select nextval('sql_notes_id_seq')", errors.ReadOnlySqlTransaction),
    ("select setval('sql_notes_id_seq', 99)", (errors.ReadOnlySqlTransaction, errors.InsufficientPrivilege)),
    ("select sql_write('x')", errors.ReadOnlySqlTransaction),
    ("select sql_try('insert into sql_notes (body) values (1)')", errors.ReadOnlySqlTransaction),
    ("select query_to_xml('delete from sql_notes', true, true, '')", errors.DatabaseError),
    ("select lo_from_bytea(0, 'x')", errors.ReadOnlySqlTransaction),
]
NOT_ONE_QUERY = [
    "select 1; drop table sql_notes",
    "select 1; commit; drop table sql_notes",
    "commit",
    "commit; drop table sql_notes",
    "rollback and chain",
    "begin",
    "set transaction read write",
    "set session characteristics as transaction read write",
    "set role none",
    "reset all",
    "do $$ begin commit; delete from sql_notes; end $$",
    "call sql_try('commit')",
    "copy sql_notes to program 'touch /tmp/escaped'",
    "copy (select 1) to stdout",
    "copy sql_notes from stdin",
    "explain analyze delete from sql_notes",
    "prepare escape as delete from sql_notes",
    "declare escape cursor with hold for select 1",
    "listen escape",
    "lock table sql_notes",
    "",
    "/* select 1 */",
    "select 1 /*",
]
LEAVES = [
    ("select set_config('transaction_read_only', 'off', true)", errors.ActiveSqlTransaction),
    ("select sql_try('set transaction read write')", errors.ActiveSqlTransaction),
    ("select sql_try('commit')", errors.FeatureNotSupported),
    ("select sql_try('set local session authorization default; end')", errors.FeatureNotSupported),
    (f"select set_config('role', '{BOB}', false)", errors.DatabaseError),
    (f"select set_config('session_authorization', '{BOB}', false)", errors.DatabaseError),
    ("select pg_read_file('/etc/passwd')", errors.InsufficientPrivilege),
    ("select lo_export(1, '/tmp/escaped')", errors.InsufficientPrivilege),
    ("select * from dblink('dbname=postgres', 'drop table sql_notes') as t(x text)", errors.UndefinedFunction),
]


@pytest.mark.parametrize(("sql", "error"), [*WRITES, *LEAVES])
def test_the_server_refuses(pool, owner, sql, error):
    before = owner.execute("select body, last_value from sql_notes, sql_notes_id_seq order by 1").fetchall()
    with pytest.raises(error):
        read_only_query(pool, sql)
    assert owner.execute("select body, last_value from sql_notes, sql_notes_id_seq order by 1").fetchall() == before
    assert owner.execute("select count(*) from sql_written").fetchone() == (0,)
    assert sees(pool)["read_only"] == "off"  # the refusal is of the query, not of its connection


@pytest.mark.parametrize("sql", NOT_ONE_QUERY)
def test_what_is_not_one_query_is_refused(pool, owner, sql):
    with pytest.raises(errors.SyntaxError):
        read_only_query(pool, sql)
    assert owner.execute("select count(*) from sql_notes").fetchone() == (2,)


@pytest.mark.parametrize(
    "sql",
    [
        "select set_config('default_transaction_read_only', 'off', false)",
        "select set_config('statement_timeout', '0', false), set_config('work_mem', '64kB', false)",
        "select pg_advisory_lock(42)",
        "select pg_notify('escape', 'x')",
        "select set_config('app.user', 'bob', false)",
    ],
)
def test_what_a_query_leaves_in_the_session_is_cleared(pool, sql):
    before = sees(pool)
    assert len(read_only_query(pool, sql).rows) == 1
    assert sees(pool) == before


def test_a_query_ends_with_its_timeout(pool):
    with pytest.raises(errors.QueryCanceled):
        read_only_query(pool, "select pg_sleep(60)", timeout=0.1)
    assert sees(pool)["timeout"] == "0"


@pytest.mark.parametrize("setting", ["set_config('statement_timeout', '0', true)", "sql_forever()"])
def test_no_query_can_lift_its_timeout(pool, setting):
    with pytest.raises(errors.QueryCanceled):
        read_only_query(pool, f"select {setting}, pg_sleep(60) from generate_series(1, 2)", timeout=0.2)


def test_a_query_may_end_sessions_of_its_own_user_and_no_others(pool, owner):
    with pytest.raises(errors.InsufficientPrivilege):
        read_only_query(pool, f"select pg_terminate_backend({owner.info.backend_pid})")
    with pytest.raises(psycopg.OperationalError):
        read_only_query(pool, "select pg_terminate_backend(pg_backend_pid())")
    assert read_only_query(pool, OWN).rows == [("hers",)]


def test_further_rows_are_left_out(pool):
    endless = "select generate_series(1, 1000000000)"
    result = read_only_query(pool, endless, max_rows=3)
    assert (result.rows, result.truncated) == ([(1,), (2,), (3,)], "max_rows")
    exactly = read_only_query(pool, "select n from generate_series(1, 3) n", max_rows=3)
    assert (len(exactly.rows), exactly.truncated) == (3, None)


def test_further_bytes_are_left_out(pool):
    wide = "select repeat('x', 1000) from generate_series(1, 1000)"
    result = read_only_query(pool, wide, max_rows=1000, max_bytes=2500)
    assert (len(result.rows), result.truncated) == (2, "max_bytes")
    assert read_only_query(pool, "select repeat('é', 50)", max_bytes=100).truncated is None  # bytes, not letters
    assert sees(pool)["cursors"] == 0


def test_the_result_is_json_for_a_model(pool):
    sql = """
        select 1 as a, 'é' as b, null as c, 1.50::numeric as d, date '2026-01-02' as e, 'NaN'::float8 as f,
            array[1, 2] as g, '{"k": [true]}'::jsonb as h, '\\x00ff'::bytea as i, 0.5::float8 as a
    """
    assert json.loads(read_only_query(pool, sql).to_json()) == {
        "columns": ["a", "b", "c", "d", "e", "f", "g", "h", "i", "a"],
        "rows": [[1, "é", None, "1.50", "2026-01-02", "nan", [1, 2], {"k": [True]}, "\\x00ff", 0.5]],
        "truncated": None,
    }


def test_the_connection_comes_back_as_it_was(lakebase_local, notes):
    configured = []

    def configure(connection: psycopg.Connection) -> None:
        connection.execute("set work_mem = '1MB'")
        connection.commit()
        configured.append(connection)

    for more in ({}, {"session_reset": "discard"}, {"kwargs": {"autocommit": True, "prepare_threshold": 0}}):
        with create_lakebase_pool(lakebase_local.config(ANN), max_size=1, configure=configure, **more) as pool:
            for _ in range(2):
                read_only_query(pool, "select set_config('work_mem', '64kB', false)")
            assert sees(pool)["memory"] == "1MB"
            with pool.connection() as connection:
                assert connection.autocommit == ("kwargs" in more)
    assert configured


def test_a_pool_of_another_user_is_refused(manager, lakebase_local, notes):
    with create_lakebase_pool(lakebase_local.config()) as app_pool:
        routing = RoutingPool(app_pool, manager.for_user, allow_app_in_requests=True)
        with pytest.raises(IdentityError, match="the app's rights"):
            read_only_query(routing, OWN)
        with RequestContext(), pytest.raises(IdentityError, match="the app's rights"):
            read_only_query(routing, OWN)
        with RequestContext(identity=UserIdentity(BOB, lakebase_local.token(BOB))):
            assert read_only_query(routing, OWN).rows == [("his",)]
        with pytest.raises(ConfigurationError, match=r"UserScopedPool.*manager\.for_user"):
            read_only_query(UserScopedPool(app_pool), OWN)
    with pytest.raises(ConfigurationError, match="aread_only_query takes that one"):
        read_only_query(create_async_lakebase_pool(lakebase_local.config()), OWN)


@pytest.mark.parametrize("limit", [{"max_rows": 0}, {"max_bytes": True}, {"timeout": 0}, {"timeout": float("inf")}])
def test_an_impossible_limit_is_refused_by_its_name(pool, limit):
    with pytest.raises(ConfigurationError, match=next(iter(limit))):
        read_only_query(pool, OWN, **limit)


@pytest.mark.parametrize("pooled", [False, True])
def test_it_works_with_a_password_through_the_pooler_too(lakebase_local, notes, pooled):
    lake = lakebase_local
    if pooled and lake.pooled_host is None:
        pytest.skip("no PgBouncer on this machine")
    lake.add_password_role("sql_reader", "r3ad-pw")
    config = lake.config("sql_reader", password="r3ad-pw", pooled=pooled, max_size=1, transaction_mode_guard=pooled)
    with create_lakebase_pool(config, schema="sql_shop") as pool:
        searched = read_only_query(pool, "select current_setting('search_path')")
        assert searched.rows[0][0].replace('"', "") == "sql_shop, public"
        assert read_only_query(pool, "select count(*) from sql_notes").rows == [(0,)]
        with pytest.raises(errors.ReadOnlySqlTransaction):
            read_only_query(pool, "select sql_write('x')")
        with pytest.raises(errors.SyntaxError):
            read_only_query(pool, "commit; select 1")


class TestAsyncio:
    @pytest.fixture
    async def pools(self, lakebase_local, notes):
        async with AsyncLakebasePoolManager(lakebase_local.config(), max_total=4) as pools:
            yield pools

    @pytest.fixture
    def pool(self, pools, lakebase_local):
        return pools.for_user(UserIdentity(ANN, lakebase_local.token(ANN)))

    async def test_queries_of_two_users_see_their_own(self, pools, lakebase_local):
        async with create_async_lakebase_pool(lakebase_local.config()) as app_pool:
            routing = AsyncRoutingPool(app_pool, pools.for_user)

            async def ask(user: str) -> list[Any]:
                async with RequestContext(identity=UserIdentity(user, lakebase_local.token(user))):
                    return (await aread_only_query(routing, OWN)).rows

            assert await asyncio.gather(ask(ANN), ask(BOB)) == [[("hers",)], [("his",)]]
            with pytest.raises(IdentityError):
                await aread_only_query(routing, OWN)

    async def test_the_limits_hold(self, pool):
        endless = "select repeat('x', 1000), generate_series(1, 1000000000)"
        assert len((await aread_only_query(pool, endless, max_rows=3)).rows) == 3
        assert (await aread_only_query(pool, endless, max_bytes=1500)).truncated == "max_bytes"
        with pytest.raises(errors.QueryCanceled):
            await aread_only_query(pool, "select pg_sleep(60)", timeout=0.1)
        with pytest.raises(errors.SyntaxError):
            await aread_only_query(pool, "commit; drop table sql_notes")
        with pytest.raises(ConfigurationError, match="read_only_query takes that one"):
            await aread_only_query(create_lakebase_pool(pool.config), "select 1")

    async def test_a_cancelled_query_is_cancelled_on_the_server(self, pool, owner):
        task = asyncio.create_task(aread_only_query(pool, "select pg_sleep(60)", timeout=100))
        running = "select count(*) from pg_stat_activity where state = 'active' and query like 'FETCH%%' and usename=%s"
        async with asyncio.timeout(30):
            while owner.execute(running, [ANN]).fetchone() == (0,):
                await asyncio.sleep(0.01)  # sleeps: until the server says that the query runs
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert owner.execute(running, [ANN]).fetchone() == (0,)
        assert (await aread_only_query(pool, OWN)).rows == [("hers",)]
