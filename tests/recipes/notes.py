"""The table of the recipes for SQLAlchemy and Litestar: each user sees and writes their own entries."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lakebase import create_lakebase_pool
from tests.recipes.conftest import RECIPES

ANN, BOB = "ann@corp.example", "bob@corp.example"


@pytest.fixture(scope="module")
def tokens(lakebase_local) -> Iterator[dict[str, str]]:
    """The users' workspace tokens; the table is new, and goes."""
    with create_lakebase_pool(lakebase_local.config(), max_size=1) as pool:
        with pool.connection() as connection:
            connection.execute((RECIPES / "entries.sql").read_bytes())
        yield {user: lakebase_local.add_user(user) for user in (ANN, BOB)}
        with pool.connection() as connection:
            connection.execute("drop table entries")
