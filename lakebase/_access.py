"""What an identity should be allowed to do in a database, checked where it is given."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Literal, get_args

from pooling.errors import ConfigurationError

from ._role_names import LONGEST, role_name_problem

__all__ = ["Access", "IdentityKind", "Level"]

#: Whom a role is for, as the workspace knows it; `role` is a role that it does not know, as one with a native password.
IdentityKind = Literal["user", "service_principal", "group", "role"]
#: What a role may do: see a schema, read its tables, change their rows, or own schema and tables.
Level = Literal["usage", "read", "write", "own"]

_APPLICATION_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Access:
    """
    What an identity should be allowed to do.

    Args:
        identity: The user's e-mail address, the service principal's application id (its client id), or the group's
            name. It is also the name of the role.
        kind: What the identity is. `None` tells by its form: an application id is a service principal's, anything else
            a user's. A `role` of Postgres alone has to exist, and may have no login.
        schemas: The schemas concerned. Without any, only the role and its memberships are.
        level: `usage` is to find what is in the schemas; `read` is also to select from their tables and views; `write`
            is also to insert, update and delete, and to use sequences; `own` is to own schema, tables, views and
            sequences, and so to alter and drop them.
        tables: Of the one schema, the tables and views concerned; `None` is all of them. With `own` the role gets these
            tables and may create others, and the schema keeps its owner.
        future: Whether tables that are created later are included, for all tables with `read` or `write`.
        creators: The roles whose later tables are included; `None` is the schema's owner. Of the schema `public`, which
            belongs to the owner of the database, it is the role that is connected.
        member_of: Roles that it should be a member of, such as `databricks_superuser`.
        row_security: Whether policies must apply to it: the tables have row-level security enabled and forced, so
            that also their owner is subject to it, and the role does not bypass it.

    Raises:
        ConfigurationError: A name cannot be one, or the values do not fit together.
    """

    identity: str
    _: KW_ONLY
    kind: IdentityKind | None = None
    schemas: Sequence[str] = ()
    level: Level = "read"
    tables: Sequence[str] | None = None
    future: bool = True
    creators: Sequence[str] | None = None
    member_of: Sequence[str] = ()
    row_security: bool = False

    def __post_init__(self) -> None:
        _check_role("identity", self.identity)
        for field, allowed in (("kind", (None, *get_args(IdentityKind))), ("level", get_args(Level))):
            if (value := getattr(self, field)) not in allowed:
                raise ConfigurationError(f"{field}={value!r}: expected one of {_listed(allowed)}", field=field)
        for field in ("future", "row_security"):
            if not isinstance(value := getattr(self, field), bool):
                raise ConfigurationError(f"{field}={value!r}: expected True or False", field=field)
        if self.kind == "service_principal" and "@" in self.identity:
            raise ConfigurationError(
                f"identity={self.identity!r} is an e-mail address: the role of a service principal is its application "
                "id (its client id, a UUID)",
                field="identity",
            )
        for field in ("schemas", "tables", "creators", "member_of"):
            names = getattr(self, field)
            if names is not None:
                _check_names(field, names)
                object.__setattr__(self, field, tuple(dict.fromkeys(names)))
        for name in (*(self.creators or ()), *self.member_of):
            _check_role("creators" if name in (self.creators or ()) else "member_of", name)
        self._check_together()

    def _check_together(self) -> None:
        for schema in self.schemas:
            if schema.startswith("pg_") or schema == "information_schema":
                raise ConfigurationError(f"schemas: {schema!r} is a schema of Postgres itself", field="schemas")
        if self.tables is not None and (not self.tables or len(self.schemas) != 1):
            raise ConfigurationError(
                f"tables={list(self.tables)!r} with schemas={list(self.schemas)!r}: expected names of tables in one "
                "schema, or tables=None for all tables",
                field="tables",
            )
        if self.identity in self.member_of:
            raise ConfigurationError(f"member_of: {self.identity!r} cannot be a member of itself", field="member_of")

    @property
    def identity_kind(self) -> IdentityKind:
        """The kind, told by the identity's form if it was not given."""
        if self.kind is not None:
            return self.kind
        return "service_principal" if _APPLICATION_ID.fullmatch(self.identity) else "user"


def _check_names(field: str, names: object) -> None:
    """Refuse what is no list of names that Postgres keeps as they are."""
    if isinstance(names, str) or not isinstance(names, Sequence):
        hint = f", such as [{names!r}]" if isinstance(names, str) else ""
        raise ConfigurationError(f"{field}={names!r}: expected a list of names{hint}", field=field)
    for name in names:
        if not isinstance(name, str) or not name or not name.isprintable():
            raise ConfigurationError(f"{field}: {name!r} is no name", field=field)
        if (size := len(name.encode())) > LONGEST:
            raise ConfigurationError(
                f"{field}: {name!r} has {size} bytes, and Postgres keeps the first {LONGEST} of a name",
                field=field,
            )


def _check_role(field: str, name: object) -> None:
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"{field}={name!r}: expected the name of a role", field=field)
    if problem := role_name_problem(name):
        raise ConfigurationError(f"{field}={name!r} is no role's name: {problem}", field=field)


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(repr, values))
