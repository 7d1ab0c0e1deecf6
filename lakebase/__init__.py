"""
Per-user connection pools for Databricks Lakebase.

Importing this package costs milliseconds: the driver is loaded with the first
name that needs it, the Databricks SDK in the background when the app's own pool is built.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import LakebasePoolConfig
    from .credentials import CredentialCache, credential_source, generate_database_credential
    from .drivers import lakebase_orm_config, lakebase_pg_config
    from .endpoints import with_endpoint_host
    from .errors import (
        CallbackError,
        ConfigurationError,
        ConnectError,
        CredentialError,
        IdentityError,
        LakebaseError,
        LoginError,
        TooManyConnectionsError,
    )
    from .identity import UserIdentity, token_fingerprint
    from .limits import ConnectionBudgetWarning
    from .manager import AsyncLakebasePoolManager, LakebasePoolManager
    from .null_pool import AsyncNullLakebasePool, NullLakebasePool
    from .passwords import CredentialSource, DatabaseCredential
    from .pool import AsyncLakebasePool, LakebasePool, create_async_lakebase_pool, create_lakebase_pool
    from .routing import AsyncRoutingPool, RoutingPool
    from .transaction_mode import TransactionModeError, guard_connection, transaction_mode_violations
    from .untrusted_sql import QueryResult, aread_only_query, read_only_query
    from .user_scope import AsyncUserScopedPool, UserScopedPool
    from .username import aresolve_username, resolve_username
    from .web import answer_error, request_identity

__all__ = [
    # Settings
    "LakebasePoolConfig",
    "resolve_username",
    "aresolve_username",
    "with_endpoint_host",
    "lakebase_pg_config",
    "lakebase_orm_config",
    # Pools
    "LakebasePool",
    "AsyncLakebasePool",
    "NullLakebasePool",
    "AsyncNullLakebasePool",
    "create_lakebase_pool",
    "create_async_lakebase_pool",
    "LakebasePoolManager",
    "AsyncLakebasePoolManager",
    "RoutingPool",
    "AsyncRoutingPool",
    "UserScopedPool",
    "AsyncUserScopedPool",
    # SQL of a language model
    "read_only_query",
    "aread_only_query",
    "QueryResult",
    # Who and with what
    "UserIdentity",
    "request_identity",
    "answer_error",
    "token_fingerprint",
    "DatabaseCredential",
    "generate_database_credential",
    "CredentialSource",
    "CredentialCache",
    "credential_source",
    # The built-in pooler
    "transaction_mode_violations",
    "guard_connection",
    # Errors
    "LakebaseError",
    "ConfigurationError",
    "IdentityError",
    "CallbackError",
    "CredentialError",
    "ConnectError",
    "LoginError",
    "TooManyConnectionsError",
    "TransactionModeError",
    "ConnectionBudgetWarning",
]

_HOMES = {
    "config": ("LakebasePoolConfig",),
    "credentials": ("CredentialCache", "credential_source", "generate_database_credential"),
    "drivers": ("lakebase_orm_config", "lakebase_pg_config"),
    "endpoints": ("with_endpoint_host",),
    "errors": (
        "ConfigurationError",
        "CallbackError",
        "ConnectError",
        "CredentialError",
        "IdentityError",
        "LakebaseError",
        "LoginError",
        "TooManyConnectionsError",
    ),
    "identity": ("UserIdentity", "token_fingerprint"),
    "limits": ("ConnectionBudgetWarning",),
    "manager": ("AsyncLakebasePoolManager", "LakebasePoolManager"),
    "passwords": ("CredentialSource", "DatabaseCredential"),
    "null_pool": ("AsyncNullLakebasePool", "NullLakebasePool"),
    "pool": ("AsyncLakebasePool", "LakebasePool", "create_async_lakebase_pool", "create_lakebase_pool"),
    "routing": ("AsyncRoutingPool", "RoutingPool"),
    "transaction_mode": ("TransactionModeError", "guard_connection", "transaction_mode_violations"),
    "untrusted_sql": ("QueryResult", "aread_only_query", "read_only_query"),
    "user_scope": ("AsyncUserScopedPool", "UserScopedPool"),
    "username": ("aresolve_username", "resolve_username"),
    "web": ("answer_error", "request_identity"),
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
