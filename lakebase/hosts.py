"""
Host names of an endpoint: direct and through the built-in pooler.

The pooler's host is the endpoint's with `-pooler` after the endpoint id, which
is the name's first label. Where the workspace can be asked, its answer wins.
"""

from __future__ import annotations

import logging
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from .errors import ConfigurationError, CredentialError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

    from .config import LakebasePoolConfig

__all__ = [
    "EndpointHosts",
    "direct_host",
    "endpoint_hosts",
    "host_problem",
    "is_pooled_host",
    "pooled_host",
    "with_endpoint_host",
]

logger = logging.getLogger("lakebase")

# https://docs.databricks.com/aws/en/oltp/projects/connection-pooling
_ENDPOINT_HOST = re.compile(r"(?P<id>ep-[a-z0-9-]+?)(?P<pooler>-pooler)?(?P<rest>\.[^:/\s]+)", re.IGNORECASE)


def is_pooled_host(host: str) -> bool:
    """Whether the name is a pooler's, by the rule."""
    match = _ENDPOINT_HOST.fullmatch(host)
    return bool(match and match["pooler"])


def pooled_host(host: str) -> str:
    """The pooler's name by the rule; a name that is no endpoint's is given back as it is."""
    match = _ENDPOINT_HOST.fullmatch(host)
    return f"{match['id']}-pooler{match['rest']}" if match else host


def direct_host(host: str) -> str:
    """The endpoint's own name by the rule; a name that is no endpoint's is given back as it is."""
    match = _ENDPOINT_HOST.fullmatch(host)
    return f"{match['id']}{match['rest']}" if match else host


@dataclass(frozen=True, slots=True)
class EndpointHosts:
    """
    The names that the workspace has for an endpoint, or an instance; `None` is one that it does not offer.

    Args:
        direct: Of the endpoint itself.
        read_only: Of its readable secondaries.
        pooled: Of the built-in pooler.
        read_only_pooled: Of the pooler of its readable secondaries.
        max_compute_units: Upper end of its range.
    """

    direct: str | None
    read_only: str | None = None
    pooled: str | None = None
    read_only_pooled: str | None = None
    max_compute_units: float | None = None

    def wanted(self, *, pooled: bool, read_only: bool) -> str | None:
        """The name for this use."""
        if read_only:
            return self.read_only_pooled if pooled else self.read_only
        return self.pooled if pooled else self.direct


class EndpointHost(str):  # noqa: SLOT000 - a `str` cannot have slots of its own
    """
    A host as the workspace gives it, which knows the endpoint's others: no rule about names is needed.

    Args:
        name: The host.
        hosts: All of the endpoint's.
        direct_port: Of the endpoint itself, where that is another than the host's, as on a developer's machine.
    """

    hosts: EndpointHosts
    direct_port: int | None

    def __new__(cls, name: str, hosts: EndpointHosts | None = None, direct_port: int | None = None) -> Self:
        self = super().__new__(cls, name)
        self.hosts = EndpointHosts(name) if hosts is None else hosts
        self.direct_port = direct_port
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.hosts, self.direct_port)


def endpoint_hosts(
    client: WorkspaceClient, *, endpoint: str | None = None, instance_name: str | None = None
) -> EndpointHosts:
    """
    What the workspace says. Blocks for a request, or two for the name of a branch.

    Raises:
        Exception: The SDK's own.
    """
    from . import _workspace

    with _workspace.quiet():
        if instance_name is not None:
            instance = client.database.get_database_instance(instance_name)
            return EndpointHosts(instance.read_write_dns, instance.read_only_dns)
        assert endpoint is not None
        if "/endpoints/" not in endpoint:
            endpoint = _workspace.read_write_endpoint(client, endpoint)
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
    hosts = _asked_for(config, client)
    host = hosts.wanted(pooled=config.pooled, read_only=config.read_only)
    if host is None:
        raise ConfigurationError(
            no_host(config), field="read_only" if config.read_only else "pooled" if config.pooled else "host"
        )
    return config.merged({"host": EndpointHost(host, hosts)})


def no_host(config: LakebasePoolConfig) -> str:
    """What is said where the endpoint has no host of the kind wanted."""
    return (
        f"{config.endpoint or config.instance_name} has no host for pooled={config.pooled}, "
        f"read_only={config.read_only}. Read-only hosts need readable secondaries (high availability), the pooler an "
        "autoscaling endpoint."
    )


def _asked_for(config: LakebasePoolConfig, client: WorkspaceClient | None = None) -> EndpointHosts:
    from . import _workspace

    target = config.endpoint or config.instance_name
    if target is None:
        raise ConfigurationError("endpoint is missing: its hosts are asked for by name", field="endpoint")
    try:
        if client is None:
            client = config.workspace_client or _workspace.new_client(host=config.workspace_url, token=config.token)
        return endpoint_hosts(client, endpoint=config.endpoint, instance_name=config.instance_name)
    except CredentialError:
        raise
    except Exception as error:
        raise CredentialError(
            f"the workspace could not be asked for the hosts of {target}: {type(error).__name__}",
            is_transient=_workspace.is_transient(error),
        ) from error


# By endpoint, instance and workspace. Where it has a host for reading; one that has none may get one.
_readable: dict[tuple[str | None, ...], EndpointHosts] = {}
_noted: set[str] = set()


def is_host_to_be_found(config: LakebasePoolConfig) -> bool:
    """Whether it wants the readable secondaries, whose name no rule gives, and the workspace can be asked for it."""
    if not config.read_only or isinstance(config.host, EndpointHost):
        return False
    return (config.endpoint or config.instance_name) is not None and (
        config.is_oauth or config.workspace_client is not None
    )


def note_unknown_host(config: LakebasePoolConfig) -> None:
    """Log a warning, once for each host, if nobody can tell whether a read-only configuration's is the secondaries'."""
    host = config.server_host or ""
    if not config.read_only or isinstance(config.host, EndpointHost) or is_host_to_be_found(config) or host in _noted:
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

    Blocks for a request, in a process once for each endpoint. A host that is none of the endpoint's, such as a private
    link's name for it, is kept. Where this identity may not ask, so is any; both with a warning.

    Raises:
        ConfigurationError: The endpoint has no such host.
        CredentialError: The workspace did not answer.
    """
    key = (config.endpoint, config.instance_name, config.workspace_url)
    hosts = _readable.get(key)
    if hosts is None:
        try:
            hosts = _asked_for(config)
        except CredentialError as error:
            if error.is_transient:
                raise
            logger.warning(
                "read_only=True: %s. Connecting to host=%r as it is, with read-only transactions.",
                error,
                config.server_host,
            )
            return config.merged({"host": EndpointHost(config.server_host or "", _only(config))})
    wanted = hosts.wanted(pooled=config.pooled, read_only=True)
    if wanted is None:
        raise ConfigurationError(no_host(config), field="read_only")
    _readable[key] = hosts
    if not _is_one_of(config.server_host, hosts):
        logger.warning("%s; it is kept", host_problem(config, hosts))
        return config.merged({"host": EndpointHost(config.server_host or "", _only(config))})
    return config.merged({"host": EndpointHost(wanted, hosts)})


def _only(config: LakebasePoolConfig) -> EndpointHosts:
    host = config.server_host
    return EndpointHosts(host, host, host, host)


def _is_one_of(host: str | None, hosts: EndpointHosts) -> bool:
    return host is not None and host.lower() in {name.lower() for name in _names(hosts).values() if name is not None}


def _names(hosts: EndpointHosts) -> dict[str, str | None]:
    return {
        "direct": hosts.direct,
        "read-only": hosts.read_only,
        "pooled": hosts.pooled,
        "pooled read-only": hosts.read_only_pooled,
    }


def host_problem(config: LakebasePoolConfig, hosts: EndpointHosts) -> str | None:
    """What is wrong with the configured host, given the endpoint's; `None` if nothing is, or if it cannot be told."""
    known = _names(hosts)
    target = config.endpoint or config.instance_name
    host = config.server_host
    wanted = hosts.wanted(pooled=config.pooled, read_only=config.read_only)
    # Older releases of the SDK do not know the pooler's name, which follows the rule.
    is_by_rule = config.pooled and hosts.direct is not None and host == pooled_host(hosts.direct) != hosts.direct
    if wanted is None and (config.read_only or config.pooled):
        return None if is_by_rule and not config.read_only else no_host(config)
    if host is None or not any(known.values()):
        return None
    found = [kind for kind, name in known.items() if name is not None and name.lower() == host.lower()]
    if not found:
        return f"host={host!r} is not one of {target}: it has {wanted or hosts.direct!r}"
    if wanted is not None and wanted.lower() != host.lower():
        return (
            f"host={host!r} is the {found[0]} host of {target}, but pooled={config.pooled} and "
            f"read_only={config.read_only} ask for {wanted!r}"
        )
    return None


# By endpoint, instance and host: how often it was asked in vain, or `_DONE`.
_asked: dict[tuple[str | None, ...], int] = {}
_asked_lock = threading.Lock()
_DONE = 3


def check_host_once(config: LakebasePoolConfig, client: WorkspaceClient) -> None:
    """
    Log a warning if the workspace has another host for the endpoint.

    Blocks for a request, in a process once for each pair of them: a user who may
    not ask leaves it to the next, up to the third. Never raises.
    """
    key = (config.endpoint, config.instance_name, config.server_host)
    with _asked_lock:
        asked = _asked.get(key, 0)
        if asked >= _DONE:
            return
        _asked[key] = _DONE  # nobody else meanwhile
    try:
        hosts = endpoint_hosts(client, endpoint=config.endpoint, instance_name=config.instance_name)
    except Exception as error:  # noqa: BLE001
        _asked[key] = asked + 1
        logger.debug("the host of %s was not checked: %s", key[0] or key[1], type(error).__name__)
        return
    if (problem := host_problem(config, hosts)) is not None:
        logger.warning("%s", problem)
