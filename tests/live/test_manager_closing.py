"""`close_all`: the manager is usable meanwhile, afterwards, and after an interrupt; and what a closed pool says."""

from __future__ import annotations

import asyncio
import logging
import threading

import psycopg_pool
import pytest

from lakebase import LakebasePoolManager
from pooling import PoolExhaustedError
from tests.contract.harness import InterruptedBySignal, on_asyncio, on_both, on_threads
from tests.contract.lines import BeforeLine
from tests.dropin.parts import ask, connection, wait
from tests.live.manager_parts import Managers, identity, users

LONG = 30.0


async def who(pool):
    async with connection(pool) as conn:
        return await ask(conn, "select current_user::text")


@on_both
async def test_while_close_all_waits_others_get_new_pools(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make(max_total=4)
        ann, bob = users(lakebase_local, 2)
        old = managers.pool(manager, ann)

        async def close():
            await wait(manager.close_all(LONG))

        async with connection(old) as conn:
            closing = side.go(close)
            await side.until(lambda: old.closed)
            assert await who(managers.pool(manager, bob)) == bob
            new = managers.pool(manager, ann)
            assert new is not old
            assert await who(new) == ann
            assert await ask(conn, "select 1") == 1
            assert manager.stats().borrowed == 1
            assert manager.budget.used == 3
        await closing.result()
        assert conn.closed
        assert not new.closed
        assert (manager.size, manager.budget.used) == (2, 2)


@on_both
async def test_close_all_rejects_waiters(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make({"max_size": 1})
        ann, bob = users(lakebase_local, 2)
        async with connection(managers.pool(manager, ann)), connection(managers.pool(manager, bob)):
            waiting = [side.go(who, managers.pool(manager, name)) for name in (ann, bob)]
            await side.until(lambda: manager.stats().pending == 2)
            await wait(manager.close_all(0.01))
            for waiter in waiting:
                with pytest.raises(psycopg_pool.PoolClosed):
                    await waiter.result()
        await side.until(lambda: manager.stats().connections == 0)


@on_both
async def test_what_is_out_after_close_all_still_counts(side, lakebase_local, caplog):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make(max_total=2)
        (ann,) = users(lakebase_local, 1)
        async with connection(managers.pool(manager, ann)):
            await wait(manager.close_all(0.25))
            assert "timeout=0.25 s" in caplog.text
            stats = manager.stats()
            assert (stats.pools, stats.connections, stats.borrowed, stats.connections_opened) == (0, 1, 1, 1)
        await side.until(lambda: manager.budget.used == 0)
        assert await who(managers.pool(manager, ann)) == ann
        assert manager.stats().connections_opened == 2


@on_asyncio
async def test_a_cancelled_close_all_leaves_the_manager_usable(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make()
        ann, bob = users(lakebase_local, 2)
        for name in (ann, bob):
            await who(managers.pool(manager, name))
        async with connection(managers.pool(manager, ann)) as conn:
            closing = asyncio.ensure_future(manager.close_all(LONG))
            await side.until(lambda: manager.size == 0)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            assert await who(managers.pool(manager, ann)) == ann
        await side.until(lambda: conn.closed)
        await manager.close_all()
        assert manager.stats().connections == 0


@on_threads
async def test_an_interrupted_close_all_leaves_the_manager_usable(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make()
        ann, bob = users(lakebase_local, 2)

        def interrupt() -> None:
            raise InterruptedBySignal

        for number in range(1, 200, 23):
            for name in (ann, bob):
                assert await who(managers.pool(manager, name)) == name
            with BeforeLine(number, interrupt) as line:
                try:
                    manager.close_all()
                except InterruptedBySignal:
                    pass
            assert line.has_acted
            # What was left of the first attempt goes with the next.
            assert await who(managers.pool(manager, ann)) == ann, line.where
            manager.close_all()
            await side.until(lambda: manager.stats().connections == 0, line.where)


def test_no_thread_is_refused_a_pool_while_others_close_all():
    manager = LakebasePoolManager({"host": "h", "database": "d", "user": "u", "password": "p"})
    ended, failures = threading.Event(), []

    def ask_on():
        number = 0
        while not ended.is_set():
            number += 1
            try:
                assert manager.get_pool(number % 7) is not None
            except BaseException as error:
                failures.append(error)
                raise

    threads = [threading.Thread(target=ask_on) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        manager.close_all()
    ended.set()
    for thread in threads:
        thread.join(LONG)
    assert not failures
    manager.close_all()
    assert manager.size == 0


@on_both
async def test_a_closed_pool_of_a_managers_names_its_key_and_says_how_to_go_on(side, lakebase_local, caplog):
    caplog.set_level(logging.WARNING)
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make({"max_size": 1}, name="users")
        (ann,) = users(lakebase_local, 1)
        pool = managers.pool(manager, ann)
        assert f"LakebasePool 'users' of key {ann!r} open" in repr(pool)
        async with connection(pool):
            waiter = side.go(who, pool)
            await side.until(lambda: pool.service.pending == 1)
            await wait(manager.close_all(0))
            for wait_for in (waiter.result(), wait(who(pool))):
                with pytest.raises(psycopg_pool.PoolClosed) as refused:
                    await wait_for
                assert f"pool 'users' of key {ann!r}" in str(refused.value)
                assert "call get_pool again" in str(refused.value)
                assert (refused.value.pool, refused.value.key) == ("users", ann)


@on_both
async def test_a_closed_pool_of_for_user_says_to_call_for_user_again(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make()
        ann = identity(lakebase_local)
        pool = manager.for_user(ann)
        await wait(manager.close_pool(ann.user))
        with pytest.raises(psycopg_pool.PoolClosed, match="call for_user again") as refused:
            await who(pool)
        assert "get_pool" not in str(refused.value)
        assert await who(manager.for_user(ann)) == ann.user


@on_both
async def test_no_pool_is_given_beyond_max_pools_that_are_in_use(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make(max_pools=1)
        ann, bob = users(lakebase_local, 2)
        async with connection(managers.pool(manager, ann)):
            with pytest.raises(PoolExhaustedError, match="all of max_pools=1 are in use") as refused:
                managers.pool(manager, bob)
            assert (refused.value.limit, refused.value.key) == ("max_pools", bob)
            assert "max_keys" not in str(refused.value)
            assert not manager.has_pool(bob)
        assert await who(managers.pool(manager, bob)) == bob
