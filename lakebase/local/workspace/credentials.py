"""Database credentials: for an endpoint, and for provisioned instances."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .answers import as_list, as_timestamp, not_found

if TYPE_CHECKING:
    from ..http_server import Request
    from .issuer import Issuer, Principal
    from .projects import Projects

__all__ = ["Credentials"]

# https://docs.databricks.com/api/workspace/postgres/generatedatabasecredential
_SHORTEST, _LONGEST = 300.0, 3600.0
_DURATION = re.compile(r"(\d+(?:\.\d{1,9})?)s")


class Credentials:
    """
    Mints.

    Args:
        issuer: Mints and remembers credentials.
        projects: Says which endpoints there are.
        instance: The only provisioned instance.
    """

    def __init__(self, issuer: Issuer, projects: Projects, instance: str) -> None:
        self._issuer = issuer
        self._projects = projects
        self._instance = instance

    def for_endpoint(self, request: Request, principal: Principal) -> dict[str, Any]:
        """`POST /api/2.0/postgres/credentials`."""
        body = request.json()
        endpoint = body.get("endpoint")
        if not endpoint:
            raise ValueError("endpoint is required")
        if not self._projects.has_endpoint_or_branch(endpoint):
            raise not_found("endpoint", endpoint)
        lifetime = _lifetime(body)
        credential = self._issuer.mint(principal.name, lifetime=lifetime, claims=body.get("claims"))
        return {"token": credential.token, "expire_time": as_timestamp(credential.expires_at)}

    def for_instances(self, request: Request, principal: Principal) -> dict[str, Any]:
        """`POST /api/2.0/database/credentials`."""
        body = request.json()
        names = as_list("instance_names", body.get("instance_names"))
        if not names and not body.get("claims"):
            raise ValueError("at least one of instance_names or claims must be specified")
        for name in names:
            if name != self._instance:
                raise not_found("Database instance", name)
        credential = self._issuer.mint(principal.name, claims=body.get("claims"))
        return {"token": credential.token, "expiration_time": as_timestamp(credential.expires_at)}


def _lifetime(body: Mapping[str, Any]) -> float | None:
    if body.get("ttl") and body.get("expire_time"):
        raise ValueError("ttl and expire_time exclude each other")
    if body.get("ttl"):
        found = _DURATION.fullmatch(str(body["ttl"]))
        if not found:
            raise ValueError("ttl must be a duration in seconds, as '600s'")
        lifetime = float(found[1])
    elif body.get("expire_time"):
        until = datetime.fromisoformat(str(body["expire_time"]))
        if until.tzinfo is None:
            raise ValueError("expire_time must have its offset from UTC, as '2026-01-01T00:00:00Z'")
        lifetime = (until - datetime.now(UTC)).total_seconds()
    else:
        return None
    if not _SHORTEST <= lifetime <= _LONGEST:
        raise ValueError(f"a credential must live between {_SHORTEST:g} and {_LONGEST:g} seconds")
    return lifetime
