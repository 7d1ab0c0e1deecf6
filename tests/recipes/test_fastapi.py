"""The FastAPI app behind uvicorn: what a client was told is in the database, and nothing is held while it waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from tests.web.servers import Uvicorn

ANN, BOB = "ann@fastapi.example", "bob@fastapi.example"
pytest.importorskip("fastapi.sse", reason="the recipe needs FastAPI 0.135, which brings server-sent events")


class Site:
    """The recipe, served; and what its database has."""

    def __init__(self, recipe: Any, server: Uvicorn, owner: psycopg.Connection, lake: Any) -> None:
        self.recipe, self.server, self.owner, self.lake = recipe, server, owner, lake
        self.base = f"http://127.0.0.1:{server.port}"

    def headers(self, user: str) -> dict[str, str]:
        return {"X-Forwarded-Email": user, "X-Forwarded-Access-Token": self.lake.token(user)}

    def post(self, path: str, body: Any, user: str = ANN) -> httpx.Response:
        return httpx.post(self.base + path, json=body, headers=self.headers(user), timeout=60)

    def titles(self) -> list[tuple[str, str]]:
        return self.owner.execute("select owner, title from notes order by id").fetchall()

    @property
    def borrowed(self) -> int:
        return self.recipe.container.pools().stats().borrowed


@pytest.fixture
def site(load_recipe, as_owner, documented_environment) -> Iterator[Site]:
    lake = documented_environment
    for user in (ANN, BOB):
        lake.add_user(user)
    recipe = load_recipe("fastapi_app.py")
    with as_owner():
        recipe.set_up()
    admin = {**lake.config().connect_kwargs(), "password": lake.mint(lake.admin_user), "autocommit": True}
    with psycopg.connect(**admin) as owner:
        with Uvicorn(recipe.app) as server:
            yield Site(recipe, server, owner, lake)
        owner.execute("drop table notes")


def test_what_was_answered_is_committed_and_a_commit_that_fails_is_an_error(site):
    assert site.post("/notes", "one").status_code == 201
    assert site.titles() == [(ANN, "one")]
    again = site.post("/notes", "one")  # which only the commit refuses
    assert (again.status_code, again.json()) == (409, {"detail": "there is a note with this title"})
    assert site.post("/notes", "one", BOB).status_code == 201
    assert site.titles() == [(ANN, "one"), (BOB, "one")]
    assert httpx.post(site.base + "/notes", json="one", timeout=60).status_code == 401


def test_a_stream_has_all_pages_of_its_user(site):
    site.owner.execute("insert into notes (owner, title) select %s, 'n' || n from generate_series(1, 250) n", [ANN])
    site.post("/notes", "his", BOB)
    answer = httpx.get(site.base + "/notes", headers=site.headers(ANN), timeout=60)
    assert answer.text.splitlines() == [f"n{number}" for number in range(1, 251)]
    assert site.borrowed == 0


class Hesitating:
    """A model that waits before its last word."""

    def __init__(self) -> None:
        self.waits, self.go_on = threading.Event(), threading.Event()

    def __call__(self) -> Any:
        async def model(question: str) -> Any:
            yield "forty"
            self.waits.set()
            await asyncio.to_thread(self.go_on.wait, 60)
            yield "two"

        return model


def events(answer: httpx.Response) -> Iterator[str]:
    return (line.removeprefix("data: ").strip('"') for line in answer.iter_lines() if line.startswith("data: "))


def test_no_connection_is_held_while_tokens_flow_and_the_answer_is_saved_at_the_end(site):
    model = Hesitating()
    site.recipe.app.dependency_overrides[site.recipe.the_model] = model
    with httpx.stream("POST", site.base + "/ask", json="?", headers=site.headers(ANN), timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = events(answer)
        assert next(lines) == "forty"
        assert model.waits.wait(60)
        assert (site.borrowed, site.titles()) == (0, [])
        model.go_on.set()
        assert list(lines) == ["two", "saved"]
        assert site.titles() == [(ANN, "forty two")]


def test_an_answer_that_its_client_did_not_wait_for_is_not_saved(site):
    model = Hesitating()
    site.recipe.app.dependency_overrides[site.recipe.the_model] = model
    with httpx.stream("POST", site.base + "/ask", json="?", headers=site.headers(ANN), timeout=60) as answer:
        assert next(events(answer)) == "forty"
        assert model.waits.wait(60)
    model.go_on.set()
    site.server.stop()  # waits for what runs
    assert site.titles() == []


def test_each_message_of_a_websocket_is_a_transaction_of_its_user(site):
    url = site.base.replace("http", "ws") + "/live"
    with (
        connect(url, additional_headers=site.headers(ANN)) as anns,
        connect(url, additional_headers=site.headers(BOB)) as bobs,
    ):
        for socket, user in ((anns, ANN), (bobs, BOB), (anns, ANN)):
            socket.send(f"note {len(site.titles())}")
            assert socket.recv(60) == f"saved for {user}"
            assert site.borrowed == 0
        assert site.titles() == [(ANN, "note 0"), (BOB, "note 1"), (ANN, "note 2")]
        bobs.send("note 1")
        with pytest.raises(ConnectionClosedError):
            bobs.recv(60)
    assert len(site.titles()) == 3
    with pytest.raises(InvalidStatus), connect(url):
        pass


def test_a_background_task_works_as_the_user_after_the_answer(site):
    site.post("/notes", "quiet", BOB)
    assert site.post("/shout", "loud").status_code == 202
    site.server.stop()  # waits for the task
    assert sorted(site.titles()) == [(ANN, "LOUD"), (BOB, "quiet")]
