"""Settings of one pool: from arguments and the environment, checked where they are given."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Self, Unpack

from pooling.errors import ConfigurationError

from ._config_checks import check_names, check_pooler_has_password, check_values
from ._environment import ENVIRONMENT, Found, settings_in
from ._secrets import HiddenText
from ._settings import NOTHING, SECRET_FIELDS, PasswordCallable, Settings, SettingsDict
from .hosts import direct_host
from .limits import warn_if_over_limit

__all__ = ["LakebasePoolConfig", "PasswordCallable"]

#: Of a Lakebase that is given by its endpoint or instance alone.
DEFAULT_DATABASE = "databricks_postgres"

# An override replaces the whole group: the base's password must not be used for a user whose token is missing.
_EXCLUSIVE = (("password", "token", "workspace_client"), ("endpoint", "instance_name"), ("host", "endpoint_hosts"))


@dataclass(frozen=True, kw_only=True, repr=False, slots=True)
class LakebasePoolConfig(Settings):
    """
    Where a pool connects, as whom, with which credential, and how many at once.

    Fields may be missing, since the base configuration of many pools has no user: a value is checked here,
    completeness by `resolved()`, which every pool calls before it does anything else. What comes from the environment
    may be in the section of libpq's service file that `PGSERVICE` names, too.

    The credential is one of: `password`, for a role with a native password; or
    a token minted for `endpoint` or `instance_name` through `workspace_client`,
    or as the user whose workspace `token` is given, or else as the app itself,
    by the SDK's own authentication.

    Args:
        host: Of the endpoint, without scheme or port. From `PGHOST`; without either, the workspace is asked for the
            host of `endpoint` or `instance_name` before the first connection, and again when that host fails.
        endpoint_hosts: All hosts of the endpoint as the workspace names them, so that no rule about names is needed;
            `with_endpoint_host` sets it together with `host`.
        port: From `PGPORT`.
        database: From `PGDATABASE`.
        user: The Postgres role: an e-mail address, a service principal's client id,
            or the name of a role with a native password. From `PGUSER`, then `DATABRICKS_CLIENT_ID`, unless a
            `workspace_client` is seen to have another identity; without it, the workspace is asked for the role of the
            identity that mints, before the first connection.
        endpoint: `projects/P/branches/B/endpoints/E`, or `projects/P/branches/B` for
            the branch's read-write endpoint. From `LAKEBASE_ENDPOINT`, `PGENDPOINT`, `LAKEBASE_AUTOSCALING_ENDPOINT`,
            or `LAKEBASE_AUTOSCALING_PROJECT` and `_BRANCH`.
        instance_name: Of a provisioned instance; instead of `endpoint`. From `LAKEBASE_INSTANCE_NAME`.
        password: Native password, or what returns it, called for each new connection; in an
            asyncio pool it may be `async`.
        token: Workspace token of the user that the pool belongs to, as in `X-Forwarded-Access-Token`.
        workspace_client: A `databricks.sdk.WorkspaceClient` that mints. Its own time limits apply.
        workspace_url: Of the workspace, for the clients built here; `None` is the SDK's own, `DATABRICKS_HOST`.
        warm_up: Load what minting needs in the background as soon as a pool or manager is built. `LAKEBASE_WARM_UP=0`
            in the environment switches it off for all.
        claims: Unity Catalog tables to which the minted token is restricted, as the SDK's
            `RequestedClaims` or mappings of the same shape.
        ssl_mode: libpq's `sslmode`: `require` encrypts, `verify-full` also checks that the server is the one
            named, against `ssl_root_cert`. From `PGSSLMODE`. Lakebase accepts nothing weaker.
        ssl_root_cert: Path of the trusted certificates, or `system`. From `PGSSLROOTCERT`.
        allow_plaintext: Permits the weaker ssl modes, for a Postgres on your own machine.
        pooled: Connect through the endpoint's built-in pooler (transaction mode). It takes native
            passwords only. If the name of its host follows no rule, the workspace is asked before the first connection.
        oauth_through_pooler: Let a minted token pass through the pooler, which by its documentation refuses it.
        transaction_mode_guard: Refuse to send what the pooler would break (`transaction_mode_violations`); needs the
            extra `lakebase-pooling[sql]`.
        read_only: Connect to the endpoint's readable secondaries, whose host the workspace is asked for before the
            first connection, and have no transaction write. In autocommit through the pooler, that is up to the
            secondary.
        schema: The name of the schema that sessions look in first, before `public`.
        create_schema: Whether the first connection makes that schema, if there is none.
        statement_timeout: Seconds after which the server cancels a statement. `None` is the server's own limit, and
            `math.inf` none, as for the next two.
        idle_in_transaction_timeout: Seconds after which the server ends a session that idles inside a transaction.
        lock_timeout: Seconds after which a statement that waits for a lock is cancelled. Through the pooler each
            transaction begins with these settings and with `schema`, so that in autocommit they have no effect there.
        application_name: Shown in `pg_stat_activity`. From `PGAPPNAME`.
        connect_timeout: Whole seconds for one attempt; libpq's minimum is 2. From `PGCONNECT_TIMEOUT`.
        libpq_params: Further connection parameters of libpq, as `{"keepalives_idle": 30}`.
        min_size: Connections kept open. Each keeps nothing awake, but counts against the endpoint's limit.
        max_size: Most connections at once.
        timeout: Seconds in which a connection must be in the borrower's hands.
        max_waiting: Most borrowers in the queue; `None` is unlimited.
        max_idle: Seconds after which an idle connection is closed. An endpoint that scales to zero drops
            all of them after 5 minutes without a query, by default.
        max_lifetime: Seconds after which a connection is replaced. Lakebase may close one that is 3 days old.
        max_uses: Borrowings after which a connection is replaced.
        max_creating: Most connection attempts under way at once.
        validate_on_acquire: Ask the server before handing out: `True`, or only when idle for so many seconds.
        leak_timeout: Seconds after which a connection still out is reported, with its borrower's stack.
        pool_options: Further `PoolingServiceOptions`, by name.
        compute_units: Upper end of the endpoint's range in CU: with it, a pool that may open more connections than
            the endpoint takes warns when it is made. `None` is unknown.
        replicas: Processes that open as many connections as this one, itself included.

    Raises:
        ConfigurationError: An unknown name, a value that cannot work, or two settings that exclude each other.
    """

    # Which fields were given: only those win over a base or the environment.
    _given: tuple[str, ...] = field(init=False, compare=False)

    def __new__(cls, **given: Any) -> Self:
        """Refuse an unknown name in better words than `__init__`, and remember which names were given."""
        if not _FIELD_SET.issuperset(given):
            check_names(given, _FIELDS)
        self = object.__new__(cls)
        object.__setattr__(self, "_given", _one_for_all(*given))
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Itself: it is immutable, and a container that copies its arguments must not copy clients."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        given = {name: dict(value) if isinstance(value, Mapping) else value for name, value in self.given().items()}
        return _restored, (type(self), given)

    def __post_init__(self) -> None:
        if isinstance(self.ssl_root_cert, os.PathLike):
            object.__setattr__(self, "ssl_root_cert", os.fspath(self.ssl_root_cert))
        check_values(self)
        for name in SECRET_FIELDS:
            if type(value := getattr(self, name)) is str:
                object.__setattr__(self, name, HiddenText(value))
        if self.claims is not None:
            object.__setattr__(self, "claims", tuple(self.claims))
        for name in ("libpq_params", "pool_options"):
            if (value := getattr(self, name)) is not NOTHING:
                object.__setattr__(self, name, MappingProxyType(dict(value)))
        self.options()

    # From several sources

    @classmethod
    def of(
        cls, config: LakebasePoolConfig | Mapping[str, Any] | None = None, /, **overrides: Unpack[SettingsDict]
    ) -> LakebasePoolConfig:
        """A configuration from what a caller may give: one, a mapping of fields, or nothing; keywords win."""
        if config is None:
            return cls(**overrides)
        if isinstance(config, LakebasePoolConfig):
            return config.merged(overrides)
        if isinstance(config, Mapping):
            return cls(**_named(config)).merged(overrides)
        raise ConfigurationError(
            f"config is of type {type(config).__name__}: expected LakebasePoolConfig, a mapping of its fields, or None",
            field="config",
        )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **explicit: Unpack[SettingsDict]) -> LakebasePoolConfig:
        """
        A configuration from the environment that Databricks Apps sets; what is given explicitly wins.

        Raises:
            ConfigurationError: Neither has a host and a database, nor an endpoint of which the workspace has them; or a
                value cannot work.
        """
        return cls(**explicit)._filled(os.environ if environ is None else environ)._with_address()

    def merged(self, per_pool: LakebasePoolConfig | Mapping[str, Any] | None) -> LakebasePoolConfig:
        """
        This configuration with the fields that `per_pool` gives.

        A credential in `per_pool` (password, token or workspace client) replaces
        this one's, of whichever kind, and likewise an endpoint or instance. A
        token must come with its user.

        Raises:
            ConfigurationError: An unknown name, a value that cannot work, or a token without a user.
        """
        if not per_pool:
            return self
        given = per_pool.given() if isinstance(per_pool, LakebasePoolConfig) else _named(per_pool)
        if given.get("token") is not None and given.get("user") is None:
            raise ConfigurationError(
                "a token without its user: give user=, the role of the token's owner; the base configuration's user is "
                "another one",
                field="user",
            )
        values = self.given()
        for group in _EXCLUSIVE:
            for name in group:
                if given.get(name) is not None:
                    for replaced in group:
                        values.pop(replaced, None)
                    break
        return type(self)(**{**values, **given})

    def given(self) -> dict[str, Any]:
        """The fields that were set, be it to their default."""
        return {name: getattr(self, name) for name in self._given}

    def _filled(self, environ: Mapping[str, str]) -> LakebasePoolConfig:
        values, sources = self.given(), []
        for found in settings_in(environ):
            if values.get(found.field) is None and self._takes(found, values, environ):
                values[found.field] = _parsed(found)
                sources.append(found)
        if not sources:
            return self
        try:
            return type(self)(**values)
        except ConfigurationError as error:
            for found in sources:
                if found.field == error.field:
                    raise ConfigurationError(
                        f"{error} ({found.variable} in the environment)", field=found.field
                    ) from error
            raise

    def _takes(self, found: Found, values: Mapping[str, Any], environ: Mapping[str, str]) -> bool:
        """Whether this is not something else's: the environment has the app's role and endpoint, and no user's."""
        if found.field == "user":
            return self.token is None and not _is_anothers(self.workspace_client, environ)
        if found.field in ("endpoint", "instance_name"):
            return all(values.get(name) is None for name in ("endpoint", "instance_name", "password"))
        if found.field == "password":
            return not any(getattr(self, name) for name in ("token", "workspace_client", "endpoint", "instance_name"))
        return found.field != "host" or self.endpoint_hosts is None

    def resolved(self, environ: Mapping[str, str] | None = None) -> LakebasePoolConfig:
        """
        A complete configuration: what is missing is taken from the environment.

        Warns (`ConnectionBudgetWarning`) of one whose pool may open more connections than `compute_units` allow.

        Raises:
            ConfigurationError: The environment has not what is missing, and there is no endpoint of which to ask it.
        """
        config = self._filled(os.environ if environ is None else environ)._with_address()
        if config.token is not None or not config._can_ask() or not config.is_oauth:
            config._require("user")
        check_pooler_has_password(config)
        if config.password is None and config.endpoint is None and config.instance_name is None:
            raise ConfigurationError(
                "endpoint is missing: a credential is minted for one. Set endpoint= or LAKEBASE_ENDPOINT "
                "(projects/P/branches/B/endpoints/E), or instance_name= for a provisioned instance, or password= for "
                "a role with a native password.",
                field="endpoint",
            )
        warn_if_over_limit(config)
        return config

    def _can_ask(self) -> bool:
        """Whether the workspace can be asked for what is missing."""
        return (self.endpoint or self.instance_name) is not None

    def _with_address(self) -> LakebasePoolConfig:
        """This configuration, if it has a host and database, or an endpoint whose host the workspace knows."""
        if self.host is not None or not self._can_ask():
            self._require("host", "database")
            return self
        return self if self.database is not None else self.merged({"database": DEFAULT_DATABASE})

    def _require(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) is None:
                advice = f"set {name}= or {' or '.join(ENVIRONMENT[name])}"
                if name == "user" and self.token is not None:
                    advice = "set user= to the role of the token's owner; the environment names the app's"
                elif name == "user":
                    advice += ", or ask the workspace: user=resolve_username(config)"
                elif name == "host":
                    advice += f"; or endpoint= or {ENVIRONMENT['endpoint'][0]}, whose host the workspace knows. "
                    advice += "On your own machine, `lakebase local up` runs one and prints the variables"
                raise ConfigurationError(f"{name} is missing: {advice}", field=name)

    # What it amounts to

    def direct_config(self) -> LakebasePoolConfig:
        """The same without the pooler, for what transaction mode cannot do: migrations, `pg_dump`, `LISTEN`."""
        host = self.host
        if host is None:
            return self.merged({"pooled": False})
        if (hosts := self.endpoint_hosts) is None:
            return self.merged({"pooled": False, "host": direct_host(host)})
        direct = hosts.wanted(pooled=False, read_only=self.read_only) or direct_host(host)
        port = self.port if hosts.direct_port is None else hosts.direct_port
        return self.merged({"pooled": False, "host": direct, "endpoint_hosts": hosts, "port": port})

    def __repr__(self) -> str:
        shown = []
        for name, value in self.given().items():
            if name in SECRET_FIELDS and value is not None:
                shown.append(f"{name}={'<callable>' if callable(value) else '***'}")
            elif name in ("workspace_client", "libpq_params") and value:
                shown.append(f"{name}=<{type(value).__name__}>")
            else:
                shown.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


_FIELDS = tuple(item.name for item in fields(LakebasePoolConfig) if item.init)
_FIELD_SET = frozenset(_FIELDS)


def _is_anothers(client: object, environ: Mapping[str, str]) -> bool:
    """Whether a client is seen to have another identity than the app's, whose role the environment names."""
    app = environ.get("DATABRICKS_CLIENT_ID")
    settings = getattr(client, "config", None)
    if not app or settings is None:
        return False
    if getattr(settings, "auth_type", None) == "pat":  # then the SDK has read the app's client id, and does not use it
        return True
    own = getattr(settings, "client_id", None)
    return isinstance(own, str) and own != app


@lru_cache(maxsize=256)
def _one_for_all(*names: str) -> tuple[str, ...]:
    """The same tuple for all configurations that give the same fields: a manager has thousands of them."""
    return names


def _restored(cls: type[LakebasePoolConfig], given: dict[str, Any]) -> LakebasePoolConfig:
    return cls(**given)


def _named(given: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            f"a configuration of type {type(given).__name__}: expected LakebasePoolConfig or a mapping of its fields"
        )
    return {str(name): value for name, value in given.items()}


def _parsed(found: Found) -> Any:
    if found.field not in ("port", "connect_timeout"):
        return found.text
    try:
        return int(found.text)
    except ValueError:
        raise ConfigurationError(
            f"{found.field} is not a number: {found.variable} is {found.text!r} in the environment", field=found.field
        ) from None
