"""`UserScopedPool` believes no token that it has not verified: the workspace says whose it is."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import psycopg_pool
import pytest

from lakebase import (
    AsyncUserScopedPool,
    ConfigurationError,
    CredentialError,
    IdentityError,
    UserIdentity,
    UserScopedPool,
    create_async_lakebase_pool,
    create_lakebase_pool,
)
from lakebase._token_owners import OVERDUE, Owner, TokenOwners, check_owner
from pooling import RequestContext
from tests.dropin.parts import ask, connection, on_asyncio, on_both, wait

_numbers = itertools.count(1)
ACTS_FOR = "select current_setting('app.user', true)"
ME = "GET /api/2.0/preview/scim/v2/Me"


class Scoped:
    """A pool of the app's, and users with tokens."""

    def __init__(self, side: Any, lake: Any) -> None:
        self.side = side
        self.lake = lake
        self.before = self.calls

    @property
    def calls(self) -> int:
        """How often the workspace was asked whose a token is."""
        return int(self.lake.stats().api_calls.get(ME, 0)) - getattr(self, "before", 0)

    def scope(self, **options: Any) -> Any:
        threads = self.side.name == "threads"
        create = create_lakebase_pool if threads else create_async_lakebase_pool
        self.pool = create(self.lake.config(max_size=4, timeout=20))
        return (UserScopedPool if threads else AsyncUserScopedPool)(self.pool, **options)

    def user(self, name: str | None = None) -> UserIdentity:
        """As from the headers of a request; a new token on each call."""
        name = name or f"owner{next(_numbers)}@corp.example"
        return self.claim(name, self.lake.add_user(name))

    def claim(self, name: str, token: str | None) -> UserIdentity:
        headers = {"X-Forwarded-Email": name, "X-Forwarded-Access-Token": token or ""}
        return UserIdentity.from_headers(headers)

    async def acts_for(self, scoped: Any, who: UserIdentity, **options: Any) -> str:
        async with connection(scoped, identity=who, **options) as conn:
            return await ask(conn, ACTS_FOR)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        self.lake.clear_faults()
        await wait(self.pool.close())
        await self.side.until(lambda: self.pool.get_stats()["pool_size"] == 0)  # connections that are being opened, too


@on_both
async def test_a_token_is_verified_once_and_a_name_that_is_not_its_owners_is_refused(side, lakebase_local):
    async with Scoped(side, lakebase_local) as site:
        scoped = site.scope()
        ann, eve = site.user(), site.user()
        forged = site.claim(ann.user, eve.token)
        for _ in range(2):
            with pytest.raises(IdentityError, match="its token is another user's") as refused:
                await site.acts_for(scoped, forged)
            assert refused.value.header == "X-Forwarded-Access-Token"
        assert "connections_num" not in site.pool.get_stats(), "no connection was taken for it"
        for _ in range(3):
            assert await site.acts_for(scoped, ann) == ann.user
        with RequestContext(identity=eve):
            async with connection(scoped) as conn:
                assert await ask(conn, ACTS_FOR) == eve.user
        assert site.calls == 2, "one for each token"
        assert await site.acts_for(scoped, site.user(ann.user)) == ann.user
        assert site.calls == 3, "and one for another token of the same user"


@on_both
async def test_a_string_that_is_no_token_is_refused_each_time(side, lakebase_local):
    async with Scoped(side, lakebase_local) as site:
        scoped = site.scope()
        ann = site.user()
        await site.acts_for(scoped, ann)
        for token in ("anything", "anything", "anything-else"):
            for who in (site.claim(ann.user, token), UserIdentity(ann.user, token)):
                with pytest.raises(IdentityError, match="does not accept the request's token") as refused:
                    await site.acts_for(scoped, who)
                assert token not in str(refused.value)
        assert site.calls == 7, "what was refused is not believed to be for a while"


@on_both
async def test_what_is_believed_without_a_question_to_the_workspace(side, lakebase_local):
    async with Scoped(side, lakebase_local) as site:
        scoped = site.scope()
        assert await site.acts_for(scoped, UserIdentity("ann@corp.example")) == "ann@corp.example"
        with pytest.raises(IdentityError, match="proves nothing"):
            await site.acts_for(scoped, site.claim("ann@corp.example", None))
        trusting = type(scoped)(site.pool, trust_headers=True)
        assert await site.acts_for(trusting, site.claim("ann@corp.example", None)) == "ann@corp.example"
        assert await site.acts_for(trusting, site.claim("ann@corp.example", "anything")) == "ann@corp.example"
        assert site.calls == 0


@on_both
async def test_requests_that_come_at_once_with_a_new_token_ask_once(side, lakebase_local):
    async with Scoped(side, lakebase_local) as site:
        scoped = site.scope()
        ann = site.user()
        held = lakebase_local.hold_workspace(path="/Me")
        borrowers = [side.go(site.acts_for, scoped, ann) for _ in range(12)]
        await side.until(lambda: site.calls == 1)
        held.clear()
        assert [await borrower.result() for borrower in borrowers] == [ann.user] * 12
        assert site.calls == 1


@on_both
async def test_a_workspace_that_does_not_answer_is_waited_for_within_the_timeout(side, lakebase_local):
    async with Scoped(side, lakebase_local) as site:
        scoped = site.scope()
        ann = site.user()
        held = lakebase_local.hold_workspace(path="/Me")
        with pytest.raises(psycopg_pool.PoolTimeout, match="verifying the user") as late:
            await site.acts_for(scoped, ann, timeout=0.05)
        assert late.value.step == "verifying the user"
        assert "connections_num" not in site.pool.get_stats()
        held.clear()
        assert await site.acts_for(scoped, ann) == ann.user
        assert site.calls == 1, "the first question went on"


@on_both
async def test_a_workspace_that_fails_verifies_no_one(side, lakebase_local):
    async with Scoped(side, lakebase_local) as site:
        scoped = site.scope()
        ann = site.user()
        lakebase_local.fail_workspace(503, path="/Me", count=1, retry_after=7)
        with pytest.raises(CredentialError, match="could not be verified") as failed:
            await site.acts_for(scoped, ann)
        assert (failed.value.is_transient, failed.value.retry_after) == (True, 7.0)
        assert ann.token not in str(failed.value)
        lakebase_local.fail_workspace(404, path="/Me", count=1)
        with pytest.raises(CredentialError) as failed:
            await site.acts_for(scoped, ann)
        assert not failed.value.is_transient
        assert await site.acts_for(scoped, ann) == ann.user


@on_asyncio
async def test_the_loop_goes_on_while_the_workspace_is_asked_and_a_cancelled_request_disturbs_no_other(
    side, lakebase_local
):
    async with Scoped(side, lakebase_local) as site:
        scoped = site.scope()
        ann = site.user()
        held = lakebase_local.hold_workspace(path="/Me")
        first = asyncio.create_task(site.acts_for(scoped, ann))
        second = asyncio.create_task(site.acts_for(scoped, ann))
        while site.calls == 0:
            await asyncio.sleep(0)
        assert not first.done()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        held.clear()
        assert await second == ann.user
        assert site.calls == 1


def test_what_the_question_took_is_taken_from_the_timeout(lakebase_local):
    got = []

    class Pool:
        timeout = 20.0

        def connection(self, timeout):
            got.append(timeout)
            raise LookupError

    scoped = UserScopedPool(Pool(), workspace_url=lakebase_local.workspace_url)  # type: ignore[arg-type]
    name = f"owner{next(_numbers)}@corp.example"
    identity = UserIdentity(name, lakebase_local.add_user(name))
    lakebase_local.delay_workspace(0.1, path="/Me", count=1)
    for timeout in (None, 5.0, None):
        with pytest.raises(LookupError), scoped.connection(timeout, identity=identity):
            pass
    assert 0 < got[0] <= 19.9
    assert got[1:] == [5.0, None], "as given, where no question was needed"


def test_an_address_that_differs_in_case_only_is_told_as_such(lakebase_local):
    name = f"owner{next(_numbers)}@corp.example"
    token = lakebase_local.add_user(name)
    with create_lakebase_pool(lakebase_local.config()) as pool:
        with pytest.raises(IdentityError, match=r"upper from lower case.*UserIdentity"):
            with UserScopedPool(pool).connection(identity=UserIdentity(name.upper(), token)):
                pytest.fail("the block must not run")


OWNER = Owner("ann@corp.example", "123")
WHO = {
    "ann@corp.example": True,
    "123": True,
    "123@456": True,
    "123@corp.example": False,
    "456@123": False,
    "12": False,
}


@pytest.mark.parametrize("user", WHO)
def test_a_user_is_the_workspaces_name_or_number(user: str) -> None:
    from_id = UserIdentity.from_headers({"X-Forwarded-User": user, "X-Forwarded-Access-Token": "t"})
    if WHO[user]:
        check_owner(from_id, OWNER)
    else:
        with pytest.raises(IdentityError):
            check_owner(from_id, OWNER)
    if "@" in user and user != OWNER.name:  # a number is no e-mail address
        with pytest.raises(IdentityError):
            check_owner(UserIdentity.from_headers({"X-Forwarded-Email": user, "X-Forwarded-Access-Token": "t"}), OWNER)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_verified_token_is_believed_for_a_while_and_not_after_it_was_revoked(lakebase_local):
    clock, lake = Clock(), lakebase_local
    owners = TokenOwners(lake.workspace_url, max_age=300, clock=clock)
    name = f"owner{next(_numbers)}@corp.example"
    token = lake.add_user(name)
    assert owners.ask(token, 30).name == name
    lake.revoke(name)
    clock.now = 299.9
    assert owners.known(token).name == name
    clock.now = 300
    assert owners.known(token) is None
    with pytest.raises(IdentityError, match="does not accept"):
        owners.ask(token, 30)
    clock.now = 0
    assert owners.known(token) is None, "forgotten, whatever the time"


def test_of_too_many_tokens_the_least_recently_used_are_asked_for_again(lakebase_local):
    owners = TokenOwners(lakebase_local.workspace_url, max_age=300, most=2)
    tokens = [lakebase_local.add_user(f"owner{next(_numbers)}@corp.example") for _ in range(3)]
    for token in (*tokens[:2], tokens[0], tokens[2]):
        owners.ask(token, 30)
    assert [owners.known(token) is not None for token in tokens] == [True, False, True]


def test_a_question_without_an_answer_is_asked_again_in_the_end(lakebase_local):
    clock = Clock()
    owners = TokenOwners(lakebase_local.workspace_url, max_age=300, clock=clock)
    token = lakebase_local.add_user(f"owner{next(_numbers)}@corp.example")
    before = lakebase_local.stats().api_calls.get(ME, 0)
    held = lakebase_local.hold_workspace(path="/Me")
    try:
        for clock.now in (0.0, OVERDUE, OVERDUE + 1, OVERDUE + 1):
            with pytest.raises(psycopg_pool.PoolTimeout):
                owners.ask(token, 0.01)
    finally:
        held.clear()
    assert owners.ask(token, 30).name
    assert lakebase_local.stats().api_calls[ME] == before + 2


def test_without_a_workspace_to_ask_no_one_is_verified(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.delenv("DATABRICKS_HOST", raising=False)
    with pytest.raises(CredentialError, match="DATABRICKS_HOST or workspace_url=") as failed:
        TokenOwners(None, max_age=300).ask("dapi-0123456789", 30)
    assert "dapi-0123456789" not in str(failed.value)


@pytest.mark.parametrize("given", [0, -1, "300", True, float("nan")])
def test_an_age_that_cannot_be_is_refused(given) -> None:
    with pytest.raises(ConfigurationError, match="verify_every"):
        UserScopedPool(psycopg_pool.ConnectionPool("host=unused", open=False), verify_every=given)
