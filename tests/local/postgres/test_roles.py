"""Roles: which names they can have, and the SQL function that makes them."""

import psycopg
import pytest

from lakebase.local import LocalLakebaseError


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "'' is no name of a role or user"),
        (7, "7 is no name of a role or user"),
        ("pg_x", "'pg_x' is no name of a role or user: Postgres keeps this name to itself"),
        ("public", "'public' is no name of a role or user: Postgres keeps"),
        ("postgres", "'postgres' is no name of a role or user: the local"),
        ("databricks_superuser", "'databricks_superuser' is no name of a role or user: the local"),
        ("a\0b", "it has a zero byte"),
        ("\udcff", "it has characters that UTF-8 does not have"),
        ("a\nb", "it has control or other invisible characters"),
        ("é" * 32, "it has 64 bytes, and Postgres keeps the first 63"),
    ],
)
def test_a_name_that_no_role_can_have_is_refused(lake, name, words):
    for make in (lake.add_user, lake.add_service_principal, lambda name: lake.add_password_role(name, "secret")):
        with pytest.raises(LocalLakebaseError, match=words):
            make(name)
    lake.add_user("é" * 31)


def test_sql_lists_the_roles_of_identities_with_their_kinds(lake, admin):
    if lake.postgres_version >= 18:
        admin.execute("create extension if not exists databricks_auth")
    lake.add_user("list.user@corp.example")
    lake.add_service_principal("lister")
    lake.add_password_role("list_password", "secret")
    admin.execute("select databricks_create_role('listed team', 'GROUP')")
    admin.execute("create role list_plain login")
    found = dict(admin.execute("select role_name, identity_type from databricks_list_roles").fetchall())
    assert {name: kind for name, kind in found.items() if "list" in name} == {
        "list.user@corp.example": "user",
        "lister": "service_principal",
        "listed team": "group",
    }


def test_sql_makes_the_role_of_an_identity(lake, settings, admin):
    if lake.postgres_version >= 18:
        admin.execute("create extension if not exists databricks_auth")
    admin.execute("select databricks_create_role('dora@corp.example', 'USER')")
    lake.add_user("dora@corp.example")
    mine = {**settings, "user": "dora@corp.example", "password": lake.mint("dora@corp.example")}
    psycopg.connect(**mine).close()
    with pytest.raises(psycopg.errors.DuplicateObject):
        admin.execute("select databricks_create_role('dora@corp.example', 'USER')")
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        admin.execute("select databricks_create_role('eve@corp.example', 'ROBOT')")


def test_a_role_for_an_identity_needs_the_right_to_create_roles(lake, settings, admin):
    if lake.postgres_version >= 18:
        admin.execute("create extension if not exists databricks_auth")
    with psycopg.connect(**settings) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("select databricks_create_role('mallory@corp.example', 'USER')")
