"""The data of the demo: its users, its tables and rows, and what the tables' owner sees of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any, LiteralString, Self

from lakebase import create_lakebase_pool

if TYPE_CHECKING:
    from types import TracebackType

    from lakebase.local import LocalLakebase

__all__ = ["ROWS", "Dataset", "user_names"]

#: Notes of each user at the beginning.
ROWS = 12

_FIRST_NAMES = ("ann", "bob", "cyd", "dan", "eve", "flo", "gus", "hal", "ida", "joe")


def user_names(count: int) -> list[str]:
    """The names of that many users."""
    return [f"{_FIRST_NAMES[n % 10]}{n // 10 + 1 if n > 9 else ''}@corp.example" for n in range(count)]


class Dataset:
    """
    Makes the tables and counts their rows, as their owner, to whom row-level security does not apply.

    Methods block.
    """

    def __init__(self, lake: LocalLakebase) -> None:
        self._pool = create_lakebase_pool(lake.config(), max_size=1, name="demo's own")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.close()

    def create(self, users: Sequence[str]) -> int:
        """Make the tables and the rows of every user; return how many rows Postgres counts."""
        with self._pool.connection() as conn:
            conn.execute(files("lakebase.demo").joinpath("schema.sql").read_bytes())
            conn.cursor().executemany(
                "insert into notes (owner, text) values (%s, %s)",
                [(user, f"{user.partition('@')[0]}'s note {n}") for user in users for n in range(1, ROWS + 1)],
            )
        return sum(self.notes().values())

    def notes(self) -> dict[str, int]:
        """The number of notes of each owner."""
        return dict(self._fetch("select owner, count(*) from notes group by owner"))

    def visits(self) -> dict[str, Counter[str]]:
        """For each role, how often each request was committed as that role."""
        seen: dict[str, Counter[str]] = {}
        for role, request in self._fetch("select role, request from visits"):
            seen.setdefault(role, Counter())[request] += 1
        return seen

    def is_in_transaction(self, user: str) -> bool:
        """Whether a connection of that role waits for its client with a transaction open."""
        found = self._fetch(
            "select count(*) from pg_stat_activity where usename = %s and state = 'idle in transaction'", user
        )
        return bool(found[0][0])

    def _fetch(self, query: LiteralString, *values: Any) -> list[Any]:
        with self._pool.connection() as conn:
            rows: list[Any] = conn.execute(query, values or None).fetchall()
        return rows
