"""Flask: the recipe under waitress, a WSGI server with threads."""

from __future__ import annotations

import socket

import httpx
import pytest

from tests.web.servers import eventually, get, waitress_server

pytest.importorskip("flask", reason="flask is in the extra `flask`")


@pytest.fixture
def recipe(load_recipe):
    return load_recipe("flask_app.py")


@pytest.fixture
def url(recipe):
    with waitress_server(recipe.app) as url:
        yield url
    container = recipe.app.extensions["pooling"].container
    eventually(lambda: container.users().stats().borrowed == 0)
    container.stop()


def test_each_user_sees_and_writes_their_own_notes(url, users):
    ann, bob = users
    added = httpx.post(f"{url}/notes", headers=ann.headers, json={"text": "second"}, timeout=30)
    assert added.status_code == 201
    assert get(url, "/notes", headers=ann.headers).json() == [
        {"owner": ann.name, "text": f"of {ann.name}"},
        {"owner": ann.name, "text": "second"},
    ]
    assert get(url, "/notes", headers=bob.headers).json() == [{"owner": bob.name, "text": f"of {bob.name}"}]
    assert get(url, "/notes.txt", headers=ann.headers).text == f"of {ann.name}\nsecond\n"


def test_what_the_database_refuses_is_not_kept(url, users):
    ann, _ = users
    assert httpx.post(f"{url}/notes", headers=ann.headers, json={"text": ""}, timeout=30).status_code == 422
    assert len(get(url, "/notes", headers=ann.headers).json()) == 1


def test_a_stream_that_its_client_leaves_gives_its_connection_back(url, recipe, users):
    ann, _ = users
    container = recipe.app.extensions["pooling"].container
    many = "insert into notes (text) select repeat('x', 200) from generate_series(1, 50000)"
    with container.users().get_pool(ann.name, ann.config()).connection() as conn:
        conn.execute(many)
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as client:
        head = "".join(f"{name}: {value}\r\n" for name, value in {"Host": host, **ann.headers}.items())
        client.sendall(f"GET /notes.txt HTTP/1.1\r\n{head}\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert container.users().stats().borrowed == 1
    eventually(lambda: container.users().stats().borrowed == 0)


def test_who_proves_no_sign_in_gets_no_connection(url, users):
    ann, bob = users
    assert get(url, "/health").text == "well"
    assert get(url, "/notes").status_code == 401
    name = {"X-Forwarded-Email": ann.name}
    for forged, status in (({}, 401), ("made-up", 401), (bob.token, 403)):
        token = {"X-Forwarded-Access-Token": forged} if forged else {}
        assert get(url, "/notes", headers={**name, **token}).status_code == status
    with ann.lake.refuse("3D000", user=ann.name):
        assert get(url, "/notes", headers=ann.headers).status_code == 500, "the app's own mistake"
    assert get(url, "/notes", headers=ann.headers).status_code == 200
