"""SQLAlchemy on a Lakebase pool: borrowed for a while, and given back as it was."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import json
from collections.abc import Iterator
from typing import Any

import psycopg
import psycopg_pool
import pytest
from psycopg.types.string import TextLoader

from lakebase import (
    ConfigurationError,
    LakebasePoolManager,
    RoutingPool,
    UserIdentity,
    create_async_lakebase_pool,
    create_lakebase_pool,
    lakebase_pg_config,
)
from pooling import RequestContext

sqlalchemy = pytest.importorskip("sqlalchemy")

from sqlalchemy import text  # noqa: E402
from sqlalchemy.dialects import postgresql  # noqa: E402
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column  # noqa: E402

from lakebase.sqlalchemy import (  # noqa: E402
    AsyncSessions,
    Sessions,
    create_async_lakebase_engine,
    create_lakebase_engine,
)

WHO = text("SELECT current_user")


def test_an_engine_borrows_from_the_pool_and_gives_back(lakebase_user) -> None:
    with create_lakebase_pool(lakebase_user.config(max_size=1)) as pool:
        engine = create_lakebase_engine(pool)
        for _ in range(3):
            with engine.connect() as connection:
                assert connection.scalar(WHO) == lakebase_user.name
                assert pool.get_stats()["pool_available"] == 0
            assert pool.get_stats()["pool_available"] == 1
        engine.dispose()
        assert pool.get_stats()["connections_num"] == 1
        with pool.connection() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_session_of_the_orm_works(lakebase_user) -> None:
    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "sa_notes"
        __table_args__ = ({"prefixes": ["TEMPORARY"]},)
        id: Mapped[int] = mapped_column(primary_key=True)
        body: Mapped[str]

    with create_lakebase_pool(lakebase_user.config(max_size=1)) as pool:
        engine = create_lakebase_engine(pool)
        with engine.connect() as connection:
            Base.metadata.create_all(connection)
            connection.commit()
            with Session(connection) as session:
                session.add(Note(body="kept"))
                session.commit()
                assert session.scalars(sqlalchemy.select(Note.body)).all() == ["kept"]


def test_what_the_engine_sets_is_undone_before_the_next_borrower(lakebase_user) -> None:
    with create_lakebase_pool(lakebase_user.config(max_size=1)) as pool:
        engine = create_lakebase_engine(pool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            assert connection.connection.driver_connection.autocommit
        with engine.connect().execution_options(isolation_level="SERIALIZABLE", postgresql_readonly=True) as connection:
            assert connection.scalar(text("SHOW transaction_isolation")) == "serializable"
        with pool.connection() as connection:
            assert (connection.autocommit, connection.isolation_level, connection.read_only) == (False, None, None)
        assert pool.get_stats()["connections_num"] == 1


def test_a_failed_statement_leaves_nothing_open(lakebase_user) -> None:
    with create_lakebase_pool(lakebase_user.config(max_size=1)) as pool:
        engine = create_lakebase_engine(pool)
        with engine.connect() as connection, pytest.raises(sqlalchemy.exc.ProgrammingError):
            connection.execute(text("SELEC 1"))
        with pool.connection() as connection:
            assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert pool.get_stats()["connections_num"] == 1


def test_a_connection_that_died_is_replaced(lakebase_user) -> None:
    with create_lakebase_pool(lakebase_user.config(max_size=1)) as pool:
        engine = create_lakebase_engine(pool)
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            lakebase_user.lake.drop_connections(lakebase_user.name)
            with pytest.raises(sqlalchemy.exc.OperationalError):
                connection.execute(text("SELECT 1"))
        with engine.connect() as connection:
            assert connection.scalar(WHO) == lakebase_user.name


def test_an_invalidated_connection_is_not_handed_out_again(lakebase_user, caplog) -> None:
    with create_lakebase_pool(lakebase_user.config(max_size=1)) as pool:
        engine = create_lakebase_engine(pool)
        with engine.connect() as connection:
            first = connection.connection.driver_connection
            connection.invalidate()
        with engine.connect() as connection:
            assert connection.connection.driver_connection is not first
    assert caplog.text == ""


def test_handlers_do_not_pile_up_on_a_connection(lakebase_user) -> None:
    with create_lakebase_pool(lakebase_user.config(max_size=1)) as pool:
        engine = create_lakebase_engine(pool)
        for _ in range(5):
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        with pool.connection() as connection:
            assert len(connection._notice_handlers) == 0


def test_a_rejected_login_reaches_the_caller_at_once(lakebase_user) -> None:
    config = lakebase_user.config()
    lakebase_user.lake.revoke(lakebase_user.name)
    with create_lakebase_pool(config) as pool, pytest.raises(sqlalchemy.exc.OperationalError, match="PermissionDenied"):
        create_lakebase_engine(pool).connect()


def test_with_a_routing_pool_each_request_has_its_users_connection(lakebase_local) -> None:
    users = ["sa-ann@corp.example", "sa-bob@corp.example"]
    identities = [UserIdentity(user, lakebase_local.add_user(user)) for user in users]
    base = lakebase_local.config()
    with create_lakebase_pool(base) as app_pool:
        manager = LakebasePoolManager(base)
        engine = create_lakebase_engine(
            RoutingPool(app_pool, lambda who: manager.get_pool(who.pool_key(), who.pool_config(), who.fingerprint))
        )
        try:
            for identity in [*identities, *identities]:
                with RequestContext(identity=identity), engine.connect() as connection:
                    assert connection.scalar(WHO) == identity.user
            with engine.connect() as connection:
                assert connection.scalar(WHO) == base.user
        finally:
            manager.close_all()


@pytest.mark.parametrize("option", ["poolclass", "pool_use_lifo", "connect_args", "creator", "client_encoding"])
def test_an_option_that_is_the_pools_is_refused(option: str) -> None:
    for create in (create_lakebase_engine, create_async_lakebase_engine):
        with pytest.raises(ConfigurationError, match=option):
            create(None, **{option: 1})  # type: ignore[arg-type]


async def test_an_async_engine_borrows_and_gives_back(lakebase_user) -> None:
    async with create_async_lakebase_pool(lakebase_user.config(max_size=1)) as pool:
        engine = create_async_lakebase_engine(pool, isolation_level="AUTOCOMMIT")
        for _ in range(3):
            async with engine.connect() as connection:
                assert await connection.scalar(WHO) == lakebase_user.name
        async with pool.connection() as connection:
            assert not connection.autocommit
            assert len(connection._notice_handlers) == 0
        assert pool.get_stats()["connections_num"] == 1
        await engine.dispose()


async def test_a_cancelled_query_costs_its_connection_and_not_its_place(lakebase_user) -> None:
    async with create_async_lakebase_pool(lakebase_user.config(max_size=1)) as pool:
        engine = create_async_lakebase_engine(pool)
        started = asyncio.Event()

        async def slow() -> None:
            async with engine.connect() as connection:
                await connection.execute(WHO)
                started.set()
                await connection.execute(text("SELECT pg_sleep(60)"))

        task = asyncio.create_task(slow())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(30), engine.connect() as connection:
            assert await connection.scalar(WHO) == lakebase_user.name


@pytest.mark.filterwarnings("ignore:The garbage collector:sqlalchemy.exc.SAWarning")
async def test_a_forgotten_async_connection_frees_its_place(lakebase_user) -> None:
    async with create_async_lakebase_pool(lakebase_user.config(max_size=1)) as pool:
        engine = create_async_lakebase_engine(pool)
        connection = await engine.connect()
        await connection.execute(WHO)
        del connection
        gc.collect()
        async with asyncio.timeout(30), engine.connect() as again:
            assert await again.scalar(WHO) == lakebase_user.name


# -- what the engine is given ---------------------------------------------------------------------


def _upper(text: str) -> object:
    return {key.upper(): value for key, value in json.loads(text).items()}


def test_its_options_for_values_hold_on_every_connection_and_for_no_other_borrower(lakebase_user) -> None:
    with create_lakebase_pool(lakebase_user.config(max_size=2)) as pool:
        engine = create_lakebase_engine(
            pool, json_serializer=lambda _: '{"sent": 1}', json_deserializer=_upper, native_inet_types=False
        )
        table = sqlalchemy.table("t", sqlalchemy.column("j", postgresql.JSONB))
        with engine.connect() as first, engine.connect() as second:
            for connection in (first, second):
                connection.execute(text("CREATE TEMP TABLE t (j jsonb)"))
                connection.execute(table.insert().values(j={"given": 2}))
                assert connection.scalar(sqlalchemy.select(table.c.j)) == {"SENT": 1}
                assert connection.scalar(text("SELECT '10.0.0.1'::inet")) == "10.0.0.1"
        with pool.connection() as connection:
            assert connection.execute("SELECT '10.0.0.1'::inet").fetchone() == (ipaddress.ip_address("10.0.0.1"),)
            assert connection.execute("""SELECT '{"a": 1}'::jsonb""").fetchone() == ({"a": 1},)


async def test_so_they_do_in_asyncio(lakebase_user) -> None:
    async with create_async_lakebase_pool(lakebase_user.config(max_size=2)) as pool:
        engine = create_async_lakebase_engine(pool, json_deserializer=_upper)
        jsonb = text("""SELECT '{"a": 1}'::jsonb""").columns(sqlalchemy.column("j", postgresql.JSONB))
        async with engine.connect() as first, engine.connect() as second:
            for connection in (first, second):
                assert await connection.scalar(jsonb) == {"A": 1}


@pytest.fixture
def hstore(lakebase_local) -> Iterator[None]:
    admin = lakebase_local.config().connect_kwargs()
    admin |= {"password": lakebase_local.mint(lakebase_local.admin_user), "autocommit": True}
    with psycopg.connect(**admin) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS hstore")
        yield
        connection.execute("DROP EXTENSION hstore")


def test_hstore_works_on_every_connection(lakebase_user, hstore) -> None:
    def configure(connection: psycopg.Connection) -> None:
        connection.adapters.register_loader("inet", TextLoader)

    with create_lakebase_pool(lakebase_user.config(max_size=2), configure=configure) as pool:
        engine = create_lakebase_engine(pool)
        with engine.connect() as first, engine.connect() as second:
            for connection in (first, second):
                assert connection.scalar(text("SELECT 'a=>1'::hstore")) == {"a": "1"}
                assert connection.scalar(text("SELECT '10.0.0.1'::inet")) == "10.0.0.1", "as configure registered"


def test_sizes_and_times_are_the_pools(lakebase_user) -> None:
    with create_lakebase_pool(lakebase_user.config(max_size=2)) as pool:
        create_lakebase_engine(pool, pool_size=3, max_overflow=1, pool_recycle=900)
        assert (pool.max_size, pool.max_lifetime) == (4, 900)
        create_lakebase_engine(pool, pool_recycle=-1)
        assert (pool.max_size, pool.max_lifetime) == (4, 900)
        for options in ({"pool_size": 0}, {"pool_size": 5, "max_overflow": -1}):
            with pytest.raises(ConfigurationError, match="no limit"):
                create_lakebase_engine(pool, **options)
        with pytest.raises(ConfigurationError, match="each user's pool"):
            create_lakebase_engine(RoutingPool(pool, lambda _: None), pool_size=3)


def test_an_exhausted_pool_is_sqlalchemys_timeout(lakebase_user) -> None:
    with create_lakebase_pool(lakebase_user.config(max_size=1)) as pool:
        with pool.connection():
            pass  # connecting may take longer than that
        engine = create_lakebase_engine(pool, pool_timeout=0.05)
        with engine.connect(), pytest.raises(sqlalchemy.exc.TimeoutError, match=r"timeout=0\.05 s"):
            engine.connect()


async def test_so_it_is_in_asyncio(lakebase_user) -> None:
    async with create_async_lakebase_pool(lakebase_user.config(max_size=1)) as pool:
        async with pool.connection():
            pass
        engine = create_async_lakebase_engine(pool, pool_timeout=0.05)
        async with engine.connect():
            with pytest.raises(sqlalchemy.exc.TimeoutError):
                await engine.connect()


class _Silent(psycopg.Connection):
    """A connection that looks well and does not answer."""

    is_silent = False

    def execute(self, *arguments: Any, **keywords: Any) -> Any:
        if self.is_silent:
            raise psycopg.OperationalError("the server does not answer")
        return super().execute(*arguments, **keywords)


def test_a_connection_that_does_not_answer_a_ping_is_replaced(lakebase_user) -> None:
    with create_lakebase_pool(lakebase_user.config(max_size=1), connection_class=_Silent) as pool:
        engine = create_lakebase_engine(pool, pool_pre_ping=True)
        with engine.connect() as connection:
            first: Any = connection.connection.driver_connection
        first.is_silent = True
        with engine.connect() as connection:
            assert connection.connection.driver_connection is not first
            assert connection.scalar(WHO) == lakebase_user.name


def test_on_psycopgs_own_pool_the_drivers_state_is_put_back(lakebase_user) -> None:
    settings = lakebase_pg_config(lakebase_user.config())
    with psycopg_pool.ConnectionPool(kwargs=settings, min_size=1, max_size=1, open=True) as foreign:
        engine = create_lakebase_engine(RoutingPool(foreign, lambda _: None), isolation_level="AUTOCOMMIT")
        for _ in range(2):
            with engine.connect() as connection:
                assert connection.scalar(WHO) == lakebase_user.name
        with foreign.connection() as connection:
            assert not connection.autocommit
            assert connection._notice_handlers == []


ADD = text("INSERT INTO kept_by_orm VALUES (:value)")
FAILS = text("SELECT 1 / 0")


@pytest.fixture
def kept(lakebase_local) -> Iterator[Any]:
    """What others see in a table; its constraint is checked by a commit."""
    with create_lakebase_pool(lakebase_local.config(), max_size=1) as pool:

        def run(statement: str) -> Any:
            with pool.connection() as connection:
                return connection.execute(statement)

        run("CREATE TABLE kept_by_orm (value int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        run("GRANT ALL ON kept_by_orm TO PUBLIC")
        yield lambda: [value for (value,) in run("SELECT value FROM kept_by_orm ORDER BY 1")]
        run("DROP TABLE kept_by_orm")


def test_a_requests_session_commits_before_the_answer_or_fails_it(lakebase_user, kept) -> None:
    with create_lakebase_pool(lakebase_user.config(max_size=1)) as pool:
        sessions = Sessions(create_lakebase_engine(pool))
        with RequestContext() as ctx:
            session = ctx.acquire(sessions)
            assert session is ctx.acquire(sessions)
            session.execute(ADD, {"value": 1})
            assert kept() == []
            ctx.checkpoint()
            assert kept() == [1]
            assert pool.get_stats()["pool_available"] == 1, "a stream holds no connection"
            session.execute(ADD, {"value": 2})
        assert kept() == [1, 2]
        with pytest.raises(LookupError), RequestContext() as ctx:
            ctx.acquire(sessions).execute(ADD, {"value": 3})
            raise LookupError
        with pytest.raises(psycopg.errors.InFailedSqlTransaction), RequestContext() as ctx:
            ctx.acquire(sessions).execute(ADD, {"value": 4})
            with pytest.raises(sqlalchemy.exc.DataError):
                ctx.acquire(sessions).execute(FAILS)
            ctx.checkpoint()
        with pytest.raises(sqlalchemy.exc.IntegrityError), RequestContext() as ctx:
            ctx.acquire(sessions).execute(ADD, {"value": 1})
            ctx.checkpoint()
        assert kept() == [1, 2]
        assert pool.get_stats()["pool_available"] == pool.get_stats()["connections_num"] == 1


async def test_so_does_a_session_in_asyncio(lakebase_user, kept) -> None:
    async with create_async_lakebase_pool(lakebase_user.config(max_size=1)) as pool:
        sessions = AsyncSessions(create_async_lakebase_engine(pool))
        async with RequestContext() as ctx:
            session = await ctx.aacquire(sessions)
            assert session is await ctx.aacquire(sessions)
            await session.execute(ADD, {"value": 1})
            assert kept() == []
            await ctx.acheckpoint()
            assert kept() == [1]
            assert pool.get_stats()["pool_available"] == 1
            await session.execute(ADD, {"value": 2})
        assert kept() == [1, 2]
        with pytest.raises(LookupError):
            async with RequestContext() as ctx:
                await (await ctx.aacquire(sessions)).execute(ADD, {"value": 3})
                raise LookupError
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            async with RequestContext() as ctx:
                session = await ctx.aacquire(sessions)
                await session.execute(ADD, {"value": 4})
                with pytest.raises(sqlalchemy.exc.DataError):
                    await session.execute(FAILS)
                await ctx.acheckpoint()
        with pytest.raises(sqlalchemy.exc.IntegrityError):
            async with RequestContext() as ctx:
                await (await ctx.aacquire(sessions)).execute(ADD, {"value": 1})
                await ctx.acheckpoint()
        assert kept() == [1, 2]
        assert pool.get_stats()["pool_available"] == pool.get_stats()["connections_num"] == 1
