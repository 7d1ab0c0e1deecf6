"""Whether policies keep this role's rows apart, in the tables and views that the app names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from psycopg import sql

from .._role_sql import row_security
from .facts import Facts, skipped
from .finding import Finding, Fix, Verdict
from .relations import Relation, find_relation, parse_name, relations_of
from .statements import as_sql, security_invoker

__all__ = ["check_row_security"]

_NAME = "row security"
_SHOWN = 10


def check_row_security(facts: Facts) -> Finding | list[Finding]:
    """
    What lets this role see rows that policies should hide, one finding for each kind of gap.

    The role itself (SUPERUSER, BYPASSRLS) is looked at by the check of role.
    """
    if not facts.asked.tables and not facts.asked.schemas:
        return []
    if facts.connection is None:
        return skipped(_NAME, "login")
    relations = _relations(facts)
    tables = [relation for relation in relations if relation.is_table]
    gaps = [
        _without(facts, [each for each in tables if not each.has_row_security]),
        _owned([each for each in tables if each.has_row_security and each.is_own and not each.forces_row_security]),
        _views([each for each in relations if each.kind == "v" and not each.is_invokers]),
        _copies(facts, [each for each in relations if each.kind == "m"]),
    ]
    found = [gap for gap in gaps if gap is not None] + _hidden(facts, tables)
    if not found and tables:
        who = "" if facts.role is None else f" to {facts.role.name}"
        words = "its policies apply" if len(tables) == 1 else f"the policies of all {len(tables)} tables apply"
        if facts.role is not None and facts.role.bypasses_row_security:
            words, who = "row-level security is on, and this role bypasses it", ""
        found = [Finding(_NAME, Verdict.OK, f"{words}{who}")]
    return found


def _relations(facts: Facts) -> list[Relation]:
    """Those that are named, and all of the schemas that are named; each once. What is missing is told elsewhere."""
    found: dict[int, Relation] = {}
    for text in facts.asked.tables:
        parts = parse_name(facts.connection, text)
        if not isinstance(parts, str) and len(parts) <= 2:
            relation = find_relation(facts, parts[0] if len(parts) == 2 else None, parts[-1], ())
            if relation is not None:
                found[relation.oid] = relation
    for text in facts.asked.schemas:
        parts = parse_name(facts.connection, text)
        if not isinstance(parts, str):
            found |= {relation.oid: relation for relation in relations_of(facts, parts[-1], ())}
    return list(found.values())


def _without(facts: Facts, tables: Sequence[Relation]) -> Finding | None:
    if not tables:
        return None
    advice = "if its rows belong to users, enable row-level security together with a policy, else it hides all rows"
    text = "\n".join(
        f"{_commented(row_security(each.schema, each.name, 'ENABLE'))}\n{_policy(each)}" for each in tables
    )
    return Finding(
        _NAME,
        # An app that logs in as itself may well have its tables to itself.
        Verdict.WARNING if facts.config.token is not None else Verdict.NOTE,
        f"{_named(tables)} without row-level security: each role that may SELECT reads all rows",
        advice,
        (Fix("sql", text, f"{_by(tables)}, with a policy of yours"),),
        _details(tables),
    )


def _owned(tables: Sequence[Relation]) -> Finding | None:
    if not tables:
        return None
    statements = _statements(tables, lambda each: row_security(each.schema, each.name, "FORCE"))
    found = f"{_named(tables)} of this role's own: an owner is not subject to policies"
    advice = "force row-level security, or log in as a role that owns no tables"
    return Finding(_NAME, Verdict.WARNING, found, advice, (as_sql(statements, _by(tables)),), _details(tables))


def _views(views: Sequence[Relation]) -> Finding | None:
    if not views:
        return None
    statements = _statements(views, lambda each: security_invoker(each.schema, each.name))
    found = f"{_named(views, 'view')} with the owner's rights: policies apply to the owner, and not to who asks"
    advice = "have it use the rights of who asks"
    return Finding(_NAME, Verdict.WARNING, found, advice, (as_sql(statements, _by(views)),), _details(views))


def _copies(facts: Facts, views: Sequence[Relation]) -> Finding | None:
    if not views or facts.config.token is None:
        return None
    found = f"{_named(views, 'materialized view')}: it is a copy, to which no policy applies"
    return Finding(_NAME, Verdict.WARNING, found, "let users read a view in its place", details=_details(views))


def _hidden(facts: Facts, tables: Sequence[Relation]) -> list[Finding]:
    """What is closed by mistake: a table whose policies show this role nothing."""
    if facts.role is None or facts.role.bypasses_row_security:
        return []
    closed = [
        each
        for each in tables
        if each.has_row_security and not each.has_policy and (each.forces_row_security or not each.is_own)
    ]
    if not closed:
        return []
    found = f"{_named(closed)} without a policy for this role: it sees no row"
    policy = Fix("sql", _policy(closed[0]), f"{_by(closed)}, for example")
    return [Finding(_NAME, Verdict.WARNING, found, "write a policy", (policy,), _details(closed))]


def _policy(table: Relation) -> str:
    """A policy as a comment: which rows are whose is not for a program to guess."""
    name = sql.Identifier(table.schema, table.name).as_string()
    return _commented(f"CREATE POLICY own_rows ON {name}\n    USING (owner = current_user)")


def _commented(statement: str) -> str:
    """A statement that must not be run as it is."""
    return "\n".join(f"-- {line}" for line in f"{statement};".splitlines())  # a name may have line ends


def _statements(relations: Sequence[Relation], make: Callable[[Relation], str]) -> list[str]:
    return [make(relation) for relation in relations]


def _by(relations: Sequence[Relation]) -> str:
    return f"as {' and '.join(sorted({relation.owner for relation in relations}))}"


def _named(relations: Sequence[Relation], kind: str = "table") -> str:
    if len(relations) == 1:
        return f"{relations[0]} is a {kind}"
    return f"{len(relations)} {kind}s"


def _details(relations: Sequence[Relation]) -> tuple[str, ...]:
    if len(relations) == 1:
        return ()
    more = [f"… and {len(relations) - _SHOWN} more"] if len(relations) > _SHOWN else []
    return (*(str(relation) for relation in relations[:_SHOWN]), *more)
