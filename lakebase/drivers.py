"""Connection settings for what brings its own pool or connects by itself: psycopg, SQLAlchemy, Django, asyncpg."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from ._session_settings import parsed_options, session_settings
from .config import LakebasePoolConfig
from .credentials import CredentialCache, CredentialSource
from .endpoints import completed, is_incomplete
from .errors import ConfigurationError

__all__ = ["Driver", "LivePassword", "lakebase_orm_config", "lakebase_pg_config"]

#: The drivers whose names for settings are known.
Driver = Literal["psycopg", "psycopg2", "asyncpg"]

_CACHE = CredentialCache()


class LivePassword:
    """
    A password that is had at the moment it is used.

    `str()` of it, or calling it, gives the current one, and blocks while one is
    minted. psycopg, psycopg2 and Django take `str()` of a password for each connection. It shows as `***`. Pickled, it
    is made anew from its configuration.
    """

    __slots__ = ("_config", "_source")

    def __init__(self, config: LakebasePoolConfig, source: CredentialSource | None = None) -> None:
        self._config = config
        self._source = source or _CACHE.source(config)

    def __str__(self) -> str:
        return self._source.password()

    def __call__(self) -> str:  # noqa: D102
        return self._source.password()

    async def acurrent(self) -> str:
        """The current one, for asyncio."""
        return await self._source.apassword()

    def __repr__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        # An f-string is how a password gets into a log; no driver formats one.
        return "***"

    def __deepcopy__(self, memo: object) -> LivePassword:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return LivePassword, (self._config,)


def lakebase_pg_config(
    config: LakebasePoolConfig | Mapping[str, Any] | None = None, *, driver: Driver = "psycopg", **overrides: Any
) -> dict[str, Any]:
    """
    Keyword arguments of the driver's `connect`, password included; what is missing comes from the environment.

    A native password is a string; a minted one a `LivePassword`, or for asyncpg a function, so that a connection made
    in an hour has a credential of that hour. Several calls for one identity share the minted credential.

    Does no I/O, unless the workspace has to be asked for the host or the role: that blocks for a request each.

    Args:
        config: As of a pool.
        driver: Whose arguments: `psycopg`, `psycopg2`, or `asyncpg`, for `connect` and `create_pool`.
        **overrides: Fields of the configuration.

    Raises:
        ConfigurationError: Something is missing, or cannot work, or the driver has no such setting.
        CredentialError: The workspace could not be asked for the host.
    """
    if driver not in get_args(Driver):
        raise ConfigurationError(f"driver={driver!r}: expected one of {', '.join(get_args(Driver))}", field="driver")
    resolved = _resolved(config, overrides)
    return {**_ARGUMENTS[driver](resolved), "password": _password(resolved, driver)}


def lakebase_orm_config(
    config: LakebasePoolConfig | Mapping[str, Any] | None = None,
    *,
    drivername: str = "postgresql+psycopg",
    **overrides: Any,
) -> dict[str, Any]:
    """
    The parts of a database URL by the names that ORMs use, as in `sqlalchemy.URL.create(**…)`.

    `drivername`, `username`, `password`, `host`, `port`, `database`, and in
    `query` the driver's other parameters as strings. Otherwise like `lakebase_pg_config()`.

    SQLAlchemy reads a URL's password once, when the engine is made, and a minted
    one expires: give it in `connect_args={"password": …}`, which is read for each connection. For `postgresql+asyncpg`
    rather give all arguments so, `connect_args=lakebase_pg_config(config, driver="asyncpg")`: a URL carries its `ssl`
    mode only.

    Raises:
        ConfigurationError: Something is missing, or cannot work, or a URL cannot carry it.
        CredentialError: The workspace could not be asked for the host.
    """
    resolved = _resolved(config, overrides)
    parameters = resolved.connect_kwargs()
    parts = {name: parameters.pop(libpq) for name, libpq in _URL_PARTS.items()}
    for name in _OF_PSYCOPG:
        parameters.pop(name, None)
    return {
        "drivername": drivername,
        **parts,
        "password": _password(resolved, "psycopg"),
        "query": _asyncpg_query(resolved) if drivername.endswith("+asyncpg") else _texts(parameters),
    }


_URL_PARTS = {"username": "user", "host": "host", "port": "port", "database": "dbname"}
_OF_PSYCOPG = ("prepare_threshold", "cursor_factory")  # no parts of a URL, and unknown to psycopg2


def _resolved(config: LakebasePoolConfig | Mapping[str, Any] | None, overrides: dict[str, Any]) -> LakebasePoolConfig:
    resolved = LakebasePoolConfig.of(config, **overrides).resolved()
    if is_incomplete(resolved):
        resolved = completed(resolved)
    if resolved.is_through_pooler and (settings := session_settings(resolved)):
        raise ConfigurationError(
            f"the built-in pooler takes no {', '.join(settings)} from a driver that connects by itself; a pool of this "
            "library begins each transaction with it. Use one, or ALTER ROLE … SET",
            field="pooled",
        )
    return resolved


def _psycopg2_arguments(config: LakebasePoolConfig) -> dict[str, Any]:
    arguments = config.connect_kwargs()
    return {name: value for name, value in arguments.items() if name not in _OF_PSYCOPG}


def _asyncpg_arguments(config: LakebasePoolConfig) -> dict[str, Any]:
    given = _psycopg2_arguments(config)
    settings = {"application_name": given.pop("application_name", None), **parsed_options(given.pop("options", ""))}
    arguments: dict[str, Any] = {
        "host": given.pop("host"),
        "port": given.pop("port"),
        "user": given.pop("user"),
        "database": given.pop("dbname"),
        "timeout": given.pop("connect_timeout", None),
        "ssl": _ssl(given.pop("sslmode"), given.pop("sslrootcert", None)),
        "server_settings": {name: value for name, value in settings.items() if value is not None},
    }
    if given:
        raise ConfigurationError(
            f"asyncpg has no setting for {', '.join(sorted(given))} of libpq_params=; leave that out",
            field="libpq_params",
        )
    if config.pooled:
        arguments["statement_cache_size"] = 0  # it prepares under names that one server connection knows
    return {name: value for name, value in arguments.items() if value is not None}


def _ssl(mode: str, root: str | None) -> str | ssl.SSLContext:
    """Asyncpg reads certificates from its own places only, unless it is given a context."""
    if not mode.startswith("verify-"):
        return mode
    context = ssl.create_default_context(cafile=None if root in (None, "system") else root)
    context.check_hostname = mode == "verify-full"
    return context


def _asyncpg_query(config: LakebasePoolConfig) -> dict[str, str]:
    arguments = _asyncpg_arguments(config)
    # What must not get lost on the way; a name for the server's statistics may.
    is_lost = config.read_only or config.libpq_params or session_settings(config)
    if not isinstance(arguments["ssl"], str) or is_lost:
        raise ConfigurationError(
            "a URL for asyncpg cannot carry certificates, read_only=, schema=, time limits or libpq_params=. Give the "
            'engine connect_args=lakebase_pg_config(config, driver="asyncpg")',
            field="drivername",
        )
    return {"ssl": arguments["ssl"]}


def _texts(parameters: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in parameters.items()}


_ARGUMENTS: Mapping[Driver, Callable[[LakebasePoolConfig], dict[str, Any]]] = {
    "psycopg": LakebasePoolConfig.connect_kwargs,
    "psycopg2": _psycopg2_arguments,
    "asyncpg": _asyncpg_arguments,
}


def _password(config: LakebasePoolConfig, driver: Driver) -> Any:
    if isinstance(config.password, str):
        return config.password
    live = LivePassword(config)
    return live.acurrent if driver == "asyncpg" else live
