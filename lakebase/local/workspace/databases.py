"""The databases of a branch: those of Postgres, whoever made them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..postgres import DATABASE, Catalog, DatabaseRow
from .answers import ApiError, as_page, as_text, not_found, spec_of
from .names import ResourceIds

if TYPE_CHECKING:
    from ..http_server import Request
    from .answers import Operations
    from .roles import RoleResources

__all__ = ["DatabaseResources"]

_LONGEST_NAME = 63


class DatabaseResources:
    """
    Lists, creates and deletes databases. Its methods block for some milliseconds.

    Args:
        catalog: Where the databases are.
        roles: The branch's roles, which own them.
        operations: Remembers what was done.
    """

    def __init__(self, catalog: Catalog, roles: RoleResources, operations: Operations) -> None:
        self._catalog = catalog
        self._roles = roles
        self._operations = operations
        self._ids = ResourceIds()

    def list(self, request: Request, branch: str) -> dict[str, Any]:
        """`GET /api/2.0/postgres/{branch}/databases`."""
        return as_page(request, "databases", [self._as_dict(branch, row) for row in self._catalog.list_databases()])

    def get(self, branch: str, database_id: str) -> dict[str, Any]:
        """`GET /api/2.0/postgres/{branch}/databases/{database_id}`."""
        return self._as_dict(branch, self._find(branch, database_id))

    def create(self, request: Request, branch: str) -> dict[str, Any]:
        """`POST /api/2.0/postgres/{branch}/databases`."""
        spec = spec_of(request)
        name = as_text("spec.postgres_database", spec.get("postgres_database"), request.query.get("database_id", ""))
        if not name or not name.isprintable() or len(name.encode()) > _LONGEST_NAME or name.startswith("template"):
            raise ValueError(f"spec.postgres_database={name!r} is no name of a database")
        owner = as_text("spec.role", spec.get("role"))
        if not owner.startswith(f"{branch}/roles/"):
            raise ValueError(f"spec.role must be the owner's resource name: {branch}/roles/…")
        owner = self._roles.postgres_name(branch, owner.rpartition("/")[2])
        if any(row.name == name for row in self._catalog.list_databases()):
            raise ApiError(409, "ALREADY_EXISTS", f"database {name!r} already exists")
        its_id = self._ids.claim(request.query.get("database_id"), name)
        self._catalog.create_database(name, owner)
        return self._operations.finish(f"{branch}/databases/{its_id}", self.get(branch, its_id))

    def delete(self, branch: str, database_id: str) -> dict[str, Any]:
        """`DELETE /api/2.0/postgres/{branch}/databases/{database_id}`."""
        row = self._find(branch, database_id)
        if row.name == DATABASE:
            raise ApiError(400, "INVALID_STATE", f"{DATABASE!r} comes with the project and cannot be deleted here")
        self._catalog.drop_database(row.name)
        self._ids.forget(row.name)
        return self._operations.finish(f"{branch}/databases/{database_id}")

    def _find(self, branch: str, database_id: str) -> DatabaseRow:
        for row in self._catalog.list_databases():
            if self._ids.id_of(row.name) == database_id:
                return row
        raise not_found("database", f"{branch}/databases/{database_id}")

    def _as_dict(self, branch: str, row: DatabaseRow) -> dict[str, Any]:
        its_id = self._ids.id_of(row.name)
        status = {
            "database_id": its_id,
            "postgres_database": row.name,
            "role": self._roles.resource_name(branch, row.owner),
        }
        return {"name": f"{branch}/databases/{its_id}", "database_id": its_id, "parent": branch, "status": status}
