"""The sessions of one user, each with its own token: from two browsers, or before and after the token was renewed."""

from __future__ import annotations

import gc

import psycopg_pool
import pytest

from lakebase import CredentialError, LakebasePoolManager, LoginError, UserIdentity, token_fingerprint
from lakebase.passwords import MintedPassword
from pooling import PoolExhaustedError
from tests.contract.harness import on_both
from tests.dropin.parts import ask, connection, wait
from tests.live.manager_parts import Managers, identity

ENDPOINT = {"host": "h", "database": "d", "endpoint": "projects/p/branches/b/endpoints/e"}


async def who(pool):
    async with connection(pool) as conn:
        return await ask(conn, "select current_user::text")


async def fill(pool, count):
    """Have a pool open that many connections, which are idle afterwards."""
    held = [await wait(pool.getconn(timeout=20)) for _ in range(count)]
    for conn in held:
        await wait(pool.putconn(conn))


def browsers(lake, count):
    """One user's identities, each with its own token."""
    first = identity(lake)
    return [first, *(identity(lake, first.user) for _ in range(count - 1))]


def forged(user, number=0):
    """An identity that names a user and has a token that is not one."""
    return UserIdentity(user, f"dapi-made-up-{number}")


@on_both
async def test_tokens_that_take_turns_log_in_once_each(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make()
        sessions = browsers(lakebase_local, 2)
        user = sessions[0].user
        for turn in range(60):
            assert await who(manager.for_user(sessions[turn % 2])) == user
        seen = lakebase_local.stats().user(user)
        assert (seen.total, seen.minted, seen.peak) == (2, 2, 2)
        stats = manager.stats()
        assert (stats.pools, stats.sessions, stats.rotations, stats.connections_opened) == (1, 2, 1, 2)
        assert (manager.size, manager.keys(), len(manager)) == (1, [user], 1)
        assert stats.per_key[user]["requests_num"] == 60
        assert (stats.per_key[user]["pool_size"], stats.per_key[user]["pool_max"]) == (2, 3)


@on_both
async def test_all_sessions_of_a_user_keep_the_users_max_size_together(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make({"max_size": 3}, max_total=10)
        one, other, third = browsers(lakebase_local, 3)
        await fill(manager.for_user(one), 3)
        for each in (other, third, one):
            await fill(manager.for_user(each), 3)  # the idle ones of the others make room
        held = [await wait(manager.for_user(each).getconn()) for each in (one, other, third)]
        with pytest.raises(psycopg_pool.PoolTimeout, match="All sessions of a user share max_size"):
            await wait(manager.for_user(one).getconn(timeout=0.05))
        bob = identity(lakebase_local)
        assert await who(manager.for_user(bob)) == bob.user, "another user has a limit of its own"
        for each, conn in zip((one, other, third), held, strict=True):
            await wait(manager.for_user(each).putconn(conn))
        assert manager.stats().per_key[one.user]["pool_size"] == 3
        lakebase_local.wait_for_connections(3, one.user)
        # The server counts a connection until its process has noticed the goodbye.
        assert lakebase_local.stats().user(one.user).peak <= 3 + 3


@on_both
async def test_a_session_that_is_resized_changes_what_all_sessions_of_its_user_have_together(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make({"max_size": 2}, max_total=10)
        one, other = browsers(lakebase_local, 2)
        pool = manager.for_user(one)
        await wait(manager.for_user(other).resize(0, 1))
        assert await who(manager.for_user(other)) == one.user
        await wait(pool.resize(0, 4))
        held = [await wait(pool.getconn()) for _ in range(4)]
        with pytest.raises(psycopg_pool.PoolTimeout):
            await wait(manager.for_user(other).getconn(timeout=0.05))
        await wait(pool.resize(0, 1))
        assert manager.stats().per_key[one.user]["pool_max"] == 1
        for conn in held:
            await wait(pool.putconn(conn))
        held = [await wait(pool.getconn())]
        with pytest.raises(psycopg_pool.PoolTimeout, match="All sessions of a user share max_size"):
            await wait(manager.for_user(other).getconn(timeout=0.05))
        await wait(pool.putconn(held.pop()))
        assert await who(manager.for_user(other)) == one.user


@on_both
async def test_a_pool_that_code_has_kept_goes_on_when_another_session_comes(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make({"max_size": 2})
        one, other = browsers(lakebase_local, 2)
        kept = manager.for_user(one)  # as an engine of SQLAlchemy, or a saver of LangGraph, does
        async with connection(kept) as conn:
            begun = manager.for_user(one).connection()  # looked up before the other one comes
            assert await who(manager.for_user(other)) == one.user
            assert await ask(conn, "select 1") == 1
        async with begun if hasattr(begun, "__aenter__") else connection(kept) as conn:
            assert await ask(conn, "select current_user::text") == one.user
        assert not kept.closed
        assert manager.for_user(one) is kept


@on_both
async def test_a_made_up_token_changes_nothing_for_the_user_it_names(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make({"max_size": 2}, max_total=2, max_pools=1)
        ann = identity(lakebase_local)
        pool = manager.for_user(ann)
        await fill(pool, 2)
        before = {conn.info.backend_pid for conn in pool.service.idle}
        for number in range(3):
            with pytest.raises(CredentialError) as refused:
                await who(manager.for_user(forged(ann.user, number)))
            assert (refused.value.key, refused.value.step) == (ann.user, "creating")
            assert "made-up" not in str(refused.value)
        assert {conn.info.backend_pid for conn in pool.service.idle} == before
        assert manager.get_pool(ann.user) is pool
        assert (manager.stats().rotations, manager.stats().connections_opened) == (0, 2)
        with pytest.raises(CredentialError):
            await who(manager.for_user(forged("nobody@corp.example")))
        assert {conn.info.backend_pid for conn in pool.service.idle} == before, "nor for any other user"
        assert manager.for_user(ann) is pool


@on_both
async def test_a_strangers_own_token_gets_nothing_of_the_user_it_names(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make()
        ann, eve = identity(lakebase_local), identity(lakebase_local)
        pool = manager.for_user(ann)
        await fill(pool, 1)
        with pytest.raises(LoginError, match="a name and a token of two people, if both came with a request"):
            await who(manager.for_user(UserIdentity(ann.user, eve.token)))
        assert (pool.closed, len(pool.service.idle), manager.stats().rotations) == (False, 1, 0)
        assert manager.get_pool(ann.user) is pool
        assert manager.for_user(ann) is pool
        assert await who(manager.for_user(eve)) == eve.user


@on_both
async def test_any_number_of_made_up_tokens_evicts_no_proven_session(side, lakebase_local, monkeypatch):
    monkeypatch.setattr("pooling.keyed.MOST_PROVISIONAL", 5)
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make(max_pools=1)
        ann = identity(lakebase_local)
        pool = manager.for_user(ann)
        await fill(pool, 1)
        for number in range(50):
            manager.for_user(forged(ann.user, number))
        assert manager.stats().sessions <= 6
        assert manager.for_user(ann) is pool
        assert manager.get_pool(ann.user) is pool
        assert len(pool.service.idle) == 1
        for number in range(50):
            manager.for_user(forged(f"nobody{number}"))
        assert len(manager) <= 6
        bob = identity(lakebase_local)
        assert await who(manager.for_user(bob)) == bob.user
        assert not manager.has_pool(ann.user), "a user who has logged in is one too many for max_pools"


@on_both
async def test_no_user_gets_a_pool_by_for_user_beyond_max_pools_in_use(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make(max_pools=1)
        ann, bob = identity(lakebase_local), identity(lakebase_local)
        async with connection(manager.for_user(ann)):
            with pytest.raises(PoolExhaustedError, match="all of max_pools=1 are in use"):
                manager.for_user(bob)
            assert not manager.has_pool(bob.user)
        assert await who(manager.for_user(bob)) == bob.user


def sources(user):
    """Names of what mints for a user, wherever it is kept."""
    gc.collect()
    return [repr(each) for each in gc.get_objects() if type(each) is MintedPassword and user in repr(each)]


@on_both
async def test_a_quiet_session_ages_out_with_its_credential(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make({"max_idle": 0.02}, max_pool_idle=0.1)
        one, other = browsers(lakebase_local, 2)
        kept = manager.for_user(one)
        async with connection(manager.for_user(other)):
            async with connection(kept):
                assert len(sources(one.user)) == 2
            await side.until(lambda: manager.stats().sessions == 1)
            assert manager.get_pool(one.user) is manager.for_user(other)
        await side.until(lambda: len(sources(one.user)) == 1, "also where code has kept the pool")
        assert await who(kept) == one.user, "which goes on, with a new login"
        await side.until(lambda: not manager.has_pool(one.user))
        del kept
        assert await who(manager.for_user(other)) == one.user
        assert lakebase_local.stats().user(one.user).minted == 3, "the latest token's credential is used again"


@on_both
async def test_the_credential_of_an_earlier_token_goes_when_a_later_one_has_logged_in(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make({"max_idle": 0.02}, max_pool_idle=0.3)
        one, other = browsers(lakebase_local, 2)
        while not sources(one.user):  # on a slow machine, a session is evicted while its token mints
            await fill(manager.for_user(one), 1)
            await side.until(lambda: manager.size == 0)
        await fill(manager.for_user(other), 1)
        await side.until(lambda: len(sources(one.user)) == 1)


@on_both
async def test_beyond_the_most_sessions_the_least_recently_used_is_dropped(side, lakebase_local, monkeypatch):
    monkeypatch.setattr("lakebase.manager.MOST_SESSIONS", 2)
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make()
        one, two, three = browsers(lakebase_local, 3)
        pools = [manager.for_user(each) for each in (one, two)]
        for pool in pools:
            await fill(pool, 1)
        manager.for_user(one)
        await fill(manager.for_user(three), 1)
        assert manager.stats().sessions == 2
        assert manager.for_user(one) is pools[0]
        assert not pools[1].closed
        assert await who(pools[1]) == two.user


@on_both
async def test_a_user_means_all_sessions(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make()
        ann, (bob,) = browsers(lakebase_local, 2), browsers(lakebase_local, 1)
        for each in (*ann, bob):
            await fill(manager.for_user(each), 1)
        user, pools = ann[0].user, [manager.for_user(each) for each in ann]
        manager.expire(user)
        await side.until(lambda: [pool.service.size for pool in pools] == [0, 0])
        assert manager.for_user(bob).service.size == 1
        for pool in pools:
            await fill(pool, 1)
        manager.expire()
        await side.until(lambda: manager.stats().connections == 0)
        manager.expire("nobody")
        assert sorted(manager.keys()) == sorted([user, bob.user])
        assert await wait(manager.close_pool(user))
        assert [pool.closed for pool in pools] == [True, True]
        assert (manager.keys(), manager.has_pool(user)) == ([bob.user], False)
        assert await who(manager.for_user(ann[0])) == user


@on_both
async def test_a_token_that_get_pool_does_not_know_replaces_every_session(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make()
        one, other, third = browsers(lakebase_local, 3)
        pools = [manager.for_user(each) for each in (one, other)]
        for pool in pools:
            await fill(pool, 1)
        assert manager.get_pool(one.user) is pools[1]
        assert manager.get_pool(one.user, token_fingerprint=one.fingerprint) is pools[0]
        assert manager.get_pool(one.user) is pools[0], "the latest"
        new = manager.get_pool(third.user, third.pool_config(), third.fingerprint)
        assert [pool.closed for pool in pools] == [True, True]
        assert (manager.stats().sessions, manager.stats().rotations) == (1, 2)
        assert manager.for_user(third) is new
        assert await who(new) == one.user


@on_both
async def test_a_mint_that_may_work_later_is_tried_again_within_the_timeout(side, lakebase_local, caplog):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make()
        ann = identity(lakebase_local)
        with lakebase_local.fail_workspace(503, "overloaded", count=4) as fault:
            assert await who(manager.for_user(ann)) == ann.user
        assert fault.hits == 4
        warned = [text for text in caplog.messages if text.startswith("minting a credential failed")]
        assert len(warned) <= 1


@on_both
async def test_a_borrower_waits_for_a_mint_no_longer_than_its_timeout(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make()
        ann, bob = identity(lakebase_local), identity(lakebase_local)
        with lakebase_local.hold_workspace(), pytest.raises(psycopg_pool.PoolTimeout) as late:
            await wait(manager.for_user(ann).getconn(timeout=0.2))
        assert "(step: minting a credential)" in str(late.value)
        assert isinstance(late.value.__cause__, CredentialError)
        with lakebase_local.fail_workspace(503, "overloaded"), pytest.raises(psycopg_pool.PoolTimeout) as late:
            await wait(manager.for_user(bob).getconn(timeout=0.3))
        assert (late.value.pool, late.value.key, late.value.timeout) == ("lakebase", bob.user, 0.3)
        assert manager.budget.used == 0
        assert await who(manager.for_user(ann)) == ann.user


def test_an_identity_that_the_app_vouches_for_needs_no_proof_and_shares_no_tokens_pool():
    manager = LakebasePoolManager({**ENDPOINT, "endpoint": None, "password": "p"}, max_pools=1)
    vouched = manager.for_user(UserIdentity("ann"))
    assert not vouched.service.factory.mints_first
    assert manager.for_user(UserIdentity("ann")) is vouched is manager.get_pool("ann")


def test_a_pool_closed_by_hand_is_replaced_and_other_sessions_stay():
    manager = LakebasePoolManager(ENDPOINT)
    ann = [UserIdentity("ann", f"token {number}".replace(" ", "-")) for number in range(2)]
    one, other = map(manager.for_user, ann)
    one.close()
    again = manager.for_user(ann[0])
    assert again is not one
    assert not again.closed
    assert manager.for_user(ann[1]) is other
    assert manager.stats().sessions == 2
    assert manager.get_pool("ann", token_fingerprint=token_fingerprint("token-0")) is again


@on_both
async def test_a_session_that_is_evicted_while_its_token_mints_comes_back_with_its_login(side, lakebase_local):
    async with Managers(side, lakebase_local) as managers:
        manager = managers.make(max_pool_idle=0.05)
        ann = identity(lakebase_local)
        with lakebase_local.hold_workspace() as hold:
            pool = manager.for_user(ann)
            borrower = side.go(who, pool)
            await side.until(lambda: manager.size == 0)
            hold.clear()
            assert await borrower.result() == ann.user
        assert manager.for_user(ann) is pool
        assert manager.stats().connections_opened == 1
