"""The Postgres of a local Lakebase and its PgBouncer: finding the programs, running them, and asking the server."""

from .address import Address, environment_without_libpq
from .catalog import Catalog, DatabaseRow, Login, RoleRow
from .container import ContainerPostgres
from .extensions import write_extensions
from .pooler import GET_POOLER_SCRIPT, Pooler, PoolerProgram, find_pooler, pooler_folder
from .processes import ServerProcesses
from .queries import LoginQueries, RoleFacts
from .roles import DATABASE, Roles, check_role_name
from .server import OwnPostgres, PostgresServer, find_binaries

__all__ = [
    "DATABASE",
    "GET_POOLER_SCRIPT",
    "Address",
    "Catalog",
    "ContainerPostgres",
    "DatabaseRow",
    "Login",
    "LoginQueries",
    "OwnPostgres",
    "Pooler",
    "PoolerProgram",
    "PostgresServer",
    "RoleFacts",
    "RoleRow",
    "Roles",
    "ServerProcesses",
    "check_role_name",
    "environment_without_libpq",
    "find_binaries",
    "find_pooler",
    "pooler_folder",
    "write_extensions",
]
