"""Pools for the users of a Lakebase, in two processes' places, with the leases in the Lakebase itself."""

from __future__ import annotations

import threading

import psycopg

from lakebase import LakebasePoolManager, create_lakebase_pool, lakebase_pg_config
from pooling import SharedBudget
from pooling.leases import PostgresLeases
from tests.sessions import count_sessions

LIMIT, USERS, TIMES = 3, 3, 3


def test_two_managers_with_one_limit_serve_more_users_than_connections(lakebase_local, name):
    app = lakebase_local.config()
    store = PostgresLeases(lambda: psycopg.connect(**lakebase_pg_config(app)), table="leases_of_users")
    users = [f"{name}-user{number}@corp.example" for number in range(USERS)]
    for user in users:
        lakebase_local.add_user(user)
    with create_lakebase_pool(app, max_size=1) as owner, owner.connection() as connection:
        connection.execute(store.create_sql())
    budgets = [SharedBudget(LIMIT, store, name=name) for _ in range(2)]
    managers = [LakebasePoolManager(budget=budget) for budget in budgets]
    served: list[str] = []
    most: list[int] = []

    def use(manager: LakebasePoolManager, user: str) -> None:
        pool = manager.get_pool(user, lakebase_local.config(user))
        for _ in range(TIMES):
            with pool.connection(timeout=60) as connection:
                (current,) = connection.execute("SELECT current_user::text").fetchone() or ("",)
                most.append(count_sessions(connection, "usename", f"{name}-user%", LIMIT))
            served.append(current)

    threads = [threading.Thread(target=use, args=(manager, user)) for manager in managers for user in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    for manager in managers:
        manager.close_all()
    assert sorted(served) == sorted(users * TIMES * 2)
    assert max(most) <= LIMIT
    with create_lakebase_pool(app, max_size=1) as owner, owner.connection() as connection:
        (book,) = connection.execute("SELECT book FROM leases_of_users WHERE budget = %s", (name,)).fetchone() or ("",)
    assert "corp.example" not in book, "who the users are is nobody's business"
