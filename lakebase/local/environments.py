"""The variables that each kind of client needs, and how they are written for a shell, a `.env` file or Docker."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args
from urllib.parse import urlencode

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Client", "check_client", "make_environment", "write_environment"]

#: What the variables are for. `dotenv` and `docker` have those of `python` in files of their own form.
Client = Literal["python", "node", "psql", "jdbc", "dotenv", "docker"]


class _Lake(Protocol):
    """What the variables are taken from: a `LocalLakebase` that runs."""

    database: str
    admin_user: str
    endpoint: str

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def ca_file(self) -> Path: ...
    @property
    def workspace_url(self) -> str: ...
    @property
    def client_id(self) -> str: ...
    @property
    def client_secret(self) -> str: ...

    def token(self, user: str) -> str: ...
    def mint(self, user: str) -> str: ...


def check_client(client: Any) -> None:
    """Raise ValueError unless the client is one of `Client`."""
    if client not in get_args(Client):
        raise ValueError(f"client={client!r}: expected one of {', '.join(get_args(Client))}")


def make_environment(lake: _Lake, client: Client, user: str | None) -> dict[str, str]:
    """
    The variables for a client of the local Lakebase.

    Args:
        lake: One that runs.
        client: What they are for. `psql` and `jdbc` mint nothing: they get a password, which is good for an hour.
        user: A user; `None` is the app's service principal, and `admin_user` for clients with a password.
    """
    check_client(client)
    if client in ("psql", "jdbc"):
        return _with_password(lake, client, user or lake.admin_user)
    variables = {"DATABRICKS_HOST": lake.workspace_url}
    if user is None:
        variables |= {"DATABRICKS_CLIENT_ID": lake.client_id, "DATABRICKS_CLIENT_SECRET": lake.client_secret}
    else:
        variables |= {"DATABRICKS_TOKEN": lake.token(user)}
    variables |= {"LAKEBASE_ENDPOINT": lake.endpoint, **_server(lake), "PGUSER": user or lake.client_id}
    if client == "node":
        # Databricks' driver knows no verify-full. With `require` it verifies too, and trusts what Node trusts.
        return {**variables, "PGSSLMODE": "require", "NODE_EXTRA_CA_CERTS": str(lake.ca_file)}
    return {**variables, **_verification(lake)}


def _server(lake: _Lake) -> dict[str, str]:
    return {"PGHOST": lake.host, "PGPORT": str(lake.port), "PGDATABASE": lake.database}


def _verification(lake: _Lake) -> dict[str, str]:
    return {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": str(lake.ca_file)}


def _with_password(lake: _Lake, client: str, user: str) -> dict[str, str]:
    password = lake.mint(user)
    if client == "psql":
        return {**_server(lake), "PGUSER": user, "PGPASSWORD": password, **_verification(lake)}
    tls = urlencode({"sslmode": "verify-full", "sslrootcert": lake.ca_file})
    return {
        "JDBC_DATABASE_URL": f"jdbc:postgresql://{lake.host}:{lake.port}/{lake.database}?{tls}",
        "JDBC_DATABASE_USERNAME": user,
        "JDBC_DATABASE_PASSWORD": password,
    }


#: Each way to log in to the workspace. The SDK refuses an environment that has more than one.
_LOGINS = (("DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET"), ("DATABRICKS_TOKEN",))


def write_environment(client: Client, variables: Mapping[str, str]) -> str:
    """
    The variables as lines: `export` for a shell's `eval`, or what a `.env` file or Docker's `--env-file` holds.

    A shell that evaluates two of them has the second login only: the other kind's variables are unset.
    """
    if client == "dotenv":
        return "\n".join(f"{name}={_dotenv_value(value)}" for name, value in variables.items())
    if client == "docker":
        # Docker takes each line as it is. The network is the host's, since the servers listen on loopback alone.
        ca_file = shlex.quote(variables["PGSSLROOTCERT"])
        usage = f"# docker run --network host --env-file FILE -v {ca_file}:{ca_file}:ro IMAGE"
        return "\n".join([usage, *(f"{name}={value}" for name, value in variables.items())])
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    others = [name for login in _LOGINS if variables.keys().isdisjoint(login) for name in login]
    if 0 < len(others) < sum(map(len, _LOGINS)):  # else no login is written, as for psql: it takes nothing from another
        lines.insert(0, f"unset {' '.join(others)}")
    return "\n".join(lines)


def _dotenv_value(value: str) -> str:
    if re.fullmatch(r"[\w./:@%+=,-]*", value):
        return value
    return f"'{value}'" if "'" not in value else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
