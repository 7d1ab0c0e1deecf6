"""What the next borrower of a connection finds: what `configure` left, whatever the last one did."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import IsolationLevel
from psycopg.rows import dict_row, tuple_row

from lakebase import ConfigurationError
from tests.dropin.parts import Pools, ask, connection, enter, leave, on_both, pid, transaction, wait


class _Cursor(psycopg.Cursor):
    pass


class _AsyncCursor(psycopg.AsyncCursor):
    pass


@contextlib.contextmanager
def sent(conn) -> Iterator[list[str]]:
    """The messages that libpq sends to the server in the block."""
    messages: list[str] = []
    pgconn = conn.pgconn
    with tempfile.TemporaryFile() as file:
        pgconn.trace(file.fileno())
        yield messages
        pgconn.untrace()
        file.seek(0)
        messages += re.findall(r"\tF\t\d+\t(.*)", file.read().decode())


def _ignore(_: object) -> None:
    """A handler."""


DRIVER_STATE = {
    "autocommit": True,
    "isolation_level": IsolationLevel.SERIALIZABLE,
    "read_only": True,
    "deferrable": True,
    "row_factory": dict_row,
    "cursor_factory": (_Cursor, _AsyncCursor),
    "prepare_threshold": 0,
    "prepared_max": 3,
}


async def _set(side, conn, name):
    value = DRIVER_STATE[name]
    if isinstance(value, tuple):
        value = value[side.name != "threads"]
    if hasattr(conn, f"set_{name}"):
        await wait(getattr(conn, f"set_{name}")(value))
    else:
        setattr(conn, name, value)


@pytest.mark.parametrize("name", DRIVER_STATE)
@on_both
async def test_the_drivers_settings_are_put_back_without_a_round_trip(side, lakebase_local, name):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1)
        async with connection(pool) as conn:
            before, backend = getattr(conn, name), conn.info.backend_pid
        with sent(conn) as messages:
            async with connection(pool) as conn:
                await _set(side, conn, name)
                assert getattr(conn, name) != before
            async with connection(pool) as conn:
                assert getattr(conn, name) == before
                assert conn.info.backend_pid == backend
        assert messages == []


@on_both
async def test_what_configure_sets_stays(side, lakebase_local):
    async def configure(conn):
        for name in DRIVER_STATE:
            await _set(side, conn, name)
        conn.add_notice_handler(_ignore)

    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1, configure=configure)
        for _ in range(2):
            async with connection(pool) as conn:
                assert conn.autocommit
                assert conn.isolation_level is IsolationLevel.SERIALIZABLE
                assert conn.row_factory is dict_row
                await wait(conn.set_autocommit(False))
                await wait(conn.set_isolation_level(None))
                conn.row_factory = tuple_row


@on_both
async def test_a_failed_transaction_of_the_next_borrower_is_not_committed(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1)
        async with connection(pool) as conn:
            await wait(conn.execute("create temp table rows_seen (n int)"))
            await wait(conn.commit())
            await wait(conn.set_autocommit(True))
        with pytest.raises(ZeroDivisionError):
            async with connection(pool) as conn:
                await wait(conn.execute("insert into rows_seen values (1)"))
                raise ZeroDivisionError
        async with connection(pool) as conn:
            assert await ask(conn, "select count(*) from rows_seen") == 0


@on_both
async def test_handlers_and_notifications_of_a_borrower_go_with_it(side, lakebase_local):
    seen: list[object] = []
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1)
        async with connection(pool) as conn:
            conn.add_notice_handler(seen.append)
            conn.add_notify_handler(seen.append)
            await wait(conn.execute("listen noise"))
        async with connection(pool) as conn:
            await wait(conn.execute("do $$ begin raise notice 'to nobody'; end $$"))
            await wait(conn.execute("notify noise, 'old'"))
            await wait(conn.commit())
            await wait(conn.execute("select 1"))
        assert seen == []
        async with connection(pool) as conn:
            if side.name == "threads":
                assert list(conn.notifies(timeout=0)) == []
            else:
                assert [each async for each in conn.notifies(timeout=0)] == []


@on_both
async def test_a_block_that_was_entered_and_not_left_costs_the_connection(side, lakebase_local, caplog):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1)
        conn = await wait(pool.getconn())
        before = conn.info.backend_pid
        block = conn.transaction()
        await enter(block)
        await wait(conn.execute("rollback"))
        await wait(pool.putconn(conn))
        assert "has not ended" in caplog.text
        with contextlib.suppress(psycopg.Error):
            await leave(block)
        assert await pid(pool) != before
        async with connection(pool) as conn, transaction(conn):
            await wait(conn.execute("select 1"))


@on_both
async def test_a_two_phase_transaction_that_has_not_ended_costs_the_connection(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1)
        conn = await wait(pool.getconn())
        before = conn.info.backend_pid
        await wait(conn.tpc_begin("left"))
        await wait(pool.putconn(conn))
        assert await pid(pool) != before


SESSION_STATE = {
    "a setting": ("set statement_timeout = '7s'", "select current_setting('statement_timeout')", "0"),
    "a setting of the app": (
        "select set_config('app.user', 'ann', false)",
        "select coalesce(current_setting('app.user', true), '')",
        "",
    ),
    "the search path": ("set search_path = pg_temp", "select current_setting('search_path')", '"$user", public'),
    "a role": ("set role dropin_other", "select current_user", "dropin@corp.example"),
    "a temporary table": ("create temp table mine ()", "select to_regclass('mine')", None),
    "a lock": (
        "select pg_advisory_lock(11)",
        "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
        0,
    ),
    "a channel": ("listen mine", "select count(*) from pg_listening_channels()", 0),
    "a held cursor": ("declare mine cursor with hold for select 1", "select count(*) from pg_cursors", 0),
    "a prepared statement": (
        'prepare "my own" as select 1',
        "select count(*) from pg_prepared_statements where from_sql",
        0,
    ),
    # A session keeps ten numbers of it; the next session's first one is the first of ten again.
    "a sequence's numbers": ("select nextval('dropin_numbers')", "select mod(nextval('dropin_numbers'), 10)", 1),
}


@pytest.fixture(scope="module")
def other_role(lakebase_local):
    lake = lakebase_local
    admin = {**lake.config().connect_kwargs(), "password": lake.mint(lake.admin_user), "autocommit": True}
    lake.add_password_role("dropin@corp.example", "secret of the drop-in tests")
    with psycopg.connect(**admin) as conn:
        conn.execute("create role dropin_other")
        conn.execute('grant dropin_other to "dropin@corp.example"')
        conn.execute("create sequence dropin_numbers cache 10")
        conn.execute('grant usage on sequence dropin_numbers to "dropin@corp.example"')


@pytest.mark.parametrize("ends", ["in the block's commit", "by hand", "in autocommit", "in the block's rollback"])
@pytest.mark.parametrize("kind", SESSION_STATE)
@on_both
async def test_a_reset_session_has_nothing_of_the_last_borrower(side, lakebase_local, other_role, kind, ends):
    leave, look, found = SESSION_STATE[kind]
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1, session_reset="discard")
        before = await pid(pool)
        try:
            async with connection(pool) as conn:
                if ends == "in autocommit":
                    await wait(conn.set_autocommit(True))
                await wait(conn.execute(leave))
                if ends in ("by hand", "in the block's rollback"):
                    await wait(conn.commit())
                if ends == "in the block's rollback":
                    await wait(conn.execute("select 1"))
                    raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        async with connection(pool) as conn:
            assert conn.info.backend_pid == before
            assert await ask(conn, look) == found


@on_both
async def test_a_connection_whose_session_cannot_be_cleared_is_replaced(side, lakebase_local, other_role):
    server = {"host": str(lakebase_local.socket_directory), "dbname": lakebase_local.config().database}
    with psycopg.connect(**server, user="postgres", autocommit=True) as superuser:
        async with Pools(side, lakebase_local) as pools:
            pool = await pools.open(max_size=1, session_reset="discard")
            before = await pid(pool)
            superuser.execute("revoke execute on function pg_advisory_unlock_all() from public")
            try:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    async with connection(pool) as conn:
                        await wait(conn.execute("select set_config('app.user', 'ann', false)"))
            finally:
                superuser.execute("grant execute on function pg_advisory_unlock_all() to public")
            async with connection(pool) as conn:
                assert conn.info.backend_pid != before
                assert await ask(conn, "select coalesce(current_setting('app.user', true), '')") == ""
            assert not conn.autocommit


@on_both
async def test_a_session_is_reset_in_the_round_trip_that_commits(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1, session_reset="discard")
        block = pool.connection()
        conn = await enter(block)
        await wait(conn.execute("select 1"))
        with sent(conn) as messages:
            await leave(block)
        assert len(messages) == 1
        assert messages[0].startswith("Query\t")
        assert "COMMIT; " in messages[0]


@on_both
async def test_a_reset_session_keeps_the_drivers_prepared_statements(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1, session_reset="discard")
        for _ in range(12):
            async with connection(pool) as conn:
                assert await ask(conn, "select 1 + %s", 1) == 2
        async with connection(pool) as conn:
            assert await ask(conn, "select count(*) from pg_prepared_statements") > 0


@pytest.mark.parametrize("statement", ["discard all", "deallocate all"])
@on_both
async def test_a_reset_that_discards_all_does_not_break_prepared_statements(side, lakebase_local, statement):
    async def reset(conn):
        await wait(conn.set_autocommit(True))
        await wait(conn.execute(statement))

    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1, reset=reset)
        before = await pid(pool)
        for _ in range(15):
            async with connection(pool) as conn:
                for _ in range(3):
                    assert await ask(conn, "select 1 + %s", 1) == 2
        assert await pid(pool) == before


@on_both
async def test_configure_is_called_again_after_the_session_was_reset(side, lakebase_local):
    async def configure(conn):
        await wait(conn.set_autocommit(True))
        await wait(conn.execute("select set_config('app.tenant', 'blue', false)"))
        await wait(conn.execute("create temp table if not exists scratch ()"))

    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1, session_reset="discard", configure=configure)
        for _ in range(2):
            async with connection(pool) as conn:
                assert await ask(conn, "select current_setting('app.tenant')") == "blue"
                assert await ask(conn, "select to_regclass('scratch') is not null")
                await wait(conn.execute("set app.tenant = 'red'"))
                await wait(conn.execute("drop table scratch"))


@on_both
async def test_a_commit_that_fails_is_raised_and_the_session_is_reset_all_the_same(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1, session_reset="discard")
        with pytest.raises(psycopg.errors.UniqueViolation):
            async with connection(pool) as conn:
                await wait(conn.execute("create temp table once (n int unique deferrable initially deferred)"))
                await wait(conn.commit())
                await wait(conn.execute("set statement_timeout = '7s'"))
                await wait(conn.commit())
                await wait(conn.execute("insert into once values (1), (1)"))
        async with connection(pool) as conn:
            assert await ask(conn, "select current_setting('statement_timeout')") == "0"
            assert await ask(conn, "select to_regclass('once')") is None


@on_both
async def test_an_unknown_way_to_reset_is_refused(side, lakebase_local):
    with pytest.raises(ConfigurationError, match="session_reset='all': expected 'discard'"):
        Pools(side, lakebase_local).kind("", open=False, session_reset="all")


@on_both
async def test_a_connection_that_was_given_back_refuses_its_last_borrower(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1, check_handles=True)
        async with connection(pool) as kept:
            cursor = await wait(kept.execute("select 1"))
            assert isinstance(kept, pool.connection_class)
            assert kept.info.backend_pid
        async with connection(pool) as conn:
            for use in (lambda: kept.execute("rollback"), kept_commit(kept), lambda: cursor.execute("select 2")):
                with pytest.raises(psycopg.InterfaceError, match=f"given back to the pool '{pool.name}'"):
                    await wait(use())
            assert await ask(conn, "select 3") == 3
        with pytest.raises(ValueError):
            await wait(pool.putconn(kept))
        assert "given back" in repr(kept)
        assert isinstance(kept, pool.connection_class)


def kept_commit(conn):
    """A use by another name than `execute`."""
    return lambda: conn.commit()


@on_both
async def test_checked_handles_cost_no_connection(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=2, check_handles=True, session_reset="discard")
        before = {await pid(pool) for _ in range(5)}
        with pytest.raises(ZeroDivisionError):
            async with connection(pool) as conn:
                await wait(conn.set_autocommit(True))
                raise ZeroDivisionError
        conn = await wait(pool.getconn())
        await wait(pool.putconn(conn))
        assert len(before) == 1
        assert {await pid(pool) for _ in range(5)} == before
        assert pool.service.borrowed == 0
