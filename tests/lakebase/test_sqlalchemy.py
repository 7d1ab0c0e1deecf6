"""SQLAlchemy on a Lakebase pool: borrowed for a while, and given back as it was."""

from __future__ import annotations

import asyncio
import gc

import psycopg
import pytest

from lakebase import (
    ConfigurationError,
    LakebasePoolManager,
    RoutingPool,
    UserIdentity,
    create_async_lakebase_pool,
    create_lakebase_pool,
)
from pooling import RequestContext

sqlalchemy = pytest.importorskip("sqlalchemy")

from sqlalchemy import text  # noqa: E402
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column  # noqa: E402

from lakebase.sqlalchemy import create_async_lakebase_engine, create_lakebase_engine  # noqa: E402

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


def test_an_invalidated_connection_is_not_handed_out_again(lakebase_user) -> None:
    with create_lakebase_pool(lakebase_user.config(max_size=1)) as pool:
        engine = create_lakebase_engine(pool)
        with engine.connect() as connection:
            first = connection.connection.driver_connection
            connection.invalidate()
        with engine.connect() as connection:
            assert connection.connection.driver_connection is not first


def test_handlers_do_not_pile_up_on_a_connection(lakebase_user) -> None:
    with create_lakebase_pool(lakebase_user.config(max_size=1)) as pool:
        engine = create_lakebase_engine(pool)
        for _ in range(5):
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        with pool.connection() as connection:
            assert len(connection._notice_handlers) == 1


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


@pytest.mark.parametrize("option", ["poolclass", "pool_size", "connect_args", "creator", "pool_pre_ping"])
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
            assert len(connection._notice_handlers) == 1
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
