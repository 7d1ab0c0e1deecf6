"""
Questions to the workspace about an endpoint: its hosts, and whether the configured one is among them.

Every function that asks blocks for a request or more.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from ._workspace import is_transient, new_client, quiet
from .errors import ConfigurationError, CredentialError
from .hosts import EndpointHosts, pooled_host

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

    from .config import LakebasePoolConfig

__all__ = [
    "check_host_once",
    "completed",
    "endpoint_hosts",
    "host_problem",
    "is_host_to_be_found",
    "is_incomplete",
    "note_unknown_host",
    "read_write_endpoint",
    "with_endpoint_host",
    "with_read_only_host",
]

logger = logging.getLogger("lakebase")


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


# Hosts of endpoints that have one for reading, by endpoint, instance and workspace; other endpoints may get one yet.
_readable: dict[tuple[str | None, ...], EndpointHosts] = {}
# Hosts of endpoints that were given without one.
_known: dict[tuple[str | None, ...], EndpointHosts] = {}
_noted: set[str] = set()


def is_host_to_be_found(config: LakebasePoolConfig) -> bool:
    """Whether it wants the readable secondaries, whose name follows no rule, and the workspace can be asked for it."""
    if not config.read_only or config.endpoint_hosts is not None:
        return False
    return (config.endpoint or config.instance_name) is not None and (
        config.is_oauth or config.workspace_client is not None
    )


def is_incomplete(config: LakebasePoolConfig) -> bool:
    """Whether the workspace has to be asked before the first connection: for the host, or for the role."""
    return config.host is None or config.user is None or is_host_to_be_found(config)


def completed(config: LakebasePoolConfig) -> LakebasePoolConfig:
    """
    A resolved configuration with the host of its endpoint and the role of its identity, as the workspace has them.

    Blocks for a request for each; the answer about an endpoint is kept for the process.

    Raises:
        ConfigurationError: The endpoint has no such host, or the identity no name.
        CredentialError: The workspace did not answer, or refused.
    """
    if config.host is None:
        config = _with_known_host(config)
    elif is_host_to_be_found(config):
        config = with_read_only_host(config)
    return config if config.user is not None else config.merged({"user": _asked_role(config)})


def _with_known_host(config: LakebasePoolConfig) -> LakebasePoolConfig:
    key = (config.endpoint, config.instance_name, config.workspace_url)
    hosts = _known.get(key)
    if hosts is None:
        hosts = _known[key] = _ask_for_hosts(config)
    host = hosts.wanted(pooled=config.pooled, read_only=config.read_only)
    if host is None:
        _known.pop(key, None)  # it may get one yet
        raise ConfigurationError(no_host(config), field="read_only" if config.read_only else "host")
    return config.merged({"host": host, "endpoint_hosts": hosts})


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


def with_read_only_host(config: LakebasePoolConfig) -> LakebasePoolConfig:
    """
    A read-only configuration with the host of the readable secondaries, as the workspace has it.

    Blocks for a request, in a process once for each endpoint. A host that is not one of the endpoint's, such as a
    private link's name for it, is kept, and so is any host if this identity may not ask; both with a warning.

    Raises:
        ConfigurationError: The endpoint has no such host.
        CredentialError: The workspace did not answer.
    """
    key = (config.endpoint, config.instance_name, config.workspace_url)
    hosts = _readable.get(key)
    if hosts is None:
        try:
            hosts = _ask_for_hosts(config)
        except CredentialError as error:
            if error.is_transient:
                raise
            logger.warning(
                "read_only=True: %s. Connecting to host=%r as it is, with read-only transactions.",
                error,
                config.server_host,
            )
            return config.merged({"host": config.server_host, "endpoint_hosts": _only(config)})
    wanted = hosts.wanted(pooled=config.pooled, read_only=True)
    if wanted is None:
        raise ConfigurationError(no_host(config), field="read_only")
    _readable[key] = hosts
    if hosts.kind_of(config.server_host or "") is None:
        logger.warning("%s; it is kept", host_problem(config, hosts))
        return config.merged({"host": config.server_host, "endpoint_hosts": _only(config)})
    return config.merged({"host": wanted, "endpoint_hosts": hosts})


def _only(config: LakebasePoolConfig) -> EndpointHosts:
    host = config.server_host
    return EndpointHosts(host, host, host, host)


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


# By endpoint, instance and host: how many requests failed, or `_DONE`.
_asked: dict[tuple[str | None, ...], int] = {}
_asked_lock = threading.Lock()
_DONE = 3


def check_host_once(config: LakebasePoolConfig, client: WorkspaceClient) -> None:
    """
    Log a warning if the workspace has another host for the endpoint.

    Blocks for a request, in a process once for each endpoint and host. If a user may not ask, the next user's
    request does it, up to the third. Never raises.
    """
    key = (config.endpoint, config.instance_name, config.server_host)
    with _asked_lock:
        asked = _asked.get(key, 0)
        if asked >= _DONE:
            return
        _asked[key] = _DONE  # no other thread meanwhile
    try:
        hosts = endpoint_hosts(client, endpoint=config.endpoint, instance_name=config.instance_name)
    except Exception as error:  # noqa: BLE001
        _asked[key] = asked + 1
        logger.debug("the host of %s was not checked: %s", key[0] or key[1], type(error).__name__)
        return
    if (problem := host_problem(config, hosts)) is not None:
        logger.warning("%s", problem)
