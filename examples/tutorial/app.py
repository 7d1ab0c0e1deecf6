"""Notes: each user sees their own, since Postgres decides which rows a connection's role may see."""

from typing import Annotated, Any

from dependency_injector import providers
from fastapi import FastAPI
from psycopg import AsyncConnection
from psycopg.rows import dict_row
from pydantic import BaseModel, Field

from lakebase import AsyncLakebasePoolManager, LakebasePoolConfig, answer_error, request_identity
from pooling.di import Container, Factory, Managed, Pooled
from pooling.web.fastapi import Injected, install


class Notes:
    """What a connection's role may see and write. It knows neither users nor pools."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection

    async def all(self) -> list[dict[str, Any]]:
        cursor = self._connection.cursor(row_factory=dict_row)
        await cursor.execute("select id, owner, text from notes order by id")
        return await cursor.fetchall()

    async def add(self, text: str) -> None:
        await self._connection.execute("insert into notes (text) values (%s)", [text])


class App(Container):
    """How the parts depend on each other: a pool for each user, one connection for each request."""

    database = providers.Callable(LakebasePoolConfig.from_env)  # read when the app starts
    pools = Managed(AsyncLakebasePoolManager, database, max_total=40, stop="close_all")
    connection = Pooled(pools, select=lambda pools, ctx: pools.for_user(ctx["identity"]))
    notes = Factory(Notes, connection)


class NewNote(BaseModel):
    text: str = Field(min_length=1, max_length=200)


UserNotes = Annotated[Notes, Injected[App.notes]]

app = FastAPI(title="Notes")
install(app, App(), values=request_identity, errors=answer_error)


@app.get("/health")
async def health() -> str:
    return "well"


@app.get("/notes")
async def list_notes(notes: UserNotes) -> list[dict[str, Any]]:
    return await notes.all()


@app.post("/notes", status_code=201)
async def add_note(note: NewNote, notes: UserNotes) -> None:
    await notes.add(note.text)
