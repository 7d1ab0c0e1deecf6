"""
`lakebase doctor`: whether a connection would work, and what to do where it would not.

One line for each check, in the order in which a connection depends on them. A
check whose ground is missing is skipped, not failed a second time.
"""

from __future__ import annotations

import getpass
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, TextIO

from ._workspace import is_transient, new_client
from .config import ENVIRONMENT, LakebasePoolConfig
from .credentials import DatabaseCredential, credential_source, generate_database_credential
from .endpoints import endpoint_hosts, host_problem
from .errors import ConfigurationError, ConnectFailure, CredentialError, classify_connect_error
from .limits import direct_connections, over_limit
from .username import resolve_username, user_name

if TYPE_CHECKING:
    import argparse

    from .hosts import EndpointHosts

#: Seconds that an endpoint may take to wake from scale-to-zero.
_WAKE_SECONDS = 30.0
_WAKE_PAUSE = 0.25

__all__ = ["Finding", "Verdict", "add_arguments", "examine", "main"]


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
        advice: What to do about it; empty where nothing is to be done.
    """

    check: str
    verdict: Verdict
    found: str
    advice: str = ""

    def __str__(self) -> str:
        advice = f" -> {self.advice}" if self.advice else ""
        return f"{self.verdict.value:<4}  {self.check:<13}  {self.found}{advice}"


@dataclass
class _Patient:
    """What the checks so far have brought to light."""

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

    Blocks between them, for a minute altogether where nothing answers. Opens one
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
        patient = _Patient(LakebasePoolConfig.of(config), environ, budget)
    except ConfigurationError as error:
        yield Finding("configuration", Verdict.FAILED, str(error))
        return
    try:
        for check in _CHECKS:
            yield check(patient)
    finally:
        if patient.connection is not None:
            patient.connection.close()


def _configuration(patient: _Patient) -> Finding:
    check = "configuration"
    config = patient.config
    # First what can be told at once, and all of it; who the user is may be a question to the workspace.
    if missing := _missing(config, patient.environ):
        return Finding(check, Verdict.FAILED, f"missing: {', '.join(missing)}", "set them, in the environment or here")
    try:
        if config.user is None and config.password is None:
            config = config.merged({"user": resolve_username(config, environ=patient.environ)})
        resolved = config.resolved(patient.environ)
    except ConfigurationError as error:
        if error.__cause__ is None:
            return Finding(check, Verdict.FAILED, str(error))
        name = type(error.__cause__).__name__
        found = str(error).replace(f"({name})", f"({name}: {_reason(error.__cause__)})")
        return Finding(check, Verdict.FAILED, found, _identity_advice(patient, error.__cause__))
    patient.resolved = resolved
    way = "the pooler" if resolved.pooled else "directly"
    secret = "a minted token" if resolved.is_oauth else "a native password"
    return Finding(
        check, Verdict.OK, f"{resolved.user} to {resolved.database} on {resolved.server_host}, {way}, with {secret}"
    )


def _missing(config: LakebasePoolConfig, environ: Mapping[str, str]) -> list[str]:
    names = ["host", "database"]
    if config.is_oauth and config.instance_name is None:
        names.append("endpoint")
    return [
        f"{name}= ({', '.join(ENVIRONMENT[name])})"
        for name in names
        if getattr(config, name) is None and not any(environ.get(variable) for variable in ENVIRONMENT[name])
    ]


def _workspace_access(patient: _Patient) -> Finding:
    check = "workspace"
    config = patient.resolved
    if config is None:
        return _skipped(check, "configuration")
    if not config.is_oauth and config.workspace_client is None and config.token is None:
        return Finding(check, Verdict.SKIPPED, "not needed for a native password")
    try:
        patient.client = config.workspace_client or new_client(host=config.workspace_url, token=config.token)
        name = user_name(patient.client)
    except Exception as error:  # noqa: BLE001
        advice = _identity_advice(patient, error)
        patient.client = None  # what needs it is skipped, instead of failing once more
        return Finding(check, Verdict.FAILED, f"{type(error).__name__}: {_reason(error)}", advice)
    url = patient.client.config.host
    if name and config.user and name != config.user:
        return Finding(
            check,
            Verdict.WARNING,
            f"{url} knows this identity as {name}, and user={config.user!r}",
            "a minted token opens the role of its own identity only, unless that role was granted otherwise",
        )
    return Finding(check, Verdict.OK, f"{url} knows this identity as {name}")


def _identity_advice(patient: _Patient, error: BaseException) -> str:
    """What to do about an identity that the workspace did not confirm: set one, or look after the one that is set."""
    environ, config = patient.environ, patient.config
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
    from databricks.sdk.errors import PermissionDenied, Unauthenticated

    # The SDK makes a ValueError of what the OAuth endpoint says, and of an address that is none.
    words = ("invalid_client", "invalid_grant", "invalid_request", "unauthorized_client", "access_denied")
    return isinstance(error, (PermissionDenied, Unauthenticated)) or any(word in str(error) for word in words)


def _reason(error: BaseException) -> str:
    """The SDK's words, without the settings that it adds."""
    return _first_line(error).partition(" Config: ")[0].rstrip(".")


def _host(patient: _Patient) -> Finding:
    check = "host"
    config = patient.resolved
    if config is None:
        return _skipped(check, "configuration")
    host = config.server_host or ""
    try:
        addresses = sorted(
            {str(entry[4][0]) for entry in socket.getaddrinfo(host, config.port, type=socket.SOCK_STREAM)}
        )
    except (OSError, UnicodeError) as error:
        return Finding(check, Verdict.FAILED, f"{host} has no address: {error}", "check host= (PGHOST) and the DNS")
    shown = f"{host} is {', '.join(addresses[:3])}"
    if patient.client is not None and (config.endpoint or config.instance_name):
        try:
            patient.hosts = endpoint_hosts(patient.client, endpoint=config.endpoint, instance_name=config.instance_name)
        except Exception as error:  # noqa: BLE001
            return Finding(
                check,
                Verdict.WARNING,
                f"{shown}; {config.endpoint or config.instance_name} could not be asked for: {type(error).__name__}",
                "check endpoint= (LAKEBASE_ENDPOINT), and that this identity may see it",
            )
        if problem := host_problem(config, patient.hosts):
            return Finding(check, Verdict.FAILED, problem, "correct host=, or pooled= and read_only=")
        shown += ", as the workspace says"
    return Finding(check, Verdict.OK, shown)


def _kind(config: LakebasePoolConfig) -> str:
    return " ".join(kind for kind, is_it in (("pooled", config.pooled), ("read-only", config.read_only)) if is_it)


def _credential(patient: _Patient) -> Finding:
    check = "credential"
    config = patient.resolved
    if config is None:
        return _skipped(check, "configuration")
    try:
        if not config.is_oauth:
            patient.password = credential_source(config).password()
            return Finding(check, Verdict.OK, "a native password is given")
        if patient.client is None:
            return _skipped(check, "workspace")
        credential: DatabaseCredential = generate_database_credential(
            patient.client, config.endpoint, config.claims, instance_name=config.instance_name
        )
    except (CredentialError, ConfigurationError) as error:
        return Finding(check, Verdict.FAILED, str(error))
    patient.password = credential.token
    life = (credential.expires_at - datetime.now(UTC)).total_seconds()
    found = f"minted for {config.endpoint or config.instance_name}, good for {life / 60:.0f} min"
    if not 0 < life <= 3700:
        return Finding(
            check, Verdict.WARNING, found, "a token lives an hour at most: set this machine's clock right (NTP)"
        )
    return Finding(check, Verdict.OK, found)


def _login(patient: _Patient) -> Finding:
    check = "login"
    config = patient.resolved
    if config is None or patient.password is None:
        return _skipped(check, "credential")
    import psycopg

    begun = time.monotonic()
    while patient.connection is None:
        try:
            patient.connection = psycopg.connect(**config.connect_kwargs(), password=patient.password, autocommit=True)
        except psycopg.Error as error:
            failure = classify_connect_error(error)
            if failure is not ConnectFailure.WAKING_UP or time.monotonic() - begun > _WAKE_SECONDS:
                return Finding(check, Verdict.FAILED, _first_line(error), failure.value)
            time.sleep(_WAKE_PAUSE)
    took = time.monotonic() - begun
    version = patient.connection.info.server_version
    found = f"Postgres {version // 10000}, connected in {took * 1000:.0f} ms"
    if other := _other_than_wanted(config, patient.connection):
        return Finding(check, Verdict.WARNING, f"{found}; {other}", f"check that host= is the {_kind(config)} one")
    return Finding(check, Verdict.OK, found)


def _other_than_wanted(config: LakebasePoolConfig, connection: Any) -> str:
    """What shows that a connection leads elsewhere than it should: somewhere that works, but differently."""
    pid, read_only = connection.execute("SELECT pg_backend_pid(), current_setting('transaction_read_only')").fetchone()
    # A pooler gives its clients numbers of its own.
    if config.pooled and connection.info.backend_pid == pid:
        return "this is the server itself and no pooler"
    if config.read_only and read_only != "on":
        return "this server takes writes and is no read-only one"
    return ""


def _tls(patient: _Patient) -> Finding:
    check = "TLS"
    if patient.connection is None or patient.resolved is None:
        return _skipped(check, "login")
    mode = patient.resolved.ssl_mode
    if not patient.connection.pgconn.ssl_in_use:
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


def _role(patient: _Patient) -> Finding:
    check = "role"
    if patient.connection is None:
        return _skipped(check, "login")
    row = patient.connection.execute(_ROLE).fetchone()
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


def _limits(patient: _Patient) -> Finding:
    check = "limits"
    config = patient.resolved
    if config is None:
        return _skipped(check, "configuration")
    budget = config.max_size if patient.budget is None else patient.budget
    units = config.compute_units or (patient.hosts.max_compute_units if patient.hosts else None)
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
    if patient.connection is None or config.pooled:
        if units is None and patient.connection is not None:
            return Finding(check, Verdict.SKIPPED, "the pooler's depend on the size of the compute, which is not known")
        if units is None:
            return _skipped(check, "login")
        return Finding(check, Verdict.OK, f"{asked} of {direct_connections(units)} at {units:g} CU")
    most, reserved, used = patient.connection.execute(_LIMITS).fetchone()
    found = f"{asked} of {most - reserved} that the server takes now, {used} in use"
    if budget * config.replicas > most - reserved:
        return Finding(check, Verdict.WARNING, found, advice)
    return Finding(check, Verdict.OK, found)


_CHECKS: tuple[Callable[[_Patient], Finding], ...] = (
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of `main()`."""
    parser.add_argument("--host", help="of the endpoint (PGHOST)")
    parser.add_argument("--port", type=int, help="default 5432 (PGPORT)")
    parser.add_argument("--database", metavar="NAME", help="(PGDATABASE)")
    parser.add_argument("--user", metavar="ROLE", help="(PGUSER, DATABRICKS_CLIENT_ID, else the workspace is asked)")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--endpoint", metavar="NAME", help="projects/P/branches/B/endpoints/E (LAKEBASE_ENDPOINT)")
    target.add_argument("--instance-name", metavar="NAME", help="of a provisioned instance")
    parser.add_argument("--ssl-mode", metavar="MODE", help="require, verify-ca or verify-full (PGSSLMODE)")
    parser.add_argument("--ssl-root-cert", metavar="FILE", help="trusted certificates, or 'system' (PGSSLROOTCERT)")
    parser.add_argument("--pooled", action="store_true", help="through the built-in pooler")
    parser.add_argument("--read-only", action="store_true", help="to the readable secondaries")
    parser.add_argument(
        "--native-password", action="store_true", help="log in with a password, from PGPASSWORD or asked for"
    )
    parser.add_argument("--budget", type=int, metavar="N", help="most connections of one process (default: 10)")
    parser.add_argument("--replicas", type=int, metavar="N", help="processes that open as many each (default: 1)")


_FIELDS = (
    "host",
    "port",
    "database",
    "user",
    "endpoint",
    "instance_name",
    "ssl_mode",
    "ssl_root_cert",
    "pooled",
    "read_only",
    "replicas",
)


def _is_given(value: Any) -> bool:
    # By identity: 0 equals False, and is a mistake to be told of.
    return value is not None and value is not False


def main(arguments: argparse.Namespace, out: TextIO | None = None) -> int:
    """
    Print a line for each check as it is made.

    Returns 0 if a pool would work, warnings or not, 1 if it would not, and 2 where a password cannot be asked for.
    """
    stream = out or sys.stdout
    given = {name: getattr(arguments, name) for name in _FIELDS if _is_given(getattr(arguments, name))}
    if arguments.native_password:
        given["password"] = os.environ.get("PGPASSWORD")
        if not given["password"]:
            if not sys.stdin.isatty():
                sys.stderr.write("lakebase doctor: no terminal to ask for the password on; set PGPASSWORD\n")
                return 2
            given["password"] = getpass.getpass("Password: ")
    status = 0
    for finding in examine(given, budget=arguments.budget):
        stream.write(f"{finding}\n")
        stream.flush()
        if finding.verdict is Verdict.FAILED:
            status = 1
    return status
