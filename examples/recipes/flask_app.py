"""
Notes over HTTP, each request on a connection of its user: `waitress-serve --listen=127.0.0.1:8000 flask_app:app`.

The table is in `notes.sql`. The user comes in the headers that Databricks Apps adds.
"""

from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, request
from psycopg import Connection
from psycopg.errors import CheckViolation
from psycopg.rows import dict_row

from lakebase import LakebasePoolManager, answer_error, request_identity
from pooling import di
from pooling.web.flask import Pooling


class App(di.Container):
    users = di.Managed(LakebasePoolManager, max_total=50, stop="close_all")
    connection: di.Pooled[Connection[Any]] = di.Pooled(users, select=lambda users, ctx: users.for_user(ctx["identity"]))


app = Flask(__name__)
Pooling(app, App(), values=request_identity, errors=answer_error)


@app.get("/health")
def health() -> str:  # needs no user, and takes no connection
    return "well"


@app.get("/notes")
@di.inject
def list_notes(conn: Connection[Any] = di.Inject[App.connection]) -> list[dict[str, Any]]:
    return conn.cursor(row_factory=dict_row).execute("select owner, text from notes order by id").fetchall()


@app.post("/notes")
@di.inject
def add_note(conn: Connection[Any] = di.Inject[App.connection]) -> tuple[str, int]:
    conn.execute("insert into notes (text) values (%s)", [request.get_json()["text"]])
    return "", 201  # goes out after the commit


@app.get("/notes.txt")
@di.inject
def export_notes(conn: Connection[Any] = di.Inject[App.connection]) -> Response:
    def lines() -> Iterator[str]:  # has the connection until the last line is sent, or the client leaves
        with conn.cursor("export") as cursor:  # the server keeps the rows that were not read yet
            for (text,) in cursor.execute("select text from notes order by id"):
                yield f"{text}\n"

    return Response(lines(), mimetype="text/plain")


@app.errorhandler(CheckViolation)
def bad_note(_: CheckViolation) -> tuple[str, int]:  # what the view wrote is rolled back
    return "a note has 1 to 200 characters", 422
