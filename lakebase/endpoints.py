"""
Questions to the workspace about an endpoint: its hosts, and whether the configured one is among them.

Every function that asks blocks for a request or more.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable
from functools import partial
from typing import TYPE_CHECKING, Any

from ._config_checks import has_known_pooler
from ._lookups import Lookups
from ._steps import Steps, arun, run
from ._workspace import is_transient, new_client, quiet
from .errors import ConfigurationError, CredentialError
from .hosts import EndpointHosts, pooled_host
from .identity import token_fingerprint

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

    from .config import LakebasePoolConfig

__all__ = [
    "acheck_host",
    "check_host",
    "completed",
    "endpoint_hosts",
    "host_problem",
    "is_host_to_be_found",
    "acompleted",
    "doubt_host",
    "is_incomplete",
    "known_host_problem",
    "note_unknown_host",
    "read_write_endpoint",
    "with_endpoint_host",
]

logger: logging.Logger = logging.getLogger("lakebase")


def read_write_endpoint(client: WorkspaceClient, branch: str) -> str:
    """The resource name of a branch's read-write endpoint. Blocks for one request or more."""
    for endpoint in client.postgres.list_endpoints(branch):
        kind = getattr(endpoint.status, "endpoint_type", None) or ""
        # An enumeration of the SDK's, or the text itself.
        if endpoint.name and not getattr(kind, "value", kind).endswith("READ_ONLY"):
            return endpoint.name
    raise CredentialError(f"{branch} has no read-write endpoint; give endpoint={branch}/endpoints/…")


def endpoint_hosts(
    client: WorkspaceClient, *, endpoint: str | None = None, instance_name: str | None = None
) -> EndpointHosts:
    """
    What the workspace says. Blocks for a request, or two for the name of a branch.

    Raises:
        Exception: The client's own.
    """
    with quiet():
        if instance_name is not None:
            instance = client.database.get_database_instance(instance_name)
            return EndpointHosts(instance.read_write_dns, instance.read_only_dns)
        assert endpoint is not None
        if "/endpoints/" not in endpoint:
            endpoint = read_write_endpoint(client, endpoint)
        status = client.postgres.get_endpoint(endpoint).status
    hosts = getattr(status, "hosts", None)
    # Older releases of the SDK do not know all fields.
    return EndpointHosts(
        getattr(hosts, "host", None),
        getattr(hosts, "read_only_host", None),
        getattr(hosts, "read_write_pooled_host", None),
        getattr(hosts, "read_only_pooled_host", None),
        getattr(status, "autoscaling_limit_max_cu", None),
    )


def with_endpoint_host(config: LakebasePoolConfig, client: WorkspaceClient | None = None) -> LakebasePoolConfig:
    """
    The configuration with the host that the workspace has for its endpoint: direct or pooled, read-write or read-only.

    Blocks for a request to the workspace. It is the only way to the readable
    secondaries, whose names follow no rule; the others can be configured.

    Args:
        config: With `endpoint` or `instance_name`; its host is replaced.
        client: Asks; the configuration's own if `None`.

    Raises:
        ConfigurationError: The endpoint offers no such host.
        CredentialError: The workspace did not answer, or refused.
    """
    hosts = _ask_for_hosts(config, client)
    host = hosts.wanted(pooled=config.pooled, read_only=config.read_only)
    if host is None:
        raise ConfigurationError(
            no_host(config), field="read_only" if config.read_only else "pooled" if config.pooled else "host"
        )
    return config.merged({"host": host, "endpoint_hosts": hosts})


def no_host(config: LakebasePoolConfig) -> str:
    """The error text for an endpoint that has no host of the kind wanted."""
    return (
        f"{config.endpoint or config.instance_name} has no host for pooled={config.pooled}, "
        f"read_only={config.read_only}. Read-only hosts need readable secondaries (high availability), the pooler an "
        "autoscaling endpoint."
    )


def _ask_for_hosts(config: LakebasePoolConfig, client: WorkspaceClient | None = None) -> EndpointHosts:
    target = config.endpoint or config.instance_name
    if target is None:
        raise ConfigurationError("endpoint is missing: its hosts are asked for by name", field="endpoint")
    try:
        if client is None:
            client = config.workspace_client or new_client(host=config.workspace_url, token=config.token)
        return endpoint_hosts(client, endpoint=config.endpoint, instance_name=config.instance_name)
    except CredentialError:
        raise
    except Exception as error:
        raise CredentialError(
            f"the workspace could not be asked for the hosts of {target}: {type(error).__name__}",
            is_transient=is_transient(error),
        ) from error


# What the workspace has said so far of endpoints, and of the names of identities.
_hosts: Lookups[EndpointHosts] = Lookups()
_roles: Lookups[str] = Lookups()
_noted: set[str] = set()


def is_host_to_be_found(config: LakebasePoolConfig) -> bool:
    """Whether it wants a host whose name follows no rule, and the workspace can be asked for it."""
    if config.endpoint_hosts is not None or (config.endpoint or config.instance_name) is None:
        return False
    if not config.is_oauth and config.workspace_client is None:
        return False
    return config.read_only or (config.pooled and config.host is not None and not has_known_pooler(config.host))


def is_incomplete(config: LakebasePoolConfig) -> bool:
    """Whether the workspace has to be asked before the first connection: for the host, or for the role."""
    return config.host is None or config.user is None or is_host_to_be_found(config)


def completed(config: LakebasePoolConfig) -> LakebasePoolConfig:
    """
    A resolved configuration with the host of its endpoint and the role of its identity, as the workspace has them.

    Blocks for a request for each; the answers are kept for the process.

    Raises:
        ConfigurationError: The endpoint has no such host, or the identity no name.
        CredentialError: The workspace did not answer, or refused.
    """
    return run(completing(config, _hosts.get, _roles.get))


async def acompleted(config: LakebasePoolConfig) -> LakebasePoolConfig:
    """As `completed`, suspending."""
    return await arun(completing(config, _hosts.aget, _roles.aget))


def completing(config: LakebasePoolConfig, hosts: Any, role: Any) -> Steps[LakebasePoolConfig]:
    """`completed`, with the functions that look hosts and a role up."""
    if config.host is None or is_host_to_be_found(config):
        try:
            found = yield partial(hosts, _key(config), partial(_ask_for_hosts, config))
        except CredentialError as error:
            if config.host is None or error.is_transient:
                raise
            config = _with_host_as_it_is(config, str(error))
        else:
            config = _with_host_of(config, found)
    if config.user is None:
        name = yield partial(role, (*_key(config), *_identity(config)), partial(_asked_role, config))
        config = config.merged({"user": name})
    return config


def doubt_host(config: LakebasePoolConfig) -> None:
    """Have the workspace asked again for the host of a configuration that connects to it in vain."""
    _hosts.doubt(_key(config))


def _key(config: LakebasePoolConfig) -> tuple[Hashable, ...]:
    """Of what the workspace says of a configuration's endpoint: the same for all users of it."""
    settings = getattr(config.workspace_client, "config", None)
    environ = os.environ
    url = getattr(settings, "host", None) or config.workspace_url or environ.get("DATABRICKS_HOST")
    profile = None if url else environ.get("DATABRICKS_CONFIG_PROFILE")
    return url, profile, config.endpoint, config.instance_name


def _identity(config: LakebasePoolConfig) -> tuple[Hashable, ...]:
    """Of the identity that a configuration has: its client's, the token's, or the environment's."""
    if config.workspace_client is not None:
        return (_Same(config.workspace_client),)
    names = ("DATABRICKS_CLIENT_ID", "DATABRICKS_CONFIG_PROFILE")
    token = config.token or os.environ.get("DATABRICKS_TOKEN")
    return token_fingerprint(token), *(os.environ.get(name) for name in names)


class _Same:
    """A key that is one object, and keeps it."""

    __slots__ = ("_it",)

    def __init__(self, it: object) -> None:
        self._it = it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._it is other._it

    def __hash__(self) -> int:
        return id(self._it)


def _with_host_of(config: LakebasePoolConfig, hosts: EndpointHosts) -> LakebasePoolConfig:
    """The configuration with the host it wants; a name of its own, as a private link's, is kept with a warning."""
    wanted = hosts.wanted(pooled=config.pooled, read_only=config.read_only)
    if wanted is None:
        _hosts.doubt(_key(config), at_once=True)  # it may get one yet
        field = "read_only" if config.read_only else "pooled" if config.pooled else "host"
        raise ConfigurationError(no_host(config), field=field)
    if config.host is not None and hosts.kind_of(config.server_host or "") is None:
        return _with_host_as_it_is(config, str(host_problem(config, hosts)))
    return config.merged({"host": wanted, "endpoint_hosts": hosts})


def _with_host_as_it_is(config: LakebasePoolConfig, reason: str) -> LakebasePoolConfig:
    setting = "read_only=True" if config.read_only else "pooled=True"
    host = config.server_host
    also = ", with read-only transactions" if config.read_only else ""
    logger.warning("%s: %s. Connecting to host=%r as it is%s.", setting, reason, host, also)
    return config.merged({"host": host, "endpoint_hosts": EndpointHosts(host, host, host, host)})


def _asked_role(config: LakebasePoolConfig) -> str:
    from .username import resolve_username

    try:
        return resolve_username(config, environ={})
    except ConfigurationError as error:
        if error.__cause__ is None or not is_transient(error.__cause__):
            raise
        raise CredentialError(str(error), is_transient=True, step="creating") from error.__cause__


def note_unknown_host(config: LakebasePoolConfig) -> None:
    """Log a warning, once for each host, if a read-only configuration may not connect to the secondaries."""
    host = config.server_host or ""
    if not config.read_only or config.endpoint_hosts is not None or is_host_to_be_found(config) or host in _noted:
        return
    _noted.add(host)
    logger.warning(
        "read_only=True: whether host=%r is that of readable secondaries cannot be known, since their name follows no "
        "rule and there is no endpoint= and workspace to ask; with_endpoint_host(config) finds it. Transactions are "
        "read-only all the same.",
        host,
    )


def host_problem(config: LakebasePoolConfig, hosts: EndpointHosts) -> str | None:
    """What is wrong with the configured host, given the endpoint's; `None` if nothing is, or if it cannot be told."""
    target = config.endpoint or config.instance_name
    host = config.server_host
    wanted = hosts.wanted(pooled=config.pooled, read_only=config.read_only)
    # Older releases of the SDK do not know the pooler's name, which follows the rule.
    is_by_rule = config.pooled and hosts.direct is not None and host == pooled_host(hosts.direct) != hosts.direct
    if wanted is None and (config.read_only or config.pooled):
        return None if is_by_rule and not config.read_only else no_host(config)
    if host is None or not hosts.is_known:
        return None
    kind = hosts.kind_of(host)
    if kind is None:
        return f"host={host!r} is not one of {target}: it has {wanted or hosts.direct!r}"
    if wanted is not None and wanted.lower() != host.lower():
        return (
            f"host={host!r} is the {kind} host of {target}, but pooled={config.pooled} and "
            f"read_only={config.read_only} ask for {wanted!r}"
        )
    return None


# By endpoint and host: how many requests failed, and what was found wrong.
_asked: dict[Hashable, int] = {}
_problems: dict[Hashable, str] = {}
_MOST_ASKED = 3


def check_host(config: LakebasePoolConfig, client: WorkspaceClient | None = None) -> None:
    """
    Log a warning if the workspace has another host for the endpoint, once for each host.

    Blocks for a request, unless the answer is known. If a user may not ask, the next user's request does it, up to
    the third. Never raises.

    Args:
        config: With an endpoint or instance.
        client: Asks; the configuration's own if `None`.
    """
    run(_checking_host(config, client, _hosts.get))


async def acheck_host(config: LakebasePoolConfig) -> None:
    """As `check_host`, suspending."""
    await arun(_checking_host(config, None, _hosts.aget))


def _checking_host(config: LakebasePoolConfig, client: WorkspaceClient | None, hosts: Any) -> Steps[None]:
    key = _host_key(config)
    target = config.endpoint or config.instance_name
    can_ask = target is not None and (config.is_oauth or config.workspace_client is not None)
    # A host that is missing is the workspace's.
    if config.host is None or not can_ask or _asked.get(key, 0) >= _MOST_ASKED:
        return
    try:
        found = yield partial(hosts, _key(config), partial(_ask_for_hosts, config, client))
    except Exception as error:  # noqa: BLE001
        _asked[key] = _asked.get(key, 0) + 1
        logger.debug("the host of %s was not checked: %s", target, type(error).__name__)
        return
    problem = host_problem(config, found)
    if problem is not None and _problems.setdefault(key, problem) is problem:
        logger.warning("%s", problem)


def known_host_problem(config: LakebasePoolConfig) -> str | None:
    """What a check has found wrong with the configured host. Never blocks."""
    return _problems.get(_host_key(config))


def _host_key(config: LakebasePoolConfig) -> Hashable:
    return (*_key(config), config.server_host)
