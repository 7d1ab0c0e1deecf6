"""Projects, their branches and endpoints: the one that the local Lakebase is, and further ones that only have names."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .answers import ApiError, as_page, as_text, as_timestamp, not_found, spec_of

if TYPE_CHECKING:
    from ..http_server import Request
    from .answers import Operations

__all__ = ["LocalEndpoint", "Projects"]

# https://docs.databricks.com/api/workspace/postgres/createbranch
_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_MOST = 100
_READ_WRITE, _READ_ONLY = "ENDPOINT_TYPE_READ_WRITE", "ENDPOINT_TYPE_READ_ONLY"


@dataclass(frozen=True, slots=True)
class LocalEndpoint:
    """
    The endpoint that the local Lakebase is, which is also the only instance.

    Args:
        name: `projects/P/branches/B/endpoints/E`.
        instance_name: The same database as a provisioned instance.
        hosts: `status.hosts` of the endpoint.
        compute_units: The compute's size.
        suspend_timeout: Seconds without a statement until it is suspended; `None` for never.
        pg_version: The major version.
        state: Returns the endpoint's `current_state`.
    """

    name: str
    instance_name: str
    hosts: Mapping[str, str]
    compute_units: float
    suspend_timeout: float | None
    pg_version: int
    state: Callable[[], str]

    @property
    def branch(self) -> str:
        """The endpoint's parent."""
        return self.name.rpartition("/endpoints/")[0]

    @property
    def project(self) -> str:
        """The branch's parent."""
        return self.name.partition("/branches/")[0]


@dataclass(frozen=True)
class _Resource:
    name: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    created: float = field(default_factory=time.time)

    @property
    def id(self) -> str:
        return self.name.rpartition("/")[2]

    def as_dict(self, **more: Any) -> dict[str, Any]:
        return {"name": self.name, "uid": self.uid, "create_time": as_timestamp(self.created), **more}

    @property
    def uid(self) -> str:
        kind = "ep" if "/endpoints/" in self.name else "br" if "/branches/" in self.name else "pr"
        return f"{kind}-{uuid.uuid5(uuid.NAMESPACE_URL, self.name)}"


class Projects:
    """
    All projects, branches and endpoints. Used on the loop alone.

    One endpoint is there from the start, with its branch and project, and cannot be deleted. Those that clients create
    have names and states of their own, and their endpoints lead to the same server and the same data.
    """

    def __init__(self, endpoint: LocalEndpoint, operations: Operations) -> None:
        self._endpoint = endpoint
        self._operations = operations
        self._fixed = (endpoint.project, endpoint.branch, endpoint.name)
        self._all = {name: _Resource(name) for name in self._fixed}

    def has_endpoint_or_branch(self, name: Any) -> bool:
        """Whether a credential can be minted for it."""
        return isinstance(name, str) and name in self._all and "/branches/" in name

    def has_branch(self, name: str) -> bool:
        """Whether there is such a branch."""
        return self.has_endpoint_or_branch(name) and "/endpoints/" not in name

    def get(self, name: str) -> dict[str, Any]:
        """`GET /api/2.0/postgres/{name}` of each kind."""
        found = self._find(name)
        if "/endpoints/" in name:
            return self._endpoint_dict(found)
        return self._branch_dict(found) if "/branches/" in name else self._project_dict(found)

    def list(self, request: Request, parent: str, kind: str) -> dict[str, Any]:
        """`GET /api/2.0/postgres/{parent}/{kind}`: branches of a project, endpoints of a branch, or projects."""
        prefix = f"{parent}/{kind}/" if parent else f"{kind}/"
        if parent:
            self._find(parent)
        names = [name for name in self._all if name.startswith(prefix) and "/" not in name.removeprefix(prefix)]
        return as_page(request, kind, [self.get(name) for name in sorted(names)])

    def create(self, request: Request, parent: str, kind: str) -> dict[str, Any]:
        """`POST /api/2.0/postgres/{parent}/{kind}`."""
        if parent:
            self._find(parent)
        singular = {"projects": "project", "branches": "branch", "endpoints": "endpoint"}[kind]
        its_id = request.query.get(f"{singular}_id", "")
        if not _ID.fullmatch(its_id):
            raise ValueError(f"{singular}_id must be 1 to 63 lower-case letters, digits and hyphens, first a letter")
        name = f"{parent}/{kind}/{its_id}" if parent else f"{kind}/{its_id}"
        if name in self._all:
            raise ApiError(409, "ALREADY_EXISTS", f"{singular} {name!r} already exists")
        if len(self._all) >= _MOST:
            raise ApiError(400, "QUOTA_EXCEEDED", f"a local Lakebase keeps {_MOST} projects, branches and endpoints")
        spec = spec_of(request)
        if kind == "endpoints":
            self._check_endpoint(parent, spec)
        self._all[name] = _Resource(name, spec)
        if kind == "projects":
            # A project comes with its first branch and endpoint.
            branch = f"{name}/branches/production"
            for inner in (branch, f"{branch}/endpoints/primary"):
                self._all[inner] = _Resource(inner)
        return self._operations.finish(name, self.get(name))

    def delete(self, name: str) -> dict[str, Any]:
        """`DELETE /api/2.0/postgres/{name}`, with what is in it."""
        self._find(name)
        if name in self._fixed:
            raise ApiError(400, "INVALID_STATE", f"{name!r} is this local Lakebase itself: stop that to delete it")
        for inner in [each for each in self._all if each == name or each.startswith(f"{name}/")]:
            del self._all[inner]
        return self._operations.finish(name)

    def _check_endpoint(self, branch: str, spec: Mapping[str, Any]) -> None:
        kind = as_text("endpoint_type", spec.get("endpoint_type"), _READ_WRITE)
        if kind not in (_READ_WRITE, _READ_ONLY):
            raise ValueError(f"endpoint_type must be {_READ_WRITE} or {_READ_ONLY}")
        writable = [
            each for name, each in self._all.items() if name.startswith(f"{branch}/endpoints/") and _type(each) == kind
        ]
        if kind == _READ_WRITE and writable:
            raise ApiError(400, "INVALID_STATE", f"{branch!r} has a read-write endpoint already: {writable[0].name!r}")

    def _find(self, name: str) -> _Resource:
        try:
            return self._all[name]
        except KeyError:
            kind = "endpoint" if "/endpoints/" in name else "branch" if "/branches/" in name else "project"
            raise not_found(kind, name) from None

    def _endpoint_dict(self, found: _Resource) -> dict[str, Any]:
        endpoint = self._endpoint
        status: dict[str, Any] = {
            "endpoint_id": found.id,
            "endpoint_type": _type(found),
            "current_state": endpoint.state(),
            "hosts": dict(endpoint.hosts),
            "autoscaling_limit_min_cu": found.spec.get("autoscaling_limit_min_cu", endpoint.compute_units),
            "autoscaling_limit_max_cu": found.spec.get("autoscaling_limit_max_cu", endpoint.compute_units),
        }
        if found.spec.get("disabled") is True:
            status["disabled"] = True
        if isinstance(found.spec.get("suspend_timeout_duration"), str):
            status["suspend_timeout_duration"] = found.spec["suspend_timeout_duration"]
        elif endpoint.suspend_timeout is not None:
            status["suspend_timeout_duration"] = f"{endpoint.suspend_timeout:g}s"
        return found.as_dict(parent=found.name.rpartition("/endpoints/")[0], status=status)

    def _branch_dict(self, found: _Resource) -> dict[str, Any]:
        parent, _, branch_id = found.name.rpartition("/branches/")
        default = found.name == self._endpoint.branch or (
            parent != self._endpoint.project and branch_id == "production"
        )
        status = {"branch_id": branch_id, "current_state": "READY", "default": default}
        if isinstance(found.spec.get("source_branch"), str):
            status["source_branch"] = found.spec["source_branch"]
        return found.as_dict(parent=parent, status=status)

    def _project_dict(self, found: _Resource) -> dict[str, Any]:
        status = {
            "project_id": found.id,
            "display_name": found.spec.get("display_name") or found.id,
            "pg_version": self._endpoint.pg_version,
            "enable_pg_native_login": True,
        }
        return found.as_dict(status=status)


def _type(endpoint: _Resource) -> str:
    return str(endpoint.spec.get("endpoint_type") or _READ_WRITE)
