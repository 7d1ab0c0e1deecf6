"""Settings of one pool: from arguments and the environment, checked where they are given."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from pooling.errors import ConfigurationError
from pooling.options import PoolingServiceOptions

from ._config_checks import OPTION_FIELDS, SECRET_FIELDS, check_names, check_pooler_has_password, check_values
from .hosts import EndpointHost, direct_host, is_pooled_host, pooled_host
from .limits import warn_if_over_limit

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

    from .passwords import DatabaseCredential

__all__ = ["LakebasePoolConfig", "PasswordCallable"]

#: Called for each new connection. A `DatabaseCredential` is cached until shortly before it expires, a string is not.
PasswordCallable = Callable[[], "str | DatabaseCredential | Awaitable[str | DatabaseCredential]"]

#: Environment variables, in order of precedence, of the fields that may come from there.
ENVIRONMENT = MappingProxyType(
    {
        "host": ("PGHOST",),
        "port": ("PGPORT",),
        "database": ("PGDATABASE",),
        "user": ("PGUSER", "DATABRICKS_CLIENT_ID"),
        "endpoint": ("LAKEBASE_ENDPOINT",),
        "ssl_mode": ("PGSSLMODE",),
        "ssl_root_cert": ("PGSSLROOTCERT",),
        "application_name": ("PGAPPNAME",),
        "connect_timeout": ("PGCONNECT_TIMEOUT",),
    }
)

# An override brings its own of the whole group: the base's password must not stand in for a user's missing token.
_EXCLUSIVE = (("password", "token", "workspace_client"), ("endpoint", "instance_name"))
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, repr=False, slots=True)
class LakebasePoolConfig:
    """
    Where a pool connects, as whom, with which credential, and how many at once.

    Fields may be missing, since a base configuration of many pools has no user
    of its own: a value is checked here, completeness by `resolved()`, which
    every pool calls before it does anything else.

    The credential is one of: `password`, for a role with a native password; or
    a token minted for `endpoint` or `instance_name` through `workspace_client`,
    or as the user whose workspace `token` is given, or else as the app itself,
    by the SDK's own authentication.

    Args:
        host: Of the endpoint, without scheme or port. From `PGHOST`.
        port: From `PGPORT`.
        database: From `PGDATABASE`.
        user: The Postgres role: an e-mail address, a service principal's client id,
            or the name of a role with a native password. From `PGUSER`, then `DATABRICKS_CLIENT_ID`.
        endpoint: `projects/P/branches/B/endpoints/E`, or `projects/P/branches/B` for
            the branch's read-write endpoint. From `LAKEBASE_ENDPOINT`.
        instance_name: Of a provisioned instance; instead of `endpoint`.
        password: Native password, or what returns it, called for each new connection; in an
            asyncio pool it may be `async`.
        token: Workspace token of the user that the pool belongs to, as in `X-Forwarded-Access-Token`.
        workspace_client: A `databricks.sdk.WorkspaceClient` that mints. Its own time limits apply.
        workspace_url: Of the workspace, for the clients built here; `None` is the SDK's own, `DATABRICKS_HOST`.
        claims: Unity Catalog tables to which the minted token is restricted, as the SDK's
            `RequestedClaims` or mappings of the same shape.
        ssl_mode: libpq's `sslmode`: `require` encrypts, `verify-full` also checks that the server is the one
            named, against `ssl_root_cert`. From `PGSSLMODE`. Lakebase accepts nothing weaker.
        ssl_root_cert: Path of the trusted certificates, or `system`. From `PGSSLROOTCERT`.
        allow_plaintext: Permits the weaker ssl modes, for a Postgres on your own machine.
        pooled: Connect through the endpoint's built-in pooler (transaction mode). It takes native
            passwords only.
        transaction_mode_guard: Refuse to send what the pooler would break (`transaction_mode_violations`); needs the
            extra `lakebase-pooling[sql]`.
        read_only: Connect to the endpoint's readable secondaries, whose host the workspace is asked for before the
            first connection, and have no transaction write. In autocommit through the pooler, that is up to the
            secondary.
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

    host: str | None = None
    port: int = 5432
    database: str | None = None
    user: str | None = None
    endpoint: str | None = None
    instance_name: str | None = None
    password: str | PasswordCallable | None = None
    token: str | None = None
    workspace_client: WorkspaceClient | None = field(default=None, hash=False)
    workspace_url: str | None = None
    claims: tuple[Any, ...] | None = field(default=None, hash=False)
    ssl_mode: str = "require"
    ssl_root_cert: str | os.PathLike[str] | None = None
    allow_plaintext: bool = False
    pooled: bool = False
    transaction_mode_guard: bool = False
    read_only: bool = False
    application_name: str | None = None
    connect_timeout: int = 10
    libpq_params: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, hash=False)
    min_size: int = 0
    max_size: int = 10
    timeout: float = 30.0
    max_waiting: int | None = None
    max_idle: float = 300.0
    max_lifetime: float = 3600.0
    max_uses: float = float("inf")
    max_creating: int = 2
    validate_on_acquire: bool | float = False
    leak_timeout: float | None = None
    pool_options: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, hash=False)
    compute_units: float | None = None
    replicas: int = 1
    # Which fields were given: only those win over a base or the environment.
    _given: tuple[str, ...] = field(init=False, compare=False)

    def __new__(cls, **given: Any) -> Self:
        """Tell an unknown name before `__init__` does in its own words, and remember which were given."""
        check_names(given, _FIELDS)
        self = object.__new__(cls)
        object.__setattr__(self, "_given", tuple(given))
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
        if self.claims is not None:
            object.__setattr__(self, "claims", tuple(self.claims))
        for name in ("libpq_params", "pool_options"):
            if (value := getattr(self, name)) is not _NOTHING:
                object.__setattr__(self, name, MappingProxyType(dict(value)))
        self.options()

    # From several sources

    @classmethod
    def of(
        cls, config: LakebasePoolConfig | Mapping[str, Any] | None = None, /, **overrides: Any
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
    def from_env(cls, environ: Mapping[str, str] | None = None, **explicit: Any) -> LakebasePoolConfig:
        """
        A configuration from the environment that Databricks Apps sets; what is given explicitly wins.

        Raises:
            ConfigurationError: A host or database is in neither, or a value cannot work.
        """
        config = cls(**explicit)._filled(os.environ if environ is None else environ)
        config._require("host", "database")
        return config

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
        check_names(given, _FIELDS)
        if given.get("token") is not None and given.get("user") is None:
            raise ConfigurationError(
                "a token without its user: give user=, the role of whoever the token belongs to; "
                "the base configuration's user is somebody else",
                field="user",
            )
        values = self.given()
        for group in _EXCLUSIVE:
            if any(given.get(name) is not None for name in group):
                values = {name: value for name, value in values.items() if name not in group}
        return type(self)(**{**values, **given})

    def given(self) -> dict[str, Any]:
        """The fields that were set, be it to their default."""
        return {name: getattr(self, name) for name in self._given}

    def _filled(self, environ: Mapping[str, str]) -> LakebasePoolConfig:
        values, sources = self.given(), []
        for name, variables in ENVIRONMENT.items():
            if values.get(name) is not None:
                continue
            # The environment names the app's own role and endpoint: no fallback for a user's.
            if name == "user" and self.token is not None:
                continue
            if name == "endpoint" and (self.instance_name is not None or self.password is not None):
                continue
            for variable in variables:
                if text := environ.get(variable):
                    values[name] = _parsed(name, variable, text)
                    sources.append((name, variable))
                    break
        if not sources:
            return self
        try:
            return type(self)(**values)
        except ConfigurationError as error:
            for name, variable in sources:
                if name == error.field:
                    raise ConfigurationError(f"{error} ({variable} in the environment)", field=name) from error
            raise

    def resolved(self, environ: Mapping[str, str] | None = None) -> LakebasePoolConfig:
        """
        A complete configuration: what is missing is taken from the environment.

        Warns (`ConnectionBudgetWarning`) of one whose pool may open more connections than `compute_units` allow.

        Raises:
            ConfigurationError: Host, database, user, or endpoint (where no password is given) are in neither.
        """
        config = self._filled(os.environ if environ is None else environ)
        config._require("host", "database", "user")
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

    def _require(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) is None:
                advice = f"set {name}= or {' or '.join(ENVIRONMENT[name])}"
                if name == "user" and self.token is not None:
                    advice = "set user= to the role of the token's owner; the environment names the app's"
                elif name == "user":
                    advice += ", or ask the workspace: user=resolve_username(config)"
                raise ConfigurationError(f"{name} is missing: {advice}", field=name)

    # What it amounts to

    @property
    def is_oauth(self) -> bool:
        """Whether the password at login is a minted token."""
        return self.password is None

    @property
    def server_host(self) -> str | None:
        """The host to connect to: `host`, or the endpoint's for `pooled` and `read_only` where it is known."""
        host = self.host
        if isinstance(host, EndpointHost):
            return str(host.hosts.wanted(pooled=self.pooled, read_only=self.read_only) or host)
        return pooled_host(host) if self.pooled and host is not None else host

    @property
    def is_through_pooler(self) -> bool:
        """Whether connections are those of the built-in pooler."""
        host = self.server_host
        return self.pooled or (host is not None and is_pooled_host(host))

    def direct_config(self) -> LakebasePoolConfig:
        """The same without the pooler, for what transaction mode cannot do: migrations, `pg_dump`, `LISTEN`."""
        host = self.host
        if host is None:
            return self.merged({"pooled": False})
        if isinstance(host, EndpointHost):
            direct = host.hosts.wanted(pooled=False, read_only=self.read_only) or direct_host(host)
            port = self.port if host.direct_port is None else host.direct_port
            return self.merged({"pooled": False, "host": EndpointHost(direct, host.hosts), "port": port})
        return self.merged({"pooled": False, "host": direct_host(host)})

    def options(self) -> PoolingServiceOptions:
        """The engine's options in it."""
        values = [getattr(self, name) for name in OPTION_FIELDS]
        if self.pool_options:
            return PoolingServiceOptions.gathered(
                None, {**dict(zip(OPTION_FIELDS, values, strict=True)), **self.pool_options}
            )
        try:
            return _engine_options(*values)
        except TypeError:  # what is no number is told by the options themselves
            return _engine_options.__wrapped__(*values)

    def connect_kwargs(self) -> dict[str, Any]:
        """
        Keyword arguments of `psycopg.connect`, without the password.

        With `read_only`, sessions are: the server refuses to write, whatever it is. Not so through the pooler, which
        takes no such option: there a pool's connections begin each transaction as a read-only one.

        Through the pooler, prepared statements are off where this libpq cannot
        close them at protocol level, which it does from release 17 on.
        """
        kwargs: dict[str, Any] = {
            "host": self.server_host,
            "port": self.port,
            "dbname": self.database,
            "user": self.user,
            "sslmode": self.ssl_mode,
            "connect_timeout": self.connect_timeout,
            "application_name": self.application_name,
            "sslrootcert": self.ssl_root_cert,
            **self.libpq_params,
        }
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        if self.read_only and not self.is_through_pooler:
            kwargs["options"] = read_only_options(kwargs.get("options"))
        if self.pooled:
            from psycopg import capabilities

            if not capabilities.has_send_close_prepared():
                kwargs["prepare_threshold"] = None
        if self.transaction_mode_guard:
            from .transaction_mode import guarded_cursor

            kwargs["cursor_factory"] = guarded_cursor
        return kwargs

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


def read_only_options(given: str | None) -> str:
    """Libpq's `options` of a session that does not write."""
    return f"{given or ''} -c default_transaction_read_only=on".strip()


_FIELDS = tuple(item.name for item in fields(LakebasePoolConfig) if item.init)


@lru_cache(maxsize=256, typed=True)
def _engine_options(*values: Any) -> PoolingServiceOptions:
    """One object for all configurations with the same values: a manager has thousands."""
    return PoolingServiceOptions.gathered(None, dict(zip(OPTION_FIELDS, values, strict=True)))


def _restored(cls: type[LakebasePoolConfig], given: dict[str, Any]) -> LakebasePoolConfig:
    return cls(**given)


def _named(given: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            f"a configuration of type {type(given).__name__}: expected LakebasePoolConfig or a mapping of its fields"
        )
    return {str(name): value for name, value in given.items()}


def _parsed(name: str, variable: str, text: str) -> Any:
    if name not in ("port", "connect_timeout"):
        return text
    try:
        return int(text)
    except ValueError:
        raise ConfigurationError(
            f"{name} is not a number: {variable} is {text!r} in the environment", field=name
        ) from None
