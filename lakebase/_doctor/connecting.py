"""
Whether a connection would work, in the order in which a connection depends on it: configuration to TLS.

A check that depends on one that failed is skipped, not failed a second time.
"""

from __future__ import annotations

import shlex
import socket
import time
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .._environment import ENVIRONMENT, settings_in
from .._workspace import is_transient, new_client
from ..credentials import DatabaseCredential, credential_source, generate_database_credential
from ..endpoints import completed, endpoint_hosts, host_problem
from ..errors import ConfigurationError, ConnectFailure, CredentialError, classify_connect_error
from ..limits import ConnectionBudgetWarning
from ..username import resolve_username, user_name
from .facts import Facts, first_line, skipped
from .finding import Finding, Fix, Verdict
from .role import VERIFY, login_fixes
from .scopes import is_about_scopes, scope_fixes
from .shell import allow_project, list_endpoints, look_up
from .statements import identity_kind

if TYPE_CHECKING:
    from ..config import LakebasePoolConfig

#: Seconds that an endpoint may take to wake from scale-to-zero.
_WAKE_SECONDS = 30.0
_WAKE_PAUSE = 0.25

__all__ = ["check_configuration", "check_credential", "check_host", "check_login", "check_tls", "check_workspace"]


def check_configuration(facts: Facts) -> Finding:
    check = "configuration"
    config = facts.config
    try:
        # First all that can be told without a request; the user may have to be asked for.
        if missing := _missing(config, facts.environ):
            found = f"missing: {', '.join(missing)}"
            advice = f"set {'it' if len(missing) == 1 else 'them'}, in the environment or here"
            if len(missing) == 1 and missing[0].startswith("endpoint="):
                advice += ": it is enough, since the workspace knows its host, its database and your role"
            return Finding(check, Verdict.FAILED, found, advice, _fixes_of_missing(missing))
        if config.user is None and config.password is None:
            config = config.merged({"user": resolve_username(config, environ=facts.environ)})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConnectionBudgetWarning)  # the check of limits says it
            resolved = config.resolved(facts.environ)
    except ConfigurationError as error:
        if error.__cause__ is None:
            return Finding(check, Verdict.FAILED, str(error))
        name, reason = type(error.__cause__).__name__, _reason(error.__cause__)
        found = str(error).replace(f"({name})", f"({name}: {reason})")
        if config.token is not None:
            found = f"the workspace does not say whose the token is ({name}: {reason})"
        advice = _identity_advice(facts, error.__cause__)
        return Finding(check, Verdict.FAILED, found, advice, _identity_fixes(advice))
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


def _fixes_of_missing(missing: list[str]) -> tuple[Fix, ...]:
    if not any(each.startswith("endpoint=") for each in missing):
        return ()
    return (
        Fix("yaml", "env:\n  - name: LAKEBASE_ENDPOINT\n    valueFrom: postgres", "in app.yaml, by the app's resource"),
        Fix("shell", "export LAKEBASE_ENDPOINT=projects/P/branches/B/endpoints/E", "or elsewhere"),
        Fix("shell", 'eval "$(lakebase local env)"', "or for a Lakebase that `lakebase local up` runs here"),
    )


def check_workspace(facts: Facts) -> Finding:
    check = "workspace"
    config = facts.resolved
    if config is None:
        return skipped(check, "configuration")
    if not config.is_oauth and config.workspace_client is None and config.token is None:
        return Finding(check, Verdict.SKIPPED, "not needed for a native password")
    try:
        facts.client = config.workspace_client or new_client(host=config.workspace_url, token=config.token)
        name = user_name(facts.client)
    except Exception as error:  # noqa: BLE001
        advice = _identity_advice(facts, error)
        facts.client = None  # checks that need it are skipped
        found = f"{type(error).__name__}: {_reason(error)}"
        return Finding(check, Verdict.FAILED, found, advice, _identity_fixes(advice))
    url = facts.client.config.host
    if name and config.user and name != config.user:
        return Finding(
            check,
            Verdict.WARNING,
            f"{url} knows this identity as {name}, and user={config.user!r}",
            "a minted token opens the role of its own identity only, unless that role was granted otherwise",
            (Fix("shell", f"export PGUSER={shlex.quote(name)}"),),
        )
    return Finding(check, Verdict.OK, f"{url} knows this identity as {name}")


def _identity_advice(facts: Facts, error: BaseException) -> str:
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


def _identity_fixes(advice: str) -> tuple[Fix, ...]:
    if not advice.startswith("set DATABRICKS_HOST"):
        return ()
    text = "export DATABRICKS_HOST=https://WORKSPACE\ndatabricks auth login --host $DATABRICKS_HOST"
    return (Fix("shell", text, "to sign in as yourself, where this is no app"),)


def _is_refusal(error: BaseException) -> bool:
    # The SDK makes a ValueError of what the OAuth endpoint says, and of an address that is none.
    words = ("invalid_client", "invalid_grant", "invalid_request", "unauthorized_client", "access_denied")
    # By name, since the SDK's errors and those of a user's client have the same names.
    is_refused = type(error).__name__ in ("PermissionDenied", "Unauthenticated")
    return is_refused or any(word in str(error) for word in words)


def _reason(error: BaseException) -> str:
    """The SDK's words, without the settings that it adds."""
    return first_line(error).partition(" Config: ")[0].rstrip(".")


def check_host(facts: Facts) -> Finding:
    check = "host"
    config = facts.resolved
    if config is None:
        return skipped(check, "configuration")
    if config.host is None:
        if facts.client is None or facts.lacks_scope:
            return skipped(check, "workspace" if facts.client is None else "token scopes")
        try:
            config = facts.resolved = completed(config)
        except (ConfigurationError, CredentialError) as error:
            advice = "check endpoint= (LAKEBASE_ENDPOINT), or set host= (PGHOST)"
            return Finding(check, Verdict.FAILED, str(error), advice, _endpoint_fixes(config))
    host = config.server_host or ""
    try:
        addresses = sorted(
            {str(entry[4][0]) for entry in socket.getaddrinfo(host, config.port, type=socket.SOCK_STREAM)}
        )
    except (OSError, UnicodeError) as error:
        found, advice = f"{host} has no address: {error}", "check host= (PGHOST) and the DNS"
        return Finding(check, Verdict.FAILED, found, advice, (look_up(host), *_endpoint_fixes(config)))
    shown = f"{host} is {', '.join(addresses[:3])}"
    if facts.client is not None and not facts.lacks_scope and (config.endpoint or config.instance_name):
        try:
            facts.hosts = endpoint_hosts(facts.client, endpoint=config.endpoint, instance_name=config.instance_name)
        except Exception as error:  # noqa: BLE001
            return Finding(
                check,
                Verdict.WARNING,
                f"{shown}; {config.endpoint or config.instance_name} could not be asked for: {type(error).__name__}",
                "check endpoint= (LAKEBASE_ENDPOINT), and that this identity may see it",
                _endpoint_fixes(config),
            )
        if problem := host_problem(config, facts.hosts):
            wanted = facts.hosts.wanted(pooled=config.pooled, read_only=config.read_only)
            fixes = () if wanted is None else (Fix("shell", f"export PGHOST={shlex.quote(wanted)}"),)
            return Finding(check, Verdict.FAILED, problem, "correct host=, or pooled= and read_only=", fixes)
        shown += ", as the workspace says"
    return Finding(check, Verdict.OK, shown)


def _endpoint_fixes(config: LakebasePoolConfig) -> tuple[Fix, ...]:
    return () if config.endpoint is None else (list_endpoints(config.endpoint),)


def _kind(config: LakebasePoolConfig) -> str:
    return " ".join(kind for kind, is_it in (("pooled", config.pooled), ("read-only", config.read_only)) if is_it)


def check_credential(facts: Facts) -> Finding:
    check = "credential"
    config = facts.resolved
    if config is None:
        return skipped(check, "configuration")
    try:
        if not config.is_oauth:
            facts.password = credential_source(config).password()
            return Finding(check, Verdict.OK, "a native password is given")
        if facts.client is None or facts.lacks_scope:
            return skipped(check, "workspace" if facts.client is None else "token scopes")
        credential: DatabaseCredential = generate_database_credential(
            facts.client, config.endpoint, config.claims, instance_name=config.instance_name
        )
    except (CredentialError, ConfigurationError) as error:
        return Finding(check, Verdict.FAILED, str(error), fixes=_mint_fixes(facts, config, str(error)))
    facts.password = credential.token
    life = (credential.expires_at - datetime.now(UTC)).total_seconds()
    found = f"minted for {config.endpoint or config.instance_name}, good for {life / 60:.0f} min"
    if not 0 < life <= 3700:
        advice = "a token lives an hour at most: set this machine's clock right (NTP)"
        return Finding(check, Verdict.WARNING, found, advice, (Fix("shell", "sudo timedatectl set-ntp true"),))
    return Finding(check, Verdict.OK, found)


def _mint_fixes(facts: Facts, config: LakebasePoolConfig, words: str) -> tuple[Fix, ...]:
    if is_about_scopes(words):
        return scope_fixes(facts.scopes, facts.environ)
    if "PermissionDenied" in words and config.endpoint is not None and config.user is not None:
        return (allow_project(config.endpoint, config.user, identity_kind(config.user)),)
    return _endpoint_fixes(config)


def check_login(facts: Facts) -> Finding:
    check = "login"
    config = facts.resolved
    if config is None or facts.password is None:
        return skipped(check, "credential")
    if config.host is None:
        return skipped(check, "host")
    import psycopg

    begun = time.monotonic()
    while facts.connection is None:
        try:
            facts.connection = psycopg.connect(**config.connect_kwargs(), password=facts.password, autocommit=True)
        except psycopg.Error as error:
            failure = classify_connect_error(error)
            if failure is not ConnectFailure.WAKING_UP or time.monotonic() - begun > _WAKE_SECONDS:
                facts.failure = failure
                return Finding(check, Verdict.FAILED, first_line(error), failure.value, login_fixes(config, failure))
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


def check_tls(facts: Facts) -> Finding:
    check = "TLS"
    if facts.connection is None or facts.resolved is None:
        return skipped(check, "login")
    mode = facts.resolved.ssl_mode
    if not facts.connection.pgconn.ssl_in_use:
        return Finding(
            check, Verdict.FAILED, "the connection is not encrypted", "set ssl_mode=require or stronger", (VERIFY,)
        )
    if mode in ("verify-full", "verify-ca"):
        return Finding(check, Verdict.OK, f"encrypted, the server's certificate verified ({mode})")
    return Finding(
        check,
        Verdict.OK,
        f"encrypted; ssl_mode={mode} does not verify who answers",
        "ssl_mode=verify-full with ssl_root_cert=system does",
    )
