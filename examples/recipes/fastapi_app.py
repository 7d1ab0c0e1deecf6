"""
Answers, streams, tokens of a language model, websockets and background tasks, each as the request's user.

`uvicorn fastapi_app:app`; `python fastapi_app.py`, as the owner of the database, makes the tables once.
"""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import BackgroundTasks, Body, Depends, FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.sse import EventSourceResponse
from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation

from lakebase import AsyncLakebasePoolManager, UserIdentity, answer_error, create_lakebase_pool, request_identity
from pooling import RequestContext
from pooling.di import Container, Factory, Inject, Managed, Pooled, inject, part
from pooling.web.fastapi import CurrentRequest, Injected, install

SCHEMA = """
    create table notes (
        id bigint generated always as identity primary key,
        owner text not null default current_user,
        title text not null,
        unique (owner, title) deferrable initially deferred
    );
    alter table notes enable row level security;
    create policy own on notes using (owner = current_user);
    grant select, insert, update on notes to public;
"""


class Notes:
    """The notes that the user may see. It knows of a connection, and not of pools or requests."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self.connection = connection

    async def add(self, title: str) -> int:
        cursor = await self.connection.execute("insert into notes (title) values (%s) returning id", [title])
        row = await cursor.fetchone()
        assert row is not None
        return int(row[0])

    async def after(self, last: int, limit: int = 100) -> list[tuple[int, str]]:
        select = "select id, title from notes where id > %s order by id limit %s"
        return await (await self.connection.execute(select, [last, limit])).fetchall()

    async def shout(self) -> None:
        await self.connection.execute("update notes set title = upper(title)")


def users_pool(pools: AsyncLakebasePoolManager[AsyncConnection[Any]], ctx: RequestContext) -> Any:
    return pools.for_user(ctx["identity"])


class App(Container):
    pools = Managed(AsyncLakebasePoolManager, max_total=50, stop="close_all")
    connection: Pooled[AsyncConnection[Any]] = Pooled(pools, select=users_pool)
    notes = Factory(Notes, connection)


container, app = App(), FastAPI()
install(app, container, values=request_identity, errors=answer_error)


# --- an answer: committed before it goes out -------------------------------------------------------


@app.post("/notes", status_code=201)
async def add_note(title: Annotated[str, Body()], notes: Annotated[Notes, Injected[App.notes]]) -> int:
    return await notes.add(title)


@app.exception_handler(UniqueViolation)  # also of the commit, which checks a deferred constraint
async def conflict(_: Request, __: Exception) -> JSONResponse:
    return JSONResponse({"detail": "there is a note with this title"}, 409)


# --- a stream: a connection for each page, and none while the client reads -------------------------


@part
@inject
async def page_after(last: int, notes: Notes = Inject[App.notes]) -> list[tuple[int, str]]:
    return await notes.after(last)


@app.get("/notes")
async def export_notes() -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        last = 0
        while page := await page_after(last):
            last = page[-1][0]
            yield "".join(f"{title}\n" for _, title in page)

    return StreamingResponse(lines(), media_type="text/plain")


# --- tokens of a language model as server-sent events, saved when all are there --------------------

Model = Callable[[str], AsyncIterator[str]]


def the_model() -> Model:
    """In place of the client of a language model."""

    async def echo(question: str) -> AsyncIterator[str]:
        for word in question.split():
            yield word

    return echo


@part
@inject
async def save(title: str, notes: Notes = Inject[App.notes]) -> None:
    await notes.add(title)


@app.post("/ask", response_class=EventSourceResponse)
async def ask(question: Annotated[str, Body()], model: Annotated[Model, Depends(the_model)]) -> AsyncIterator[str]:
    tokens = []
    async for token in model(question):
        tokens.append(token)
        yield token
    await save(" ".join(tokens))
    yield "saved"


# --- a websocket: its user is read once, each message is a transaction -----------------------------


@app.websocket("/live")
async def live(socket: WebSocket, ctx: Annotated[RequestContext, CurrentRequest]) -> None:
    user = ctx["identity"].user
    await socket.accept()
    try:
        while True:
            title = await socket.receive_text()
            await save(title)
            await socket.send_text(f"saved for {user}")  # after the commit
    except WebSocketDisconnect:
        pass


# --- a background task: a request of its own, as the same user -------------------------------------


async def shout_as(identity: UserIdentity) -> None:
    async with container.request("shout", identity=identity):
        notes = await container.notes.aget()
        await notes.shout()


@app.post("/shout", status_code=202)
async def shout(
    title: Annotated[str, Body()],
    notes: Annotated[Notes, Injected[App.notes, "handler"]],  # its connection goes back before the task begins
    tasks: BackgroundTasks,
    ctx: Annotated[RequestContext, CurrentRequest],
) -> None:
    await notes.add(title)
    tasks.add_task(shout_as, ctx["identity"])


def set_up() -> None:
    """Make the table."""
    with create_lakebase_pool() as pool, pool.connection() as connection:
        connection.execute(SCHEMA)


if __name__ == "__main__":
    set_up()
