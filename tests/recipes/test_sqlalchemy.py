"""Sessions of SQLAlchemy for requests, on FastAPI and on Flask."""

from __future__ import annotations

import pytest

pytest.importorskip("sqlalchemy")

from tests.recipes.notes import ANN, BOB
from tests.recipes.notes import tokens as tokens
from tests.recipes.servers import asked
from tests.web.servers import Uvicorn, waitress_server


@pytest.mark.parametrize("recipe", ["sqlalchemy_fastapi.py", "sqlalchemy_flask.py"])
def test_each_request_has_a_session_that_commits_before_its_answer(load_recipe, tokens, recipe):
    module = load_recipe(recipe)
    is_async = recipe.endswith("fastapi.py")
    with Uvicorn(module.api) if is_async else waitress_server(module.site) as served:
        url = served.url if is_async else served
        of = recipe.partition("_")[2]
        for user in (ANN, BOB):
            assert asked(url, f"/notes?body={of} of {user}", tokens, user, method="POST").status_code == 201
        for user in (ANN, BOB):
            assert [f"{of} of {user}", user] in asked(url, "/notes", tokens, user).json()
            assert {owner for _, owner in asked(url, "/notes", tokens, user).json()} == {user}
        again = asked(url, f"/notes?body={of} of {ANN}", tokens, BOB, method="POST")
        assert again.status_code == 500, "the commit fails, since the body is not unique; not a 201"
        assert asked(url, "/notes").status_code == 401
