"""Something of the wrong kind is answered with what is wanted instead."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg_pool
import pytest

from lakebase import (
    AsyncRoutingPool,
    ConfigurationError,
    DatabaseCredential,
    IdentityError,
    LakebasePoolConfig,
    LakebasePoolManager,
    RoutingPool,
    create_lakebase_pool,
    generate_database_credential,
    token_fingerprint,
)
from pooling import RequestContext

NATIVE = {"host": "h", "database": "d", "user": "u", "password": "p"}
ENDPOINT = "projects/p/branches/b/endpoints/e"


@pytest.mark.parametrize("given", ["ann@corp.example", b"ann", None, 5])
def test_a_manager_wants_an_identity(given):
    with pytest.raises(IdentityError, match=r"expected a UserIdentity, as UserIdentity\.from_headers"):
        LakebasePoolManager(NATIVE).for_user(given)


@pytest.mark.parametrize("kind", [RoutingPool, AsyncRoutingPool])
def test_a_routing_pool_wants_a_pool_and_a_function(kind):
    app = create_lakebase_pool(NATIVE)
    with pytest.raises(ConfigurationError, match="manager's for_user") as refused:
        kind(app, None)
    assert refused.value.field == "resolve_user_pool"
    with pytest.raises(ConfigurationError, match="create_lakebase_pool") as refused:
        kind(None, print)
    assert refused.value.field == "app_pool"


def test_a_requests_identity_is_no_bare_name():
    resolved = []
    routing = RoutingPool(create_lakebase_pool(NATIVE), resolved.append)
    with RequestContext("request", identity="ann@corp.example"), pytest.raises(IdentityError, match="UserIdentity"):
        routing.connection().__enter__()
    assert not resolved


@pytest.mark.parametrize("claims", [5, "main.s.t", b"x", {"resources": []}])
def test_claims_are_a_sequence(claims):
    class Client:
        postgres = None

    for refuses in (
        lambda: LakebasePoolConfig(claims=claims),
        lambda: generate_database_credential(Client(), ENDPOINT, claims),
    ):
        with pytest.raises(ConfigurationError, match=r"^claims=.*: expected a sequence"):
            refuses()


def test_a_fingerprint_is_of_text_or_of_a_headers_bytes():
    assert token_fingerprint(b"dapi-x") == token_fingerprint("dapi-x") != token_fingerprint(b"dapi-y")
    with pytest.raises(IdentityError, match="of type int: expected a string"):
        token_fingerprint(5)


@pytest.mark.parametrize(
    ("token", "expires_at", "field"),
    [
        ("t", None, "expires_at"),
        ("t", "tomorrow", "expires_at"),
        (None, datetime.now(UTC), "token"),
        ("", None, "token"),
    ],
)
def test_a_credential_is_a_token_and_an_instant(token, expires_at, field):
    with pytest.raises(ConfigurationError, match=f"{field} is .*expected") as refused:
        DatabaseCredential(token, expires_at)
    assert refused.value.field == field


@pytest.mark.parametrize("arguments", [{"endpoint": ENDPOINT}, {"instance_name": "shop"}])
def test_a_credential_is_minted_by_a_workspace_client(arguments):
    with pytest.raises(
        ConfigurationError, match=r"of type str: expected a databricks\.sdk\.WorkspaceClient"
    ) as refused:
        generate_database_credential("x", **arguments)
    assert refused.value.field == "workspace_client"


def test_a_budget_is_no_number():
    with pytest.raises(ConfigurationError, match="budget=4: expected a PoolBudget"):
        create_lakebase_pool(NATIVE, budget=4)


def test_a_token_without_its_user_says_whose_role_is_wanted():
    config = LakebasePoolConfig(host="h", database="d", endpoint=ENDPOINT, token="dapi-x")
    with pytest.raises(ConfigurationError) as refused:
        config.resolved({})
    assert "user is missing: set user= to the role of the token's owner" in str(refused.value)


# --- timeouts ---------------------------------------------------------------------------------------------------------


def test_a_timeout_has_the_words_of_its_cause(lakebase_user):
    config = lakebase_user.config(password="native", token=None, endpoint=None)
    with create_lakebase_pool(config, timeout=1.0) as pool, lakebase_user.lake.refuse():
        with pytest.raises(psycopg_pool.PoolTimeout) as caught:
            pool.getconn()
    assert "refused" in str(caught.value)
    assert caught.value.step == "creating"


@pytest.mark.parametrize("what", ["minting a credential", "connecting"])
def test_a_timeout_names_what_was_under_way(lakebase_user, what):
    import threading

    ended = threading.Event()

    def password():
        ended.wait(30)
        return "secret"

    config = LakebasePoolConfig(**{**NATIVE, "host": lakebase_user.lake.host, "port": lakebase_user.lake.port})
    if what == "connecting":
        from psycopg import Connection

        class Slow(Connection):
            @classmethod
            def connect(cls, *_, **__):
                ended.wait(30)
                raise OSError

        pool = create_lakebase_pool(config, connection_class=Slow, timeout=0.2)
    else:
        pool = create_lakebase_pool(config.merged({"password": password}), timeout=0.2)
    try:
        with pytest.raises(psycopg_pool.PoolTimeout) as caught:
            pool.getconn()
        assert f"(step: {what})" in str(caught.value)
    finally:
        ended.set()
        pool.close()
