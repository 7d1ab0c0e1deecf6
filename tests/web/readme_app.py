"""README's example with handlers that write, for a server of several processes."""

import asyncio
from typing import Any

from fastapi import BackgroundTasks, FastAPI
from psycopg import AsyncConnection

from lakebase import AsyncLakebasePoolManager, LakebasePoolConfig, request_identity
from pooling.di import Container, Managed, Pooled
from pooling.web.fastapi import Injected, install
from tests.web.truth_sites import INSERT, KNOWN


class App(Container):
    pools = Managed(AsyncLakebasePoolManager, LakebasePoolConfig.from_env(), max_total=50, stop="close_all")
    connection: Pooled[AsyncConnection[Any]] = Pooled(pools, select=lambda pools, ctx: pools.for_user(ctx["identity"]))


app = FastAPI()
install(app, App(), values=request_identity)


@app.post("/items/{n}", status_code=201)
async def add(n: int, connection: AsyncConnection[Any] = Injected[App.connection]) -> None:
    await connection.execute(INSERT, [n])


@app.post("/later/{n}", status_code=201)
async def add_with_more_to_do(
    n: int, tasks: BackgroundTasks, connection: AsyncConnection[Any] = Injected[App.connection]
) -> None:
    await connection.execute(INSERT, [n])
    tasks.add_task(asyncio.sleep, 0.02)  # sleeps: what the client need not wait for


@app.get("/items/{n}")
async def read(n: int, connection: AsyncConnection[Any] = Injected[App.connection]) -> bool:
    return await (await connection.execute(KNOWN, [n])).fetchone() is not None
