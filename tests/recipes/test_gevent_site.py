"""The pools for threads in gunicorn's gevent worker, whose threads are greenlets."""

from __future__ import annotations

import concurrent.futures

import psycopg
import pytest

pytest.importorskip("gevent", reason="of the extra recipes")

from lakebase import lakebase_pg_config
from tests.recipes.notes import ANN, BOB
from tests.recipes.servers import asked, listening

GUNICORN = "-m gunicorn -k gevent --bind fd://{fd} --no-control-socket --log-level error gevent_site:site"


@pytest.fixture
def tokens(lakebase_local):
    return {user: lakebase_local.add_user(user) for user in (ANN, BOB)}


def test_greenlets_wait_for_the_server_and_for_the_pool_without_holding_up_the_others(documented_environment, tokens):
    with (
        listening(GUNICORN) as url,
        concurrent.futures.ThreadPoolExecutor(16) as clients,
        psycopg.connect(**lakebase_pg_config(documented_environment.config())) as lock,
    ):
        asked_by_turns = [ANN, BOB] * 12
        answers = clients.map(lambda user: asked(url, "/who", tokens, user).text, asked_by_turns)
        assert list(answers) == asked_by_turns
        assert asked(url, "/who").status_code == 401

        lock.execute("select pg_advisory_lock(7)")
        # More than the user's 3 connections: 3 requests wait for the server, and 2 for a connection.
        waiting = [clients.submit(asked, url, "/patient", tokens, ANN) for _ in range(5)]
        assert asked(url, "/health").text == "well"
        assert asked(url, "/who", tokens, BOB).text == BOB
        assert not any(one.done() for one in waiting)
        lock.execute("select pg_advisory_unlock(7)")
        assert {one.result(60).text for one in waiting} == {"locked"}
