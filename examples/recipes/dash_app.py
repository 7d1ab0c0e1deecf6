"""
Notes in the browser, each callback on a connection of its user: `gunicorn --threads 8 dash_app:server`.

The table is in `notes.sql`. The user comes in the headers that Databricks Apps adds.
"""

from contextlib import AbstractContextManager
from typing import Any

from dash import Dash, DiskcacheManager, Input, Output, State, ctx, dcc, html, set_props
from psycopg import Connection

from lakebase import LakebasePoolManager, UserIdentity, answer_error

users = LakebasePoolManager(max_total=50)


def connection() -> AbstractContextManager[Connection[Any]]:
    """A connection of the user whose callback runs: committed at the block's end, rolled back if it raises."""
    return users.for_user(UserIdentity.from_headers(ctx.headers)).connection()


def explain(error: Exception) -> None:
    """Tell the user why a callback has no connection, such as that the sign-in has expired."""
    answer = answer_error(error)
    if answer is None:
        raise error
    server.logger.warning("%s", error)  # it names the host, so the user does not get it
    set_props("message", {"children": answer.detail})


app = Dash(__name__, on_error=explain, background_callback_manager=DiskcacheManager())  # type: ignore[no-untyped-call]
server = app.server
app.layout = html.Div(
    [
        dcc.Input(id="text", maxLength=200),
        html.Button("Add", id="add"),
        html.P(id="message"),
        html.Ul(id="notes"),
        html.Button("Count the words", id="count"),
        html.P(id="words"),
    ]
)


@app.callback(Output("notes", "children"), Input("add", "n_clicks"), State("text", "value"))
def show_notes(clicks: int | None, text: str | None) -> list[html.Li]:
    with connection() as conn:
        if clicks and text:
            conn.execute("insert into notes (text) values (%s)", [text])
        rows = conn.execute("select owner, text from notes order by id").fetchall()
    return [html.Li(f"{owner}: {text}") for owner, text in rows]


# In a process of its own, which logs in by itself.
@app.callback(Output("words", "children"), Input("count", "n_clicks"), background=True, prevent_initial_call=True)
def count_words(_: int | None) -> str:
    with connection() as conn:
        texts = conn.execute("select text from notes").fetchall()
    return f"{sum(len(text.split()) for (text,) in texts)} words"
