"""How many sessions the server has, by its own count."""

from __future__ import annotations

import threading
from typing import Any, Self

import psycopg

from lakebase import lakebase_pg_config

# Within a transaction the server would show again what it has shown once.
SESSIONS = "select pg_stat_clear_snapshot(), pid from pg_stat_activity where {} like %s"


def count_sessions(conn: psycopg.Connection[Any], column: str, pattern: str, expected: int) -> int:
    """
    The number of sessions with such a value in `column` of `pg_stat_activity`.

    Where there are more than `expected`, only those count that are still there a second later: the process of a session
    whose client has said goodbye takes some milliseconds to end, and longer on a busy machine.
    """

    def look() -> set[int]:
        return {pid for _, pid in conn.execute(SESSIONS.format(column), (pattern,))}

    found = look()
    for _ in range(5):
        if len(found) <= expected:
            break
        conn.execute("select pg_sleep(0.2)")
        found &= look()
    return len(found)


class Sessions:
    """
    The sessions of one application name, until the end of the block.

    Attributes:
        most: The most at any look.
        looks: How many there were.
    """

    def __init__(self, application_name: str, expected: int) -> None:
        self.most = self.looks = 0
        self._name, self._expected = application_name, expected
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._connection = psycopg.connect(**lakebase_pg_config(application_name="sessions"), autocommit=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ends.set()
        self._thread.join(30)
        self._connection.close()

    def _run(self) -> None:
        while not self._ends.wait(0.01):
            self.most = max(self.most, count_sessions(self._connection, "application_name", self._name, self._expected))
            self.looks += 1
