"""The same database as a provisioned instance."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from .answers import as_page, as_timestamp, not_found

if TYPE_CHECKING:
    from ..http_server import Request
    from .projects import LocalEndpoint

__all__ = ["Instances"]


class Instances:
    """The only instance, which the same server is behind as behind the endpoint."""

    def __init__(self, endpoint: LocalEndpoint, started: float) -> None:
        self._endpoint = endpoint
        self._started = started

    def get(self, name: str) -> dict[str, Any]:
        """`GET /api/2.0/database/instances/{name}`."""
        endpoint = self._endpoint
        if name != endpoint.instance_name:
            raise not_found("Database instance", name)
        instance = {
            "name": endpoint.instance_name,
            "uid": str(uuid.uuid5(uuid.NAMESPACE_URL, endpoint.instance_name)),
            "state": "AVAILABLE",
            "pg_version": f"PG_VERSION_{endpoint.pg_version}",
            "read_write_dns": endpoint.hosts["host"],
            "creation_time": as_timestamp(self._started),
            "effective_enable_pg_native_login": True,
            "effective_enable_readable_secondaries": "read_only_host" in endpoint.hosts,
        }
        if "read_only_host" in endpoint.hosts:
            instance["read_only_dns"] = endpoint.hosts["read_only_host"]
        return instance

    def list(self, request: Request) -> dict[str, Any]:
        """`GET /api/2.0/database/instances`."""
        return as_page(request, "database_instances", [self.get(self._endpoint.instance_name)])
