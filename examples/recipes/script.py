"""A job that reads and writes as the app's own identity: `python script.py`, or the cells of a notebook."""

import sys

from lakebase import create_lakebase_pool


def main() -> None:
    with create_lakebase_pool() as pool, pool.connection() as conn:
        conn.execute("create table if not exists visits (at timestamptz not null default now())")
        conn.execute("insert into visits default values")
        row = conn.execute("select count(*), max(at) from visits").fetchone()
    assert row is not None
    sys.stdout.write(f"visits: {row[0]}\n")


if __name__ == "__main__":
    main()
