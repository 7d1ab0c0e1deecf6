"""Counts the sessions that the server has, as often as it can."""

from __future__ import annotations

import threading
from typing import Self

import psycopg

from lakebase import lakebase_pg_config

COUNT = "select count(*) from pg_stat_activity where application_name = %s"


class Sessions:
    """
    The sessions of one application name, by the server's own count, until the end of the block.

    Attributes:
        count: At the last look.
        most: The most at any look.
        looks: How many there were.
    """

    def __init__(self, application_name: str) -> None:
        self.count = self.most = self.looks = 0
        self._name = application_name
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
            (self.count,) = self._connection.execute(COUNT, (self._name,)).fetchone() or (0,)
            self.most = max(self.most, self.count)
            self.looks += 1
