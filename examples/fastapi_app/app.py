"""
A web app in which every request is served on its own user's connection.

The container says how things depend on each other: a pool for each user, out of one budget; from the pool of
whoever asks, one connection for the request; on that connection, the services. Neither the services nor the
routes know that there are pools. Run it with `uvicorn --factory app:create_app`; it finds its database in the
environment, as Databricks Apps sets it, or is given a configuration.
"""

from __future__ import annotations

import logging
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
    CredentialError,
    IdentityError,
    LakebasePoolConfig,
    LoginError,
    UserIdentity,
    create_async_lakebase_pool,
)
from pooling import PoolExhaustedError, PoolTimeoutError, RequestContext
from pooling.di import Container, Factory, Managed, Pooled
from pooling.web.fastapi import Injected, install

__all__ = ["App", "Notes", "Status", "Visits", "create_app"]

logger = logging.getLogger(__name__)

Row = dict[str, Any]

# --- services ------------------------------------------------------------------------------------------------------


class Notes:
    """The notes that a connection's role may see: which these are is for row-level security to say."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection

    async def all(self) -> list[Row]:
        """Every note there is, for this role."""
        async with self._connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute("select id, owner, text from notes order by id")
            return await cursor.fetchall()

    async def add(self, texts: Iterable[str]) -> None:
        """Write notes, all or none of them."""
        async with self._connection.cursor() as cursor:
            await cursor.executemany("insert into notes (text) values (%s)", [(text,) for text in texts])

    async def each(self) -> AsyncIterator[Row]:
        """The notes one by one, however many; the server keeps those not read yet."""
        async with self._connection.cursor("each_note", row_factory=dict_row) as cursor:
            await cursor.execute("select id, owner, text from notes order by id")
            async for row in cursor:
                yield row


class Visits:
    """Writes down who was here. It shares the connection, and so the transaction, with the request's other services."""

    def __init__(self, connection: AsyncConnection[Any], visitor: UserIdentity) -> None:
        self._connection = connection
        self._visitor = visitor

    async def record(self) -> None:
        """Note this request."""
        await self._connection.execute("insert into visits (request) values (%s)", [self._visitor.request_id or "?"])


class Status:
    """What the app may know as itself."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection

    async def role(self) -> str:
        """The role that the database takes the app for."""
        cursor = await self._connection.execute("select current_user")
        row = await cursor.fetchone()
        assert row is not None
        return str(row[0])


# --- the container -------------------------------------------------------------------------------------------------


def visitor() -> UserIdentity:
    """Who sent the current request."""
    request = RequestContext.current()
    assert request is not None
    return UserIdentity.from_headers(request["headers"])


def pool_of_visitor(pools: AsyncLakebasePoolManager, _: RequestContext) -> Any:
    """The visitor's pool; a token that has changed since gets a fresh one."""
    return pools.for_user(visitor())


class App(Container):
    """Everything the app consists of."""

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
    """What a handler does is committed before its answer goes out, or rolled back where it raises."""
    async with connection.transaction():
        await visits.record()
        yield


TheNotes = Annotated[Notes, Injected[App.notes]]
TheStatus = Annotated[Status, Injected[App.status]]

mine = APIRouter(prefix="/notes", dependencies=[Depends(one_transaction, scope="function")])
public = APIRouter()


class Note(BaseModel):
    """A note, as it is sent."""

    id: int
    owner: str
    text: str


class NewNotes(BaseModel):
    """Notes to be written."""

    texts: list[str]


@mine.get("")
async def list_notes(notes: TheNotes) -> list[Note]:
    """Whoever asks sees their own."""
    return [Note(**row) for row in await notes.all()]


@mine.post("", status_code=201)
async def add_notes(new: NewNotes, notes: TheNotes) -> dict[str, int]:
    """All of them or none."""
    await notes.add(new.texts)
    return {"added": len(new.texts)}


@mine.put("")
async def upload_notes(request: Request, notes: TheNotes) -> dict[str, int]:
    """One note a line, written as they arrive; a client that goes away half-way leaves none."""
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
    """One note a line. The request has its connection until the last one is sent."""

    async def lines() -> AsyncIterator[str]:
        async for row in notes.each():
            yield Note(**row).model_dump_json() + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


@public.get("/status")
async def show_status(status: TheStatus) -> dict[str, str]:
    """Whom the database takes the app for, on a connection of the app's own."""
    return {"role": await status.role()}


# --- errors --------------------------------------------------------------------------------------------------------


def _answer(status: int, detail: str, **headers: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers)


async def _nobody(_: Request, error: Exception) -> JSONResponse:
    return _answer(401, str(error))


async def _not_let_in(_: Request, error: Exception) -> JSONResponse:
    logger.warning("%s", error)  # with the host, which is no business of the client's
    assert isinstance(error, LoginError)
    return _answer(403, f"the database refuses this user's login ({error.failure.name.lower()})")


async def _no_credential(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, CredentialError)
    logger.warning("%s", error)
    if error.is_transient:
        return await _later(request, error)
    return _answer(401, "the workspace gives no database credential for this user's token; sign in again")


async def _later(_: Request, error: Exception) -> JSONResponse:
    logger.warning("%s", error)
    return _answer(503, "the database is busy or not reachable; try again", **{"Retry-After": "1"})


async def _unfit(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, psycopg.Error)
    return _answer(422, error.diag.message_primary or "the database does not take this")


async def _not_text(_: Request, error: Exception) -> JSONResponse:
    return _answer(422, f"expected text in UTF-8: {error}")


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # that nobody gets


_ANSWERS = {
    ClientDisconnect: _gone,
    IdentityError: _nobody,
    LoginError: _not_let_in,
    CredentialError: _no_credential,
    psycopg.OperationalError: _later,
    PoolTimeoutError: _later,
    PoolExhaustedError: _later,
    psycopg.IntegrityError: _unfit,
    psycopg.DataError: _unfit,
    UnicodeDecodeError: _not_text,
}


# --- put together --------------------------------------------------------------------------------------------------


def create_app(database: LakebasePoolConfig | None = None, container: Any = None) -> FastAPI:
    """
    The app. Does no I/O; its pools live from the server's start to its end.

    Args:
        database: What the app connects to, and as whom it does on its own behalf; `None` takes the environment.
        container: Its parts, if others than usual.
    """
    parts = App() if container is None else container
    parts.database.override(LakebasePoolConfig.from_env() if database is None else database)

    app = FastAPI(title="Notes")
    install(app, parts, values=lambda scope: {"headers": scope["headers"]})
    app.include_router(mine)
    app.include_router(public)
    for kind, answer in _ANSWERS.items():
        app.add_exception_handler(kind, answer)
    return app
