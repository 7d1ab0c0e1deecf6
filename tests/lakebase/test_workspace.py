"""Credentials through the real SDK: minted, bounded, rejected, and in no log."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import subprocess
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from databricks.sdk.clock import RealClock

from lakebase import (
    ConfigurationError,
    CredentialCache,
    CredentialError,
    LakebasePoolConfig,
    generate_database_credential,
    resolve_username,
    with_endpoint_host,
)
from lakebase.credentials import credential_source
from lakebase.passwords import MintedPassword
from lakebase.username import aresolve_username

CREDENTIALS = "POST /api/2.0/postgres/credentials"


@pytest.fixture(autouse=True)
def no_ambient_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("DATABRICKS_", "PG", "LAKEBASE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", "/nonexistent")


class SkippingClock(RealClock):
    """The SDK's clock, on which a request takes a second, and a pause before the next one passes at once."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def time(self) -> float:
        self.skipped += 1.0
        return self.skipped

    def sleep(self, seconds: float) -> None:
        self.skipped += seconds


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("databricks.sdk.config.RealClock", SkippingClock)


def source_of(user, **overrides) -> MintedPassword:
    source = credential_source(user.config(**overrides).resolved({}))
    assert isinstance(source, MintedPassword)
    return source


def test_a_minted_credential_is_the_password_at_login(lakebase_user) -> None:
    config = lakebase_user.config()
    client = lakebase_user.lake.workspace_client(lakebase_user.name)
    credential = generate_database_credential(client, endpoint=config.endpoint)
    assert timedelta(minutes=59) < credential.expires_at - datetime.now(UTC) <= timedelta(minutes=61)
    with psycopg.connect(**config.connect_kwargs(), password=credential.token) as connection:
        assert connection.execute("SELECT current_user").fetchone() == (lakebase_user.name,)
    assert credential.token not in f"{credential} {credential!r}"


@pytest.mark.parametrize("kind", ["branch", "instance", "claims", "ttl"])
def test_every_way_to_ask_for_one_gives_a_password(lakebase_user, kind: str) -> None:
    lake = lakebase_user.lake
    branch = lake.endpoint.rpartition("/endpoints/")[0]
    claims = [{"permission_set": "READ_ONLY", "resources": [{"table_name": "main.s.t"}]}]
    arguments = {
        "branch": {"endpoint": branch},
        "instance": {"instance_name": lake.instance_name},
        "claims": {"endpoint": lake.endpoint, "claims": claims},
        "ttl": {"endpoint": lake.endpoint, "ttl": 300},
    }[kind]
    credential = generate_database_credential(lake.workspace_client(lakebase_user.name), **arguments)
    assert credential.expires_at > datetime.now(UTC)
    if kind == "ttl":
        assert credential.expires_at < datetime.now(UTC) + timedelta(seconds=301)
    psycopg.connect(**lakebase_user.config().connect_kwargs(), password=credential.token).close()


@pytest.mark.parametrize("arguments", [{}, {"endpoint": "x", "instance_name": "y"}, {"endpoint": "shop"}])
def test_what_to_mint_for_must_be_clear(arguments) -> None:
    with pytest.raises(ConfigurationError, match="endpoint"):
        generate_database_credential(None, **arguments)  # type: ignore[arg-type]


def test_fifty_connections_at_once_mint_once(lakebase_user) -> None:
    source = source_of(lakebase_user)
    with ThreadPoolExecutor(50) as pool:
        passwords = {future.result() for future in [pool.submit(source.password) for _ in range(50)]}
    assert len(passwords) == 1
    assert lakebase_user.lake.stats().user(lakebase_user.name).minted == 1
    psycopg.connect(**lakebase_user.config().connect_kwargs(), password=passwords.pop()).close()


async def test_the_loop_runs_on_while_the_workspace_is_slow(lakebase_user) -> None:
    source = source_of(lakebase_user)
    with lakebase_user.lake.hold_workspace() as fault:
        tasks = [asyncio.create_task(source.apassword()) for _ in range(20)]
        await asyncio.to_thread(fault.wait)
        tasks[0].cancel()
    passwords = await asyncio.gather(*tasks[1:])
    assert len(set(passwords)) == 1
    assert lakebase_user.lake.stats().user(lakebase_user.name).minted == 1


def test_an_apps_own_identity_in_the_environment_does_not_affect_a_user(
    lakebase_user, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in lakebase_user.lake.environment().items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    password = source_of(lakebase_user).password()
    with psycopg.connect(**lakebase_user.config().connect_kwargs(), password=password) as connection:
        assert connection.execute("SELECT session_user").fetchone() == (lakebase_user.name,)
    assert dict(os.environ) == before


def test_the_app_mints_as_itself_from_its_environment(lakebase_local, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in lakebase_local.environment().items():
        monkeypatch.setenv(name, value)
    config = LakebasePoolConfig.from_env().resolved()
    source = credential_source(config)
    with psycopg.connect(**config.connect_kwargs(), password=source.password()) as connection:
        assert connection.execute("SELECT current_user").fetchone() == (lakebase_local.client_id,)


def test_an_expired_credential_that_is_rejected_is_minted_anew_once(lakebase_user) -> None:
    source = source_of(lakebase_user)
    rejected = source.password()
    lakebase_user.lake.expire_tokens(lakebase_user.name)
    parameters = lakebase_user.config().connect_kwargs()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(**parameters, password=rejected)
    assert source.invalidate(rejected)
    psycopg.connect(**parameters, password=source.password()).close()
    assert lakebase_user.lake.stats().user(lakebase_user.name).minted == 2


def test_a_refused_mint_is_an_error_at_once_with_the_sdks_reason(lakebase_user) -> None:
    source = source_of(lakebase_user)
    lakebase_user.lake.revoke(lakebase_user.name)
    calls = lakebase_user.lake.stats().api_calls.get(CREDENTIALS, 0)
    with pytest.raises(CredentialError) as caught:
        source.password()
    assert type(caught.value.__cause__).__name__ == "PermissionDenied"
    assert not caught.value.is_transient
    assert "PermissionDenied" in str(caught.value)
    assert "Config:" not in str(caught.value)
    assert lakebase_user.lake.stats().api_calls[CREDENTIALS] == calls + 1


def test_several_ways_to_log_in_are_named_without_their_values(lakebase_local, monkeypatch) -> None:
    """As in a shell that has the variables of the app, and a token of somebody beside them."""
    variables = lakebase_local.environment("python") | {"DATABRICKS_TOKEN": "dapi-of-somebody"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    source = credential_source(LakebasePoolConfig.from_env())
    with pytest.raises(CredentialError) as caught:
        source.password()
    words = str(caught.value)
    assert "several ways to authenticate are set (oauth and pat)" in words
    assert "DATABRICKS_CLIENT_ID, DATABRICKS_CLIENT_SECRET, DATABRICKS_TOKEN. Unset" in words
    assert not any(variables[name] in words for name in variables if name.startswith("DATABRICKS_"))


@pytest.mark.parametrize("status", [429, 500, 503, 504])
def test_failures_that_pass_are_survived(lakebase_user, no_pauses, status: int) -> None:
    with lakebase_user.lake.fail_workspace(status, path="/credentials", count=1):
        assert source_of(lakebase_user).password()


@pytest.mark.parametrize("status", [500, 503])
def test_failures_that_stay_end_after_bounded_retries(lakebase_user, no_pauses, status: int) -> None:
    with lakebase_user.lake.fail_workspace(status, path="/credentials") as fault:
        with pytest.raises(CredentialError) as caught:
            source_of(lakebase_user).password()
    assert caught.value.is_transient
    assert fault.hits < 20  # that failures are retried at all, the test above shows


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_apps_token_endpoint_that_fails_once_is_survived(
    lakebase_local, no_pauses, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    for name, value in lakebase_local.environment().items():
        monkeypatch.setenv(name, value)
    with lakebase_local.fail_workspace(status, path="/oidc/v1/token", count=1) as fault:
        assert credential_source(LakebasePoolConfig.from_env().resolved()).password()
    assert fault.hits == 1


def test_a_workspace_that_is_not_there_is_an_error_within_the_callers_time(lakebase_user, no_pauses) -> None:
    source = source_of(lakebase_user, workspace_url="http://127.0.0.1:1")
    with pytest.raises(CredentialError) as caught:
        source.password(timeout=0.05)
    assert caught.value.is_transient


def test_without_any_identity_the_error_says_what_to_set(lakebase_local) -> None:
    config = LakebasePoolConfig(
        host="h", database="d", user="u", endpoint=lakebase_local.endpoint, workspace_url=lakebase_local.workspace_url
    )
    with pytest.raises(CredentialError, match="DATABRICKS_HOST"):
        credential_source(config).password()


def test_a_returning_user_gets_the_earlier_credential(lakebase_user) -> None:
    cache = CredentialCache()
    first = cache.source(lakebase_user.config().resolved({})).password()
    assert cache.source(lakebase_user.config(max_size=2).resolved({})).password() == first
    rotated = lakebase_user.lake.add_user(lakebase_user.name)
    assert cache.source(lakebase_user.config(token=rotated).resolved({})).password() != first


# Identity


def test_the_username_is_resolved_in_order(lakebase_user) -> None:
    environ = {"PGUSER": "from-pguser", "DATABRICKS_CLIENT_ID": "from-client-id"}
    client = lakebase_user.lake.workspace_client(lakebase_user.name)
    assert resolve_username({"user": "explicit"}, environ=environ) == "explicit"
    assert resolve_username({"workspace_client": client}, environ=environ) == "from-pguser"
    del environ["PGUSER"]
    assert resolve_username({"workspace_client": client}, environ=environ) == "from-client-id"
    assert resolve_username({"workspace_client": client}, environ={}) == lakebase_user.name


async def test_a_users_token_names_its_user_and_never_the_app(lakebase_user) -> None:
    config = {"token": lakebase_user.token, "workspace_url": lakebase_user.lake.workspace_url}
    assert await aresolve_username(config, environ={"PGUSER": "the-app"}) == lakebase_user.name


def test_an_unknown_name_is_an_error_and_never_a_guess(lakebase_local, no_pauses) -> None:
    config = {"token": "dapi-worthless", "workspace_url": lakebase_local.workspace_url}
    with pytest.raises(ConfigurationError, match="PGUSER") as caught:
        resolve_username(config, environ={"PGUSER": "the-app"})
    assert caught.value.field == "user"
    assert caught.value.__cause__ is not None
    assert "dapi-worthless" not in "".join(traceback.format_exception(caught.value))


# What is shown


def test_nothing_at_debug_level_shows_a_token(lakebase_user, monkeypatch: pytest.MonkeyPatch, no_pauses) -> None:
    monkeypatch.setenv("DATABRICKS_DEBUG_HEADERS", "true")
    monkeypatch.setenv("DATABRICKS_DEBUG_TRUNCATE_BYTES", "100000")
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    workspace_token = lakebase_user.token
    try:
        with contextlib.redirect_stdout(written), contextlib.redirect_stderr(written):
            source = source_of(lakebase_user)
            password = source.password()
            written.write(f"{source} {source!r} {lakebase_user.config()} {source._mint}")
            given = lakebase_user.lake.workspace_client(lakebase_user.name)
            second = source_of(lakebase_user, workspace_client=given, token=None).password()
            with_endpoint_host(lakebase_user.config(workspace_client=given, token=None))
            for name, value in lakebase_user.lake.environment().items():
                monkeypatch.setenv(name, value)
            apps = credential_source(LakebasePoolConfig.from_env().resolved()).password()
            lakebase_user.lake.revoke(lakebase_user.name)
            source.invalidate(password)
            try:
                source.password()
            except CredentialError:
                traceback.print_exc()
                logging.getLogger("app").exception("failed")
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    text = written.getvalue()
    assert "POST /api/2.0/postgres/credentials" in text
    for secret in (workspace_token, password, second, apps, lakebase_user.lake.client_secret):
        assert secret not in text
        assert secret[:12] not in text
        assert secret[-12:] not in text


def test_other_users_of_the_sdk_keep_their_logs(lakebase_user, caplog: pytest.LogCaptureFixture) -> None:
    source_of(lakebase_user).password()
    with caplog.at_level(logging.DEBUG, "databricks.sdk"):
        logging.getLogger("databricks.sdk").debug("%s", '{"token": "somebody else\'s matter"}')
    assert "somebody else's matter" in caplog.text


def test_importing_the_library_imports_neither_the_sdk_nor_the_driver() -> None:
    program = "import sys, lakebase; print([name for name in ('psycopg', 'databricks.sdk') if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"


def test_no_thread_is_left_after_minting(lakebase_user) -> None:
    before = set(threading.enumerate())
    source_of(lakebase_user).password()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert set(threading.enumerate()) <= before
