"""What the role may do in the schemas and tables that the app names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .._role_sql import PRIVILEGES as BY_LEVEL
from .._role_sql import default_privileges, on_all, privileges_on
from .facts import Facts, skipped
from .finding import Finding, Verdict
from .relations import Relation, find_relation, namesakes, parse_name, relations_of
from .statements import as_sql, create_schema

if TYPE_CHECKING:
    from .._role_sql import Objects, Privilege

__all__ = ["check_schemas", "check_tables"]

_SCHEMA = """
SELECT pg_get_userbyid(nspowner), has_schema_privilege(oid, 'USAGE'), has_schema_privilege(oid, 'CREATE')
FROM pg_namespace WHERE nspname = %s
"""
_MAY_CREATE = "SELECT has_database_privilege(current_database(), 'CREATE')"
# Sequences that a column's default reads; those of identity columns need no privilege.
_SEQUENCES = """
SELECT DISTINCT n.nspname, s.relname, pg_get_userbyid(s.relowner)
FROM pg_attrdef d
     JOIN pg_depend p ON p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid AND p.refclassid = 'pg_class'::regclass
     JOIN pg_class s ON s.oid = p.refobjid JOIN pg_namespace n ON n.oid = s.relnamespace
WHERE d.adrelid = %s AND CASE WHEN s.relkind = 'S' THEN NOT has_sequence_privilege(s.oid, 'USAGE, UPDATE') END
ORDER BY 1, 2
"""
# Who makes tables in the schema and has not said that this role may read those to come.
_CLOSED_LATER = """
SELECT DISTINCT pg_get_userbyid(c.relowner)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT pg_has_role(c.relowner, 'USAGE')
  AND NOT EXISTS (SELECT FROM pg_default_acl d, aclexplode(d.defaclacl) AS a
                  WHERE d.defaclrole = c.relowner AND d.defaclobjtype = 'r' AND d.defaclnamespace IN (0, n.oid)
                    AND a.privilege_type = 'SELECT'
                    AND CASE WHEN a.grantee = 0 THEN true ELSE pg_has_role(a.grantee, 'USAGE') END)
ORDER BY 1
"""
_SHOWN = 10


def check_schemas(facts: Facts) -> Finding | list[Finding]:
    """Each schema: whether it exists, and what the role may do in it and with its tables, now and later."""
    names = dict.fromkeys(facts.asked.schemas)
    if not names:
        return []
    if facts.connection is None:
        return skipped("schema", "login")
    return [finding for text in names for finding in _schema(facts, text)]


def check_tables(facts: Facts) -> Finding | list[Finding]:
    """Each table: whether it exists, and what the role may do with it and the sequences of its columns."""
    names = dict.fromkeys(facts.asked.tables)
    if not names:
        return []
    if facts.connection is None:
        return skipped("table", "login")
    return [_table(facts, text) for text in names]


def _schema(facts: Facts, text: str) -> Iterator[Finding]:
    check = "schema"
    parts = parse_name(facts.connection, text)
    if isinstance(parts, str) or len(parts) != 1:
        why = parts if isinstance(parts, str) else "it has a dot"
        yield Finding(check, Verdict.FAILED, f"{text!r} is no name of a schema: {why}", "give it as in SQL")
        return
    (name,) = parts
    row = facts.connection.execute(_SCHEMA, (name,)).fetchone()
    role = _role(facts)
    if row is None:
        yield _no_schema(facts, name, role)
        return
    owner, may_use, may_create = row
    if not may_use:
        grant = privileges_on("SCHEMA", [(name,)], ("USAGE",), role)
        found = f"{name} is there, and {role} may not look into it"
        yield Finding(check, Verdict.FAILED, found, "grant USAGE", (as_sql([grant], _by(owner)),))
        return
    wanted = _wanted(facts)
    relations = relations_of(facts, name, wanted)
    closed = [relation for relation in relations if relation.missing]
    create = "may" if may_create else "may not"
    found = f"{name} of {owner}, in which {role} {create} create tables; it has {len(relations)} tables and views"
    if closed:
        yield _closed(facts, name, found, closed, wanted)
    else:
        yield Finding(check, Verdict.OK, found)
    yield from _closed_later(facts, name, role, wanted)


def _no_schema(facts: Facts, name: str, role: str) -> Finding:
    (may_create,) = facts.connection.execute(_MAY_CREATE).fetchone()
    found = f"there is no schema {name}"
    if facts.config.create_schema and facts.config.schema == name and may_create:
        return Finding("schema", Verdict.NOTE, f"{found}; the first connection makes it (create_schema=True)")
    statements = [create_schema(name), privileges_on("SCHEMA", [(name,)], ("USAGE", "CREATE"), role)]
    fixes = (as_sql(statements, "as a role that may create schemas"),)
    return Finding("schema", Verdict.FAILED, found, "check its name, or create it", fixes)


def _closed(facts: Facts, schema: str, found: str, closed: Sequence[Relation], wanted: Sequence[Privilege]) -> Finding:
    role = _role(facts)
    details = [f"{relation}: no {', '.join(relation.missing)}" for relation in closed[:_SHOWN]]
    if len(closed) > _SHOWN:
        details.append(f"… and {len(closed) - _SHOWN} more")
    owners = sorted({relation.owner for relation in closed})
    statements = [on_all("TABLE", schema, wanted, role)]
    if "INSERT" in wanted:
        statements.append(on_all("SEQUENCE", schema, ("USAGE",), role))
    cannot_read = any("SELECT" in relation.missing for relation in closed)
    return Finding(
        "schema",
        Verdict.FAILED if cannot_read or facts.asked.needs is not None else Verdict.WARNING,
        f"{found}; {len(closed)} of them lack a privilege that the app needs",
        _advice(facts),
        (as_sql(statements, _by(*owners)),),
        tuple(details),
    )


def _closed_later(facts: Facts, schema: str, role: str, wanted: Sequence[Privilege]) -> Iterator[Finding]:
    makers = [row[0] for row in facts.connection.execute(_CLOSED_LATER, (schema,))]
    if not makers:
        return
    statements = [default_privileges("TABLE", schema, wanted, role, creator=maker) for maker in makers]
    if "INSERT" in wanted:
        statements += [default_privileges("SEQUENCE", schema, ("USAGE",), role, creator=maker) for maker in makers]
    yield Finding(
        "schema",
        Verdict.NOTE,
        f"{schema}: what {_listed(makers)} creates there later, as by a migration, stays closed to {role}",
        "say now what the role may do with later tables",
        (as_sql(statements, _by(*makers)),),
    )


def _table(facts: Facts, text: str) -> Finding:
    check = "table"
    parts = parse_name(facts.connection, text)
    if isinstance(parts, str) or len(parts) > 2:
        why = parts if isinstance(parts, str) else "it has more than one dot"
        advice = "give it as in SQL: schema.table, in double quotes where it has capitals"
        return Finding(check, Verdict.FAILED, f"{text!r} is no name of a table: {why}", advice)
    schema, name = (None, parts[0]) if len(parts) == 1 else parts
    relation = find_relation(facts, schema, name, _wanted(facts))
    if relation is None:
        others = namesakes(facts, name)
        advice = f"is it {' or '.join(others)}?" if others else "check its name, or run the migrations that create it"
        where = "in the schemas that a session looks in" if schema is None else f"in the schema {schema}"
        return Finding(check, Verdict.FAILED, f"there is no table {name} {where}", advice)
    return _rights(facts, relation)


def _rights(facts: Facts, relation: Relation) -> Finding:
    check, role = "table", _role(facts)
    statements: list[str] = []
    problems: list[str] = []
    owners = []
    if not relation.is_reachable:
        problems.append("look into its schema")
        statements.append(privileges_on("SCHEMA", [(relation.schema,)], ("USAGE",), role))
    if relation.missing:
        problems.append(", ".join(relation.missing))
        statements.append(_grant("TABLE", relation.schema, relation.name, relation.missing, role))
        owners.append(relation.owner)
    sequences = facts.connection.execute(_SEQUENCES, (relation.oid,)).fetchall() if "INSERT" in _wanted(facts) else []
    for schema, name, owner in sequences:
        problems.append(f"use the sequence {schema}.{name}")
        statements.append(_grant("SEQUENCE", schema, name, ("USAGE",), role))
        owners.append(owner)
    owned = "of this role" if relation.is_own else f"of {relation.owner}, who alone may alter and drop it"
    if not problems:
        may = ", ".join(_wanted(facts))
        return Finding(check, Verdict.OK, f"{relation} {owned}; {role} may {may}")
    is_partial = facts.asked.needs is None and relation.is_reachable and "SELECT" not in relation.missing
    return Finding(
        check,
        Verdict.WARNING if is_partial else Verdict.FAILED,
        f"{relation} {owned}; {role} may not {'; nor '.join(problems)}",
        _advice(facts),
        (as_sql(statements, _by(*sorted(set(owners or [relation.owner])))),),
    )


def _grant(objects: Objects, schema: str, name: str, privileges: Sequence[Privilege], role: str) -> str:
    return privileges_on(objects, [(schema, name)], privileges, role)


def _advice(facts: Facts) -> str:
    if facts.asked.needs is None and not facts.config.read_only:
        return "grant it, or say with --privileges (privileges=) what the app needs"
    return "grant it"


def _wanted(facts: Facts) -> tuple[Privilege, ...]:
    """The privileges that the app needs on its tables."""
    if facts.asked.needs is not None:
        return facts.asked.needs
    return BY_LEVEL["TABLE"]["read" if facts.config.read_only else "write"]


def _role(facts: Facts) -> str:
    """The role that is logged in."""
    return facts.role.name if facts.role is not None else str(facts.connection.info.user)


def _by(*owners: str) -> str:
    return f"as {_listed(owners)}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)
