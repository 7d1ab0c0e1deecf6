"""
The workspace API: the part of a Databricks workspace's API that leads to a database and its credentials.

Paths and answers are those of databricks-sdk's generated client:
https://github.com/databricks/databricks-sdk-py
Each resource has a file of its own; this one says which request goes where, and who may send it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from ..errors import LocalLakebaseError
from ..http_server import Request, Response
from .answers import ApiError, Operations
from .credentials import Credentials
from .databases import DatabaseResources
from .faults import WorkspaceFaults
from .instances import Instances
from .oauth import OAuth
from .projects import Projects
from .roles import RoleResources

if TYPE_CHECKING:
    from ..postgres import Catalog
    from .issuer import Issuer, Principal
    from .projects import LocalEndpoint

__all__ = ["WorkspaceApi"]

# The scope that an app's user authorization needs: https://docs.databricks.com/aws/en/dev-tools/databricks-apps/auth
_SCOPE = "postgres"
_PROJECT, _BRANCH = r"projects/[^/]+", r"projects/[^/]+/branches/[^/]+"


class _Call(NamedTuple):
    """A request, who sends it, and the parts of its path that the route has groups for."""

    request: Request
    principal: Principal
    parts: tuple[str, ...]


class _Route(NamedTuple):
    method: str
    path: re.Pattern[str]
    handler: Callable[[_Call], dict[str, Any]]
    #: Whether it talks to Postgres, and so runs in a thread.
    blocks: bool = False
    #: Whether it changes what all users share, which only the owner may.
    changes: bool = False


class WorkspaceApi:
    """
    Answers requests. Runs on the loop.

    Args:
        issuer: Knows the tokens and mints credentials.
        endpoint: What the answers describe.
        catalog: The roles and databases.
        owner: Who may create and delete.
        url: Returns the workspace's own address.
        run: Runs a coroutine on the loop, for callers in other threads.
    """

    def __init__(
        self,
        issuer: Issuer,
        endpoint: LocalEndpoint,
        catalog: Catalog,
        *,
        owner: str,
        url: Callable[[], str],
        run: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self.faults: WorkspaceFaults = WorkspaceFaults(run)
        self.calls: dict[str, int] = {}
        self._owner = owner
        # One at a time talks to Postgres: what is checked there must still hold when it is changed.
        self._turn = asyncio.Lock()
        self._oauth = OAuth(issuer, url)
        self._operations = Operations()
        self._projects = Projects(endpoint, self._operations)
        self._credentials = Credentials(issuer, self._projects, endpoint.instance_name)
        self._instances = Instances(endpoint, time.time())
        self._roles = RoleResources(catalog, issuer, self._operations, owner)
        self._databases = DatabaseResources(catalog, self._roles, self._operations)
        self._routes = [
            *self._routes_of_projects(),
            *self._routes_of_roles(),
            *self._routes_of_databases(),
            _route("GET", r"preview/scim/v2/Me", lambda call: _me(call.principal)),
            _route("GET", r"postgres/(.+/operations/[^/]+)", lambda call: self._operations.get(*call.parts)),
            _route("POST", r"postgres/credentials", lambda call: self._credentials.for_endpoint(*call[:2])),
            _route("POST", r"database/credentials", lambda call: self._credentials.for_instances(*call[:2])),
            _route("GET", r"database/instances", lambda call: self._instances.list(call.request)),
            _route("GET", r"database/instances/([^/]+)", lambda call: self._instances.get(*call.parts)),
        ]

    def _routes_of_projects(self) -> list[_Route]:
        projects = self._projects
        one = rf"postgres/({_BRANCH}/endpoints/[^/]+|{_BRANCH}|{_PROJECT})"
        several = rf"postgres/(?:({_PROJECT})/(branches)|({_BRANCH})/(endpoints)|()(projects))"

        def place(call: _Call) -> tuple[str, str]:
            parent, kind = (part for part in call.parts if part is not None)
            return parent, kind

        return [
            _route("GET", one, lambda call: projects.get(*call.parts)),
            _route("DELETE", one, lambda call: projects.delete(*call.parts), changes=True),
            _route("GET", several, lambda call: projects.list(call.request, *place(call))),
            _route("POST", several, lambda call: projects.create(call.request, *place(call)), changes=True),
        ]

    def _routes_of_roles(self) -> list[_Route]:
        roles, all_of_them = self._roles, rf"postgres/({_BRANCH})/roles"
        one = rf"{all_of_them}/([^/]+)"
        return [
            _route("GET", all_of_them, lambda call: roles.list(call.request, *call.parts), blocks=True),
            _route("POST", all_of_them, lambda call: roles.create(call.request, *call.parts), True, True),
            _route("GET", one, lambda call: roles.get(*call.parts), blocks=True),
            _route("DELETE", one, lambda call: roles.delete(call.request, *call.parts), True, True),
            _route("POST", rf"{one}/password", lambda call: roles.reveal_password(*call.parts), True, True),
        ]

    def _routes_of_databases(self) -> list[_Route]:
        databases, all_of_them = self._databases, rf"postgres/({_BRANCH})/databases"
        one = rf"{all_of_them}/([^/]+)"
        return [
            _route("GET", all_of_them, lambda call: databases.list(call.request, *call.parts), blocks=True),
            _route("POST", all_of_them, lambda call: databases.create(call.request, *call.parts), True, True),
            _route("GET", one, lambda call: databases.get(*call.parts), blocks=True),
            _route("DELETE", one, lambda call: databases.delete(*call.parts), True, True),
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
                raise ApiError(fault.status, fault.code, fault.message, headers)
            return await self._dispatch(request)
        except ApiError as error:
            return error.response
        except (ValueError, LocalLakebaseError, psycopg.DatabaseError) as error:
            unavailable = isinstance(error, psycopg.OperationalError)
            code = (503, "TEMPORARILY_UNAVAILABLE") if unavailable else (400, "INVALID_PARAMETER_VALUE")
            return ApiError(*code, str(error)).response

    async def _dispatch(self, request: Request) -> Response:
        open_to_all = {
            "/.well-known/databricks-config": self._oauth.discovery,
            "/oidc/.well-known/oauth-authorization-server": self._oauth.server_metadata,
        }
        if request.path in open_to_all:
            return Response(200, open_to_all[request.path]())
        if request.path == "/oidc/v1/token":
            return self._oauth.token(request)
        principal = self._oauth.principal(request)
        _check_scope(request, principal)
        found = [(route, match) for route in self._routes if (match := route.path.fullmatch(request.path))]
        for route, match in found:
            if route.method == request.method:
                self._check_owner(route, principal)
                self._check_branch(match)
                call = _Call(request, principal, match.groups())
                return Response(200, await self._handle(route, call))
        if found:
            raise ApiError(405, "METHOD_NOT_ALLOWED", f"{request.method} is not supported by {request.path}")
        raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"No such resource in this local workspace: {request.path}")

    async def _handle(self, route: _Route, call: _Call) -> dict[str, Any]:
        if not route.blocks:
            return route.handler(call)
        async with self._turn:
            return await asyncio.to_thread(route.handler, call)

    def _check_owner(self, route: _Route, principal: Principal) -> None:
        if route.changes and principal.name != self._owner:
            raise ApiError(
                403,
                "PERMISSION_DENIED",
                f"{principal.name!r} does not have CAN MANAGE on the project; in a local workspace {self._owner} has",
            )

    def _check_branch(self, match: re.Match[str]) -> None:
        """Roles and databases are asked for in a branch that there is."""
        branch = re.match(rf"/api/2\.0/postgres/({_BRANCH})/(?:roles|databases)\b", match[0])
        if branch is not None:
            self._projects.get(branch[1])


def _route(
    method: str,
    path: str,
    handler: Callable[[_Call], dict[str, Any]],
    blocks: bool = False,
    changes: bool = False,
) -> _Route:
    return _Route(method, re.compile(rf"/api/2\.0/{path}"), handler, blocks, changes)


def _check_scope(request: Request, principal: Principal) -> None:
    needed = request.path.startswith(("/api/2.0/postgres/", "/api/2.0/database/"))
    if needed and principal.scopes is not None and _SCOPE not in principal.scopes:
        raise ApiError(403, "PERMISSION_DENIED", f"Provided OAuth token does not have required scopes: {_SCOPE}")


def _me(principal: Principal) -> dict[str, Any]:
    emails = [{"value": principal.name, "type": "work", "primary": True}]
    return {
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "id": principal.id,
        "userName": principal.name,
        "displayName": principal.name,
        "active": True,
        **({} if principal.is_service else {"emails": emails}),
    }
