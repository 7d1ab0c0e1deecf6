"""The SQL function that makes a role for a workspace identity, and the extension it comes in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._control import IDENTITY_GROUP

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CREATE_ROLE", "write_extension"]

# https://docs.databricks.com/aws/en/oltp/projects/postgres-roles
CREATE_ROLE = f"""
create or replace function databricks_create_role(identity_name text, identity_type text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if upper(identity_type) not in ('USER', 'SERVICE_PRINCIPAL', 'GROUP') then
        raise exception 'identity type must be USER, SERVICE_PRINCIPAL or GROUP, not "%"', identity_type
            using errcode = 'invalid_parameter_value';
    end if;
    if not exists (select from pg_roles where rolname = session_user and (rolcreaterole or rolsuper)) then
        raise exception 'permission denied to create role' using errcode = 'insufficient_privilege';
    end if;
    execute format('create role %I login', identity_name);
    execute format('grant {IDENTITY_GROUP} to %I', identity_name);
    if current_setting('server_version_num')::int >= 160000 then
        execute format('grant %I to %I with admin true, inherit false, set false', identity_name, session_user);
    end if;
end
$$;
"""

_CONTROL = """\
comment = 'Roles for the identities of a local Lakebase'
default_version = '1.0'
relocatable = true
trusted = true
"""


def write_extension(directory: Path) -> None:
    """Write the extension `databricks_auth` for a Postgres whose `extension_control_path` has that directory."""
    extension = directory / "extension"
    extension.mkdir(mode=0o700, parents=True)
    (extension / "databricks_auth.control").write_text(_CONTROL, encoding="utf-8")
    (extension / "databricks_auth--1.0.sql").write_text(CREATE_ROLE, encoding="utf-8")
