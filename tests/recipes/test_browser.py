"""The recipes of apps in the browser, as their user sees them: one Chromium for Dash, Gradio and Streamlit."""

from __future__ import annotations

import os
from contextlib import contextmanager

import pytest

from tests.recipes.browser import CHROMIUM, adding
from tests.recipes.conftest import RECIPES
from tests.recipes.servers import served
from tests.recipes.streamlit_client import streamlit_server

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium; `.ci/get-chromium` installs one"),
    pytest.mark.timeout(240),
]
PATIENCE = 60_000  # milliseconds until an expectation counts as failed


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as started:
        playwright.expect.set_options(timeout=PATIENCE)
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, documented_environment, monkeypatch, tmp_path, users):
    """Open the page of a server as the first of two users, for a block; it gets nothing from any other server."""
    monkeypatch.setenv("PYTHONPATH", f"{RECIPES}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # of Dash's cache

    @contextmanager
    def open_page(server):
        with server as address, adding(users[0].headers, address) as url, chromium.new_context() as context:
            page = context.new_page()
            page.set_default_timeout(PATIENCE)
            page.route(lambda asked: not asked.startswith(url), lambda route: route.abort())
            page.goto(url)
            yield page

    return open_page


def see(found):
    return playwright.expect(found)


def add_note(page, field):
    field.fill("second")
    page.get_by_role("button", name="Add").click()


def test_dash(visit, users):
    ann, _ = users
    server = served(lambda port: ["waitress", f"--listen=127.0.0.1:{port}", "dash_app:server"], "/")
    with visit(server) as page:
        see(page.locator("#notes li")).to_have_text([f"{ann.name}: of {ann.name}"])
        add_note(page, page.locator("#text"))
        see(page.locator("#notes li")).to_have_text([f"{ann.name}: of {ann.name}", f"{ann.name}: second"])


def test_gradio(visit, users):
    ann, _ = users
    with visit(served(lambda port: ["uvicorn", f"--port={port}", "gradio_app:app"], "/")) as page:
        see(page.get_by_role("gridcell")).to_have_text([ann.name, f"of {ann.name}"])
        add_note(page, page.get_by_label("A note"))
        see(page.get_by_role("gridcell")).to_have_text([ann.name, f"of {ann.name}", ann.name, "second"])
        page.get_by_role("button", name="Export").click()
        see(page.get_by_label("Exported")).to_have_value(f"of {ann.name}\nsecond\n")


def test_streamlit(visit, users):
    ann, _ = users
    with visit(streamlit_server(RECIPES / "streamlit_app.py")) as page:
        see(page.get_by_text(f"as {ann.name}")).to_be_visible()
        add_note(page, page.get_by_label("A note"))
        cells = page.locator("canvas td")  # the table is painted, and this is for those who cannot see it
        see(cells).to_contain_text([f"of {ann.name}", "second"])
        see(cells.filter(has_text="of ")).to_have_count(1)
