"""`LakebasePoolManager` and its twin on a real Postgres."""

from __future__ import annotations

import psycopg_pool
import pytest

from lakebase import (
    ConfigurationError,
    LakebasePoolManager,
    LoginError,
    TooManyConnectionsError,
    create_async_lakebase_pool,
    create_lakebase_pool,
    token_fingerprint,
)
from tests.contract.harness import on_both
from tests.dropin.parts import ask, connection, pid, wait
from tests.live.manager_parts import Managers, identity, users
from tests.platform.programs import heap_of


async def who(pool):
    async with connection(pool) as conn:
        return await ask(conn, "select current_user::text")


@on_both
async def test_each_user_logs_in_as_that_user(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make()
        ann, bob = identity(lakebase_local), identity(lakebase_local)
        assert await who(manager.for_user(ann)) == ann.user
        assert await who(manager.for_user(bob)) == bob.user
        assert manager.for_user(ann) is manager.get_pool(ann.user)
        assert (manager.size, sorted(manager.keys())) == (2, sorted([ann.user, bob.user]))
        assert manager.has_pool(ann.user)
        assert not manager.has_pool("nobody")


@on_both
async def test_a_pools_own_part_wins_over_the_base(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make({"max_size": 5, "application_name": "base"})
        ann, bob = users(lakebase_local, 2)
        own = managers.pool(manager, ann, application_name="own", max_size=2)
        base = managers.pool(manager, bob)
        assert (own.max_size, base.max_size) == (2, 5)
        for pool, name in ((own, "own"), (base, "base")):
            async with connection(pool) as conn:
                assert await ask(conn, "show application_name") == name
        with pytest.raises(ConfigurationError, match="passwort"):
            manager.get_pool("new", {"user": "new", "passwort": "x"})
        with pytest.raises(ConfigurationError, match="user"):
            manager.get_pool("new", {"token": "whose?"})
        assert not manager.has_pool("new")


@on_both
async def test_users_pools_are_small_unless_they_say_otherwise(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        pool = managers.make().get_pool("ann", {"user": "ann", "password": "x"})
        assert (pool.max_size, pool.max_idle, pool.min_size) == (3, 30.0, 0)


@on_both
async def test_another_token_replaces_the_pool_and_fails_no_request_in_flight(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make({"max_size": 1})
        ann = identity(lakebase_local)
        old = manager.get_pool(ann.user, ann.pool_config(), ann.fingerprint)
        async with connection(old) as conn:
            waiter = side.go(who, old)
            await side.until(lambda: old.service.pending == 1)
            renewed = identity(lakebase_local, ann.user)
            new = manager.get_pool(ann.user, renewed.pool_config(), renewed.fingerprint)
            assert new is not old
            assert manager.get_pool(ann.user, renewed.pool_config(), renewed.fingerprint) is new
            assert manager.get_pool(ann.user) is new, "no fingerprint takes the pool as it is"
            with pytest.raises(psycopg_pool.PoolClosed):
                await wait(old.getconn())
            assert await who(new) == ann.user
            assert await ask(conn, "select 1") == 1
        assert await waiter.result() == ann.user
        await side.until(lambda: old.service.size == 0)
        assert (manager.size, manager.stats().rotations) == (1, 1)


@on_both
async def test_a_configuration_that_cannot_work_leaves_the_pool_there_is(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make()
        ann = identity(lakebase_local)
        pool = manager.for_user(ann)
        with pytest.raises(ConfigurationError):
            manager.get_pool(ann.user, {"nonsense": 1}, token_fingerprint("another"))
        assert manager.for_user(ann) is pool
        assert await who(pool) == ann.user


@on_both
async def test_idle_pools_are_forgotten_in_the_background_and_one_in_use_is_not(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make({"max_idle": 0.02}, max_pool_idle=0.05)
        ann, bob = users(lakebase_local, 2)
        kept = managers.pool(manager, bob)
        async with connection(managers.pool(manager, ann)):
            assert await who(kept) == bob
            await side.until(lambda: not manager.has_pool(bob))
            assert manager.keys() == [ann]
            assert await who(kept) == bob, "a caller that kept it may still use it"
        await side.until(lambda: manager.size == 0)


@on_both
async def test_a_pool_closed_by_hand_is_made_anew(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make()
        (ann,) = users(lakebase_local, 1)
        pool = managers.pool(manager, ann)
        assert await who(pool) == ann
        assert await wait(manager.close_pool(ann))
        assert not await wait(manager.close_pool(ann))
        with pytest.raises(psycopg_pool.PoolClosed):
            await who(pool)
        again = managers.pool(manager, ann)
        assert await who(again) == ann
        await wait(again.close())
        assert await who(managers.pool(manager, ann)) == ann


@on_both
async def test_close_all_closes_every_connection_and_the_manager_is_usable_again(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make(max_total=5)
        names = users(lakebase_local, 3)
        for name in names:
            await who(managers.pool(manager, name))
        assert manager.stats().connections == 3
        await wait(manager.close_all())
        assert (manager.size, manager.stats().connections, manager.budget.used) == (0, 0, 0)
        assert await who(managers.pool(manager, names[0])) == names[0]


@on_both
async def test_all_users_and_the_apps_pool_share_one_budget(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make(max_total=2)
        names = users(lakebase_local, 4)
        create = create_lakebase_pool if side.name == "threads" else create_async_lakebase_pool
        app = create(lakebase_local.config(max_size=2), budget=manager.budget)
        try:
            async with connection(app), connection(managers.pool(manager, names[0])):
                with pytest.raises(psycopg_pool.PoolTimeout):
                    await wait(managers.pool(manager, names[1]).getconn(timeout=0.05))
            for name in names:
                assert await who(managers.pool(manager, name)) == name
            assert await pid(app)
            assert manager.budget.used <= 2
        finally:
            await wait(app.close())


@on_both
async def test_above_max_pools_the_least_recently_used_is_evicted(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make(max_pools=2)
        for name in ("a", "b", "a", "c"):
            manager.get_pool(name, {"user": name, "password": "x"})
        assert sorted(manager.keys()) == ["a", "c"]


@on_both
async def test_numbers_in_all_and_of_each_user(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make(max_total=7)
        ann, bob = users(lakebase_local, 2)
        async with connection(managers.pool(manager, ann)):
            await who(managers.pool(manager, bob))
            stats = manager.stats()
        assert (stats.pools, stats.connections, stats.borrowed, stats.max_total) == (2, 2, 1, 7)
        assert (stats.connections_opened, stats.pending) == (2, 0)
        assert stats.per_key[bob]["requests_num"] == 1


@on_both
async def test_users_in_a_crowd_stay_within_the_budget_as_the_server_counts(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        names = users(lakebase_local, 12)
        lakebase_local.wait_for_connections(0)
        manager = managers.make({"timeout": 60.0}, max_total=5)
        peaks = []

        async def work(number):
            for turn in range(6):
                name = names[(number * 5 + turn * 7) % len(names)]
                async with connection(managers.pool(manager, name)) as conn:
                    assert await ask(conn, "select current_user::text") == name
                    peaks.append(
                        await ask(conn, "select count(*) from pg_stat_activity where usename like 'manager%%'")
                    )

        for borrower in [side.go(work, number) for number in range(16)]:
            await borrower.result()
        assert len(peaks) == 96
        # A process of the server's whose client has said goodbye may be there for a moment yet.
        assert max(peaks) <= 5 + 2
        assert manager.budget.used <= 5
        assert manager.stats().connections_opened >= 12


# -- the server's limits ---------------------------------------------------------


@pytest.mark.parametrize("while_waking", ["57P03", "refused"])
@on_both
async def test_a_wake_up_from_scale_to_zero_is_waited_for(side, lakebase_local, while_waking):
    async with Managers(side, lakebase_local) as managers:
        pool = managers.pool(managers.make(), users(lakebase_local, 1)[0])
        before = await pid(pool)
        lakebase_local.suspend(0.3, while_waking=while_waking)
        async with connection(pool, timeout=20) as conn:
            assert await ask(conn, "select 1") == 1
            assert conn.info.backend_pid != before


@on_both
async def test_a_server_that_stays_away_is_the_cause_of_the_timeout(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        pool = managers.pool(managers.make(), users(lakebase_local, 1)[0])
        with lakebase_local.refuse(), pytest.raises(psycopg_pool.PoolTimeout) as caught:
            await wait(pool.getconn(timeout=0.5))
        assert "refused" in str(caught.value.__cause__)


@pytest.mark.parametrize("max_total", [None, 10])
@on_both
async def test_too_many_connections_closes_another_users_idle_one_and_lowers_the_budget(
    side, lakebase_local, max_total
):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make(max_total=max_total)
        ann, bob, eve = users(lakebase_local, 3)
        await who(managers.pool(manager, ann))
        async with connection(managers.pool(manager, bob)) as held:
            with lakebase_local.too_many_connections(count=1):
                async with connection(managers.pool(manager, eve), timeout=20) as conn:
                    assert await ask(conn, "select current_user::text") == eve
            assert await ask(held, "select 1") == 1
            assert manager.get_pool(ann).get_stats()["pool_size"] == 0
            assert manager.budget.limit == 2
            assert manager.budget.max_total == (max_total or float("inf"))


@on_both
async def test_a_full_server_is_the_cause_of_the_timeout(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make(max_total=10)
        pool = managers.pool(manager, users(lakebase_local, 1)[0])
        with lakebase_local.too_many_connections(), pytest.raises(psycopg_pool.PoolTimeout) as caught:
            await wait(pool.getconn(timeout=0.5))
        assert isinstance(caught.value.__cause__, TooManyConnectionsError)
        assert await pid(pool)


@on_both
async def test_an_outage_is_one_warning_for_all_users_pools(side, lakebase_local, caplog):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make(max_total=10)
        pools = [managers.pool(manager, name) for name in users(lakebase_local, 3)]
        with lakebase_local.too_many_connections():
            for pool in pools:
                with pytest.raises(psycopg_pool.PoolTimeout, match="too many"):
                    await wait(pool.getconn(timeout=0.3))
        warned = [record for record in caplog.records if record.getMessage().startswith("connecting failed")]
        assert len(warned) == 1
        for user in ("eve", "mallory"):
            with pytest.raises(LoginError):
                await who(manager.get_pool(user, {"user": user, "password": "wrong"}))
        warned = [record for record in caplog.records if record.getMessage().startswith("connecting failed")]
        assert len(warned) == 3, "a rejected login is that user's alone"
        await side.until(lambda: manager.stats().connections == 0)


@on_both
async def test_an_outage_after_a_connect_that_succeeded_is_told_again(side, lakebase_local, caplog):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make(max_total=10)
        ann, bob, carl = [managers.pool(manager, name) for name in users(lakebase_local, 3)]
        for failing in ([ann], [ann, carl]):
            caplog.clear()
            with lakebase_local.too_many_connections():
                for pool in failing:
                    with pytest.raises(psycopg_pool.PoolTimeout, match="too many"):
                        await wait(pool.getconn(timeout=0.3))
            assert [record.getMessage()[:17] for record in warnings_in(caplog)] == ["connecting failed"]
            await who(bob)
            await wait(bob.drain())


def warnings_in(caplog):
    return [record for record in caplog.records if record.levelname == "WARNING"]


@on_both
async def test_a_roles_own_limit_does_not_affect_other_users(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make(max_total=10)
        ann, bob = users(lakebase_local, 2)
        await who(managers.pool(manager, ann))
        words = 'too many connections for role "{user}"'
        with lakebase_local.refuse("53300", words, count=1, user=bob):
            assert await who(managers.pool(manager, bob)) == bob
        assert manager.budget.limit == 10
        assert manager.get_pool(ann).get_stats()["pool_size"] == 1


@on_both
async def test_a_login_that_cannot_succeed_is_told_at_once(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make({"timeout": 100.0})
        (ann,) = users(lakebase_local, 1)
        with pytest.raises(LoginError, match="authentication failed") as caught:
            await who(manager.get_pool(ann, {"user": ann, "password": "wrong secret"}))
        assert "wrong secret" not in str(caught.value)


def test_a_pool_whose_key_was_evicted_stays_usable():
    base = {"host": "h", "database": "d", "user": "u", "password": "p"}
    manager = LakebasePoolManager(base, max_pools=1)
    old = manager.get_pool("ann")
    manager.get_pool("bob")
    assert not manager.has_pool("ann")
    new = manager.get_pool("ann")
    assert new is not old
    assert not old.closed
    assert manager.get_pool("ann") is new


def test_a_new_token_whose_configuration_cannot_work_leaves_the_pool_as_it_is():
    base = {"host": "h", "database": "d", "user": "u", "password": "p"}
    manager = LakebasePoolManager(base)
    old = manager.get_pool("ann", token_fingerprint="one")
    with pytest.raises(ConfigurationError, match="max_size"):
        manager.get_pool("ann", {"max_size": 0}, token_fingerprint="two")
    assert not old.closed
    assert manager.get_pool("ann", token_fingerprint="one") is old
    assert manager.stats().rotations == 0


# -- what they cost --------------------------------------------------------------


@pytest.mark.parametrize("kind", ["LakebasePoolManager", "AsyncLakebasePoolManager"])
def test_ten_thousand_users_pools_have_no_threads_and_four_kilobytes_each(kind):
    each = heap_of(f"""
        import threading
        from lakebase import {kind} as kind

        host = {{"host": "h", "database": "d", "endpoint": "projects/p/branches/b/endpoints/e"}}
        manager = kind(host, max_total=50)
        names = [(f"u{{n}}", {{"user": f"u{{n}}", "token": f"t{{n}}"}}, f"f{{n}}") for n in range(10_000)]
        manager.get_pool("first", {{"user": "first", "token": "t"}})
        before = traced()
        for name in names:
            manager.get_pool(*name)
        print((traced() - before) / len(names))
        assert manager.size == 10_001
        assert threading.active_count() <= 5
    """)
    assert 512 < each <= 4096
