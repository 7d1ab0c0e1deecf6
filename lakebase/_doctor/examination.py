"""The checks in their order, and running them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import psycopg

from ..config import LakebasePoolConfig
from ..errors import ConfigurationError
from .awake import check_awake
from .connecting import (
    check_configuration,
    check_credential,
    check_host,
    check_login,
    check_tls,
    check_workspace,
)
from .endpoint import check_endpoint, check_pooler
from .facts import PRIVILEGES, Asked, Facts, first_line
from .finding import Finding, Verdict
from .limits import check_limits
from .rights import check_schemas, check_tables
from .role import check_role
from .row_security import check_row_security
from .scopes import check_scopes
from .sources import check_sources
from .store import check_store, store_problem

__all__ = ["ALL_CHECKS", "examine", "examine_all"]

Check = Callable[[Facts], "Finding | list[Finding]"]

#: What a connection depends on.
_CONNECTION: tuple[tuple[str, Check], ...] = (
    ("configuration", check_configuration),
    ("workspace", check_workspace),
    ("host", check_host),
    ("credential", check_credential),
    ("login", check_login),
    ("TLS", check_tls),
    ("role", check_role),
    ("limits", check_limits),
)
#: That, and what an app depends on once it is connected. A check without anything to look at has no finding.
ALL_CHECKS: tuple[tuple[str, Check], ...] = (
    ("configuration", check_configuration),
    ("workspace", check_workspace),
    ("settings", check_sources),
    ("token scopes", check_scopes),
    ("host", check_host),
    ("endpoint", check_endpoint),
    ("credential", check_credential),
    ("login", check_login),
    ("TLS", check_tls),
    ("role", check_role),
    ("schema", check_schemas),
    ("table", check_tables),
    ("row security", check_row_security),
    ("limits", check_limits),
    ("pooler", check_pooler),
    ("store", check_store),
    ("kept awake", check_awake),
)


def examine(
    config: LakebasePoolConfig | Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    budget: int | None = None,
) -> Iterator[Finding]:
    """
    Check what a connection of this configuration needs, one finding after the other.

    Blocks between them, for a minute altogether if nothing answers. Opens one
    connection and runs a few queries that change nothing; an endpoint that is
    suspended wakes up. `diagnose` looks at more than the connection.

    Args:
        config: As for a pool; what is missing comes from the environment.
        environ: Instead of the process's environment.
        budget: Most connections of one process; the configuration's `max_size` if `None`.
    """
    return _run(_CONNECTION, config, environ, Asked(budget=budget), {})


def examine_all(
    config: LakebasePoolConfig | Mapping[str, Any] | None,
    asked: Asked,
    *,
    environ: Mapping[str, str] | None = None,
    names: Mapping[str, str] = MappingProxyType({"budget": "max_total"}),
) -> Iterator[Finding]:
    """
    All checks, one finding after the other.

    Args:
        config: As for a pool.
        asked: What else is to be looked at.
        environ: Instead of the process's environment.
        names: What the caller calls the fields of `asked`, where it has other names for them.
    """
    return _run(ALL_CHECKS, config, environ, asked, names)


def _run(
    checks: Sequence[tuple[str, Check]],
    config: LakebasePoolConfig | Mapping[str, Any] | None,
    environ: Mapping[str, str] | None,
    asked: Asked,
    names: Mapping[str, str],
) -> Iterator[Finding]:
    if problem := _problem(asked, names):
        yield Finding("configuration", Verdict.FAILED, problem)
        return
    try:
        facts = Facts(LakebasePoolConfig.of(config), os.environ if environ is None else environ, asked)
    except ConfigurationError as error:
        yield Finding("configuration", Verdict.FAILED, str(error))
        return
    try:
        for name, check in checks:
            try:
                found = check(facts)
            except psycopg.Error as error:  # the connection was lost, or a catalog is closed to this role
                found = Finding(name, Verdict.WARNING, f"the server did not answer this check: {first_line(error)}")
            yield from [found] if isinstance(found, Finding) else found
    finally:
        if facts.connection is not None:
            facts.connection.close()


def _problem(asked: Asked, names: Mapping[str, str]) -> str | None:
    """Why what is asked cannot be looked at; `None` if it can."""
    for field, value in (("budget", asked.budget), ("workers", asked.workers)):
        is_whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if not is_whole and not (field == "budget" and value is None):
            return f"{names.get(field, field)}={value!r}: expected a whole number, 1 or more"
    for privilege in asked.needs or ():
        if privilege not in PRIVILEGES:
            return f"{names.get('needs', 'privileges')}: {privilege!r}: expected some of {', '.join(PRIVILEGES)}"
    if asked.store is not None and (problem := store_problem(asked.store)):
        return f"{names.get('store', 'store')}: {problem}"
    return None
