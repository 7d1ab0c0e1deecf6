"""Dash: the recipe's callbacks, as the page sends them, under a WSGI server with threads."""

from __future__ import annotations

import httpx
import pytest

from tests.web.servers import eventually, waitress_server

pytest.importorskip("dash", reason="dash is in the extra `recipes`")

# DiskcacheManager forks, which Python 3.12 and later warn of in a process with threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture
def recipe(load_recipe, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # of the cache
    recipe = load_recipe("dash_app.py")
    yield recipe
    assert recipe.users.stats().borrowed == 0
    recipe.users.close_all()


@pytest.fixture
def url(recipe):
    with waitress_server(recipe.server) as url:
        yield f"{url}/_dash-update-component"


def call(url, headers, output, inputs, state=(), **query):
    """One callback, with the values of its inputs and its state."""
    component, _, prop = output.partition(".")

    def values(pairs):
        return [dict(zip(("id", "property"), name.split("."), strict=True), value=value) for name, value in pairs]

    body = {
        "output": output,
        "outputs": {"id": component, "property": prop},
        "inputs": values(inputs),
        "changedPropIds": [name for name, _ in inputs],
        "state": values(state),
    }
    return httpx.post(url, headers=headers, json=body, params=query, timeout=60)


def show_notes(url, headers, clicks=None, text=None):
    return call(url, headers, "notes.children", [("add.n_clicks", clicks)], [("text.value", text)])


def lines(answer):
    assert answer.status_code == 200
    return [item["props"]["children"] for item in answer.json()["response"]["notes"]["children"]]


def test_each_user_sees_and_writes_their_own_notes(url, users):
    ann, bob = users
    mine = f"{ann.name}: of {ann.name}"
    assert lines(show_notes(url, ann.headers)) == [mine]
    assert lines(show_notes(url, ann.headers, 1, "second")) == [mine, f"{ann.name}: second"]
    assert lines(show_notes(url, bob.headers)) == [f"{bob.name}: of {bob.name}"]


def test_a_callback_that_raises_is_rolled_back_though_dash_answers_its_error(url, users):
    ann, _ = users
    assert show_notes(url, ann.headers, 1, "x" * 201).status_code == 500
    assert len(lines(show_notes(url, ann.headers))) == 1


@pytest.mark.parametrize(
    ("forged", "said"),
    [({}, "does not prove who you are"), ({"X-Forwarded-Access-Token": "made-up"}, "sign in again")],
)
def test_the_page_says_why_a_user_has_no_connection(url, users, forged, said):
    ann, _ = users
    answer = show_notes(url, {"X-Forwarded-Email": ann.name, **forged})
    assert answer.status_code == 200
    assert said in answer.json()["sideUpdate"]["message"]["children"]


def test_a_background_callback_is_its_users_too(url, users):
    ann, bob = users
    show_notes(url, ann.headers, 1, "three more words")
    assert count_words(url, ann.headers) == "5 words"
    assert count_words(url, bob.headers) == "2 words"


def count_words(url, headers):
    inputs = [("count.n_clicks", 1)]
    started = call(url, headers, "words.children", inputs).json()
    answers = []

    def is_done():
        query = {"cacheKey": started["cacheKey"], "job": started["job"]}
        answers.append(call(url, headers, "words.children", inputs, **query).json())
        return "response" in answers[-1]

    eventually(is_done, timeout=60)
    return answers[-1]["response"]["words"]["children"]
