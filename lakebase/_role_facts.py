"""What the catalogue says of a role, of some schemas, and of the one connected. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from psycopg.rows import dict_row, tuple_row

from ._session_reset import plain_cursor
from ._session_settings import quoted_name

if TYPE_CHECKING:
    from ._access import Access
    from ._steps import Steps

__all__ = ["DATABASE_OWNER", "Facts", "Relation", "Role", "Schema", "finding_facts"]

#: The owner of the schema `public`: whoever owns the database.
DATABASE_OWNER = "pg_database_owner"


@dataclass(frozen=True, kw_only=True, slots=True)
class Role:
    """
    The role of the identity.

    Attributes:
        can_log_in: Whether it has LOGIN.
        is_superuser: Whether nothing is denied to it, and no policy applies to it.
        bypasses_policies: Whether it has BYPASSRLS.
        can_be_assumed: Whether the one connected may act as it, and so give objects to it.
        can_be_granted: Whether the one connected may make another role a member of it.
        identity_type: What the workspace's identity is, in small letters; empty if the role is registered for none,
            `None` if the database does not say.
    """

    can_log_in: bool
    is_superuser: bool
    bypasses_policies: bool
    can_be_assumed: bool
    can_be_granted: bool
    identity_type: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Owned:
    """
    What has an owner and privileges.

    Attributes:
        name: Its name.
        owner: Its owner.
        is_mine: Whether the one connected has the rights of its owner.
        is_owned: Whether the role has them.
        held: The privileges that the role has, in whatever way.
        grantable: The privileges that the one connected may grant.
    """

    name: str
    owner: str
    is_mine: bool
    is_owned: bool
    held: frozenset[str]
    grantable: frozenset[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Schema(_Owned):
    """
    A schema, and what is in it.

    Attributes:
        relations: Its tables, views and sequences.
    """

    relations: tuple[Relation, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Relation(_Owned):
    """
    A table, view or sequence.

    Attributes:
        kind: As in `pg_class.relkind`.
        used_by: Of a sequence, the tables that have their numbers from it.
        is_linked: Whether it is a sequence that belongs to a table's column, and so to the table's owner.
        is_partition: Whether it is a part of another table, and needs no privilege of its own.
        is_of_extension: Whether an extension has brought it.
        has_row_security: Whether policies apply at all.
        is_forced: Whether they apply to the owner, too.
        has_policies: Whether there are any.
    """

    kind: str
    used_by: frozenset[str]
    is_linked: bool
    is_partition: bool
    is_of_extension: bool
    has_row_security: bool
    is_forced: bool
    has_policies: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """
    What there is.

    Attributes:
        me: The role that is connected.
        is_superuser: Whether it may do anything.
        can_create_roles: Whether it has CREATEROLE, or is a member of `databricks_superuser`.
        can_create: Whether it may create schemas in this database.
        database: The database's name.
        can_connect: Whether the role may connect to it.
        can_grant_connect: Whether the one connected may let it.
        version: The server's, such as 170002.
        function_schema: Where `databricks_create_role` is; `None` if it is not there.
        role: The identity's role, or `None`.
        groups: Of the roles that it should be a member of, those that exist: whether it is one, and whether the one
            connected may make it one.
        creators: Of the roles whose later tables are concerned, those that exist: whether the one connected has their
            rights.
        schemas: Those concerned that exist.
        schema_names: All but Postgres' own.
        defaults: What the role will be allowed on later objects, each as a schema (`None` is any), a creator, a kind as
            in `pg_default_acl.defaclobjtype`, and a privilege.
    """

    me: str
    is_superuser: bool
    can_create_roles: bool
    can_create: bool
    database: str
    can_connect: bool
    can_grant_connect: bool
    version: int
    function_schema: str | None
    role: Role | None = None
    groups: Mapping[str, tuple[bool, bool]] = field(default_factory=dict)
    creators: Mapping[str, bool] = field(default_factory=dict)
    schemas: Mapping[str, Schema] = field(default_factory=dict)
    schema_names: tuple[str, ...] = ()
    defaults: frozenset[tuple[str | None, str, str, str]] = frozenset()


# A role that does not exist yet is allowed what everybody is, which is asked for by the name `public`.
_DATABASE = """
    SELECT me.rolname::text AS me, me.rolsuper AS is_superuser,
           me.rolcreaterole OR EXISTS (
               SELECT FROM pg_roles g WHERE g.rolname = 'databricks_superuser' AND pg_has_role(g.oid, 'MEMBER')
           ) AS can_create_roles,
           has_database_privilege(d.oid, 'CREATE') AS can_create, d.datname::text AS database,
           has_database_privilege(%(grantee)s::name, d.oid, 'CONNECT') AS can_connect,
           has_database_privilege(d.oid, 'CONNECT WITH GRANT OPTION') AS can_grant_connect,
           current_setting('server_version_num')::int AS version
      FROM pg_roles me, pg_database d WHERE me.rolname = current_user AND d.datname = current_database()
"""
# The one connected runs what is found here with its own rights. So a function or view of that name counts only if it is
# of Lakebase's extension, or of the server's first superuser, whose oid is 10.
_OF_LAKEBASE = """
    WITH of_extension AS (
        SELECT d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
         WHERE d.refclassid = 'pg_extension'::regclass AND e.extname = 'databricks_auth')
    SELECT 'function_schema', n.nspname::text FROM pg_proc o JOIN pg_namespace n ON n.oid = o.pronamespace
     WHERE o.proname = 'databricks_create_role' AND (o.proowner = 10 OR o.oid IN (SELECT objid FROM of_extension))
    UNION
    SELECT 'roles_view', n.nspname::text FROM pg_class o JOIN pg_namespace n ON n.oid = o.relnamespace
     WHERE o.relname = 'databricks_list_roles' AND (o.relowner = 10 OR o.oid IN (SELECT objid FROM of_extension))
       AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(o.oid, 'SELECT')
"""
_ROLE = """
    SELECT r.rolcanlogin AS can_log_in, r.rolsuper AS is_superuser, r.rolbypassrls AS bypasses_policies,
           pg_has_role(r.oid, CASE WHEN current_setting('server_version_num')::int < 160000
                                   THEN 'MEMBER' ELSE 'SET' END) AS can_be_assumed,
           pg_has_role(r.oid, 'MEMBER WITH ADMIN OPTION') AS can_be_granted
      FROM pg_roles r WHERE r.rolname = %(identity)s
"""
_IDENTITY_TYPE = "SELECT lower(identity_type) FROM {}.databricks_list_roles WHERE role_name = %(identity)s"
_GROUPS = """
    SELECT g.rolname::text, coalesce(pg_has_role(r.oid, g.oid, 'MEMBER'), false),
           pg_has_role(g.oid, 'MEMBER WITH ADMIN OPTION')
      FROM pg_roles g LEFT JOIN pg_roles r ON r.rolname = %(identity)s WHERE g.rolname = ANY (%(groups)s)
"""
_CREATORS = "SELECT rolname::text, pg_has_role(oid, 'USAGE') FROM pg_roles WHERE rolname = ANY (%(creators)s)"
_SCHEMA_NAMES = """
    SELECT nspname::text FROM pg_namespace
     WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY nspname
"""
_SCHEMAS = """
    SELECT n.nspname::text AS name, pg_get_userbyid(n.nspowner)::text AS owner,
           pg_has_role(n.nspowner, 'USAGE') AS is_mine,
           coalesce(pg_has_role(r.oid, n.nspowner, 'USAGE'), false) AS is_owned,
           ARRAY(SELECT p FROM unnest(ARRAY['USAGE', 'CREATE']) p
                  WHERE has_schema_privilege(%(grantee)s::name, n.oid, p)) AS held,
           ARRAY(SELECT p FROM unnest(ARRAY['USAGE', 'CREATE']) p
                  WHERE has_schema_privilege(n.oid, p || ' WITH GRANT OPTION')) AS grantable
      FROM pg_namespace n LEFT JOIN pg_roles r ON r.rolname = %(identity)s
     WHERE n.nspname = ANY (%(schemas)s)
"""
# The sequence of an identity column is used without a privilege, and is left out.
_RELATIONS = """
    SELECT n.nspname::text AS schema, c.relname::text AS name, pg_get_userbyid(c.relowner)::text AS owner,
           pg_has_role(c.relowner, 'USAGE') AS is_mine,
           coalesce(pg_has_role(r.oid, c.relowner, 'USAGE'), false) AS is_owned,
           CASE c.relkind WHEN 'S' THEN
               ARRAY(SELECT p FROM unnest(ARRAY['USAGE']) p
                      WHERE has_sequence_privilege(%(grantee)s::name, c.oid, p))
           ELSE
               ARRAY(SELECT p FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) p
                      WHERE has_table_privilege(%(grantee)s::name, c.oid, p)) END AS held,
           CASE c.relkind WHEN 'S' THEN
               ARRAY(SELECT p FROM unnest(ARRAY['USAGE']) p
                      WHERE has_sequence_privilege(c.oid, p || ' WITH GRANT OPTION'))
           ELSE
               ARRAY(SELECT p FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) p
                      WHERE has_table_privilege(c.oid, p || ' WITH GRANT OPTION')) END AS grantable,
           c.relkind::text AS kind,
           ARRAY(SELECT t.relname::text
                   FROM pg_depend d JOIN pg_attrdef a ON a.oid = d.objid JOIN pg_class t ON t.oid = a.adrelid
                  WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass
                    AND d.refobjid = c.oid AND t.relnamespace = c.relnamespace) AS used_by,
           c.relkind = 'S' AND 'a' = ANY (is_by.kinds) AS is_linked,
           c.relispartition AS is_partition, 'e' = ANY (is_by.kinds) AS is_of_extension,
           c.relrowsecurity AS has_row_security, c.relforcerowsecurity AS is_forced,
           EXISTS (SELECT FROM pg_policy y WHERE y.polrelid = c.oid) AS has_policies
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_roles r ON r.rolname = %(identity)s,
           LATERAL (SELECT ARRAY(SELECT d.deptype::text FROM pg_depend d
                                  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid) AS kinds) AS is_by
     WHERE n.nspname = ANY (%(schemas)s) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
       AND NOT (c.relkind = 'S' AND 'i' = ANY (is_by.kinds))
     ORDER BY c.relname
"""
_DEFAULTS = """
    SELECT n.nspname::text, pg_get_userbyid(d.defaclrole)::text, d.defaclobjtype::text, x.privilege_type
      FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
           LEFT JOIN pg_roles r ON r.rolname = %(identity)s, aclexplode(d.defaclacl) x
     WHERE (d.defaclnamespace = 0 OR n.nspname = ANY (%(schemas)s))
       AND (x.grantee = 0 OR pg_has_role(r.oid, x.grantee, 'USAGE'))
"""


def finding_facts(connection: Any, access: Access) -> Steps[Facts]:
    """Ask the catalogue for all that a plan depends on, in a handful of statements."""
    values = {"identity": access.identity, "schemas": list(access.schemas), "groups": list(access.member_of)}
    ask = partial(_asking, connection, values)
    of_lakebase: dict[str, str] = dict((yield from ask(_OF_LAKEBASE)))
    roles = yield from ask(_ROLE, dict_row)
    role = None
    if roles:
        kinds = None
        if view := of_lakebase.get("roles_view"):
            kinds = yield from ask(_IDENTITY_TYPE.format(quoted_name(view)))
        role = Role(**roles[0], identity_type=None if kinds is None else kinds[0][0] if kinds else "")
    values["grantee"] = "public" if role is None else access.identity
    [database] = yield from ask(_DATABASE, dict_row)
    groups = {name: (is_member, can_grant) for name, is_member, can_grant in (yield from ask(_GROUPS))}
    facts = Facts(**database, function_schema=of_lakebase.get("function_schema"), role=role, groups=groups)
    return (yield from _with_schemas(facts, access, values, ask)) if access.schemas else facts


def _with_schemas(facts: Facts, access: Access, values: dict[str, Any], ask: Callable[..., Steps[Any]]) -> Steps[Facts]:
    relations: dict[str, list[Relation]] = {}
    for row in (yield from ask(_RELATIONS, dict_row)):
        relations.setdefault(row.pop("schema"), []).append(Relation(**_with_sets(row)))
    schemas = {}
    for row in (yield from ask(_SCHEMAS, dict_row)):
        name = row["name"]
        schemas[name] = Schema(**_with_sets(row), relations=tuple(relations.get(name, ())))
    values["creators"] = [*(access.creators or ()), *(schema.owner for schema in schemas.values()), facts.me]
    return replace(
        facts,
        schemas=schemas,
        schema_names=tuple(name for (name,) in (yield from ask(_SCHEMA_NAMES))),
        defaults=frozenset((yield from ask(_DEFAULTS))),
        creators=dict((yield from ask(_CREATORS))),
    )


def _with_sets(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: frozenset(value) if isinstance(value, list) else value for name, value in row.items()}


def _asking(connection: Any, values: Mapping[str, Any], query: str, row_factory: Any = tuple_row) -> Steps[Any]:
    cursor = plain_cursor(connection)
    cursor.row_factory = row_factory
    yield partial(cursor.execute, query, values)
    return (yield cursor.fetchall)
