"""Statements that create a role and say what it may do. Nothing here asks the database."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from psycopg import sql

from pooling.errors import ConfigurationError

if TYPE_CHECKING:
    from typing import LiteralString

    from ._access import Access, IdentityKind, Level

__all__ = [
    "CREATE_EXTENSION",
    "PRIVILEGES",
    "Objects",
    "Privilege",
    "alter_role",
    "create_role",
    "create_role_statements",
    "default_privileges",
    "grant_statements",
    "laid_out",
    "membership",
    "new_owner",
    "on_all",
    "privileges_on",
    "revoke_statements",
    "row_security",
    "row_security_statements",
]

Privilege = Literal["CONNECT", "CREATE", "DELETE", "INSERT", "SELECT", "UPDATE", "USAGE"]
#: What privileges of a schema's contents are on.
Objects = Literal["TABLE", "SEQUENCE"]
Verb = Literal["GRANT", "REVOKE"]

#: What a level needs on each table or view, and for `nextval` and `currval` on each sequence. An owner may do all.
PRIVILEGES: Mapping[Objects, Mapping[Level, tuple[Privilege, ...]]] = {
    "TABLE": {"usage": (), "read": ("SELECT",), "write": ("SELECT", "INSERT", "UPDATE", "DELETE"), "own": ()},
    "SEQUENCE": {"usage": (), "read": (), "write": ("USAGE",), "own": ()},
}
# A word of SQL; a quoted one may have spaces.
_WORD = re.compile(r"""(?:"(?:[^"]|"")*"|'(?:[^']|'')*'|[^\s"'])+""")
CREATE_EXTENSION = "CREATE EXTENSION IF NOT EXISTS databricks_auth"


def create_role_statements(identity: str, kind: IdentityKind = "user") -> list[str]:
    """
    The statements that let an identity of the workspace log in with its token.

    Lakebase makes such a role by a function of its own; one made by `CREATE ROLE` cannot log in with a token:
    https://docs.databricks.com/aws/en/oltp/projects/postgres-roles

    Args:
        identity: The e-mail address, application id or group name; also the role's name.
        kind: What it is; not `role`.

    Raises:
        ConfigurationError: It is none of the workspace's identities.
    """
    if kind == "role":
        raise ConfigurationError("kind='role': expected an identity of the workspace", field="kind")
    return [CREATE_EXTENSION, create_role(identity, kind)]


def create_role(identity: str, kind: IdentityKind, schema: str | None = None) -> str:
    """The call of Lakebase's function that makes a role; `schema` is where the function is, if that is known."""
    place = sql.SQL("") if schema is None else sql.SQL("{}.").format(sql.Identifier(schema))
    return _text("SELECT {}databricks_create_role({}, {})", place, sql.Literal(identity), sql.Literal(kind.upper()))


def grant_statements(access: Access) -> list[str]:
    """
    The statements that allow what an `Access` says, for a role that exists and a database that is not looked at.

    Running them twice does no harm. `check` asks the database: it leaves out what is allowed already, and it finds what
    cannot be known here, as the sequences of named tables, and with `level="own"` all tables of a schema.
    """
    return [*_statements(access, "GRANT"), *_ownership(access), *_policies(access)]


def revoke_statements(access: Access) -> list[str]:
    """
    The statements that take back what `grant_statements` of the same `Access` allows.

    The role stays, and so does what it may do as a member of another role or like everybody. Row-level security stays
    as it is.

    Raises:
        ConfigurationError: With `level="own"`, since what is owned always has an owner: give it to another role.
    """
    if access.level == "own":
        raise ConfigurationError(
            "level='own' cannot be taken back: give what is owned to another role, with Access(another, level='own')",
            field="level",
        )
    return [*_statements(access, "REVOKE")][::-1]


def row_security_statements(schema: str, tables: Sequence[str]) -> list[str]:
    """
    The statements that let the policies of some tables apply to every role, also to their owner.

    A table without a policy then hides all its rows. Superusers and roles with BYPASSRLS see them still:
    https://www.postgresql.org/docs/current/ddl-rowsecurity.html
    """
    return [row_security(schema, table, word) for table in tables for word in ("ENABLE", "FORCE")]


def row_security(schema: str, table: str, word: LiteralString) -> str:
    """The statement that enables or forces row-level security on a table."""
    return _text("ALTER TABLE {} {} ROW LEVEL SECURITY", sql.Identifier(schema, table), sql.SQL(word))


def privileges_on(
    objects: Objects | Literal["DATABASE", "SCHEMA"],
    names: Sequence[tuple[str, ...]],
    privileges: Sequence[Privilege],
    role: str,
    verb: Verb = "GRANT",
) -> str:
    """The statement that grants or revokes privileges on objects, each given by the parts of its name."""
    quoted = sql.SQL(", ").join(sql.Identifier(*name) for name in names)
    return _privileges(verb, privileges, sql.SQL("{} {}").format(sql.SQL(objects), quoted), role)


def on_all(
    objects: Objects,
    schema: str,
    privileges: Sequence[Privilege],
    role: str,
    verb: Verb = "GRANT",
) -> str:
    """As `privileges_on`, on all tables or sequences that a schema has now."""
    place = sql.SQL("ALL {}S IN SCHEMA {}").format(sql.SQL(objects), sql.Identifier(schema))
    return _privileges(verb, privileges, place, role)


def default_privileges(
    objects: Objects,
    schema: str,
    privileges: Sequence[Privilege],
    role: str,
    *,
    creator: str | None,
    verb: Verb = "GRANT",
) -> str:
    """The statement on tables or sequences that `creator` makes later; `None` is the role that runs it."""
    whose = sql.SQL("") if creator is None else sql.SQL(" FOR ROLE {}").format(sql.Identifier(creator))
    begin = sql.SQL("ALTER DEFAULT PRIVILEGES{} IN SCHEMA {} ").format(whose, sql.Identifier(schema))
    return begin.as_string() + _privileges(verb, privileges, sql.SQL("{}S").format(sql.SQL(objects)), role)


def membership(group: str, member: str, verb: Verb = "GRANT") -> str:
    """The statement that makes a role a member of another, or ends that."""
    toward = sql.SQL("TO" if verb == "GRANT" else "FROM")
    return _text("{} {} {} {}", sql.SQL(verb), sql.Identifier(group), toward, sql.Identifier(member))


def new_owner(kind: LiteralString, name: tuple[str, ...], role: str) -> str:
    """The statement that gives an object to another owner; its kind is SCHEMA, TABLE, VIEW, …."""
    return _text("ALTER {} {} OWNER TO {}", sql.SQL(kind), sql.Identifier(*name), sql.Identifier(role))


def alter_role(role: str, attribute: LiteralString) -> str:
    """The statement that gives a role an attribute."""
    return _text("ALTER ROLE {} {}", sql.Identifier(role), sql.SQL(attribute))


def laid_out(statement: str, width: int) -> str:
    """A statement in lines that are no wider, unless a single word of it is."""
    lines, line = [], ""
    for word in _WORD.findall(statement):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = f"    {word}"
        else:
            line = f"{line} {word}" if line else word
    return "\n".join([*lines, line])


def _statements(access: Access, verb: Verb) -> Iterator[str]:
    role, level = access.identity, access.level
    for group in access.member_of:
        yield membership(group, role, verb)
    for schema in access.schemas:
        owns_tables = level == "own" and access.tables is not None
        yield privileges_on("SCHEMA", [(schema,)], ("USAGE", "CREATE") if owns_tables else ("USAGE",), role, verb)
        if access.tables is None:
            yield from _on_all_objects(access, schema, verb)
        elif privileges := PRIVILEGES["TABLE"][level]:
            yield privileges_on("TABLE", [(schema, table) for table in access.tables], privileges, role, verb)


def _on_all_objects(access: Access, schema: str, verb: Verb) -> Iterator[str]:
    wanted: list[tuple[Objects, tuple[Privilege, ...]]] = [
        (objects, privileges) for objects, of_level in PRIVILEGES.items() if (privileges := of_level[access.level])
    ]
    for objects, privileges in wanted:
        yield on_all(objects, schema, privileges, access.identity, verb)
    creators: Sequence[str | None] = [None] if access.creators is None else access.creators
    for creator in creators if access.future else ():
        for objects, privileges in wanted:
            yield default_privileges(objects, schema, privileges, access.identity, creator=creator, verb=verb)


def _ownership(access: Access) -> Iterator[str]:
    if access.level != "own":
        return
    for schema in access.schemas:
        if access.tables is None:
            yield new_owner("SCHEMA", (schema,), access.identity)
        for table in access.tables or ():
            yield new_owner("TABLE", (schema, table), access.identity)


def _policies(access: Access) -> list[str]:
    if not access.row_security or access.tables is None:
        return []
    return row_security_statements(access.schemas[0], access.tables)


def _privileges(verb: Verb, privileges: Sequence[Privilege], on: sql.Composable, role: str) -> str:
    words = sql.SQL(", ").join(map(sql.SQL, privileges))
    toward = sql.SQL("TO" if verb == "GRANT" else "FROM")
    return _text("{} {} ON {} {} {}", sql.SQL(verb), words, on, toward, sql.Identifier(role))


def _text(template: LiteralString, *parts: sql.Composable) -> str:
    return sql.SQL(template).format(*parts).as_string()
