"""
Mistakes that type checkers find. A line that ends in `# error` is one, for mypy and pyright alike.

`test_inference.py` compares these comments with what the two report.
"""
# ruff: noqa: B018, F841

from __future__ import annotations

from pooling import (
    AsyncKeyedPoolingService,
    AsyncPoolingService,
    KeyedPoolingService,
    PoolBudget,
    PoolFactory,
    PoolingService,
    PoolingServiceOptions,
    RequestContext,
    get_pooled_value,
)


class Session:
    def __init__(self) -> None:
        self.host = "db1"

    def close(self) -> None: ...


def make() -> Session:
    return Session()


async def amake() -> Session:
    return Session()


def needs_a_host(host: str) -> Session:
    return make()


class WrongCreate(PoolFactory[Session]):
    def create(self) -> int:  # error
        return 1


class WrongAsyncCreate(PoolFactory[Session]):
    async def create(self) -> int:  # error
        return 1


class WrongDestroy(PoolFactory[Session]):
    def create(self) -> Session:
        return make()

    def destroy(self, value: int) -> None: ...  # error


# --- factories -------------------------------------------------------------------------------------------------------

PoolFactory.of(needs_a_host)  # error
PoolFactory.of(make, destory=Session.close)  # error
PoolFactory.of(make, destroy=str.upper)  # error
PoolingService(needs_a_host)  # error
PoolingService(3)  # error
AsyncPoolingService(needs_a_host)  # error
KeyedPoolingService(make)  # error
KeyedPoolingService(lambda key: make())  # error
AsyncKeyedPoolingService(amake)  # error

# --- options ---------------------------------------------------------------------------------------------------------

PoolingServiceOptions(max_sizes=3)  # error
PoolingServiceOptions().replaced(max_sizes=3)  # error
PoolingService(make, max_sizes=3)  # error
PoolingService(make, max_size="3")  # error
PoolingService(make, on_error="destory")  # error
PoolingService(make, {"max_sizes": 3})  # error
PoolingService(make, {"max_size": "3"})  # error
PoolingService(make, max_total=3)  # error
AsyncPoolingService(make, max_sizes=3)  # error
AsyncPoolingService(amake, {"max_sizes": 3})  # error
AsyncPoolingService(amake, timeout="5 s")  # error
KeyedPoolingService(lambda _: Session, max_sizes=3)  # error
KeyedPoolingService(lambda _: Session, {"max_sizes": 3})  # error
AsyncKeyedPoolingService(lambda _: Session, max_sizes=3)  # error

# --- pools -----------------------------------------------------------------------------------------------------------

pool = PoolingService(make)
apool = AsyncPoolingService(amake)
forgotten = PoolingService(amake)  # its resources are coroutines
keyed = KeyedPoolingService(lambda _: Session)

pool.acquire().hots  # error
pool.acquire(timeout="5 s")  # error
pool.release(3)  # error
pool.run(amake)  # error
pool.run(lambda session: session.hots)  # error
forgotten.acquire().host  # error
get_pooled_value(pool).value.hots  # error
get_pooled_value(3)  # error
keyed.acquire()  # error
keyed.open_key("db1", make, max_sizes=3)  # error
keyed.open_key("db1", make, {"max_sizes": 3})  # error
keyed.open_key("db1", dict)  # error
PoolBudget(3, withn=PoolBudget(4))  # error


def use(ctx: RequestContext) -> None:
    with apool.lease() as session:  # error
        pass
    ctx.acquire(pool).hots  # error
    ctx.acquire(apool, key="second").hots  # error


async def ause(ctx: RequestContext) -> None:
    apool.acquire().host  # error
    (await apool.acquire()).hots  # error
    (await get_pooled_value(apool)).value.hots  # error
    (await ctx.aacquire(apool)).hots  # error
    async with pool.lease() as session:  # error
        pass
