"""
What the environment says of a configuration: its variables, and libpq's service file.

The names of variables for an endpoint are those that Databricks' templates for apps and agents set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from pooling.errors import ConfigurationError

from ._settings import LIBPQ_FIELDS

__all__ = ["ENVIRONMENT", "Found", "has_endpoint", "settings_in"]

#: Environment variables, in order of precedence, of the fields that may come from there.
ENVIRONMENT = MappingProxyType(
    {
        "host": ("PGHOST",),
        "port": ("PGPORT",),
        "database": ("PGDATABASE",),
        "user": ("PGUSER", "DATABRICKS_CLIENT_ID"),
        "endpoint": ("LAKEBASE_ENDPOINT", "PGENDPOINT", "LAKEBASE_AUTOSCALING_ENDPOINT"),
        "instance_name": ("LAKEBASE_INSTANCE_NAME",),
        "ssl_mode": ("PGSSLMODE",),
        "ssl_root_cert": ("PGSSLROOTCERT",),
        "application_name": ("PGAPPNAME",),
        "connect_timeout": ("PGCONNECT_TIMEOUT",),
    }
)
_PROJECT, _BRANCH = "LAKEBASE_AUTOSCALING_PROJECT", "LAKEBASE_AUTOSCALING_BRANCH"


class Found(NamedTuple):
    """The text that a variable has for a field; of the service file, the variable is `PGSERVICE`."""

    field: str
    text: str
    variable: str


def settings_in(environ: Mapping[str, str]) -> Iterator[Found]:
    """
    What there is, the first for a field being the one that counts: as in libpq, a service wins over other variables.

    Raises:
        ConfigurationError: `PGSERVICE` names a service that is in no file.
    """
    if service := environ.get("PGSERVICE"):
        for name, value in _service(service, environ).items():
            if name in LIBPQ_FIELDS:  # libpq itself reads the others
                yield Found(LIBPQ_FIELDS[name], value, "PGSERVICE")
    for field, variables in ENVIRONMENT.items():
        for variable in variables:
            if text := environ.get(variable):
                yield Found(field, _whole(text, environ) if field == "endpoint" else text, variable)
        if field == "endpoint" and (branch := _branch(environ)):
            yield Found(field, branch, _BRANCH)


def has_endpoint(environ: Mapping[str, str]) -> bool:
    """Whether the environment names an endpoint, a branch or an instance."""
    names = [*ENVIRONMENT["endpoint"], *ENVIRONMENT["instance_name"]]
    return any(environ.get(name) for name in names) or _branch(environ) is not None


def _branch(environ: Mapping[str, str]) -> str | None:
    project, branch = environ.get(_PROJECT), environ.get(_BRANCH)
    if not project or not branch:
        return None
    # Either may be a resource name by itself.
    return f"projects/{project.removeprefix('projects/')}/branches/{branch.rpartition('/')[2]}"


def _whole(endpoint: str, environ: Mapping[str, str]) -> str:
    """The resource name of an endpoint, which may be given by its id beside a project and branch."""
    branch = _branch(environ)
    return f"{branch}/endpoints/{endpoint}" if branch is not None and "/" not in endpoint else endpoint


def _service(name: str, environ: Mapping[str, str]) -> dict[str, str]:
    # https://www.postgresql.org/docs/current/libpq-pgservice.html
    own = environ.get("PGSERVICEFILE")
    home = environ.get("HOME")
    places = [Path(own)] if own else [Path(home) / ".pg_service.conf"] if home else []
    if system := environ.get("PGSYSCONFDIR"):
        places.append(Path(system) / "pg_service.conf")
    for place in places:
        try:
            lines = place.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        if (found := _section(name, lines)) is not None:
            return found
    raise ConfigurationError(
        f"PGSERVICE={name!r} in the environment names a service that is in none of "
        f"{', '.join(map(str, places)) or 'the service files, of which there are none'}",
        field="PGSERVICE",
    )


def _section(name: str, lines: list[str]) -> dict[str, str] | None:
    found: dict[str, str] | None = None
    for raw in lines:
        line = raw.strip()
        if line.startswith("["):
            if found is not None:
                break
            found = {} if line == f"[{name}]" else None
        elif found is not None and "=" in line and not line.startswith("#"):
            key, _, text = line.partition("=")
            found.setdefault(key, text)
    return found
