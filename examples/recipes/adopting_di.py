"""An app that was wired with `Provide` before: its views are as they were. `flask --app adopting_di run`."""

from typing import Any

import psycopg
from dependency_injector import providers
from dependency_injector.wiring import Provide, inject
from flask import Flask, request

from lakebase import LakebasePoolConfig, LakebasePoolManager, answer_error, request_identity
from pooling.di import Container, Managed, PerRequest, Pooled
from pooling.web.flask import Pooling

Connection = psycopg.Connection[Any]


class Journal:
    """What happened in one request, written in one statement before its answer goes out."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lines: list[str] = []

    def note(self, line: str) -> None:
        self._lines.append(line)

    def write(self) -> None:
        lines, self._lines = self._lines, []  # a request may have several checkpoints
        if lines:
            self._connection.execute("insert into journal (line) select unnest(%s::text[])", [lines])


class Notes:
    def __init__(self, connection: Connection, journal: Journal) -> None:
        self._connection = connection
        self._journal = journal

    def all(self) -> list[str]:
        return [text for (text,) in self._connection.execute("select text from notes order by text")]

    def add(self, text: str) -> None:
        self._connection.execute("insert into notes (text) values (%s)", [text])
        self._journal.note(f"added {text}")


class App(Container):  # was a containers.DeclarativeContainer
    database = providers.Callable(LakebasePoolConfig.from_env)
    pools = Managed(LakebasePoolManager, database, max_total=20, stop="close_all")
    connection = Pooled(pools, select=lambda pools, ctx: pools.for_user(ctx["identity"]))  # was a Singleton
    journal = PerRequest(Journal, connection, checkpoint="write")  # was a ThreadLocalSingleton
    notes = providers.Factory(Notes, connection, journal)  # was a Singleton


app = Flask(__name__)


@app.get("/notes")
@inject
def list_notes(notes: Notes = Provide[App.notes]) -> list[str]:
    return notes.all()


@app.post("/notes")
@inject
def add_note(notes: Notes = Provide[App.notes]) -> tuple[str, int]:
    for line in request.get_data(as_text=True).splitlines():
        notes.add(line)
    return "", 201


container = App()
container.wire(modules=[__name__])
Pooling(app, container, values=request_identity, errors=answer_error)
