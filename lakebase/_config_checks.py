"""Which values a configuration may have, and the errors for those it may not have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING

from pooling.errors import ConfigurationError
from pooling.options import PoolingServiceOptions

from ._role_names import role_name_problem
from ._session_settings import check_session_settings
from ._settings import LIBPQ_FIELDS, NOTHING, OPTION_FIELDS, SECRET_FIELDS
from .hosts import EndpointHosts, is_local_pooler, is_pooled_host, pooled_host
from .limits import direct_connections

if TYPE_CHECKING:
    from ._settings import Settings

#: libpq's, weakest first: https://www.postgresql.org/docs/current/libpq-ssl.html
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
ENCRYPTED_SSL_MODES = SSL_MODES[3:]

_TEXTS = (
    "host",
    "database",
    "user",
    "endpoint",
    "instance_name",
    "token",
    "workspace_url",
    "ssl_root_cert",
    "application_name",
    "schema",
)
_FLAGS = (
    "allow_plaintext",
    "create_schema",
    "oauth_through_pooler",
    "pooled",
    "read_only",
    "transaction_mode_guard",
    "warm_up",
)
_CONNECTION_STRING = re.compile(r"://[^/\s]*@|\bpassword\s*=", re.IGNORECASE)
_NOT_ONE_HOST = re.compile(r"://|[,\s]")
_ENDPOINT = re.compile(r"projects/[^/\s]+/branches/[^/\s]+(/endpoints/[^/\s]+)?")


def check_names(given: Iterable[str], known: Iterable[str]) -> None:
    """
    Refuse a name that no field has, and point to the nearest that one has.

    libpq's and the engine's spellings point to ours.
    """
    names = list(known)
    for name in given:
        if name in names:
            continue
        if name in LIBPQ_FIELDS:
            hint = f"it is called {LIBPQ_FIELDS[name]!r} here"
        elif name in PoolingServiceOptions.__dataclass_fields__:
            hint = f"give it in pool_options={{{name!r}: …}}"
        elif near := get_close_matches(name, names, n=1, cutoff=0.5):
            hint = f"did you mean {near[0]!r}?"
        else:
            hint = f"known are {', '.join(names)}"
        raise ConfigurationError(f"unknown setting {name!r}: {hint}", field=name)


def check_values(config: Settings) -> None:
    """Refuse values that cannot work, alone or together."""
    for name in _TEXTS:
        if (value := getattr(config, name)) is not None:
            _check_text(name, value)
    for name in _FLAGS:
        if not isinstance(getattr(config, name), bool):
            raise _refused(name, getattr(config, name), "True or False")
    if config.user is not None and (problem := role_name_problem(config.user)):
        raise ConfigurationError(f"user={config.user!r} cannot be a Postgres role: {problem}", field="user")
    _check_host(config.host)
    if config.endpoint_hosts is not None and not isinstance(config.endpoint_hosts, EndpointHosts):
        raise _refused(
            "endpoint_hosts", config.endpoint_hosts, "EndpointHosts, as with_endpoint_host(config) sets them"
        )
    _check_whole("port", config.port, 1, 65535)
    _check_whole("connect_timeout", config.connect_timeout, 2, 3600)
    _check_whole("replicas", config.replicas, 1, 100_000)
    if config.compute_units is not None:
        direct_connections(config.compute_units)
    check_session_settings(config)
    _check_tls(config)
    _check_password(config.password)
    _check_credential(config)
    _check_pooler(config)
    for name in ("libpq_params", "pool_options"):
        value = getattr(config, name)
        if value is not NOTHING and not isinstance(value, Mapping):
            raise _refused(name, value, "a mapping of names to values")
    for name in config.libpq_params:
        if name in LIBPQ_FIELDS:
            raise ConfigurationError(
                f"libpq_params has {name!r}: give it as {LIBPQ_FIELDS[name]}= instead", field="libpq_params"
            )
    for name in config.pool_options:
        if name in OPTION_FIELDS:
            raise ConfigurationError(f"pool_options has {name!r}: give it as {name}= instead", field="pool_options")


def _check_host(host: str | None) -> None:
    if host is None:
        return
    if _NOT_ONE_HOST.search(host):
        raise _refused("host", host, "one host name or address, without scheme or port")
    if host.count(":") == 1:
        raise _refused("host", host, "a host without a port; give that as port=")


def _check_tls(config: Settings) -> None:
    if config.ssl_mode not in SSL_MODES:
        raise _refused("ssl_mode", config.ssl_mode, f"one of {', '.join(ENCRYPTED_SSL_MODES)}")
    if config.ssl_mode not in ENCRYPTED_SSL_MODES and not config.allow_plaintext:
        raise ConfigurationError(
            f"ssl_mode={config.ssl_mode!r}: Lakebase accepts TLS only, and this mode may send the credential in the "
            f"clear; use one of {', '.join(ENCRYPTED_SSL_MODES)}. For a Postgres on your own machine that has no "
            f"TLS, add allow_plaintext=True.",
            field="ssl_mode",
        )


def _check_password(password: object) -> None:
    if password is not None and not isinstance(password, str) and not callable(password):
        raise ConfigurationError(
            f"password is of type {type(password).__name__}: expected a string or what returns one", field="password"
        )
    if password == "":
        raise ConfigurationError("password is empty; leave it out to use a minted token", field="password")


def _check_credential(config: Settings) -> None:
    if config.endpoint is not None and config.instance_name is not None:
        raise ConfigurationError(
            f"endpoint={config.endpoint!r} and instance_name={config.instance_name!r} exclude each other: an endpoint "
            "is autoscaling Lakebase's, an instance provisioned Lakebase's; keep the one the host belongs to",
            field="endpoint",
        )
    if config.endpoint is not None and not _ENDPOINT.fullmatch(config.endpoint):
        raise _refused("endpoint", config.endpoint, "projects/P/branches/B/endpoints/E or projects/P/branches/B")
    if config.token is not None and config.password is not None:
        raise ConfigurationError(
            "password and token exclude each other: a token is minted into a password", field="token"
        )
    if config.token is not None and config.workspace_client is not None:
        raise ConfigurationError(
            "token and workspace_client exclude each other: it would be unclear who mints", field="token"
        )
    check_claims(config.claims)


def check_claims(claims: object) -> None:
    """Refuse what is no sequence of claims."""
    if claims is not None and (isinstance(claims, (str, bytes, Mapping)) or not isinstance(claims, Iterable)):
        raise _refused("claims", claims, "a sequence of RequestedClaims or mappings")


def _check_pooler(config: Settings) -> None:
    # A base configuration may leave the password to each pool's own part; what mints a token speaks for none.
    if config.token or config.workspace_client or config.endpoint or config.instance_name:
        check_pooler_has_password(config)
    host = config.host
    if config.endpoint_hosts is not None:
        is_offered = config.endpoint_hosts.wanted(pooled=config.pooled, read_only=config.read_only) is not None
        if (config.pooled or config.read_only) and not is_offered:
            kind = "pooled" if config.pooled else "read_only"
            raise ConfigurationError(
                f"host={host!r} is of an endpoint that has, as the workspace says, no host for "
                f"pooled={config.pooled}, read_only={config.read_only}",
                field=kind,
            )
    elif config.pooled and config.instance_name is not None:
        raise ConfigurationError(
            f"pooled=True with instance_name={config.instance_name!r}: a provisioned instance has no built-in pooler. "
            "Leave pooled= out, or connect to an autoscaling endpoint.",
            field="pooled",
        )
    elif config.pooled and host is not None and not has_known_pooler(host) and not can_ask_for_pooler(config):
        raise ConfigurationError(
            f"pooled=True with host={host!r}: the pooler's host is not known, since this one is not named like an "
            "endpoint's (ep-….), and the connection would be a direct one. Have the workspace asked: "
            "with_endpoint_host(config).merged({'pooled': True}). A pooler of your own needs no pooled=.",
            field="pooled",
        )


def has_known_pooler(host: str) -> bool:
    """Whether a host names its pooler, or is one."""
    return is_pooled_host(pooled_host(host)) or is_local_pooler(host)


def can_ask_for_pooler(config: Settings) -> bool:
    """Whether the workspace can be asked for the pooler's host, by an identity that there is."""
    return config.endpoint is not None and (config.is_oauth or config.workspace_client is not None)


def check_pooler_has_password(config: Settings) -> None:
    """Refuse to have a minted token pass through the built-in pooler."""
    # https://docs.databricks.com/aws/en/oltp/projects/connection-pooling
    if config.password is None and config.is_through_pooler and not config.oauth_through_pooler:
        setting = "pooled=True" if config.pooled else f"host={config.host!r} is the built-in pooler's"
        raise ConfigurationError(
            f"{setting} without a password: the built-in pooler takes roles with a native Postgres password only "
            "and refuses minted tokens ('SASL authentication failed'). Either give user= and password= of such a "
            "role, or connect directly: pooled=False and the endpoint's own host. If yours takes tokens all the same, "
            "oauth_through_pooler=True tries it.",
            field="pooled" if config.pooled else "host",
        )


def _check_text(name: str, value: object) -> None:
    shown = "***" if name in SECRET_FIELDS else value
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} is of type {type(value).__name__}: expected a string", field=name)
    if not value.strip():
        raise _refused(name, shown, "a string that is not empty")
    # A connection string has a password in it, and stays unseen.
    if name not in SECRET_FIELDS and _CONNECTION_STRING.search(value):
        raise ConfigurationError(
            f"{name} is a whole connection string (not shown, since it may have a password in it): give host=, port=, "
            "database=, user= and password= apart",
            field=name,
        )
    if not value.isprintable() and any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise _refused(name, shown, "a string without control characters")


def _check_whole(name: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _refused(name, value, f"a whole number from {least} to {most}")


def _refused(name: str, value: object, allowed: str) -> ConfigurationError:
    return ConfigurationError(f"{name}={value!r}: expected {allowed}", field=name)
