"""The Litestar app on uvicorn."""

from __future__ import annotations

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

pytest.importorskip("litestar")

from tests.recipes.notes import ANN, BOB
from tests.recipes.notes import tokens as tokens
from tests.recipes.servers import asked, headers_of
from tests.web.servers import Uvicorn


def test_each_user_sees_their_own_notes_and_a_stranger_nothing(load_recipe, tokens):
    with Uvicorn(load_recipe("litestar_app.py").app) as server:
        url = server.url
        for user in (ANN, BOB):
            assert asked(url, f"/notes?text=of {user}", tokens, user, method="POST").status_code == 201
        for user in (ANN, BOB):
            assert asked(url, "/notes", tokens, user).json() == [[f"of {user}", user]]
        assert asked(url, f"/notes?text=of {ANN}", tokens, BOB, method="POST").status_code == 500, "not unique"
        assert (asked(url, "/health").text, asked(url, "/notes").status_code) == ("well", 401)

        counts = url.replace("http", "ws") + "/counts"
        with connect(counts, additional_headers=headers_of(tokens, ANN)) as socket:
            for prefix, found in (("of", "1"), ("by", "0")):
                socket.send(prefix)
                assert socket.recv() == found
        with connect(counts) as socket:
            socket.send("of")
            with pytest.raises(ConnectionClosedError) as closed:
                socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
