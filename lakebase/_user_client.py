"""
A user's requests to the workspace, without the Databricks SDK.

Minting with a user's own token is one request. The SDK takes a second and 75 MB to import, and asks the workspace about
itself for each client; it is left to the app's own identity, which needs its authentication.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from ._http import connections_to
from ._workspace_errors import InvalidAnswer, Unauthenticated, Unreachable, WorkspaceError, error_for

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

    from ._http import Connections

__all__ = ["UserClient", "library_version", "workspace_at"]


@cache
def library_version() -> str:
    """The version of this library, for the workspace's log."""
    try:
        return version("lakebase-pooling")
    except PackageNotFoundError:  # run from a source tree
        return "0.0.0"


def workspace_at(host: str | None) -> Connections | None:
    """
    The connections to a workspace by its address, or to the environment's; `None` if there is no address.

    Does no I/O.
    """
    host = host or os.environ.get("DATABRICKS_HOST")
    if not host:
        return None
    url = host if "://" in host else f"https://{host}"
    return connections_to(url.partition("?")[0].rstrip("/"))


class Answer(dict[str, Any]):
    """A JSON object whose members are attributes; one that is missing is `None`, as in the SDK's answers."""

    def __getattr__(self, name: str) -> Any:
        return self.get(name)


class UserClient:
    """
    The part of a `databricks.sdk.WorkspaceClient` that this library uses, as the owner of a token.

    Cheap to make: all clients of a workspace share its connections. Every call blocks for a request, and raises a
    `WorkspaceError`. Nothing is tried twice: the callers do that.

    Args:
        workspace: The connections to it.
        token: The user's.
    """

    def __init__(self, workspace: Connections, token: str) -> None:
        self._workspace = workspace
        self.config = _Config(workspace.url, token)
        self.postgres = _Postgres(self)
        self.database = _Database(self)
        self.current_user = _CurrentUser(self)

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        """The answer to one request."""
        if not self.config.token.isascii() or not self.config.token.isprintable():
            raise Unauthenticated("the token has characters that cannot be in one")  # the HTTP client would show it
        headers = {
            "Authorization": f"Bearer {self.config.token}",
            "Accept": "application/json",
            "User-Agent": f"lakebase-pooling/{library_version()}",
        }
        # Of a host that serves more than one workspace.
        if workspace_id := os.environ.get("DATABRICKS_WORKSPACE_ID"):
            headers["X-Databricks-Workspace-Id"] = workspace_id
        if body is not None:
            headers["Content-Type"] = "application/json"
        data = None if body is None else json.dumps(body).encode()
        return _content_of(self._answer(method, path, headers, data))

    def _answer(self, method: str, path: str, headers: dict[str, str], data: bytes | None) -> BaseHTTPResponse:
        try:
            return self._workspace.request(method, path, headers=headers, body=data)
        except Exception as error:
            if (known := _without_answer(error, self.config.host)) is None:
                raise
            raise known from error


class _Config:
    """Where, and as whom."""

    def __init__(self, host: str, token: str) -> None:
        self.host = host
        self.token = token


class _Postgres:
    """Autoscaling endpoints: https://docs.databricks.com/api/workspace/postgres."""

    def __init__(self, client: UserClient) -> None:
        self._ask = client.ask

    def generate_database_credential(self, *, endpoint: str, claims: Sequence[Any] | None = None) -> Answer:
        """`token` and `expire_time`."""
        body = {"endpoint": endpoint, "claims": None if claims is None else [claim.as_dict() for claim in claims]}
        return self._ask("POST", "/api/2.0/postgres/credentials", _without_none(body))

    def get_endpoint(self, name: str) -> Answer:
        """`name` and `status`."""
        return self._ask("GET", f"/api/2.0/postgres/{name}")

    def list_endpoints(self, parent: str) -> Iterator[Answer]:
        """Those of a branch, page by page."""
        return self._all(parent, "endpoints")

    def list_roles(self, parent: str) -> Iterator[Answer]:
        """Those of a branch, page by page; each with its `status`."""
        return self._all(parent, "roles")

    def _all(self, parent: str, kind: str) -> Iterator[Answer]:
        page: str | None = ""
        while page is not None:
            query = f"?{urlencode({'page_token': page})}" if page else ""
            answer = self._ask("GET", f"/api/2.0/postgres/{parent}/{kind}{query}")
            yield from answer.get(kind) or ()
            page = answer.next_page_token or None


class _Database:
    """Provisioned instances: https://docs.databricks.com/api/workspace/database."""

    def __init__(self, client: UserClient) -> None:
        self._ask = client.ask

    def generate_database_credential(
        self, *, instance_names: Sequence[str], claims: Sequence[Any] | None = None
    ) -> Answer:
        """`token` and `expiration_time`."""
        import uuid

        body = {
            "instance_names": list(instance_names),
            "request_id": str(uuid.uuid4()),
            "claims": None if claims is None else [claim.as_dict() for claim in claims],
        }
        return self._ask("POST", "/api/2.0/database/credentials", _without_none(body))

    def get_database_instance(self, name: str) -> Answer:
        """`read_write_dns` and `read_only_dns`."""
        return self._ask("GET", f"/api/2.0/database/instances/{name}")


class _CurrentUser:
    def __init__(self, client: UserClient) -> None:
        self._ask = client.ask

    def me(self) -> Answer:
        """`user_name` and `id`."""
        answer = self._ask("GET", "/api/2.0/preview/scim/v2/Me")
        return Answer(user_name=answer.userName, id=answer.id)


def _without_none(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}


def _without_answer(error: Exception, url: str) -> WorkspaceError | None:
    """What kept a request from being answered, or `None` if it is nothing that is expected here."""
    from urllib3 import exceptions

    if isinstance(error, (ValueError, exceptions.ProxySchemeUnknown, ImportError)):
        return WorkspaceError(f"{url} cannot be asked: {error}. Check its address, and HTTPS_PROXY")
    if isinstance(error, exceptions.SSLError):
        return WorkspaceError(f"no trusted connection to {url}: {error}. Certificates of your own: REQUESTS_CA_BUNDLE")
    if isinstance(error, exceptions.HTTPError):
        return Unreachable(f"no answer from {url}: {error}")
    if isinstance(error, OSError):
        return WorkspaceError(f"the trusted certificates cannot be read: {error}. Check REQUESTS_CA_BUNDLE")
    return None


def _content_of(response: BaseHTTPResponse) -> Answer:
    try:
        content = json.loads(response.data or b"{}", object_hook=Answer)
    except ValueError:
        content = None
    if response.status < 300 and isinstance(content, Answer):
        return content
    if response.status < 400:
        target = urlsplit(response.headers.get("Location", "")).netloc
        found = f"a redirection to {target}" if target else "an answer that is no JSON object"
        raise InvalidAnswer(f"{found}. Check that this is the workspace's address, and that this network may reach it")
    words = isinstance(content, Answer) and (content.message or content.detail or content.error)
    raise error_for(
        response.status,
        str(words or f"status {response.status} {response.reason or ''}".strip()),
        response.headers.get("Retry-After"),
    )
