"""Missing or wrong input fails at once; the error names it, shows no token, and leaves nothing behind."""

import asyncio
import threading
import time
import traceback

import pytest

from lakebase import (
    AsyncLakebasePoolManager,
    ConfigurationError,
    ConnectError,
    CredentialError,
    IdentityError,
    LakebasePoolConfig,
    LakebasePoolManager,
    LoginError,
    UserIdentity,
    create_async_lakebase_pool,
    create_lakebase_pool,
)
from lakebase.errors import ConnectFailure
from pooling import RequestContextError
from pooling.di import Container, Managed, Pooled

# Seconds that count as at once, on a machine with other things to do.
AT_ONCE = 20  # well before the timeout of 30 s; a busy machine takes seconds to import the SDK


class Watch:
    """Nothing may be left of what goes on inside: no connection, thread or task; and no password used."""

    def __init__(self, lake, *, logins=0, minted=0):
        self.lake = lake
        self.logins, self.minted = logins, minted

    def __enter__(self):
        stats = self.lake.stats()
        self.before = stats.total, stats.minted
        self.threads = set(threading.enumerate())
        self.begin = time.monotonic()
        return self

    def __exit__(self, kind, error, at):
        if kind is not None:
            return
        assert time.monotonic() - self.begin < AT_ONCE
        self.lake.wait_for_connections(0)
        stats = self.lake.stats()
        assert (stats.total - self.before[0], stats.minted - self.before[1]) == (self.logins, self.minted)
        # Workers of the process end by themselves when they are idle; none is tied to what failed.
        left = {thread.name for thread in set(threading.enumerate()) - self.threads}
        assert all("pooling" in name or "asyncio" in name for name in left), left


def shown(error):
    """All that a log would have of an error."""
    return "".join(traceback.format_exception(error)) + repr(error)


# --- settings ------------------------------------------------------------------------------------------------------

MISSING = {
    "PGHOST": ["host", "PGHOST"],
    "PGDATABASE": ["database", "PGDATABASE"],
    "LAKEBASE_ENDPOINT": ["endpoint", "LAKEBASE_ENDPOINT"],
    "PGUSER": ["user", "PGUSER"],
}
WRONG = {
    ("PGPORT", "five"): ["port", "five", "PGPORT"],
    ("PGPORT", "0"): ["port", "1"],
    ("PGPORT", "65536"): ["port", "65535"],
    ("PGSSLMODE", "disable"): ["ssl_mode", "disable", "require"],
    ("PGSSLMODE", "verify"): ["ssl_mode", "verify", "verify-full"],
    ("PGHOST", "https://db.example"): ["host", "scheme"],
    ("LAKEBASE_ENDPOINT", "primary"): ["endpoint", "projects/"],
}


def without(deployed, name):
    deployed.delenv(name)
    if name == "PGUSER":
        deployed.delenv("DATABRICKS_CLIENT_ID")


# The workspace knows them, unless there is a native password and so no workspace.
ASKED_FOR = ("PGHOST", "PGUSER")


def test_a_host_that_the_workspace_knows_is_asked_for_at_the_first_connection(lake, deployed):
    without(deployed, "PGHOST")
    with create_lakebase_pool() as pool, pool.connection() as connection:
        assert connection.execute("SELECT current_user").fetchone() == (lake.client_id,)


def told(error, words):
    assert [word for word in words if word not in str(error)] == [], str(error)


@pytest.mark.parametrize("create", [create_lakebase_pool, create_async_lakebase_pool])
@pytest.mark.parametrize("name", MISSING)
def test_a_missing_setting_is_named_with_the_variable_it_may_come_from(lake, deployed, name, create):
    without(deployed, name)
    with Watch(lake), pytest.raises(ConfigurationError) as refused:
        create(**({"password": "native"} if name in ASKED_FOR else {}))
    told(refused.value, MISSING[name])


@pytest.mark.parametrize("create", [create_lakebase_pool, create_async_lakebase_pool])
@pytest.mark.parametrize("variable", WRONG, ids="=".join)
def test_a_wrong_setting_is_named_with_what_is_allowed(lake, deployed, variable, create):
    deployed.setenv(*variable)
    with Watch(lake), pytest.raises(ConfigurationError) as refused:
        create()
    told(refused.value, WRONG[variable])


@pytest.mark.parametrize("kind", [LakebasePoolManager, AsyncLakebasePoolManager])
@pytest.mark.parametrize("name", ["PGHOST", "PGDATABASE", "LAKEBASE_ENDPOINT"])
async def test_a_manager_names_what_is_missing_when_a_pool_is_asked_for(lake, deployed, user, name, kind):
    without(deployed, name)
    with Watch(lake):
        manager = kind()
        with pytest.raises(ConfigurationError) as refused:
            credential = {"password": "native"} if name in ASKED_FOR else {"token": lake.token(user)}
            manager.get_pool(user, {"user": user, **credential})
        assert manager.size == 0
        closing = manager.close_all()
        if closing is not None:
            await closing
    told(refused.value, MISSING[name])
    assert lake.token(user) not in shown(refused.value)


# --- logins --------------------------------------------------------------------------------------------------------

REJECTED = {
    "the token of another": (
        lambda lake, user: {"user": user, "token": lake.token(lake.admin_user)},
        ConnectFailure.LOGIN_REJECTED,
    ),
    "a role that is not there": (
        lambda lake, user: {"user": "nobody@corp.example", "token": lake.token(user)},
        ConnectFailure.LOGIN_REJECTED,
    ),
    "a wrong password": (
        lambda lake, user: {"user": user, "password": "swordfish-1234"},
        ConnectFailure.LOGIN_REJECTED,
    ),
    "a database that is not there": (
        lambda lake, user: {"user": user, "token": lake.token(user), "database": "nowhere"},
        ConnectFailure.NO_DATABASE,
    ),
    "a certificate of another": (
        lambda lake, user: {"user": user, "token": lake.token(user), "ssl_root_cert": "/dev/null"},
        ConnectFailure.TLS,
    ),
}


def settings_of(lake, user, case):
    given, failure = REJECTED[case]
    overrides = given(lake, user)
    secrets = {overrides.get("token"), overrides.get("password")} - {None}
    return overrides, failure, secrets


@pytest.mark.parametrize("case", REJECTED)
def test_a_rejected_login_is_told_at_once(lake, deployed, user, case, caplog):
    caplog.set_level(0)
    overrides, failure, secrets = settings_of(lake, user, case)
    base = LakebasePoolConfig.from_env(timeout=30)
    before = lake.stats()
    begin = time.monotonic()
    with create_lakebase_pool(base.merged(overrides)) as pool, pytest.raises(LoginError) as refused:
        with pool.connection():
            pass
    assert time.monotonic() - begin < AT_ONCE
    assert refused.value.failure is failure
    assert overrides["user"] in str(refused.value)
    assert [secret[:6] for secret in secrets if secret in shown(refused.value) + caplog.text] == []
    assert "eyJ" not in shown(refused.value) + caplog.text
    lake.wait_for_connections(0)
    assert lake.stats().total == before.total


@pytest.mark.parametrize("case", REJECTED)
async def test_a_rejected_login_reaches_all_waiters_at_once(lake, deployed, user, case, caplog):
    caplog.set_level(0)
    overrides, failure, secrets = settings_of(lake, user, case)
    base = LakebasePoolConfig.from_env(timeout=30, max_size=2)
    before = lake.stats()

    async def ask():
        async with pool.connection():
            pass

    async with AsyncLakebasePoolManager(base) as manager:
        pool = manager.get_pool(user, overrides)
        async with asyncio.timeout(AT_ONCE):
            results = await asyncio.gather(*(ask() for _ in range(6)), return_exceptions=True)
        assert {type(error) for error in results} == {LoginError}
        assert len({id(error) for error in results}) == 6, "each has its own traceback"
        assert {error.failure for error in results} == {failure}
        assert manager.stats().borrowed == 0
    text = "".join(map(shown, results)) + caplog.text
    assert [secret[:6] for secret in secrets if secret in text] == []
    assert "eyJ" not in text
    await asyncio.to_thread(lake.wait_for_connections, 0)
    assert lake.stats().total == before.total


def test_a_token_that_mints_nothing_is_told_at_once(lake, deployed, user, caplog):
    caplog.set_level(0)
    token = lake.token(user)
    lake.revoke(user)
    begin = time.monotonic()
    with create_lakebase_pool(user=user, token=token) as pool, pytest.raises(CredentialError) as refused:
        pool.getconn()
    assert time.monotonic() - begin < AT_ONCE
    assert not refused.value.is_transient
    assert lake.endpoint in str(refused.value)
    assert token not in shown(refused.value) + caplog.text


def test_a_host_that_does_not_answer_is_told_when_the_time_is_up(lake, deployed, user):
    fault = lake.refuse()
    try:
        with create_lakebase_pool(user=user, token=lake.token(user), timeout=0.5) as pool:
            begin = time.monotonic()
            with pytest.raises(Exception, match=r"timeout=0\.5") as late:
                pool.getconn()
            assert 0.4 < time.monotonic() - begin < AT_ONCE
            assert isinstance(late.value.__cause__, ConnectError)
            assert late.value.__cause__.failure is ConnectFailure.UNREACHABLE
            assert lake.token(user) not in shown(late.value)
    finally:
        fault.clear()


# --- requests ------------------------------------------------------------------------------------------------------


class App(Container):
    pools = Managed(AsyncLakebasePoolManager, LakebasePoolConfig(), stop="close_all")
    connection = Pooled(pools, select=lambda pools, ctx: pools.for_user(ctx["identity"]))


async def test_a_request_without_an_identity_is_told_what_it_lacks(lake, deployed):
    with Watch(lake):
        async with App().running() as app:
            async with app.request("GET /notes"):
                with pytest.raises(RequestContextError, match="'identity'"):
                    await app.connection.aget()
            assert app.pools().size == 0


async def test_an_identity_without_proof_is_told_which_header_is_missing(lake, deployed, user):
    claim = UserIdentity.from_headers({"X-Forwarded-Email": user})
    proven = UserIdentity.from_headers({"X-Forwarded-Email": user, "X-Forwarded-Access-Token": lake.token(user)})
    async with App().running() as app:
        async with app.request("first", identity=proven):
            await app.connection.aget()
        opened = lake.stats().total
        async with app.request("second", identity=claim):
            with pytest.raises(IdentityError, match="X-Forwarded-Access-Token") as refused:
                await app.connection.aget()
        assert refused.value.header == "X-Forwarded-Access-Token"
        assert (app.pools().stats().borrowed, lake.stats().total) == (0, opened)
    await asyncio.to_thread(lake.wait_for_connections, 0)


async def test_outside_of_a_request_there_is_no_users_connection(lake, deployed):
    with Watch(lake):
        async with App().running() as app:
            with pytest.raises(RequestContextError, match="no request is open"):
                await app.connection.aget()


def test_headers_that_contradict_each_other_select_no_user():
    with pytest.raises(IdentityError, match="two different X-Forwarded-Email headers"):
        UserIdentity.from_headers(
            [("X-Forwarded-Email", "ann@corp.example"), ("X-Forwarded-Email", "bob@corp.example")]
        )
