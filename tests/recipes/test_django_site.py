"""The Django site on its servers: two users, and each sees their own notes only."""

from __future__ import annotations

import pytest

pytest.importorskip("django")

from tests.recipes.servers import asked, listening

GUNICORN = "-m gunicorn -k gthread --threads 4 --bind fd://{fd} --no-control-socket --log-level error django_site:wsgi"
UVICORN = "-m uvicorn --fd {fd} --log-level error django_site:asgi"
ANN, BOB = "ann@corp.example", "bob@corp.example"


@pytest.fixture(scope="module")
def tokens(lakebase_local):
    return {user: lakebase_local.add_user(user) for user in (ANN, BOB)}


def test_each_user_sees_their_own_notes_under_wsgi_and_asgi(run_recipe, documented_environment, tokens):
    made = run_recipe("django_site.py", "setup")
    assert made.stdout == f"the table is {documented_environment.client_id}'s\n"
    for command in (GUNICORN, UVICORN):
        with listening(command) as url:
            for user in (ANN, BOB):
                answer = asked(url, "/notes", tokens, user, method="POST", content=f"of {user}")
                assert answer.json()["user"] == user
            for user in (ANN, BOB):
                notes = asked(url, "/notes", tokens, user).json()["notes"]
                assert {tuple(note) for note in notes} == {(f"of {user}", user)}
                assert asked(url, "/anotes", tokens, user).json()["notes"] == notes
                assert asked(url, "/export", tokens, user).text == f"{user}: of {user}\n" * len(notes)
            assert asked(url, "/health").text == "well"
            assert asked(url, "/notes").status_code == 401
