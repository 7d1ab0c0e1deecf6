"""What is missing of what should be allowed: decided from facts of the catalogue, and written as statements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, LiteralString

from ._role_facts import DATABASE_OWNER
from ._role_sql import (
    CREATE_EXTENSION,
    PRIVILEGES,
    alter_role,
    create_role,
    default_privileges,
    membership,
    new_owner,
    on_all,
    privileges_on,
    row_security,
)

if TYPE_CHECKING:
    from ._access import Access
    from ._role_facts import Facts, Relation, Schema
    from ._role_sql import Objects, Privilege

__all__ = ["Missing", "find_missing"]

_SHOWN = 5  # names in one line; the statement has all of them
_DEFAULT_KINDS: dict[Objects, str] = {"TABLE": "r", "SEQUENCE": "S"}
# ALTER … OWNER names what it alters, by pg_class.relkind.
_OWNABLE: dict[str, LiteralString] = {
    "r": "TABLE", "p": "TABLE", "v": "VIEW", "m": "MATERIALIZED VIEW", "f": "FOREIGN TABLE", "S": "SEQUENCE"
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Missing:
    """
    Something that an identity should have and does not.

    Attributes:
        what: What is missing.
        statements: The SQL that gives it; empty if SQL alone cannot.
        advice: What to do instead of running the statements, where there are none, or the role that is connected may
            not run them; else empty.
    """

    what: str
    statements: tuple[str, ...] = ()
    advice: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return {"what": self.what, "statements": list(self.statements), "advice": self.advice}


def find_missing(access: Access, facts: Facts) -> list[Missing]:
    """What is missing, in the order in which it can be given."""
    missing = [*_role(access, facts), *_memberships(access, facts), *_bypassing(access, facts)]
    for name in access.schemas:
        schema = facts.schemas.get(name)
        if schema is None:
            missing.append(_no_schema(name, facts))
            continue
        missing += [
            *_no_tables(access, schema),
            *_schema(access, facts, schema),
            *_ownership(access, facts, schema),
            *_objects(access, facts, schema),
            *_defaults(access, facts, schema),
            *_policies(access, facts, schema),
        ]
    return missing


def _role(access: Access, facts: Facts) -> Iterator[Missing]:
    name, kind, role = access.identity, access.identity_kind, facts.role
    is_allowed = facts.can_create_roles or facts.is_superuser
    may_not = "" if is_allowed else _not_by(facts, "the project's owner, or another role with CREATEROLE")
    if role is None and kind == "role":
        yield Missing(
            f"there is no role {name!r}", (), "create it, or check its name: only identities are created here"
        )
    elif role is None:
        create = create_role(name, kind, facts.function_schema)
        statements = (create,) if facts.function_schema else (CREATE_EXTENSION, create)
        yield Missing(f"there is no role {name!r}", statements, may_not)
    elif kind != "role":
        yield from _registration(name, kind, role.identity_type)
        if not role.can_log_in:
            yield Missing(f"LOGIN of role {name!r}", (alter_role(name, "LOGIN"),), may_not)
    if not facts.can_connect:
        statement = privileges_on("DATABASE", [(facts.database,)], ("CONNECT",), name)
        advice = "" if facts.can_grant_connect else _not_by(facts, "the owner of the database")
        yield Missing(f"CONNECT on database {facts.database!r}", (statement,), advice)


def _registration(name: str, kind: str, found: str | None) -> Iterator[Missing]:
    if found == "":
        yield Missing(
            f"role {name!r} cannot log in with a token: it was made by CREATE ROLE, for no identity of the workspace",
            (),
            "give away what it owns (REASSIGN OWNED, DROP OWNED), DROP ROLE, and run this again; or say that it is a "
            "role of Postgres alone",
        )
    elif found not in (None, kind):
        yield Missing(f"role {name!r} is for a {found}, not for a {kind}", (), f"say that it is a {found}")


def _memberships(access: Access, facts: Facts) -> Iterator[Missing]:
    for group in access.member_of:
        what = f"membership of {group!r}"
        if group not in facts.groups:
            yield Missing(what, (), f"there is no role {group!r}: create it, or check its name")
            continue
        is_member, can_grant = facts.groups[group]
        if not is_member:
            advice = (
                ""
                if can_grant or _can_grant_any_role(facts)
                else _not_by(facts, f"a role with ADMIN OPTION on {group!r}")
            )
            yield Missing(what, (membership(group, access.identity),), advice)


def _no_schema(name: str, facts: Facts) -> Missing:
    return Missing(f"there is no schema {name!r}", (), f"create it{_or_meant(name, facts.schema_names)}")


def _no_tables(access: Access, schema: Schema) -> Iterator[Missing]:
    known = [relation.name for relation in schema.relations if relation.kind != "S"]
    for name in access.tables or ():
        if name not in known:
            yield Missing(
                f"there is no table {name!r} in schema {schema.name!r}", (), f"create it{_or_meant(name, known)}"
            )


def _schema(access: Access, facts: Facts, schema: Schema) -> Iterator[Missing]:
    if access.level == "own" and access.tables is None:
        return
    wanted: tuple[Privilege, ...] = ("USAGE", "CREATE") if access.level == "own" else ("USAGE",)
    if lacking := _lacking(wanted, schema):
        yield Missing(
            f"{', '.join(lacking)} on schema {schema.name!r}",
            (privileges_on("SCHEMA", [(schema.name,)], lacking, access.identity),),
            _grant_advice(facts, lacking, schema),
        )


def _ownership(access: Access, facts: Facts, schema: Schema) -> Iterator[Missing]:
    """What is to get another owner. The one connected has to be able to act as that owner meanwhile."""
    if access.level != "own":
        return
    role = access.identity
    relations = [r for r in _concerned(access, schema, partitions=True) if not r.is_owned and not r.is_linked]
    gets_schema = access.tables is None and not schema.is_owned
    if not relations and not gets_schema:
        return
    statements = [new_owner("SCHEMA", (schema.name,), role)] if gets_schema else []
    statements += [new_owner(_OWNABLE[r.kind], (schema.name, r.name), role) for r in relations]
    objects: list[Schema | Relation] = [schema, *relations] if gets_schema else [*relations]
    foreign = sorted({each.owner for each in objects if not each.is_mine})
    advice = ""
    if foreign:
        advice = _not_by(facts, f"{_names(foreign)}, or a member of {'it' if len(foreign) == 1 else 'each'}")
    elif gets_schema and not facts.can_create:
        advice = _not_by(facts, f"a role with CREATE on database {facts.database!r}, as giving a schema away needs it")
    elif not _can_become(facts):
        advice = _not_by(facts, f"a role that may act as {role!r}, as giving something to it needs that")
    if not (facts.is_superuser or (facts.role is not None and facts.role.can_be_assumed)):
        statements = _while_member(statements, role, facts)
    what = ["the schema"] if gets_schema else []
    what += [_names(r.name for r in relations)] if relations else []
    yield Missing(f"ownership in schema {schema.name!r} of {' and of '.join(what)}", tuple(statements), advice)


def _while_member(statements: list[str], role: str, facts: Facts) -> list[str]:
    """The statements, with a membership around them that lets the one connected act as the role."""
    begin = membership(role, facts.me) + (" WITH INHERIT FALSE, SET TRUE" if facts.version >= 160000 else "")
    return [begin, *statements, membership(role, facts.me, "REVOKE")]


def _objects(access: Access, facts: Facts, schema: Schema) -> Iterator[Missing]:
    concerned = _concerned(access, schema)
    for objects, of_level in PRIVILEGES.items():
        wanted = of_level[access.level]
        relations = [relation for relation in concerned if (relation.kind == "S") == (objects == "SEQUENCE")]
        # Those that lack the same and can be granted alike are one statement.
        groups: dict[tuple[tuple[Privilege, ...], str], list[Relation]] = {}
        for relation in relations:
            if lacking := _lacking(wanted, relation):
                groups.setdefault((lacking, _grant_advice(facts, lacking, relation)), []).append(relation)
        for (lacking, advice), members in groups.items():
            names = [(schema.name, relation.name) for relation in members]
            statement = privileges_on(objects, names, lacking, access.identity)
            if len(members) > 1 and _are_all(members, schema):
                statement = on_all(objects, schema.name, lacking, access.identity)
            which = (
                f"{objects.lower()}{'s' if len(members) > 1 else ''} {_names(relation.name for relation in members)}"
            )
            yield Missing(f"{', '.join(lacking)} in schema {schema.name!r} on {which}", (statement,), advice)


def _defaults(access: Access, facts: Facts, schema: Schema) -> Iterator[Missing]:
    if not access.future or access.tables is not None:
        return
    for creator in _creators(access, facts, schema):
        for objects, of_level in PRIVILEGES.items():
            kind = _DEFAULT_KINDS[objects]
            lacking: tuple[Privilege, ...] = tuple(
                privilege
                for privilege in of_level[access.level]
                if not {(schema.name, creator, kind, privilege), (None, creator, kind, privilege)} & facts.defaults
            )
            if not lacking:
                continue
            later = f"the {objects.lower()}s that {creator!r} will create in schema {schema.name!r}"
            what = f"{', '.join(lacking)} on {later}"
            if creator not in facts.creators:
                yield Missing(what, (), f"there is no role {creator!r}: create it, or check its name")
                continue
            advice = (
                ""
                if facts.creators[creator]
                else _not_by(facts, f"{creator!r}, or a member of it; or leave out future tables")
            )
            statement = default_privileges(objects, schema.name, lacking, access.identity, creator=creator)
            yield Missing(what, (statement,), advice)


def _creators(access: Access, facts: Facts, schema: Schema) -> list[str]:
    """The roles whose later tables are concerned; what the role creates itself it owns."""
    creators: Sequence[str] = access.creators or ()
    if access.creators is None:
        creators = [facts.me if schema.owner == DATABASE_OWNER else schema.owner]
    return [creator for creator in creators if creator != access.identity]


def _bypassing(access: Access, facts: Facts) -> Iterator[Missing]:
    role = facts.role
    if not access.row_security or role is None or not (role.is_superuser or role.bypasses_policies):
        return
    if role.is_superuser:
        yield Missing(f"policies for {access.identity!r}, a superuser", (), "use another role: it bypasses them all")
        return
    is_allowed = facts.is_superuser or role.can_be_granted
    yield Missing(
        f"policies for {access.identity!r}, which has BYPASSRLS",
        (alter_role(access.identity, "NOBYPASSRLS"),),
        "" if is_allowed else _not_by(facts, "a role with CREATEROLE and BYPASSRLS that has created it"),
    )


def _policies(access: Access, facts: Facts, schema: Schema) -> Iterator[Missing]:
    if not access.row_security:
        return
    for table in _concerned(access, schema, partitions=True):
        if table.kind not in ("r", "p") or (table.is_partition and "SELECT" not in table.held):
            continue
        if not table.has_policies and not table.has_row_security:
            yield Missing(
                f"row-level security on table {table.name!r} of schema {schema.name!r}, which has no policy",
                (),
                "create a policy first (CREATE POLICY): without one, all its rows would be hidden",
            )
            continue
        words: list[LiteralString] = []
        if not table.has_row_security:
            words.append("ENABLE")
        if not table.is_forced:
            words.append("FORCE")
        if words:
            yield Missing(
                f"row-level security on table {table.name!r} of schema {schema.name!r}: {' and '.join(words).lower()}",
                tuple(row_security(schema.name, table.name, word) for word in words),
                "" if table.is_mine else _not_by(facts, f"{table.owner!r}, or a member of it"),
            )


def _concerned(access: Access, schema: Schema, *, partitions: bool = False) -> list[Relation]:
    """The tables that are meant, and the sequences that they need."""
    relations = [r for r in schema.relations if not r.is_of_extension and (partitions or not r.is_partition)]
    if access.tables is None:
        return relations
    names = set(access.tables)
    return [r for r in relations if (names & r.used_by if r.kind == "S" else r.name in names)]


def _are_all(members: Sequence[Relation], schema: Schema) -> bool:
    """Whether these are all tables, or all sequences, of the schema."""
    return len(members) == sum((r.kind == "S") == (members[0].kind == "S") for r in schema.relations)


def _lacking(wanted: Iterable[Privilege], there: Schema | Relation) -> tuple[Privilege, ...]:
    return tuple(privilege for privilege in wanted if privilege not in there.held)


def _grant_advice(facts: Facts, privileges: Iterable[str], there: Schema | Relation) -> str:
    if set(privileges) <= there.grantable:
        return ""
    return _not_by(facts, f"its owner {there.owner!r}, or a role that may grant all, as databricks_superuser")


def _can_become(facts: Facts) -> bool:
    """Whether the one connected can act as the role, or let itself: of a role that it creates, it can."""
    role = facts.role
    return role is None or role.can_be_assumed or role.can_be_granted or _can_grant_any_role(facts)


def _can_grant_any_role(facts: Facts) -> bool:
    return facts.is_superuser or (facts.can_create_roles and facts.version < 160000)


def _not_by(facts: Facts, who: str) -> str:
    return f"{facts.me!r} may not: have this run by {who}"


def _or_meant(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f", or check its name: there is {_names(near)}" if near else ", or check its name"


def _names(names: Iterable[str]) -> str:
    every = [repr(name) for name in names]
    rest = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN + 1 else ""
    return ", ".join(every[:_SHOWN] if rest else every) + rest
