"""
Per-user connection pools for Databricks Lakebase.

Importing this package costs milliseconds: the driver is loaded with the first
name that needs it, the Databricks SDK when a credential is minted.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import LakebasePoolConfig
    from .credentials import CredentialCache, CredentialSource, DatabaseCredential, generate_database_credential
    from .errors import (
        ConfigurationError,
        ConnectError,
        CredentialError,
        IdentityError,
        LakebaseError,
        LoginError,
        TooManyConnectionsError,
    )
    from .identity import UserIdentity, token_fingerprint
    from .manager import AsyncLakebasePoolManager, LakebasePoolManager
    from .pool import AsyncLakebasePool, LakebasePool, create_async_lakebase_pool, create_lakebase_pool
    from .routing import AsyncRoutingPool, RoutingPool
    from .username import resolve_username

__all__ = [
    # Settings
    "LakebasePoolConfig",
    "resolve_username",
    # Pools
    "LakebasePool",
    "AsyncLakebasePool",
    "create_lakebase_pool",
    "create_async_lakebase_pool",
    "LakebasePoolManager",
    "AsyncLakebasePoolManager",
    "RoutingPool",
    "AsyncRoutingPool",
    # Who and with what
    "UserIdentity",
    "token_fingerprint",
    "DatabaseCredential",
    "generate_database_credential",
    "CredentialSource",
    "CredentialCache",
    # Errors
    "LakebaseError",
    "ConfigurationError",
    "IdentityError",
    "CredentialError",
    "ConnectError",
    "LoginError",
    "TooManyConnectionsError",
]

_HOMES = {
    "config": ("LakebasePoolConfig",),
    "credentials": ("CredentialCache", "CredentialSource", "DatabaseCredential", "generate_database_credential"),
    "errors": (
        "ConfigurationError",
        "ConnectError",
        "CredentialError",
        "IdentityError",
        "LakebaseError",
        "LoginError",
        "TooManyConnectionsError",
    ),
    "identity": ("UserIdentity", "token_fingerprint"),
    "manager": ("AsyncLakebasePoolManager", "LakebasePoolManager"),
    "pool": ("AsyncLakebasePool", "LakebasePool", "create_async_lakebase_pool", "create_lakebase_pool"),
    "routing": ("AsyncRoutingPool", "RoutingPool"),
    "username": ("resolve_username",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    try:
        home = _HOME[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = globals()[name] = getattr(import_module(f".{home}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
