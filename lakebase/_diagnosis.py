"""
Checks whether a connection would work, in the order in which a connection depends on them.

A check that depends on one that failed is skipped, not failed a second time.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

from ._environment import ENVIRONMENT, settings_in
from ._workspace import is_transient, new_client
from .config import LakebasePoolConfig
from .credentials import DatabaseCredential, credential_source, generate_database_credential
from .endpoints import completed, endpoint_hosts, host_problem
from .errors import ConfigurationError, ConnectFailure, CredentialError, classify_connect_error
from .limits import direct_connections, over_limit
from .username import resolve_username, user_name

if TYPE_CHECKING:
    from .hosts import EndpointHosts

#: Seconds that an endpoint may take to wake from scale-to-zero.
_WAKE_SECONDS = 30.0
_WAKE_PAUSE = 0.25

__all__ = ["Finding", "Verdict", "examine"]


class Verdict(Enum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warn"
    FAILED = "FAIL"
    SKIPPED = "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """
    The outcome of one check.

    Args:
        check: What was looked at.
        verdict: How it ended.
        found: What was seen.
        advice: What to do about it; empty if there is nothing to do.
    """

    check: str
    verdict: Verdict
    found: str
    advice: str = ""

    def __str__(self) -> str:
        advice = f" -> {self.advice}" if self.advice else ""
        return f"{self.verdict.value:<4}  {self.check:<13}  {self.found}{advice}"


@dataclass
class _Facts:
    """What the checks so far have found."""

    config: LakebasePoolConfig
    environ: Mapping[str, str]
    budget: int | None
    resolved: LakebasePoolConfig | None = None
    client: Any = None
    hosts: EndpointHosts | None = None
    password: str | None = None
    connection: Any = None


def examine(
    config: LakebasePoolConfig | Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    budget: int | None = None,
) -> Iterator[Finding]:
    """
    Check what a pool of this configuration needs, one finding after the other.

    Blocks between them, for a minute altogether if nothing answers. Opens one
    connection and runs a few queries that change nothing; an endpoint that is
    suspended wakes up.

    Args:
        config: As for a pool; what is missing comes from the environment.
        environ: Instead of the process's environment.
        budget: Most connections of one process; the configuration's `max_size` if `None`.
    """
    environ = os.environ if environ is None else environ
    if budget is not None and (not isinstance(budget, int) or isinstance(budget, bool) or budget < 1):
        yield Finding("configuration", Verdict.FAILED, f"budget={budget!r}: expected a whole number, 1 or more")
        return
    try:
        facts = _Facts(LakebasePoolConfig.of(config), environ, budget)
    except ConfigurationError as error:
        yield Finding("configuration", Verdict.FAILED, str(error))
        return
    try:
        for check in _CHECKS:
            yield check(facts)
    finally:
        if facts.connection is not None:
            facts.connection.close()


def _configuration(facts: _Facts) -> Finding:
    check = "configuration"
    config = facts.config
    try:
        # First all that can be told without a request; the user may have to be asked for.
        if missing := _missing(config, facts.environ):
            found = f"missing: {', '.join(missing)}"
            advice = f"set {'it' if len(missing) == 1 else 'them'}, in the environment or here"
            if len(missing) == 1 and missing[0].startswith("endpoint="):
                advice += ": it is enough, since the workspace knows its host, its database and your role"
            return Finding(check, Verdict.FAILED, found, advice)
        if config.user is None and config.password is None:
            config = config.merged({"user": resolve_username(config, environ=facts.environ)})
        resolved = config.resolved(facts.environ)
    except ConfigurationError as error:
        if error.__cause__ is None:
            return Finding(check, Verdict.FAILED, str(error))
        name = type(error.__cause__).__name__
        found = str(error).replace(f"({name})", f"({name}: {_reason(error.__cause__)})")
        return Finding(check, Verdict.FAILED, found, _identity_advice(facts, error.__cause__))
    facts.resolved = resolved
    route = "the pooler" if resolved.pooled else "directly"
    secret = "a minted token" if resolved.is_oauth else "a native password"
    host = resolved.server_host or f"the host of {resolved.endpoint or resolved.instance_name}"
    return Finding(check, Verdict.OK, f"{resolved.user} to {resolved.database} on {host}, {route}, with {secret}")


def _missing(config: LakebasePoolConfig, environ: Mapping[str, str]) -> list[str]:
    there = {name for name in ENVIRONMENT if getattr(config, name) is not None}
    there |= {found.field for found in settings_in(environ)}
    has_endpoint = bool(there & {"endpoint", "instance_name"}) if config.is_oauth else bool(config.endpoint)
    names = ["host", "database"]
    if has_endpoint and "host" not in there:
        names = []  # the workspace knows them
    elif config.is_oauth and not has_endpoint:
        names = ["database", "endpoint"] if "host" in there else ["endpoint"]
    return [f"{name}= ({', '.join(ENVIRONMENT[name])})" for name in names if name not in there]


def _workspace_access(facts: _Facts) -> Finding:
    check = "workspace"
    config = facts.resolved
    if config is None:
        return _skipped(check, "configuration")
    if not config.is_oauth and config.workspace_client is None and config.token is None:
        return Finding(check, Verdict.SKIPPED, "not needed for a native password")
    try:
        facts.client = config.workspace_client or new_client(host=config.workspace_url, token=config.token)
        name = user_name(facts.client)
    except Exception as error:  # noqa: BLE001
        advice = _identity_advice(facts, error)
        facts.client = None  # checks that need it are skipped
        return Finding(check, Verdict.FAILED, f"{type(error).__name__}: {_reason(error)}", advice)
    url = facts.client.config.host
    if name and config.user and name != config.user:
        return Finding(
            check,
            Verdict.WARNING,
            f"{url} knows this identity as {name}, and user={config.user!r}",
            "a minted token opens the role of its own identity only, unless that role was granted otherwise",
        )
    return Finding(check, Verdict.OK, f"{url} knows this identity as {name}")


def _identity_advice(facts: _Facts, error: BaseException) -> str:
    """What to do about an identity that the workspace did not confirm: set one, or check the one that is set."""
    environ, config = facts.environ, facts.config
    service = bool(environ.get("DATABRICKS_CLIENT_ID") and environ.get("DATABRICKS_CLIENT_SECRET"))
    token = "token=" if config.token is not None else "DATABRICKS_TOKEN" if environ.get("DATABRICKS_TOKEN") else ""
    where = "workspace_url= (DATABRICKS_HOST)" if config.workspace_url is not None else "DATABRICKS_HOST"
    if not (service or token or config.workspace_client):
        return "set DATABRICKS_HOST and an identity: a profile, DATABRICKS_TOKEN, or DATABRICKS_CLIENT_ID and _SECRET"
    if is_transient(error) or not _is_refusal(error):
        return f"check that {where} is the workspace's address and answers from here, by way of a proxy or without"
    if token:
        return f"check {token}: it may have expired, been revoked, or be of another workspace than {where}"
    return (
        "check DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET: the secret may be another's, deleted or expired, "
        f"or both of another workspace than {where}"
    )


def _is_refusal(error: BaseException) -> bool:
    # The SDK makes a ValueError of what the OAuth endpoint says, and of an address that is none.
    words = ("invalid_client", "invalid_grant", "invalid_request", "unauthorized_client", "access_denied")
    # By name, since the SDK's errors and those of a user's client have the same names.
    is_refused = type(error).__name__ in ("PermissionDenied", "Unauthenticated")
    return is_refused or any(word in str(error) for word in words)


def _reason(error: BaseException) -> str:
    """The SDK's words, without the settings that it adds."""
    return _first_line(error).partition(" Config: ")[0].rstrip(".")


def _host(facts: _Facts) -> Finding:
    check = "host"
    config = facts.resolved
    if config is None:
        return _skipped(check, "configuration")
    if config.host is None:
        if facts.client is None:
            return _skipped(check, "workspace")
        try:
            config = facts.resolved = completed(config)
        except (ConfigurationError, CredentialError) as error:
            return Finding(
                check, Verdict.FAILED, str(error), "check endpoint= (LAKEBASE_ENDPOINT), or set host= (PGHOST)"
            )
    host = config.server_host or ""
    try:
        addresses = sorted(
            {str(entry[4][0]) for entry in socket.getaddrinfo(host, config.port, type=socket.SOCK_STREAM)}
        )
    except (OSError, UnicodeError) as error:
        return Finding(check, Verdict.FAILED, f"{host} has no address: {error}", "check host= (PGHOST) and the DNS")
    shown = f"{host} is {', '.join(addresses[:3])}"
    if facts.client is not None and (config.endpoint or config.instance_name):
        try:
            facts.hosts = endpoint_hosts(facts.client, endpoint=config.endpoint, instance_name=config.instance_name)
        except Exception as error:  # noqa: BLE001
            return Finding(
                check,
                Verdict.WARNING,
                f"{shown}; {config.endpoint or config.instance_name} could not be asked for: {type(error).__name__}",
                "check endpoint= (LAKEBASE_ENDPOINT), and that this identity may see it",
            )
        if problem := host_problem(config, facts.hosts):
            return Finding(check, Verdict.FAILED, problem, "correct host=, or pooled= and read_only=")
        shown += ", as the workspace says"
    return Finding(check, Verdict.OK, shown)


def _kind(config: LakebasePoolConfig) -> str:
    return " ".join(kind for kind, is_it in (("pooled", config.pooled), ("read-only", config.read_only)) if is_it)


def _credential(facts: _Facts) -> Finding:
    check = "credential"
    config = facts.resolved
    if config is None:
        return _skipped(check, "configuration")
    try:
        if not config.is_oauth:
            facts.password = credential_source(config).password()
            return Finding(check, Verdict.OK, "a native password is given")
        if facts.client is None:
            return _skipped(check, "workspace")
        credential: DatabaseCredential = generate_database_credential(
            facts.client, config.endpoint, config.claims, instance_name=config.instance_name
        )
    except (CredentialError, ConfigurationError) as error:
        return Finding(check, Verdict.FAILED, str(error))
    facts.password = credential.token
    life = (credential.expires_at - datetime.now(UTC)).total_seconds()
    found = f"minted for {config.endpoint or config.instance_name}, good for {life / 60:.0f} min"
    if not 0 < life <= 3700:
        return Finding(
            check, Verdict.WARNING, found, "a token lives an hour at most: set this machine's clock right (NTP)"
        )
    return Finding(check, Verdict.OK, found)


def _login(facts: _Facts) -> Finding:
    check = "login"
    config = facts.resolved
    if config is None or facts.password is None:
        return _skipped(check, "credential")
    if config.host is None:
        return _skipped(check, "host")
    import psycopg

    begun = time.monotonic()
    while facts.connection is None:
        try:
            facts.connection = psycopg.connect(**config.connect_kwargs(), password=facts.password, autocommit=True)
        except psycopg.Error as error:
            failure = classify_connect_error(error)
            if failure is not ConnectFailure.WAKING_UP or time.monotonic() - begun > _WAKE_SECONDS:
                return Finding(check, Verdict.FAILED, _first_line(error), failure.value)
            time.sleep(_WAKE_PAUSE)
    took = time.monotonic() - begun
    version = facts.connection.info.server_version
    found = f"Postgres {version // 10000}, connected in {took * 1000:.0f} ms"
    if other := _other_than_wanted(config, facts.connection):
        return Finding(check, Verdict.WARNING, f"{found}; {other}", f"check that host= is the {_kind(config)} one")
    return Finding(check, Verdict.OK, found)


def _other_than_wanted(config: LakebasePoolConfig, connection: Any) -> str:
    """What shows that a connection leads to another host of the endpoint than it should; empty if nothing does."""
    pid, read_only = connection.execute("SELECT pg_backend_pid(), current_setting('transaction_read_only')").fetchone()
    # A pooler gives its clients its own numbers.
    if config.pooled and connection.info.backend_pid == pid:
        return "this is the server itself and no pooler"
    if config.read_only and read_only != "on":
        return "this server takes writes and is no read-only one"
    return ""


def _tls(facts: _Facts) -> Finding:
    check = "TLS"
    if facts.connection is None or facts.resolved is None:
        return _skipped(check, "login")
    mode = facts.resolved.ssl_mode
    if not facts.connection.pgconn.ssl_in_use:
        return Finding(check, Verdict.FAILED, "the connection is not encrypted", "set ssl_mode=require or stronger")
    if mode in ("verify-full", "verify-ca"):
        return Finding(check, Verdict.OK, f"encrypted, the server's certificate verified ({mode})")
    return Finding(
        check,
        Verdict.OK,
        f"encrypted; ssl_mode={mode} does not verify who answers",
        "ssl_mode=verify-full with ssl_root_cert=system does",
    )


_ROLE = """
SELECT current_user, rolsuper, rolbypassrls, rolconnlimit, has_database_privilege(current_database(), 'CONNECT')
FROM pg_roles WHERE rolname = current_user
"""


def _role(facts: _Facts) -> Finding:
    check = "role"
    if facts.connection is None:
        return _skipped(check, "login")
    row = facts.connection.execute(_ROLE).fetchone()
    if row is None:
        return Finding(check, Verdict.WARNING, "pg_roles does not have the current user")
    name, is_super, bypasses, limit, _ = row
    if is_super or bypasses:
        return Finding(
            check,
            Verdict.WARNING,
            f"{name} bypasses row-level security",
            "log in as a role without SUPERUSER and BYPASSRLS where policies are to keep users apart",
        )
    own = "" if limit < 0 else f", at most {limit} connections of its own"
    return Finding(check, Verdict.OK, f"{name}, subject to row-level security{own}")


_LIMITS = """
SELECT current_setting('max_connections')::int,
       current_setting('superuser_reserved_connections')::int
       + coalesce(nullif(current_setting('reserved_connections', true), ''), '0')::int,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
"""


def _limits(facts: _Facts) -> Finding:
    check = "limits"
    config = facts.resolved
    if config is None:
        return _skipped(check, "configuration")
    budget = config.max_size if facts.budget is None else facts.budget
    units = config.compute_units or (facts.hosts.max_compute_units if facts.hosts else None)
    asked = f"{config.replicas} x {budget} wanted" if config.replicas > 1 else f"{budget} wanted"
    advice = "lower max_total= or max_size=, run fewer replicas, enlarge the compute, or use the built-in pooler"
    reason = over_limit(
        budget,
        compute_units=units,
        replicas=config.replicas,
        pooled=config.pooled,
        provisioned=config.instance_name is not None,
    )
    if reason is not None:
        return Finding(check, Verdict.WARNING, reason)
    if facts.connection is None or config.pooled:
        if units is None and facts.connection is not None:
            return Finding(check, Verdict.SKIPPED, "the pooler's depend on the size of the compute, which is not known")
        if units is None:
            return _skipped(check, "login")
        return Finding(check, Verdict.OK, f"{asked} of {direct_connections(units)} at {units:g} CU")
    most, reserved, used = facts.connection.execute(_LIMITS).fetchone()
    found = f"{asked} of {most - reserved} that the server takes now, {used} in use"
    if budget * config.replicas > most - reserved:
        return Finding(check, Verdict.WARNING, found, advice)
    return Finding(check, Verdict.OK, found)


_CHECKS: tuple[Callable[[_Facts], Finding], ...] = (
    _configuration,
    _workspace_access,
    _host,
    _credential,
    _login,
    _tls,
    _role,
    _limits,
)


def _skipped(check: str, ground: str) -> Finding:
    return Finding(check, Verdict.SKIPPED, f"only to be seen once the check of {ground} succeeds")


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
