"""What a configuration accepts, refuses, merges and shows."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakebase import ConfigurationError, LakebasePoolConfig

ENDPOINT = "projects/shop/branches/main/endpoints/primary"
COMPLETE = {
    "host": "ep-x.database.eu.cloud.databricks.com",
    "database": "app",
    "user": "ann@corp",
    "endpoint": ENDPOINT,
}
APP_ENVIRONMENT = {
    "PGHOST": "ep-env.database.eu.cloud.databricks.com",
    "PGPORT": "6543",
    "PGDATABASE": "env_db",
    "PGUSER": "env_user",
    "PGSSLMODE": "verify-full",
    "PGAPPNAME": "env-app",
    "LAKEBASE_ENDPOINT": ENDPOINT,
    "DATABRICKS_CLIENT_ID": "11111111-client",
}


def test_every_field_has_its_documented_default() -> None:
    config = LakebasePoolConfig(**COMPLETE)
    assert (config.port, config.ssl_mode, config.pooled, config.read_only) == (5432, "require", False, False)
    assert (config.min_size, config.max_size, config.password, config.instance_name) == (0, 10, None, None)


def test_the_environment_fills_what_was_not_given() -> None:
    config = LakebasePoolConfig.from_env(APP_ENVIRONMENT, database="mine")
    assert config.database == "mine"
    assert config.host == APP_ENVIRONMENT["PGHOST"]
    assert (config.port, config.user, config.ssl_mode) == (6543, "env_user", "verify-full")
    assert (config.application_name, config.endpoint) == ("env-app", ENDPOINT)


def test_a_default_given_explicitly_wins_over_the_environment() -> None:
    config = LakebasePoolConfig.from_env(APP_ENVIRONMENT, port=5432, ssl_mode="require")
    assert (config.port, config.ssl_mode) == (5432, "require")


def test_without_pguser_the_service_principal_is_the_user() -> None:
    environment = {name: value for name, value in APP_ENVIRONMENT.items() if name != "PGUSER"}
    assert LakebasePoolConfig.from_env(environment).user == "11111111-client"


def test_resolved_reads_the_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in APP_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    assert LakebasePoolConfig(user="ann@corp").resolved().host == APP_ENVIRONMENT["PGHOST"]
    assert LakebasePoolConfig.from_env().user == "env_user"


@pytest.mark.parametrize(
    ("missing", "setting", "variable"),
    [
        ("host", "host=", "PGHOST"),
        ("database", "database=", "PGDATABASE"),
        ("user", "user=", "PGUSER"),
        ("endpoint", "endpoint=", "LAKEBASE_ENDPOINT"),
    ],
)
def test_what_is_missing_is_named_with_its_variable(missing: str, setting: str, variable: str) -> None:
    given = {name: value for name, value in COMPLETE.items() if name != missing}
    if missing in ("host", "user"):  # with a native password there is no workspace to ask
        given |= {"endpoint": None, "password": "native"}
    with pytest.raises(ConfigurationError) as caught:
        LakebasePoolConfig(**given).resolved({})
    assert caught.value.field == missing
    assert setting in str(caught.value)
    assert variable in str(caught.value)


@pytest.mark.parametrize("missing", ["PGHOST", "PGDATABASE"])
def test_from_env_needs_a_host_and_a_database_where_no_workspace_knows_them(missing: str) -> None:
    environment = {name: value for name, value in APP_ENVIRONMENT.items() if name not in (missing, "LAKEBASE_ENDPOINT")}
    with pytest.raises(ConfigurationError, match=missing):
        LakebasePoolConfig.from_env(environment)


def test_a_users_token_never_falls_back_to_the_apps_role() -> None:
    config = LakebasePoolConfig(host="h", database="d", token="dapi-ann")
    with pytest.raises(ConfigurationError) as caught:
        config.resolved(APP_ENVIRONMENT)
    assert caught.value.field == "user"
    assert "dapi-ann" not in str(caught.value)


def test_a_password_needs_no_endpoint() -> None:
    config = LakebasePoolConfig(host="h", database="d", user="u", password="p").resolved({})
    assert not config.is_oauth
    assert config.endpoint is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("port", 0),
        ("port", 65536),
        ("port", "5432"),
        ("port", True),
        ("host", ""),
        ("host", "https://ep-x.example"),
        ("host", "ep-x.example:5432"),
        ("host", "a,b"),
        ("host", "a b"),
        ("host", 7),
        ("database", "\x00"),
        ("user", " "),
        ("ssl_mode", "requires"),
        ("ssl_mode", "disable"),
        ("ssl_mode", "prefer"),
        ("ssl_mode", "allow"),
        ("endpoint", "ep-x"),
        ("endpoint", "projects/p"),
        ("connect_timeout", 1),
        ("pooled", "yes"),
        ("read_only", 1),
        ("transaction_mode_guard", None),
        ("max_size", 0),
        ("min_size", -1),
        ("timeout", -1),
        ("max_waiting", -1),
        ("max_idle", "10"),
        ("claims", "table"),
        ("libpq_params", [("keepalives", 1)]),
        ("libpq_params", {"password": "x"}),
        ("libpq_params", {"sslmode": "disable"}),
        ("pool_options", {"max_size": 3}),
        ("pool_options", {"create_backoff": -1}),
        ("password", ""),
        ("password", 5),
        ("token", ""),
    ],
)
def test_a_value_that_cannot_work_is_refused_at_construction(field: str, value: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        LakebasePoolConfig(**{field: value})
    assert caught.value.field in (field, *(value if isinstance(value, dict) else ()))


def test_a_bad_value_from_the_environment_is_traced_to_its_variable() -> None:
    for variable, text in (("PGPORT", "fivethousand"), ("PGPORT", "70000"), ("PGSSLMODE", "prefer")):
        with pytest.raises(ConfigurationError, match=variable):
            LakebasePoolConfig.from_env({**APP_ENVIRONMENT, variable: text})


def test_min_size_above_max_size_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="max_size=2"):
        LakebasePoolConfig(min_size=3, max_size=2)


def test_a_weak_ssl_mode_needs_the_escape_by_name() -> None:
    with pytest.raises(ConfigurationError, match="allow_plaintext=True"):
        LakebasePoolConfig(ssl_mode="disable")
    assert LakebasePoolConfig(ssl_mode="disable", allow_plaintext=True).connect_kwargs()["sslmode"] == "disable"


def test_endpoint_and_instance_exclude_each_other() -> None:
    with pytest.raises(ConfigurationError, match="exclude"):
        LakebasePoolConfig(endpoint=ENDPOINT, instance_name="shop")


@pytest.mark.parametrize("other", ["password", "workspace_client"])
def test_a_token_excludes_another_credential(other: str) -> None:
    with pytest.raises(ConfigurationError, match="exclude"):
        LakebasePoolConfig(**{"token": "dapi-x", other: "other"})


@pytest.mark.parametrize(
    "given",
    [
        {"pooled": True, "endpoint": ENDPOINT},
        {"pooled": True, "token": "dapi-x", "user": "ann"},
        {"host": "ep-x-pooler.database.eu.cloud.databricks.com", "endpoint": ENDPOINT},
    ],
)
def test_the_pooler_with_a_minted_token_is_refused_with_the_reason(given: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        LakebasePoolConfig(**given)
    assert "native" in str(caught.value)
    assert "pooled=False" in str(caught.value)
    assert "password=" in str(caught.value)
    assert "dapi-x" not in str(caught.value)


def test_the_pooler_with_a_native_password_connects_to_its_host() -> None:
    config = LakebasePoolConfig(**COMPLETE, password="p", pooled=True)
    assert config.connect_kwargs()["host"] == "ep-x-pooler.database.eu.cloud.databricks.com"
    assert config.direct_config().connect_kwargs()["host"] == COMPLETE["host"]


def test_prepared_statements_are_off_where_libpq_cannot_close_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pooled = LakebasePoolConfig(**COMPLETE, password="p", pooled=True)
    monkeypatch.setattr(type(psycopg.capabilities), "has_send_close_prepared", lambda self: False)
    assert pooled.connect_kwargs()["prepare_threshold"] is None
    assert "prepare_threshold" not in pooled.direct_config().connect_kwargs()
    monkeypatch.setattr(type(psycopg.capabilities), "has_send_close_prepared", lambda self: True)
    assert "prepare_threshold" not in pooled.connect_kwargs()


def test_direct_config_of_a_pooled_host_is_the_endpoints_own() -> None:
    config = LakebasePoolConfig(**{**COMPLETE, "host": "ep-x-pooler.database.eu.cloud.databricks.com"}, password="p")
    assert config.direct_config().server_host == COMPLETE["host"]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("hots", "host"),
        ("max_siz", "max_size"),
        ("dbname", "database"),
        ("sslmode", "ssl_mode"),
        ("max_pool_size", "max_size"),
        ("create_backoff", "pool_options"),
    ],
)
def test_an_unknown_name_points_to_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        LakebasePoolConfig().merged({wrong: 1})
    assert repr(wrong) in str(caught.value)
    assert right in str(caught.value)
    with pytest.raises(ConfigurationError, match=right):
        LakebasePoolConfig(**{wrong: 1})


def test_a_partial_configuration_overrides_only_what_it_gives() -> None:
    base = LakebasePoolConfig(**COMPLETE, port=6000, max_size=4)
    merged = base.merged(LakebasePoolConfig(user="bob@corp", max_size=2))
    assert (merged.user, merged.max_size, merged.port, merged.host) == ("bob@corp", 2, 6000, COMPLETE["host"])
    assert base.merged({"port": 5432}).port == 5432
    assert base.merged(None) is base
    assert base.user == "ann@corp"


def test_a_users_credential_replaces_the_bases_of_any_kind() -> None:
    base = LakebasePoolConfig(host="h", database="d", user="app", password="secret", endpoint=ENDPOINT)
    merged = base.merged({"user": "ann@corp", "token": "dapi-ann"})
    assert merged.password is None
    assert merged.token == "dapi-ann"
    assert base.merged({"instance_name": "shop"}).endpoint is None


def test_a_token_without_its_user_is_refused() -> None:
    base = LakebasePoolConfig(**{**COMPLETE, "user": "app"})
    with pytest.raises(ConfigurationError) as caught:
        base.merged({"token": "dapi-ann"})
    assert caught.value.field == "user"
    assert "dapi-ann" not in str(caught.value)


def test_of_takes_what_a_caller_may_give() -> None:
    config = LakebasePoolConfig(**COMPLETE)
    assert LakebasePoolConfig.of(config) == config
    assert LakebasePoolConfig.of(COMPLETE) == config
    assert LakebasePoolConfig.of(COMPLETE, port=1).port == 1
    assert LakebasePoolConfig.of(None, **COMPLETE) == config
    with pytest.raises(ConfigurationError, match="int"):
        LakebasePoolConfig.of(5)  # type: ignore[arg-type]


def test_connect_kwargs_have_everything_but_the_password() -> None:
    config = LakebasePoolConfig(
        **COMPLETE,
        password="p4ssw0rd",
        application_name="shop",
        ssl_root_cert=Path("/etc/ca.pem"),
        connect_timeout=5,
        libpq_params={"keepalives_idle": 30},
    )
    assert config.connect_kwargs() == {
        "host": COMPLETE["host"],
        "port": 5432,
        "dbname": "app",
        "user": "ann@corp",
        "sslmode": "require",
        "sslrootcert": "/etc/ca.pem",
        "application_name": "shop",
        "connect_timeout": 5,
        "keepalives_idle": 30,
    }


def test_the_engines_options_pass_through() -> None:
    options = LakebasePoolConfig(
        min_size=1, max_size=3, timeout=2.5, max_waiting=7, max_idle=9.0, pool_options={"create_backoff": 0.2}
    ).options()
    assert (options.min_size, options.max_size, options.timeout) == (1, 3, 2.5)
    assert (options.max_waiting, options.max_idle, options.create_backoff) == (7, 9.0, 0.2)


@given(secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=40))
def test_no_rendering_shows_a_secret(secret: str) -> None:
    for config in (
        LakebasePoolConfig(password=f"<{secret}>"),
        LakebasePoolConfig(token=f"<{secret}>"),
        LakebasePoolConfig(host="h", libpq_params={"sslpassword": f"<{secret}>"}),
    ):
        for shown in (repr(config), str(config), f"{config}", f"{[config]}"):
            assert f"<{secret}>" not in shown


def test_a_configuration_is_immutable_and_survives_copies() -> None:
    config = LakebasePoolConfig(**COMPLETE, libpq_params={"keepalives": 1})
    with pytest.raises(AttributeError):
        config.host = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        config.libpq_params["keepalives"] = 0  # type: ignore[index]
    assert copy.deepcopy(config) is config
    copied = pickle.loads(pickle.dumps(config))
    assert copied == config
    assert copied.given() == config.given()
    assert hash(copied) == hash(config)


@pytest.mark.parametrize(
    "field", ["host", "database", "user", "endpoint", "instance_name", "workspace_url", "ssl_root_cert"]
)
@pytest.mark.parametrize("text", ["postgresql://ann:s3cret@h:5432/d", "host=h password = s3cret", "https://x:s3cret@h"])
def test_a_connection_string_in_the_wrong_place_is_refused_unseen(field: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=field) as caught:
        LakebasePoolConfig(**{field: text})
    assert "s3cret" not in str(caught.value)


PARTS = st.fixed_dictionaries(
    {},
    optional={
        "host": st.sampled_from(["ep-a.example", "ep-b.example"]),
        "port": st.sampled_from([5432, 6000]),
        "database": st.sampled_from(["one", "two"]),
        "ssl_mode": st.sampled_from(["require", "verify-full"]),
        "max_size": st.integers(5, 9),
        "min_size": st.integers(0, 5),
        "read_only": st.booleans(),
    },
)


@given(PARTS, PARTS, PARTS)
def test_merging_is_what_merging_mappings_is(base: dict, first: dict, second: dict) -> None:
    config = LakebasePoolConfig(**base)
    assert config.merged(first).merged(second) == config.merged({**first, **second})
    assert config.merged(first) == config.merged(LakebasePoolConfig(**first)) == LakebasePoolConfig(**{**base, **first})
    assert config.merged({}) is config


@given(PARTS)
def test_what_is_explicit_wins_over_the_environment(explicit: dict) -> None:
    config = LakebasePoolConfig.from_env(APP_ENVIRONMENT, **explicit)
    for name, value in explicit.items():
        assert getattr(config, name) == value
    assert config.resolved({}) == LakebasePoolConfig(**explicit).resolved(APP_ENVIRONMENT)


@pytest.mark.parametrize(
    ("client", "is_the_apps"),
    [
        ({"auth_type": "oauth-m2m", "client_id": "app-id"}, True),
        ({"auth_type": "oauth-m2m", "client_id": "another-id"}, False),
        ({"auth_type": "pat", "client_id": "app-id"}, False),
        ({"auth_type": "databricks-cli", "client_id": None}, True),
    ],
)
def test_a_client_of_another_identity_does_not_log_in_as_the_app(client, is_the_apps) -> None:
    environ = {"PGUSER": "app-role", "DATABRICKS_CLIENT_ID": "app-id"}
    client = SimpleNamespace(config=SimpleNamespace(**client))
    config = LakebasePoolConfig(host="h", database="d", endpoint="projects/p/branches/b", workspace_client=client)
    if is_the_apps:
        assert config.resolved(environ).user == "app-role"
        return
    assert config.resolved(environ).user is None, "the workspace is asked before the first connection"
    assert config.merged({"user": "own"}).resolved(environ).user == "own"
