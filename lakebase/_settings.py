"""The fields of a configuration, and what follows from their values."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypedDict

from pooling.options import PoolingServiceOptions

from ._session_settings import session_settings, with_options
from .hosts import EndpointHosts, is_pooled_host, pooled_host

if TYPE_CHECKING:
    import os

    from databricks.sdk import WorkspaceClient

    from .passwords import DatabaseCredential

__all__ = ["PasswordCallable", "Settings", "SettingsDict"]

#: Called for each new connection. A `DatabaseCredential` is cached until shortly before it expires, a string is not.
PasswordCallable = Callable[[], "str | DatabaseCredential | Awaitable[str | DatabaseCredential]"]

NOTHING: Mapping[str, Any] = MappingProxyType({})

#: Fields that are the engine's options of the same name.
OPTION_FIELDS = (
    "min_size",
    "max_size",
    "timeout",
    "max_waiting",
    "max_idle",
    "max_lifetime",
    "max_uses",
    "max_creating",
    "validate_on_acquire",
    "leak_timeout",
)
SECRET_FIELDS = frozenset({"password", "token"})
#: libpq's parameters that have a field of their own.
LIBPQ_FIELDS = MappingProxyType(
    {
        "host": "host",
        "port": "port",
        "dbname": "database",
        "user": "user",
        "password": "password",
        "sslmode": "ssl_mode",
        "sslrootcert": "ssl_root_cert",
        "application_name": "application_name",
        "connect_timeout": "connect_timeout",
    }
)


class SettingsDict(TypedDict, total=False):
    """The same fields as keyword arguments: a misspelt one is an error in the editor."""

    host: str | None
    endpoint_hosts: EndpointHosts | None
    port: int
    database: str | None
    user: str | None
    endpoint: str | None
    instance_name: str | None
    password: str | PasswordCallable | None
    token: str | None
    workspace_client: WorkspaceClient | None
    workspace_url: str | None
    warm_up: bool
    claims: tuple[Any, ...] | None
    ssl_mode: str
    ssl_root_cert: str | os.PathLike[str] | None
    allow_plaintext: bool
    pooled: bool
    oauth_through_pooler: bool
    transaction_mode_guard: bool
    read_only: bool
    schema: str | None
    create_schema: bool
    statement_timeout: float | None
    idle_in_transaction_timeout: float | None
    lock_timeout: float | None
    application_name: str | None
    connect_timeout: int
    libpq_params: Mapping[str, Any]
    min_size: int
    max_size: int
    timeout: float
    max_waiting: int | None
    max_idle: float
    max_lifetime: float
    max_uses: float
    max_creating: int
    validate_on_acquire: bool | float
    leak_timeout: float | None
    pool_options: Mapping[str, Any]
    compute_units: float | None
    replicas: int


@dataclass(frozen=True, kw_only=True, repr=False, slots=True)
class Settings:
    """What `LakebasePoolConfig` consists of; its documentation tells what each field means."""

    host: str | None = None
    endpoint_hosts: EndpointHosts | None = None
    port: int = 5432
    database: str | None = None
    user: str | None = None
    endpoint: str | None = None
    instance_name: str | None = None
    password: str | PasswordCallable | None = None
    token: str | None = None
    workspace_client: WorkspaceClient | None = field(default=None, hash=False)
    workspace_url: str | None = None
    warm_up: bool = True
    claims: tuple[Any, ...] | None = field(default=None, hash=False)
    ssl_mode: str = "require"
    ssl_root_cert: str | os.PathLike[str] | None = None
    allow_plaintext: bool = False
    pooled: bool = False
    oauth_through_pooler: bool = False
    transaction_mode_guard: bool = False
    read_only: bool = False
    schema: str | None = None
    create_schema: bool = False
    statement_timeout: float | None = None
    idle_in_transaction_timeout: float | None = None
    lock_timeout: float | None = None
    application_name: str | None = None
    connect_timeout: int = 10
    libpq_params: Mapping[str, Any] = field(default_factory=lambda: NOTHING, hash=False)
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
    pool_options: Mapping[str, Any] = field(default_factory=lambda: NOTHING, hash=False)
    compute_units: float | None = None
    replicas: int = 1

    @property
    def is_oauth(self) -> bool:
        """Whether the password at login is a minted token."""
        return self.password is None

    @property
    def server_host(self) -> str | None:
        """The host to connect to: the one in `endpoint_hosts`, else `host` or its pooler."""
        host = self.host
        if self.endpoint_hosts is not None:
            return self.endpoint_hosts.wanted(pooled=self.pooled, read_only=self.read_only) or host
        return pooled_host(host) if self.pooled and host is not None else host

    @property
    def is_through_pooler(self) -> bool:
        """Whether connections are those of the built-in pooler."""
        host = self.server_host
        return self.pooled or (host is not None and is_pooled_host(host))

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

    def session_options(self, given: str | None) -> str | None:
        """Libpq's `options` that were given, with the session's own settings; as given where the pooler takes none."""
        if self.is_through_pooler:
            return given
        settings = session_settings(self)
        if self.read_only:
            settings["default_transaction_read_only"] = "on"
        return with_options(given, settings) if settings else given

    def connect_kwargs(self) -> dict[str, Any]:
        """
        Keyword arguments of `psycopg.connect`, without the password.

        With `read_only`, sessions are: the server refuses to write, whatever it is. Not so through the pooler, which
        takes no such option: there a pool's connections begin each transaction as a read-only one, and with the other
        settings of a session.

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
        if options := self.session_options(kwargs.get("options")):
            kwargs["options"] = options
        if self.pooled:
            from psycopg import capabilities

            if not capabilities.has_send_close_prepared():
                kwargs["prepare_threshold"] = None
        if self.transaction_mode_guard:
            from .transaction_mode import guarded_cursor

            kwargs["cursor_factory"] = guarded_cursor
        return kwargs


@lru_cache(maxsize=256, typed=True)
def _engine_options(*values: Any) -> PoolingServiceOptions:
    """One object for all configurations with the same values: a manager has thousands."""
    return PoolingServiceOptions.gathered(None, dict(zip(OPTION_FIELDS, values, strict=True)))
