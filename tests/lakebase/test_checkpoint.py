"""A request's checkpoint commits, whichever pool its connection is from."""

from __future__ import annotations

import itertools

import psycopg
import psycopg_pool
import pytest

from lakebase import (
    AsyncRoutingPool,
    AsyncUserScopedPool,
    RoutingPool,
    UserIdentity,
    UserScopedPool,
    create_async_lakebase_pool,
    create_lakebase_pool,
)
from pooling import RequestContext

numbers = itertools.count(1)
INSERT, KNOWN = "insert into kept values (%s)", "select 1 from kept where n = %s"
WHO = "select current_user::text, current_setting('app.user', true)"


@pytest.fixture(scope="module")
def owner(lakebase_local):
    with create_lakebase_pool(lakebase_local.config(), max_size=1, name="owner") as pool:
        with pool.connection() as conn:
            conn.execute("create table kept (n int primary key)")
            conn.execute("create table kept_children (n int references kept deferrable initially deferred)")
            conn.execute("grant all on kept, kept_children to public")
        yield pool


@pytest.fixture
def is_kept(owner):
    def ask(n):
        with owner.connection() as conn:
            return conn.execute(KNOWN, [n]).fetchone() is not None

    return ask


@pytest.fixture
def n():
    return next(numbers)


@pytest.fixture
def identity(lakebase_local, owner):
    """A user that the app may become."""
    name = f"kept{next(numbers)}@scope.example"
    with owner.connection() as conn:
        conn.execute(f'create role "{name}"')
        conn.execute(f'grant "{name}" to "{lakebase_local.admin_user}"')
    return UserIdentity(name)


KINDS = ["lakebase", "routing", "routing psycopg", "scoped", "scoped autocommit", "psycopg"]


def in_autocommit(conn):
    conn.autocommit = True


async def in_autocommit_too(conn):
    await conn.set_autocommit(True)


@pytest.fixture
def foreign(lakebase_local):
    """The arguments of a pool of psycopg_pool."""
    lake = lakebase_local
    return {
        "kwargs": {**lake.config().connect_kwargs(), "password": lake.mint(lake.admin_user)},
        "min_size": 0,
        "max_size": 2,
        "open": False,
    }


def pool_of(kind, config, foreign):
    if kind in ("psycopg", "routing psycopg"):
        pool = psycopg_pool.ConnectionPool(**foreign)
    else:
        pool = create_lakebase_pool(config, configure=in_autocommit if kind == "scoped autocommit" else None)
    if kind.startswith("routing"):
        return pool, RoutingPool(pool, lambda identity: None, allow_app_in_requests=True)
    return pool, UserScopedPool(pool, as_role=True) if kind.startswith("scoped") else pool


def async_pool_of(kind, config, foreign):
    if kind in ("psycopg", "routing psycopg"):
        pool = psycopg_pool.AsyncConnectionPool(**foreign)
    else:
        configure = in_autocommit_too if kind == "scoped autocommit" else None
        pool = create_async_lakebase_pool(config, configure=configure)
    if kind.startswith("routing"):
        return pool, AsyncRoutingPool(pool, lambda identity: None, allow_app_in_requests=True)
    return pool, AsyncUserScopedPool(pool, as_role=True) if kind.startswith("scoped") else pool


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_commits_and_the_connection_goes_on(kind, lakebase_local, foreign, identity, is_kept, n):
    inner, pool = pool_of(kind, lakebase_local.config(max_size=2), foreign)
    values = {"identity": identity} if kind.startswith("scoped") else {}
    with inner:
        with pytest.raises(LookupError), RequestContext("r", **values) as ctx:
            conn = ctx.acquire(pool)
            before = conn.execute(WHO).fetchone()
            conn.execute(INSERT, [n])
            ctx.checkpoint()
            assert is_kept(n)
            assert ctx.acquire(pool) is conn
            assert conn.execute(WHO).fetchone() == before, "still the same user"
            conn.execute(INSERT, [-n])
            raise LookupError
        assert not is_kept(-n), "what is done later is a transaction of its own"
        with RequestContext(**values) as ctx:
            ctx.acquire(pool).execute("insert into kept_children values (%s)", [-n])
            with pytest.raises(psycopg.errors.ForeignKeyViolation):
                ctx.checkpoint()
            ctx.error = LookupError()
        with RequestContext(**values) as ctx:
            ctx.acquire(pool).execute(INSERT, [-n])
            ctx.checkpoint()
            ctx.checkpoint()
        assert is_kept(-n), "the pool is none the worse"


@pytest.mark.parametrize("kind", KINDS)
async def test_an_asyncio_checkpoint_does_so_too(kind, lakebase_local, foreign, identity, is_kept, n):
    inner, pool = async_pool_of(kind, lakebase_local.config(max_size=2), foreign)
    values = {"identity": identity} if kind.startswith("scoped") else {}
    async with inner:
        with pytest.raises(LookupError):
            async with RequestContext("r", **values) as ctx:
                conn = await ctx.aacquire(pool)
                before = await (await conn.execute(WHO)).fetchone()
                await conn.execute(INSERT, [n])
                await ctx.acheckpoint()
                assert is_kept(n)
                assert await (await conn.execute(WHO)).fetchone() == before, "still the same user"
                await conn.execute(INSERT, [-n])
                raise LookupError
        assert not is_kept(-n), "what is done later is a transaction of its own"
        async with RequestContext(**values) as ctx:
            await (await ctx.aacquire(pool)).execute("insert into kept_children values (%s)", [-n])
            with pytest.raises(psycopg.errors.ForeignKeyViolation):
                await ctx.acheckpoint()
            ctx.error = LookupError()
        async with RequestContext(**values) as ctx:
            await (await ctx.aacquire(pool)).execute(INSERT, [-n])
            await ctx.acheckpoint()
        assert is_kept(-n), "the pool is none the worse"


@pytest.mark.parametrize("kind", ["lakebase", "routing", "scoped"])
def test_a_failed_transaction_is_not_taken_for_a_success(kind, lakebase_local, foreign, identity, n):
    inner, pool = pool_of(kind, lakebase_local.config(max_size=2), foreign)
    with inner, RequestContext(identity=identity if kind == "scoped" else None) as ctx:
        conn = ctx.acquire(pool)
        with pytest.raises(psycopg.errors.SyntaxError):
            conn.execute("nonsense")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction, match="the answer would say otherwise"):
            ctx.checkpoint()
        ctx.error = LookupError()


def test_an_open_block_is_told_and_a_closed_or_unused_connection_has_nothing_to_commit(lakebase_local, n, is_kept):
    with create_lakebase_pool(lakebase_local.config(max_size=2)) as pool:
        with RequestContext() as ctx:
            conn = ctx.acquire(pool)
            ctx.checkpoint()
            with conn.transaction():
                conn.execute(INSERT, [n])
                with pytest.raises(psycopg.ProgrammingError, match=r"still open.*Depends"):
                    ctx.checkpoint()
            ctx.checkpoint()
            assert is_kept(n)
        with RequestContext() as ctx:
            ctx.acquire(pool).close()
            ctx.checkpoint()
        with RequestContext() as ctx:
            conn = ctx.acquire(pool)
            conn.execute(INSERT, [-n])
            lakebase_local.drop_connections()
            with pytest.raises(psycopg.OperationalError):
                ctx.checkpoint()
            ctx.error = LookupError()
