"""Connections that end by age: of a pool whose process stood still meanwhile, too."""

from __future__ import annotations

import time

from lakebase import create_async_lakebase_pool, create_lakebase_pool
from tests.contract.harness import on_both
from tests.dropin.parts import ask, connection, wait
from tests.live.manager_parts import users


@on_both
async def test_a_connection_whose_idle_time_and_lifetime_end_together_is_replaced(side, lakebase_local):
    (name,) = users(lakebase_local, 1)
    create = create_lakebase_pool if side.name == "threads" else create_async_lakebase_pool
    pool = create(
        lakebase_local.config(user=name, password=f"password of {name}"), max_idle=0.2, max_lifetime=0.4, open=False
    )
    await wait(pool.open())
    try:
        async with connection(pool) as conn:
            first = await ask(conn, "select pg_backend_pid()")
        seen_at = time.monotonic() + 0.15
        await side.until(lambda: time.monotonic() > seen_at)
        time.sleep(0.6)  # sleeps: the whole loop stands still for longer than the connection was to live
        await side.until(lambda: pool.get_stats()["pool_size"] == 0)
        async with connection(pool) as conn:
            assert await ask(conn, "select pg_backend_pid()") != first
    finally:
        await wait(pool.close())
