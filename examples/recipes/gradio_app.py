"""
Notes in the browser, each event on a connection of its user: `uvicorn gradio_app:app`.

The table is in `notes.sql`. The user comes in the headers that Databricks Apps adds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
from fastapi import FastAPI
from psycopg import Connection

from lakebase import LakebasePoolManager, UserIdentity, answer_error

PAGE = 500
users = LakebasePoolManager(max_total=50)


@contextmanager
def connection(request: gr.Request) -> Iterator[Connection[Any]]:
    """A connection of the user who sent the event: committed at the block's end, rolled back if it raises."""
    try:
        with users.for_user(UserIdentity.from_headers(request.headers)).connection() as conn:
            yield conn
    except Exception as error:
        answer = answer_error(error)
        if answer is None:
            raise
        raise gr.Error(answer.detail) from error  # such as that the sign-in has expired


def list_notes(request: gr.Request) -> list[tuple[Any, ...]]:
    with connection(request) as conn:
        return conn.execute("select owner, text from notes order by id").fetchall()


def add_note(text: str, request: gr.Request) -> list[tuple[Any, ...]]:
    with connection(request) as conn:
        conn.execute("insert into notes (text) values (%s)", [text])
    return list_notes(request)


def export_notes(request: gr.Request) -> Iterator[str]:
    shown, last = "", 0
    while True:
        with connection(request) as conn:  # for one page: none is held while the browser gets it
            query = "select id, text from notes where id > %s order by id limit %s"
            rows = conn.execute(query, [last, PAGE]).fetchall()
        if not rows:
            return
        last = rows[-1][0]
        shown += "".join(f"{text}\n" for _, text in rows)
        yield shown


with gr.Blocks(title="Notes") as demo:
    note = gr.Textbox(label="A note", max_length=200)
    add = gr.Button("Add")
    notes = gr.Dataframe(headers=["owner", "text"])
    export = gr.Button("Export")
    exported = gr.Textbox(label="Exported", lines=10)
    demo.load(list_notes, outputs=notes)
    add.click(add_note, inputs=note, outputs=notes)
    export.click(export_notes, outputs=exported)

app = gr.mount_gradio_app(FastAPI(), demo, path="/")
