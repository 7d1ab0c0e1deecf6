"""One test, two pools: `LakebasePool` in a thread, `AsyncLakebasePool` in a loop, on the engine's harness."""

from __future__ import annotations

import inspect
import itertools
from typing import Any, Self

from lakebase import AsyncLakebasePool, LakebasePool
from tests.contract.harness import on_asyncio, on_both, on_threads  # noqa: F401 - the tests take them from here

ROLE, PASSWORD = "dropin@corp.example", "secret of the drop-in tests"
_numbers = itertools.count(1)


async def wait(value: Any) -> Any:
    """The value, or what awaiting it gives."""
    return await value if inspect.isawaitable(value) else value


def dsn(lake: Any) -> str:
    """A connection string, as psycopg_pool takes it."""
    lake.add_password_role(ROLE, PASSWORD)
    return (
        f"host={lake.host} port={lake.port} dbname={lake.database} user={ROLE} password='{PASSWORD}' "
        f"sslmode=verify-full sslrootcert={lake.ca_file}"
    )


class Pools:
    """Opens pools on one side, and closes them."""

    def __init__(self, side: Any, lake: Any) -> None:
        self.side = side
        self.lake = lake
        self.dsn = dsn(lake)
        self.kind = LakebasePool if side.name == "threads" else AsyncLakebasePool
        self.opened: list[Any] = []

    async def open(self, *, opens: bool = True, **options: Any) -> Any:
        options.setdefault("min_size", 0)
        options.setdefault("max_size", max(options["min_size"], 4))
        for name in ("configure", "check", "reset"):
            if name in options:
                options[name] = self.side.hook(options[name])
        pool = self.kind(self.dsn, open=False, name=f"dropin-{next(_numbers)}", **options)
        self.opened.append(pool)
        if opens:
            await wait(pool.open())
        return pool

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for pool in self.opened:
            await wait(pool.close())


class connection:
    """`pool.connection()` of either kind, for `async with`."""

    def __init__(self, pool: Any, **options: Any) -> None:
        self.manager = pool.connection(**options)

    async def __aenter__(self) -> Any:
        if hasattr(self.manager, "__aenter__"):
            return await self.manager.__aenter__()
        return self.manager.__enter__()

    async def __aexit__(self, *error: object) -> Any:
        if hasattr(self.manager, "__aexit__"):
            return await self.manager.__aexit__(*error)
        return self.manager.__exit__(*error)


class ending(connection):
    """A connection of either kind as a block, which commits or rolls back."""

    def __init__(self, conn: Any) -> None:
        self.manager = conn


async def enter(manager: Any) -> Any:
    """Enter a block of either kind."""
    return await manager.__aenter__() if hasattr(manager, "__aenter__") else manager.__enter__()


async def leave(manager: Any) -> None:
    """Leave a block of either kind."""
    if hasattr(manager, "__aexit__"):
        await manager.__aexit__(None, None, None)
    else:
        manager.__exit__(None, None, None)


class transaction(connection):
    """`conn.transaction()` of either kind."""

    def __init__(self, conn: Any) -> None:
        self.manager = conn.transaction()


async def ask(conn: Any, query: str, *parameters: Any) -> Any:
    """The first column of the first row."""
    cursor = await wait(conn.execute(query, parameters))
    return (await wait(cursor.fetchone()))[0]


async def pid(pool: Any) -> int:
    """Of the server process behind the connection that is handed out next."""
    async with connection(pool) as conn:
        return conn.info.backend_pid
