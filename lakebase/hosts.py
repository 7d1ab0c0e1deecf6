"""
Host names of an endpoint, parsed and built: direct and through the built-in pooler.

The pooler's host is the endpoint's with `-pooler` after the endpoint id, which is the first label of the name.
`EndpointHosts` holds the names that the workspace has for an endpoint; `endpoints` asks for them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["EndpointHosts", "direct_host", "is_local_pooler", "is_pooled_host", "pooled_host"]

# https://docs.databricks.com/aws/en/oltp/projects/connection-pooling
_ENDPOINT_HOST = re.compile(r"(?P<id>ep-[a-z0-9-]+?)(?P<pooler>-pooler)?(?P<rest>\.[^:/\s]+)", re.IGNORECASE)


def is_pooled_host(host: str) -> bool:
    """Whether the name is a pooler's, by the rule."""
    match = _ENDPOINT_HOST.fullmatch(host)
    return bool(match and match["pooler"])


def is_local_pooler(host: str) -> bool:
    """Whether this may be the pooler of a local Lakebase, which listens on an address beside 127.0.0.1."""
    return host.startswith("127.0.0.") and host != "127.0.0.1"


def pooled_host(host: str) -> str:
    """The pooler's name by the rule; a name that is not an endpoint's is returned unchanged."""
    match = _ENDPOINT_HOST.fullmatch(host)
    return f"{match['id']}-pooler{match['rest']}" if match else host


def direct_host(host: str) -> str:
    """The endpoint's own name by the rule; a name that is not an endpoint's is returned unchanged."""
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
        direct_port: Of the endpoint itself, if it is not the port of the others, as on a developer's machine.
    """

    direct: str | None
    read_only: str | None = None
    pooled: str | None = None
    read_only_pooled: str | None = None
    max_compute_units: float | None = None
    direct_port: int | None = None

    def wanted(self, *, pooled: bool, read_only: bool) -> str | None:
        """The name for this use."""
        if read_only:
            return self.read_only_pooled if pooled else self.read_only
        return self.pooled if pooled else self.direct

    def kind_of(self, host: str) -> str | None:
        """In words, which of the endpoint's hosts a name is; `None` if it is none of them."""
        names = {
            "direct": self.direct,
            "read-only": self.read_only,
            "pooled": self.pooled,
            "pooled read-only": self.read_only_pooled,
        }
        return next((kind for kind, name in names.items() if name is not None and name.lower() == host.lower()), None)

    @property
    def is_known(self) -> bool:
        """Whether the workspace has any name for the endpoint."""
        return any((self.direct, self.read_only, self.pooled, self.read_only_pooled))
