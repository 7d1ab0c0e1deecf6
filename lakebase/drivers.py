"""Connection settings for what brings its own pool or connects by itself: psycopg, SQLAlchemy, Django, asyncpg."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .config import LakebasePoolConfig
from .credentials import CredentialCache, CredentialSource

__all__ = ["LivePassword", "lakebase_orm_config", "lakebase_pg_config"]

_CACHE = CredentialCache()


class LivePassword:
    """
    A password that is had at the moment it is used.

    `str()` of it, or calling it, gives the current one, and blocks while one is
    minted. psycopg and Django take `str()` of a password for each connection,
    asyncpg calls it. It shows as `***`.
    """

    __slots__ = ("_source",)

    def __init__(self, source: CredentialSource) -> None:
        self._source = source

    def __str__(self) -> str:
        return self._source.password()

    def __call__(self) -> str:  # noqa: D102
        return self._source.password()

    def __repr__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        # An f-string is how a password gets into a log; no driver formats one.
        return "***"

    def __deepcopy__(self, memo: object) -> LivePassword:
        return self


def lakebase_pg_config(
    config: LakebasePoolConfig | Mapping[str, Any] | None = None, **overrides: Any
) -> dict[str, Any]:
    """
    Keyword arguments of `psycopg.connect`, password included; what is missing comes from the environment.

    Does no I/O. A native password is a string; a minted one a `LivePassword`,
    so that a connection made in an hour has a credential of that hour. Several
    calls for one identity share the minted credential.

    Raises:
        ConfigurationError: Something is missing, or cannot work.
    """
    resolved = LakebasePoolConfig.of(config, **overrides).resolved()
    return {**resolved.connect_kwargs(), "password": _password(resolved)}


def lakebase_orm_config(
    config: LakebasePoolConfig | Mapping[str, Any] | None = None,
    *,
    drivername: str = "postgresql+psycopg",
    **overrides: Any,
) -> dict[str, Any]:
    """
    The parts of a database URL by the names that ORMs use, as in `sqlalchemy.URL.create(**…)`.

    `drivername`, `username`, `password`, `host`, `port`, `database`, and in
    `query` libpq's other parameters as strings. Otherwise like `lakebase_pg_config()`.

    SQLAlchemy reads a URL's password once, when the engine is made, and a minted
    one expires: give it in `connect_args={"password": …}`, which is read for each connection.

    Raises:
        ConfigurationError: Something is missing, or cannot work.
    """
    resolved = LakebasePoolConfig.of(config, **overrides).resolved()
    parameters = resolved.connect_kwargs()
    parts = {name: parameters.pop(libpq) for name, libpq in _URL_PARTS.items()}
    for name in ("prepare_threshold", "cursor_factory"):  # psycopg's own, no parts of a URL
        parameters.pop(name, None)
    return {
        "drivername": drivername,
        **parts,
        "password": _password(resolved),
        "query": {name: str(value) for name, value in parameters.items()},
    }


_URL_PARTS = {"username": "user", "host": "host", "port": "port", "database": "dbname"}


def _password(config: LakebasePoolConfig) -> str | LivePassword:
    if isinstance(config.password, str):
        return config.password
    return LivePassword(_CACHE.source(config))
