"""
The workspace API: the part of a Databricks workspace's API that leads to a database credential.

Paths and answers are those of databricks-sdk's generated client:
https://github.com/databricks/databricks-sdk-py
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ..http_server import Request, Response
from .faults import WorkspaceFaults

if TYPE_CHECKING:
    from .issuer import Issuer, Principal

__all__ = ["LocalEndpoint", "WorkspaceApi"]

_ACCOUNT_ID = "00000000-0000-4000-8000-00000000acc0"
_WORKSPACE_ID = "1000000000000001"
# https://docs.databricks.com/api/workspace/postgres/generatedatabasecredential
_SHORTEST, _LONGEST = 300.0, 3600.0
_DURATION = re.compile(r"(\d+(?:\.\d{1,9})?)s")


class _ApiError(Exception):
    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.response = Response(status, {"error_code": code, "message": message}, dict(headers or {}))


@dataclass(frozen=True, slots=True)
class LocalEndpoint:
    """
    What the API says of the only endpoint, which is also the only instance.

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


class WorkspaceApi:
    """
    Answers requests. Runs on the loop.

    Args:
        issuer: Knows the tokens and mints credentials.
        endpoint: What the answers describe.
        url: Returns the workspace's own address.
        run: Runs a coroutine on the loop, for callers in other threads.
    """

    def __init__(
        self,
        issuer: Issuer,
        endpoint: LocalEndpoint,
        url: Callable[[], str],
        run: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._issuer = issuer
        self.faults = WorkspaceFaults(run)
        self._endpoint = endpoint
        self._url = url
        self._started = datetime.now(UTC)
        self.calls: dict[str, int] = {}
        get, post = "GET", "POST"
        project, branch = re.escape(endpoint.project), re.escape(endpoint.branch)
        name, instance = re.escape(endpoint.name), re.escape(endpoint.instance_name)
        self._routes: list[tuple[str, re.Pattern[str], Callable[[Request, Principal], Any]]] = [
            (get, re.compile(r"/api/2\.0/preview/scim/v2/Me"), self._me),
            (post, re.compile(r"/api/2\.0/postgres/credentials"), self._mint),
            (get, re.compile(rf"/api/2\.0/postgres/{name}"), self._get_endpoint),
            (get, re.compile(rf"/api/2\.0/postgres/{branch}/endpoints"), self._list_endpoints),
            (get, re.compile(rf"/api/2\.0/postgres/{branch}"), self._get_branch),
            (get, re.compile(rf"/api/2\.0/postgres/{project}/branches"), self._list_branches),
            (get, re.compile(r"/api/2\.0/postgres/projects"), self._list_projects),
            (post, re.compile(r"/api/2\.0/database/credentials"), self._mint_for_instances),
            (get, re.compile(r"/api/2\.0/database/instances"), self._list_instances),
            (get, re.compile(rf"/api/2\.0/database/instances/{instance}"), self._get_instance),
        ]

    async def answer(self, request: Request) -> Response:
        """The response to a request, which a fault may delay or replace."""
        name = f"{request.method} {request.path}"
        self.calls[name] = self.calls.get(name, 0) + 1
        fault = self.faults.strike("http", "delay", "hang", path=request.path)
        if fault is not None and fault.kind != "http":
            await fault.hold()
        try:
            if fault is not None and fault.kind == "http":
                headers = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
                raise _ApiError(fault.status, fault.code, fault.message, headers)
            return self._dispatch(request)
        except _ApiError as error:
            return error.response
        except ValueError as error:
            return _ApiError(400, "INVALID_PARAMETER_VALUE", str(error)).response

    def _dispatch(self, request: Request) -> Response:
        open_to_all = {
            "/.well-known/databricks-config": self._discovery,
            "/oidc/.well-known/oauth-authorization-server": self._oidc,
        }
        if request.path in open_to_all:
            return Response(200, open_to_all[request.path]())
        if request.path == "/oidc/v1/token":
            return self._token(request)
        principal = self._authenticated(request)
        allowed = False
        for method, pattern, handler in self._routes:
            if pattern.fullmatch(request.path):
                allowed = True
                if method == request.method:
                    return Response(200, handler(request, principal))
        if allowed:
            raise _ApiError(405, "METHOD_NOT_ALLOWED", f"{request.method} is not supported by {request.path}")
        raise _ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"No such resource in this local workspace: {request.path}")

    # Authentication

    def _authenticated(self, request: Request) -> Principal:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _ApiError(
                401, "UNAUTHENTICATED", "Credential was not sent or was of an unsupported type for this API."
            )
        principal = self._issuer.principal(token.strip())
        if principal is None:
            raise _ApiError(403, "PERMISSION_DENIED", "Invalid access token.")
        return principal

    def _discovery(self) -> dict[str, str]:
        return {
            "oidc_endpoint": f"{self._url()}/oidc",
            "account_id": _ACCOUNT_ID,
            "workspace_id": _WORKSPACE_ID,
            "cloud": "AWS",
        }

    def _oidc(self) -> dict[str, Any]:
        base = f"{self._url()}/oidc"
        return {
            "issuer": base,
            "authorization_endpoint": f"{base}/v1/authorize",
            "token_endpoint": f"{base}/v1/token",
            "grant_types_supported": ["client_credentials"],
        }

    def _token(self, request: Request) -> Response:
        # Errors of this one are OAuth's: https://www.rfc-editor.org/rfc/rfc6749#section-5.2
        form = request.form()
        if form.get("grant_type") != "client_credentials":
            return Response(400, {"error": "unsupported_grant_type", "error_description": "use client_credentials"})
        client_id, client_secret = form.get("client_id", ""), form.get("client_secret", "")
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                client_id, _, client_secret = base64.b64decode(encoded).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                pass  # no client has an empty id
        issued = self._issuer.access_token(client_id, client_secret)
        if issued is None:
            return Response(401, {"error": "invalid_client", "error_description": "Client authentication failed"})
        token, lifetime = issued
        return Response(
            200, {"access_token": token, "token_type": "Bearer", "expires_in": int(lifetime), "scope": "all-apis"}
        )

    def _me(self, _: Request, principal: Principal) -> dict[str, Any]:
        return {
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
            "id": principal.id,
            "userName": principal.name,
            "displayName": principal.name,
            "active": True,
            **(
                {} if principal.is_service else {"emails": [{"value": principal.name, "type": "work", "primary": True}]}
            ),
        }

    # Credentials

    def _mint(self, request: Request, principal: Principal) -> dict[str, Any]:
        body = request.json()
        endpoint = body.get("endpoint")
        if not endpoint:
            raise ValueError("endpoint is required")
        if endpoint not in (self._endpoint.name, self._endpoint.branch):
            raise _ApiError(404, "NOT_FOUND", f"endpoint {endpoint!r} does not exist")
        lifetime = self._lifetime(body)
        credential = self._issuer.mint(principal.name, lifetime=lifetime, claims=body.get("claims"))
        return {"token": credential.token, "expire_time": _timestamp(credential.expires_at)}

    def _lifetime(self, body: Mapping[str, Any]) -> float | None:
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

    def _mint_for_instances(self, request: Request, principal: Principal) -> dict[str, Any]:
        body = request.json()
        names = body.get("instance_names") or []
        if not isinstance(names, list):
            raise ValueError("instance_names must be a list of names")  # noqa: TRY004
        if not names and not body.get("claims"):
            raise ValueError("at least one of instance_names or claims must be specified")
        for name in names:
            if name != self._endpoint.instance_name:
                raise _ApiError(404, "NOT_FOUND", f"Database instance {name!r} does not exist")
        credential = self._issuer.mint(principal.name, claims=body.get("claims"))
        return {"token": credential.token, "expiration_time": _timestamp(credential.expires_at)}

    # Autoscaling

    def _get_endpoint(self, *_: Any) -> dict[str, Any]:
        endpoint = self._endpoint
        status: dict[str, Any] = {
            "endpoint_id": endpoint.name.rpartition("/")[2],
            "endpoint_type": "ENDPOINT_TYPE_READ_WRITE",
            "current_state": endpoint.state(),
            "hosts": dict(endpoint.hosts),
            "autoscaling_limit_min_cu": endpoint.compute_units,
            "autoscaling_limit_max_cu": endpoint.compute_units,
        }
        if endpoint.suspend_timeout is not None:
            status["suspend_timeout_duration"] = f"{endpoint.suspend_timeout:g}s"
        return {
            "name": endpoint.name,
            "parent": endpoint.branch,
            "uid": f"ep-{uuid.uuid5(uuid.NAMESPACE_URL, endpoint.name)}",
            "create_time": _timestamp(self._started.timestamp()),
            "status": status,
        }

    def _list_endpoints(self, *_: Any) -> dict[str, Any]:
        return {"endpoints": [self._get_endpoint()]}

    def _get_branch(self, *_: Any) -> dict[str, Any]:
        return {
            "name": self._endpoint.branch,
            "parent": self._endpoint.project,
            "uid": f"br-{uuid.uuid5(uuid.NAMESPACE_URL, self._endpoint.branch)}",
            "status": {"current_state": "READY", "default": True},
        }

    def _list_branches(self, *_: Any) -> dict[str, Any]:
        return {"branches": [self._get_branch()]}

    def _list_projects(self, *_: Any) -> dict[str, Any]:
        name = self._endpoint.project
        return {"projects": [{"name": name, "status": {"display_name": name.rpartition("/")[2]}}]}

    # Provisioned

    def _get_instance(self, *_: Any) -> dict[str, Any]:
        endpoint = self._endpoint
        instance = {
            "name": endpoint.instance_name,
            "uid": str(uuid.uuid5(uuid.NAMESPACE_URL, endpoint.instance_name)),
            "state": "AVAILABLE",
            "pg_version": f"PG_VERSION_{endpoint.pg_version}",
            "read_write_dns": endpoint.hosts["host"],
            "creation_time": _timestamp(self._started.timestamp()),
            "effective_enable_pg_native_login": True,
            "effective_enable_readable_secondaries": "read_only_host" in endpoint.hosts,
        }
        if "read_only_host" in endpoint.hosts:
            instance["read_only_dns"] = endpoint.hosts["read_only_host"]
        return instance

    def _list_instances(self, *_: Any) -> dict[str, Any]:
        return {"database_instances": [self._get_instance()]}


def _timestamp(unix: float) -> str:
    return (datetime.fromtimestamp(0, UTC) + timedelta(seconds=unix)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
