"""Litestar whose handlers have a connection of the request's user: `uvicorn litestar_app:app`."""

from typing import Annotated, Any

from litestar import Litestar, WebSocket, get, post, websocket
from litestar.params import FromQuery
from psycopg import AsyncConnection

from lakebase import AsyncLakebasePoolManager, request_identity
from pooling import RequestContext, di
from pooling.web.litestar import PoolingPlugin


def pool_of_user(users: AsyncLakebasePoolManager[AsyncConnection[Any]], ctx: RequestContext) -> Any:
    return users.for_user(ctx["identity"])


class App(di.Container):
    users = di.Managed(AsyncLakebasePoolManager, max_total=50, stop="close_all")
    connection: di.Pooled[AsyncConnection[Any]] = di.Pooled(users, select=pool_of_user)


Connection = Annotated[AsyncConnection[Any], di.Inject(App.connection)]


@post("/notes")
@di.inject
async def add(text: FromQuery[str], connection: Connection) -> str:
    await connection.execute("insert into entries (body) values (%s)", [text])
    return text  # committed before the 201 goes out


@get("/notes")
@di.inject
async def notes(connection: Connection) -> list[tuple[str, str]]:
    found = await connection.execute("select body, owner from entries order by id")
    return await found.fetchall()


@get("/health")
async def health() -> str:
    return "well"  # needs no user


@di.part  # a connection for each message, not for the life of the socket
@di.inject
async def count(prefix: str, connection: AsyncConnection[Any] = di.Inject[App.connection]) -> int:
    found = await connection.execute("select count(*) from entries where starts_with(body, %s)", [prefix])
    row = await found.fetchone()
    return int(row[0]) if row else 0


@websocket("/counts")
async def counts(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    async for prefix in socket.iter_data("text"):
        await socket.send_json(await count(prefix))


app = Litestar([add, notes, health, counts], plugins=[PoolingPlugin(App(), values=request_identity)])
