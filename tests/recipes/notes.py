"""The table of the recipes that have one: each user sees and writes their own notes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lakebase import create_lakebase_pool

ANN, BOB = "ann@corp.example", "bob@corp.example"

SCHEMA = """
drop table if exists notes;
create table notes (
    id bigint generated always as identity primary key,
    body text not null unique,
    owner text not null default current_user
);
alter table notes enable row level security;
create policy own on notes using (owner = current_user);
grant select, insert on notes to public;
"""


@pytest.fixture(scope="module")
def tokens(lakebase_local) -> Iterator[dict[str, str]]:
    """The users' workspace tokens; the table is new, and goes."""
    with create_lakebase_pool(lakebase_local.config(), max_size=1) as pool:
        with pool.connection() as connection:
            connection.execute(SCHEMA)
        yield {user: lakebase_local.add_user(user) for user in (ANN, BOB)}
        with pool.connection() as connection:
            connection.execute("drop table notes")
