"""The tables and views that the app names, as the catalog has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from .._role_sql import Privilege
    from .facts import Facts

__all__ = ["Relation", "find_relation", "namesakes", "parse_name", "relations_of"]

# What `pg_class.relkind` calls tables, partitioned tables, views, materialized views and foreign tables.
_KINDS = "('r', 'p', 'v', 'm', 'f')"
_RELATIONS = f"""
SELECT c.oid::int8, n.nspname, c.relname, c.relkind::text, pg_get_userbyid(c.relowner),
       pg_has_role(c.relowner, 'USAGE'), has_schema_privilege(n.oid, 'USAGE'),
       c.relrowsecurity, c.relforcerowsecurity,
       EXISTS (SELECT FROM pg_options_to_table(c.reloptions)
               WHERE option_name = 'security_invoker' AND option_value::bool),
       EXISTS (SELECT FROM pg_policy p, unnest(p.polroles) AS who
               WHERE p.polrelid = c.oid AND p.polpermissive AND p.polcmd IN ('*', 'r')
                 AND CASE WHEN who = 0 THEN true ELSE pg_has_role(who, 'USAGE') END),
       ARRAY(SELECT word FROM unnest(%(privileges)s::text[]) AS word WHERE NOT has_table_privilege(c.oid, word))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN {_KINDS}
"""  # noqa: S608 - no text of anybody else's
_NAMED = """
  AND c.relname = %(name)s AND n.nspname = ANY (coalesce(ARRAY[%(schema)s::text], current_schemas(true)))
ORDER BY array_position(current_schemas(true), n.nspname) LIMIT 1
"""
# A partition is reached by way of its table, and needs no privilege of its own; an extension cares for what it brings.
_OF_SCHEMA = """
  AND n.nspname = %(schema)s AND NOT c.relispartition
  AND NOT EXISTS (SELECT FROM pg_depend d
                  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY c.relname
"""
_NAMESAKES = f"""
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN {_KINDS} AND lower(c.relname) = lower(%s) AND n.nspname !~ '^pg_|^information_schema$'
ORDER BY 1 LIMIT 3
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Relation:
    """
    A table or view, seen by the role that is logged in.

    Attributes:
        kind: `pg_class.relkind`.
        is_own: Whether the role has its owner's rights.
        is_reachable: Whether the role may look into its schema.
        has_policy: Whether there is a policy by which this role sees rows.
        missing: The privileges that are wanted and that the role does not have.
    """

    oid: int
    schema: str
    name: str
    kind: str
    owner: str
    is_own: bool
    is_reachable: bool
    has_row_security: bool
    forces_row_security: bool
    is_invokers: bool
    has_policy: bool
    missing: Sequence[Privilege]

    @property
    def is_table(self) -> bool:
        """Whether it has rows of its own that policies can hide."""
        return self.kind in ("r", "p")

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


def parse_name(connection: Any, text: str) -> list[str] | str:
    """The parts of a name as Postgres reads it, or why it is none."""
    try:
        (parts,) = connection.execute("SELECT parse_ident(%s)", (text,)).fetchone()
    except psycopg.DataError as error:
        return (error.diag.message_primary or "it is no name").rstrip(".")
    return list(parts)


def find_relation(facts: Facts, schema: str | None, name: str, privileges: Sequence[str]) -> Relation | None:
    """The table or view of that name: of the schema, else the first that a statement would find."""
    condition = _NAMED if schema is not None else _NAMED.replace("ARRAY[%(schema)s::text]", "NULL")
    values = {"name": name, "schema": schema, "privileges": list(privileges)}
    row = facts.connection.execute(_RELATIONS + condition, values).fetchone()
    return None if row is None else Relation(*row)


def relations_of(facts: Facts, schema: str, privileges: Sequence[str]) -> list[Relation]:
    """All tables and views of a schema, but for partitions and what extensions have brought."""
    values = {"schema": schema, "privileges": list(privileges)}
    return [Relation(*row) for row in facts.connection.execute(_RELATIONS + _OF_SCHEMA, values)]


def namesakes(facts: Facts, name: str) -> list[str]:
    """Tables and views of that name in any schema, however it is capitalized; at most three."""
    return [row[0] for row in facts.connection.execute(_NAMESAKES, (name,))]
