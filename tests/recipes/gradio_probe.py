"""
The Gradio recipe, with pages of one note and a route that shows them one by one. Served in `test_gradio.py`.

It is a process of its own, since Gradio leaves event loops open when it is imported.
"""

from typing import Any

import gradio as gr
import gradio_app as recipe
from fastapi import FastAPI, Request

recipe.PAGE = 1
exports: dict[str, Any] = {}
app = FastAPI(lifespan=recipe.app.router.lifespan_context)


@app.get("/step")
def step(request: Request, expire: bool = False) -> tuple[str, int]:
    """What the next page of the user's export shows, and the connections that are out then."""
    pages = exports.setdefault(request.headers["x-forwarded-email"], recipe.export_notes(gr.Request(request)))
    if expire:
        recipe.users.expire()
    try:
        return next(pages), recipe.users.stats().borrowed
    except gr.Error as error:
        return error.message, recipe.users.stats().borrowed


app.mount("/", recipe.app)
