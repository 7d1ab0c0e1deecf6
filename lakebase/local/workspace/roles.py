"""The roles of a branch: those of Postgres, whoever made them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .answers import ApiError, as_list, as_page, as_text, not_found, spec_of
from .names import ResourceIds

if TYPE_CHECKING:
    from ..http_server import Request
    from ..postgres import Catalog, Login, RoleRow
    from .answers import Operations
    from .issuer import Issuer

__all__ = ["RoleResources"]

_METHODS: dict[str, Login] = {
    "LAKEBASE_OAUTH_V1": "token",
    "PG_PASSWORD_SCRAM_SHA_256": "password",
    "NO_LOGIN": "none",
}
_ATTRIBUTES = ("createdb", "createrole", "bypassrls")
_IDENTITIES = ("USER", "SERVICE_PRINCIPAL", "GROUP")
_OWNERS = "DATABRICKS_SUPERUSER"


class RoleResources:
    """
    Lists, creates and deletes roles. Its methods block for some milliseconds.

    Args:
        catalog: Where the roles are.
        issuer: Knows which of them are service principals.
        operations: Remembers what was done.
        owner: The role that may grant new ones.
    """

    def __init__(self, catalog: Catalog, issuer: Issuer, operations: Operations, owner: str) -> None:
        self._owner = owner
        self._catalog = catalog
        self._issuer = issuer
        self._operations = operations
        self._ids = ResourceIds()
        self._passwords: dict[str, str] = {}

    def list(self, request: Request, branch: str) -> dict[str, Any]:
        """`GET /api/2.0/postgres/{branch}/roles`."""
        return as_page(request, "roles", [self._as_dict(branch, row) for row in self._catalog.list_roles()])

    def get(self, branch: str, role_id: str) -> dict[str, Any]:
        """`GET /api/2.0/postgres/{branch}/roles/{role_id}`."""
        return self._as_dict(branch, self._find(branch, role_id))

    def create(self, request: Request, branch: str) -> dict[str, Any]:
        """`POST /api/2.0/postgres/{branch}/roles`."""
        spec = spec_of(request)
        name = as_text("spec.postgres_role", spec.get("postgres_role"), request.query.get("role_id", ""))
        attributes = spec.get("attributes") or {}
        if not isinstance(attributes, Mapping) or not attributes.keys() <= set(_ATTRIBUTES):
            raise ValueError(f"spec.attributes may have {', '.join(_ATTRIBUTES)}")
        members = as_list("spec.membership_roles", spec.get("membership_roles"))
        if not set(members) <= {_OWNERS}:
            raise ValueError(f"spec.membership_roles may have {_OWNERS}")
        if any(row.name == name for row in self._catalog.list_roles()):
            raise ApiError(409, "ALREADY_EXISTS", f"role {name!r} already exists")
        its_id = self._ids.claim(request.query.get("role_id"), name)
        login, password = _login_method(spec), secrets.token_urlsafe(24)
        self._catalog.create_role(
            name,
            login=login,
            password=password,
            attributes=[each for each in _ATTRIBUTES if attributes.get(each) is True],
            is_superuser_member=bool(members),
            manager=self._owner,
            kind=as_text("spec.identity_type", spec.get("identity_type")).lower() or "user",
        )
        if login == "password":
            self._passwords[name] = password
        return self._operations.finish(f"{branch}/roles/{its_id}", self.get(branch, its_id))

    def delete(self, request: Request, branch: str, role_id: str) -> dict[str, Any]:
        """`DELETE /api/2.0/postgres/{branch}/roles/{role_id}`."""
        row = self._find(branch, role_id)
        heir = request.query.get("reassign_owned_to")
        # As a resource's name, or as Postgres'.
        new = self._find(branch, heir.rpartition("/")[2]).name if heir and heir.startswith(f"{branch}/") else heir
        self._catalog.drop_role(row.name, new or None)
        self._ids.forget(row.name)
        self._passwords.pop(row.name, None)
        return self._operations.finish(f"{branch}/roles/{role_id}")

    def reveal_password(self, branch: str, role_id: str) -> dict[str, str]:
        """`POST /api/2.0/postgres/{branch}/roles/{role_id}/password`: of a role that was created here."""
        row = self._find(branch, role_id)
        if row.name not in self._passwords:
            raise ApiError(400, "INVALID_STATE", f"role {row.name!r} has no password that is known here")
        return {"password": self._passwords[row.name]}

    def postgres_name(self, branch: str, role_id: str) -> str:
        """The name in Postgres of that role."""
        return self._find(branch, role_id).name

    def resource_name(self, branch: str, name: str) -> str:
        """The name in the workspace of a role of Postgres."""
        return f"{branch}/roles/{self._ids.id_of(name)}"

    def _find(self, branch: str, role_id: str) -> RoleRow:
        for row in self._catalog.list_roles():
            if self._ids.id_of(row.name) == role_id:
                return row
        raise not_found("role", f"{branch}/roles/{role_id}")

    def _as_dict(self, branch: str, row: RoleRow) -> dict[str, Any]:
        role_id = self._ids.id_of(row.name)
        status: dict[str, Any] = {
            "role_id": role_id,
            "postgres_role": row.name,
            "auth_method": next(method for method, login in _METHODS.items() if login == row.login),
            "attributes": {name: getattr(row, name) for name in _ATTRIBUTES},
            "membership_roles": [_OWNERS] if row.is_superuser_member else [],
        }
        if row.login == "token":
            status["identity_type"] = "SERVICE_PRINCIPAL" if self._issuer.is_service(row.name) else "USER"
        return {"name": f"{branch}/roles/{role_id}", "role_id": role_id, "parent": branch, "status": status}


def _login_method(spec: Mapping[str, Any]) -> Login:
    identity = as_text("spec.identity_type", spec.get("identity_type"))
    if identity not in ("", *_IDENTITIES):
        raise ValueError(f"spec.identity_type must be one of {', '.join(_IDENTITIES)}")
    usual = "LAKEBASE_OAUTH_V1" if identity else "PG_PASSWORD_SCRAM_SHA_256"
    method = as_text("spec.auth_method", spec.get("auth_method"), usual)
    if method not in _METHODS:
        raise ValueError(f"spec.auth_method must be one of {', '.join(_METHODS)}")
    return _METHODS[method]
