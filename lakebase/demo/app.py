"""
A web app in which every request is served on a connection of the user who sent it.

The container says how things depend on each other: each user has a pool, and all pools share one budget; a
request takes one connection from its user's pool; the services work on that connection. Neither the services
nor the routes know of pools. The app takes its database from a configuration, or from the environment as
Databricks Apps sets it. Run it with `uvicorn --factory lakebase.demo.app:create_app`, or copy this file and
`schema.sql`, and change what you like.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Annotated, Any

import psycopg
from dependency_injector import providers
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from psycopg import AsyncConnection
from psycopg.rows import dict_row
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from lakebase import (
    AsyncLakebasePoolManager,
    LakebasePoolConfig,
    UserIdentity,
    answer_error,
    create_async_lakebase_pool,
    request_identity,
)
from pooling import RequestContext
from pooling.di import Container, Factory, Managed, Pooled
from pooling.web.fastapi import Injected, install

__all__ = ["App", "Notes", "Status", "Visits", "create_app"]

Row = dict[str, Any]

# --- services ------------------------------------------------------------------------------------------------------


class Notes:
    """The notes that a connection's role may see, as decided by row-level security."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection

    async def all(self) -> list[Row]:
        """Every note that the role may see."""
        async with self._connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute("select id, owner, text from notes order by id")
            return await cursor.fetchall()

    async def add(self, texts: Iterable[str]) -> None:
        """Write notes, all or none of them."""
        async with self._connection.cursor() as cursor:
            await cursor.executemany("insert into notes (text) values (%s)", [(text,) for text in texts])

    async def each(self) -> AsyncIterator[Row]:
        """The notes one by one; the server keeps those that were not read yet."""
        async with self._connection.cursor("each_note", row_factory=dict_row) as cursor:
            await cursor.execute("select id, owner, text from notes order by id")
            async for row in cursor:
                yield row


class Visits:
    """Records requests, in the same transaction as the other services: it has the same connection."""

    def __init__(self, connection: AsyncConnection[Any], visitor: UserIdentity) -> None:
        self._connection = connection
        self._visitor = visitor

    async def record(self) -> None:
        """Record the current request."""
        await self._connection.execute("insert into visits (request) values (%s)", [self._visitor.request_id or "?"])


class Status:
    """What the app asks under its own identity."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection

    async def role(self) -> str:
        """The role under which the app is connected."""
        cursor = await self._connection.execute("select current_user")
        row = await cursor.fetchone()
        assert row is not None
        return str(row[0])


# --- the container -------------------------------------------------------------------------------------------------


def visitor() -> UserIdentity:
    """The user who sent the current request."""
    request = RequestContext.current()
    assert request is not None
    identity: UserIdentity = request["identity"]
    return identity


def pool_of_visitor(pools: AsyncLakebasePoolManager, request: RequestContext) -> Any:
    """The visitor's pool. After the visitor's token has changed, it is a new one."""
    return pools.for_user(request["identity"])


class App(Container):
    """The parts of the app."""

    limits = providers.Configuration(default={"connections": 24})
    database = providers.Dependency(instance_of=LakebasePoolConfig)

    user_pools = Managed(AsyncLakebasePoolManager, database, max_total=limits.connections, stop="close_all")
    app_pool = Managed(create_async_lakebase_pool, database, max_size=2, name="app", stop="close")

    connection: Pooled[AsyncConnection[Any]] = Pooled(user_pools, select=pool_of_visitor)
    app_connection: Pooled[AsyncConnection[Any]] = Pooled(app_pool)

    notes = Factory(Notes, connection)
    visits = Factory(Visits, connection, providers.Callable(visitor))
    status = Factory(Status, app_connection)


# --- routes --------------------------------------------------------------------------------------------------------


async def one_transaction(
    connection: Annotated[AsyncConnection[Any], Injected[App.connection]],
    visits: Annotated[Visits, Injected[App.visits]],
) -> AsyncIterator[None]:
    """Commit what a handler did before its answer goes out, or roll back if the handler raises."""
    async with connection.transaction():
        await visits.record()
        yield


TheNotes = Annotated[Notes, Injected[App.notes]]
TheStatus = Annotated[Status, Injected[App.status]]

mine = APIRouter(prefix="/notes", dependencies=[Depends(one_transaction, scope="function")])
public = APIRouter()


class Note(BaseModel):
    """A note in an answer."""

    id: int
    owner: str
    text: str


class NewNotes(BaseModel):
    """Notes to write."""

    texts: list[str]


@mine.get("")
async def list_notes(notes: TheNotes) -> list[Note]:
    """The notes of the user."""
    return [Note(**row) for row in await notes.all()]


@mine.post("", status_code=201)
async def add_notes(new: NewNotes, notes: TheNotes) -> dict[str, int]:
    """Write all of them or none."""
    await notes.add(new.texts)
    return {"added": len(new.texts)}


@mine.put("")
async def upload_notes(request: Request, notes: TheNotes) -> dict[str, int]:
    """Write one note for each line, as it arrives; a client that disconnects halfway leaves none."""
    added, rest = 0, b""
    async for part in request.stream():
        *lines, rest = (rest + part).split(b"\n")
        await notes.add(line.decode() for line in lines)
        added += len(lines)
    if rest:
        await notes.add([rest.decode()])
        added += 1
    return {"added": added}


@mine.get("/stream")
async def stream_notes(notes: TheNotes) -> StreamingResponse:
    """One note in each line. The request keeps its connection until the last one is sent."""

    async def lines() -> AsyncIterator[str]:
        async for row in notes.each():
            yield Note(**row).model_dump_json() + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


@public.get("/status")
async def show_status(status: TheStatus) -> dict[str, str]:
    """The role of the app itself, on one of its own connections."""
    return {"role": await status.role()}


# --- errors --------------------------------------------------------------------------------------------------------


async def _answer_bad_data(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, psycopg.Error)
    return JSONResponse({"detail": error.diag.message_primary or "the database refuses this"}, 422)


async def _answer_bad_text(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": f"expected text in UTF-8: {error}"}, 422)


async def _answer_disconnected(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # for the log: the client is gone


#: What this app knows of its data; `lakebase.answer_error` has the rest.
_ANSWERS = {
    ClientDisconnect: _answer_disconnected,
    psycopg.IntegrityError: _answer_bad_data,
    psycopg.DataError: _answer_bad_data,
    UnicodeDecodeError: _answer_bad_text,
}


# --- put together --------------------------------------------------------------------------------------------------


def create_app(database: LakebasePoolConfig | None = None, container: Any = None) -> FastAPI:
    """
    The app. Does no I/O; its pools live from the server's start to its end.

    Args:
        database: The database, and the identity of the app itself; `None` takes both from the environment.
        container: The parts; `None` makes an `App`.
    """
    parts = App() if container is None else container
    parts.database.override(LakebasePoolConfig.from_env() if database is None else database)

    app = FastAPI(title="Notes")
    install(app, parts, values=request_identity, errors=answer_error)
    app.include_router(mine)
    app.include_router(public)
    for kind, answer in _ANSWERS.items():
        app.add_exception_handler(kind, answer)
    return app
