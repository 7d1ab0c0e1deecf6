"""Counts of connections, logins, credentials and calls."""

import contextlib

import psycopg
import pytest

from lakebase.local import LocalLakebaseError
from tests.local.clients import connect, refusal


def test_everything_is_counted(lake, user, settings):
    connect(settings)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(psycopg.connect(**settings))
        stats = lake.stats().user(user)
        assert (stats.open, stats.peak) == (3, 3)
    lake.wait_for_connections(0, user)
    refusal({**settings, "password": "wrong"})
    stats = lake.stats().user(user)
    assert (stats.open, stats.peak, stats.total, stats.refused) == (0, 3, 4, 1)
    refusal({**settings, "sslmode": "disable"})
    assert lake.stats().user(user).refused == 2
    assert lake.stats().user("nobody@corp.example").total == 0


def test_waiting_for_connections_that_do_not_come_is_an_error(lake, user):
    with pytest.raises(LocalLakebaseError, match="0 connections are open, not 1"):
        lake.wait_for_connections(1, user, timeout=0.05)


def test_calls_and_credentials_are_counted(lake, user, client):
    def counts():
        stats = lake.stats()
        return stats.user(user).minted, stats.api_calls.get("POST /api/2.0/postgres/credentials", 0)

    minted, calls = counts()
    for _ in range(3):
        client.postgres.generate_database_credential(endpoint=lake.endpoint)
    assert counts() == (minted + 3, calls + 3)
