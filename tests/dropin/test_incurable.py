"""What trying again cannot cure is told at once, with its own words, once in the log, and without a secret."""

from __future__ import annotations

import errno
import traceback

import psycopg
import psycopg_pool
import pytest

from lakebase import CallbackError, LoginError
from lakebase.errors import ConnectFailure
from tests.dropin.parts import PASSWORD, Pools, ask, connection, on_asyncio, on_both, pid, wait

LONG = 30  # seconds: only a borrower that waits out its timeout would take them


async def failure(pool, kind=Exception):
    """What a borrower is told."""
    with pytest.raises(kind) as caught:
        await wait(pool.getconn(timeout=LONG))
    assert not isinstance(caught.value, psycopg_pool.PoolTimeout)
    assert isinstance(caught.value, psycopg.OperationalError), "as every failed connect is to psycopg_pool's users"
    return caught.value


def raises(error):
    def callback(*_):
        raise error

    return callback


@pytest.mark.parametrize("name", ["conninfo", "kwargs"])
@pytest.mark.parametrize("error", [KeyError("PGHOST"), ValueError("no port"), FileNotFoundError("no such secret")])
@on_both
async def test_a_mistake_in_the_arguments_callable(side, lakebase_local, caplog, name, error):
    async with Pools(side, lakebase_local) as pools:
        pools.dsn = raises(error) if name == "conninfo" else pools.dsn
        pool = await pools.open(**({"kwargs": raises(error)} if name == "kwargs" else {}))
        told = await failure(pool, CallbackError)
        assert told.__cause__ is error
        assert f"conninfo() or kwargs() failed with {type(error).__name__}: " in str(told)
        assert str(error).strip("'") in str(told)
        await failure(pool)
        assert caplog.text.count(" failed with ") == 1, "once in a series"


@pytest.mark.parametrize(
    "statement", ["wat", "select * from no_such_table", "select 1/0", "select 'x'::int", "set no_such_setting = 1"]
)
@on_both
async def test_a_statement_of_configure_that_the_server_does_not_accept(side, lakebase_local, statement):
    async def configure(conn):
        await wait(conn.set_autocommit(True))
        await wait(conn.execute(statement))

    async with Pools(side, lakebase_local) as pools:
        told = await failure(await pools.open(configure=configure), CallbackError)
        assert "configure() failed with" in str(told)
        assert told.__cause__.diag.message_primary in str(told)


@on_both
async def test_a_lost_connection_in_configure_is_tried_again(side, lakebase_local):
    seen = []

    async def configure(conn):
        seen.append(conn)
        if len(seen) == 1:
            await wait(conn.execute("select pg_terminate_backend(pg_backend_pid())"))

    async with Pools(side, lakebase_local) as pools:
        async with connection(await pools.open(configure=configure)) as conn:
            assert await ask(conn, "select 1") == 1
        assert len(seen) == 2


@on_both
async def test_a_mistake_in_check(side, lakebase_local):
    async def check(conn):
        conn.no_such_method()

    async with Pools(side, lakebase_local) as pools:
        told = await failure(await pools.open(check=check), CallbackError)
        assert "check() failed with AttributeError: " in str(told)
        assert "no_such_method" in str(told)


@pytest.mark.parametrize(
    ("parameter", "failing"),
    [
        ("channel_binding=require", ConnectFailure.BAD_PARAMETER),
        ("require_auth=scram-sha-256", ConnectFailure.BAD_PARAMETER),
        ("service=no_such_service", ConnectFailure.BAD_PARAMETER),
    ],
)
@on_both
async def test_a_parameter_that_the_server_cannot_meet(side, lakebase_local, parameter, failing):
    async with Pools(side, lakebase_local) as pools:
        pools.dsn += f" {parameter}"
        told = await failure(await pools.open(), LoginError)
        assert told.failure is failing


class _OnProactor(psycopg.AsyncConnection):
    """As on Windows' default event loop; the words are the driver's."""

    @classmethod
    async def connect(cls, *_, **__):
        raise psycopg.InterfaceError(
            "Psycopg cannot use the 'ProactorEventLoop' to run in async mode. Please use a compatible event loop"
        )


@on_asyncio
async def test_an_event_loop_that_the_driver_refuses(side, lakebase_local):
    async with Pools(side, lakebase_local) as pools:
        told = await failure(await pools.open(connection_class=_OnProactor), LoginError)
        assert told.failure is ConnectFailure.EVENT_LOOP
        assert "ProactorEventLoop" in str(told)


class _OutOfFiles(psycopg.Connection):
    @classmethod
    def connect(cls, *_, **__):
        raise psycopg.OperationalError('could not read root certificate file "/ca.pem": Too many open files')


class _AsyncOutOfFiles(psycopg.AsyncConnection):
    @classmethod
    async def connect(cls, *_, **__):
        raise OSError(errno.EMFILE, "Too many open files")


@on_both
async def test_too_many_open_files_may_pass(side, lakebase_local):
    kind = _OutOfFiles if side.name == "threads" else _AsyncOutOfFiles
    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(connection_class=kind)
        with pytest.raises(psycopg_pool.PoolTimeout, match=r"[Tt]oo many open files|OSError"):
            await wait(pool.getconn(timeout=0.3))


UNREADABLE = {
    "a SQLAlchemy URL": ("postgresql+psycopg://ann:{}@host/db", "drop `+psycopg`"),
    "an asyncpg URL": ("postgresql+asyncpg://ann:{}@host/db", "drop `+asyncpg`"),
    "asyncpg's parameter": ("postgresql://ann:{}@host/db?ssl=require", "write sslmode="),
    "a bad escape": ("postgresql://ann:{}%zz@host/db", "write %25"),
    "a bare @": ("postgresql://ann:x@{}@host/db", "write %40"),
    "a bare /": ("postgresql://ann:x/{}@host/db", "write %40 or %2F"),
    "a space": ("host=h user=ann password=my {} dbname=db", "needs quotes"),
    "an open quote": ("host=h user=ann password='{}", "quote"),
    "a misspelt name": ("host=h pasword={}", "does not know"),
    "another kind of URL": ("mysql://ann:{}@host/db", "write postgresql://"),
    "a command": ("psql postgresql://ann:{}@host/db", "cannot be read"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("is_callable", [False, True])
@on_both
async def test_a_connection_string_that_cannot_be_read_is_told_without_a_piece_of_it(
    side, lakebase_local, caplog, kind, is_callable
):
    text, advice = UNREADABLE[kind]
    secret = "hunter2"
    caplog.set_level("DEBUG")
    async with Pools(side, lakebase_local) as pools:
        pools.dsn = (lambda: text.format(secret)) if is_callable else text.format(secret)
        pool = await pools.open()
        told = await failure(pool, LoginError)
        assert told.failure is ConnectFailure.BAD_CONNINFO
        assert advice in str(told)
        shown = "".join(traceback.format_exception(told)) + caplog.text + repr(pool)

        assert secret not in shown


@on_both
async def test_a_value_of_a_parameter_that_cannot_be_is_not_repeated(side, lakebase_local, caplog):
    async with Pools(side, lakebase_local) as pools:
        pools.dsn = "host=127.0.0.1 dbname=d user=ann sslmode=hunter2"
        assert "hunter2" not in str(await failure(await pools.open(), LoginError))
        assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    "text", ["postgresql://ann:p%40ss:wd?@h:5433/d", "postgresql://h1:1,h2:2/d?user=a@b", "host=h password='a b'", ""]
)
def test_a_connection_string_that_is_fine_is_left_alone(text):
    from lakebase._conninfo import conninfo_problem

    assert conninfo_problem(text) is None


@on_both
async def test_callbacks_that_go_on_failing_lead_to_reconnect_failed_once(side, lakebase_local, caplog):
    called = []
    faulty = True

    async def configure(conn):
        if faulty:
            raise ConnectionResetError("the sidecar is away")

    async with Pools(side, lakebase_local) as pools:
        pool = await pools.open(max_size=1, configure=configure, reconnect_timeout=0.05, reconnect_failed=called.append)
        for series in (1, 2):
            faulty = True
            failed = pool.get_stats().get("connections_errors", 0)
            waiting = side.go(pid, pool)
            await side.until(lambda: pool.get_stats().get("connections_errors", 0) >= failed + 4)  # noqa: B023
            assert called == [pool] * series, "once in a series"
            assert caplog.text.count("configure() failed with ConnectionResetError") == series
            faulty = False
            await waiting.result()
            await wait(pool.drain())


@on_both
async def test_the_password_of_a_failed_login_is_nowhere(side, lakebase_local, caplog):
    async with Pools(side, lakebase_local) as pools:
        pools.dsn = pools.dsn.replace("dbname=", "dbname=no_such_")
        told = await failure(await pools.open(), LoginError)
        assert PASSWORD not in "".join(traceback.format_exception(told)) + caplog.text
