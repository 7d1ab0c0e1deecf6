"""Gradio: the recipe's events through its queue, as two users' clients send them to a real server."""

from __future__ import annotations

import importlib.util
import os
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from tests.recipes.conftest import RECIPES
from tests.recipes.servers import served
from tests.web.servers import get

if importlib.util.find_spec("gradio") is None:
    pytest.skip("gradio is in the extra `recipes`", allow_module_level=True)

HERE = Path(__file__).parent
ARGUMENTS = [f"--app-dir={HERE}", "--log-level=warning", "gradio_probe:app"]


@pytest.fixture(scope="module")
def server():
    """uvicorn, started once, when the environment is there."""
    with ExitStack() as stack:
        yield cache(lambda: stack.enter_context(served(lambda port: ["uvicorn", f"--port={port}", *ARGUMENTS], "/")))


@pytest.fixture
def url(server, documented_environment, monkeypatch):
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    monkeypatch.setenv("PYTHONPATH", f"{RECIPES}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    return f"http://{server()}"


@pytest.fixture
def client_of(url):
    from gradio_client import Client

    return lambda headers: Client(
        url, headers=dict(headers), verbose=False, download_files=False, analytics_enabled=False
    )


def test_each_user_sees_and_writes_their_own_notes(client_of, users):
    ann, bob = users
    anns = client_of(ann.headers)
    assert anns.predict("second", api_name="/add_note")["data"] == [[ann.name, f"of {ann.name}"], [ann.name, "second"]]
    assert client_of(bob.headers).predict(api_name="/list_notes")["data"] == [[bob.name, f"of {bob.name}"]]
    export = anns.submit(api_name="/export_notes")
    export.result(timeout=60)
    assert export.outputs() == [f"of {ann.name}\n", f"of {ann.name}\nsecond\n"]


def test_the_page_says_why_a_user_has_no_connection(client_of, users):
    ann, bob = users
    name = {"X-Forwarded-Email": ann.name}
    with pytest.raises(Exception, match="does not prove who you are"):
        client_of(name).predict(api_name="/list_notes")
    for token, said in (("made-up", "sign in again"), (bob.token, "refuses your login")):
        with pytest.raises(Exception, match=said):
            client_of({**name, "X-Forwarded-Access-Token": token}).predict(api_name="/list_notes")


def test_an_export_holds_no_connection_between_its_pages(url, users):
    ann, _ = users
    headers = ann.headers
    assert get(url, "/step", headers=headers).json() == [f"of {ann.name}\n", 0]
    ann.lake.revoke(ann.name)  # an export may last longer than the token of its event
    shown, borrowed = get(url, "/step?expire=1", headers=headers).json()
    assert "sign in again" in shown
    assert borrowed == 0
