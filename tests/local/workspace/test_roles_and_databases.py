"""Roles and databases of a branch, which are those of Postgres."""

import psycopg
import pytest
from databricks.sdk import errors
from databricks.sdk.service.postgres import (
    Database,
    DatabaseDatabaseSpec,
    Role,
    RoleAttributes,
    RoleAuthMethod,
    RoleIdentityType,
    RoleMembershipRole,
    RoleRoleSpec,
)

from tests.local.clients import connection_settings, refusal

BRANCH = "projects/local/branches/production"


@pytest.fixture
def owner(lake):
    return lake.workspace_client().postgres


def create(owner, role_id, **spec):
    return owner.create_role(BRANCH, Role(spec=RoleRoleSpec(**spec)), role_id=role_id).wait()


def test_each_role_is_listed_with_how_it_logs_in(lake, user, owner):
    lake.add_password_role("with_password", "secret")
    found = {role.status.postgres_role: role.status for role in owner.list_roles(BRANCH)}
    assert found[user].auth_method is RoleAuthMethod.LAKEBASE_OAUTH_V1
    assert found[user].identity_type is RoleIdentityType.USER
    assert found[lake.client_id].identity_type is RoleIdentityType.SERVICE_PRINCIPAL
    assert found["with_password"].auth_method is RoleAuthMethod.PG_PASSWORD_SCRAM_SHA_256
    assert found[lake.admin_user].membership_roles == [RoleMembershipRole.DATABRICKS_SUPERUSER]
    assert found[lake.admin_user].attributes.createrole
    assert not {"postgres", "databricks_identity", "databricks_superuser", "pg_monitor"} & set(found)
    for role in owner.list_roles(BRANCH):
        assert owner.get_role(role.name).status.postgres_role == role.status.postgres_role


def test_the_role_of_an_identity_is_created_and_logs_in_with_a_token(lake, owner):
    role = create(owner, "fay", postgres_role="fay@corp.example", identity_type=RoleIdentityType.USER)
    assert role.name == f"{BRANCH}/roles/fay"
    lake.add_user("fay@corp.example")
    with psycopg.connect(**connection_settings(lake, "fay@corp.example")) as connection:
        assert connection.execute("select current_user").fetchone() == ("fay@corp.example",)
    owner.delete_role(role.name).wait()
    with pytest.raises(errors.NotFound):
        owner.get_role(role.name)
    assert "password authentication failed" in refusal(connection_settings(lake, "fay@corp.example"))


def test_a_password_role_has_a_password_that_the_owner_can_read(lake, owner):
    attributes = RoleAttributes(createdb=True)
    role = create(owner, "batch-jobs", postgres_role="batch jobs", attributes=attributes)
    assert role.status.attributes.createdb
    password = owner.reveal_role_password(role.name).password
    with psycopg.connect(**connection_settings(lake, "batch jobs", password)) as connection:
        assert connection.execute("select current_user").fetchone() == ("batch jobs",)
    owner.delete_role(role.name).wait()


def test_what_a_deleted_role_owns_goes_to_another_or_keeps_it(lake, user, owner, admin):
    role = create(owner, "leaver", postgres_role="leaver", auth_method=RoleAuthMethod.NO_LOGIN)
    admin.execute("grant leaver to current_user with set true")
    admin.execute("create table left_behind (i int)")
    admin.execute("grant create on schema public to leaver")
    admin.execute("alter table left_behind owner to leaver")
    with pytest.raises(errors.DatabricksError, match="cannot be dropped because some objects depend on it"):
        owner.delete_role(role.name)
    owner.delete_role(role.name, reassign_owned_to=lake.admin_user).wait()
    query = "select tableowner from pg_tables where tablename = 'left_behind'"
    assert admin.execute(query).fetchone() == (lake.admin_user,)
    admin.execute("drop table left_behind")


def test_a_database_is_created_for_a_role_and_deleted(lake, user, owner):
    (mine,) = (role for role in owner.list_roles(BRANCH) if role.status.postgres_role == user)
    database = Database(spec=DatabaseDatabaseSpec(role=mine.name, postgres_database="Orders 2026"))
    made = owner.create_database(BRANCH, database, database_id="orders").wait()
    assert (made.name, made.status.role) == (f"{BRANCH}/databases/orders", mine.name)
    names = {found.status.postgres_database for found in owner.list_databases(BRANCH)}
    assert names == {lake.database, "Orders 2026"}
    with psycopg.connect(**{**connection_settings(lake, user), "dbname": "Orders 2026"}) as connection:
        connection.execute("create schema mine")
        connection.commit()
    owner.delete_database(made.name).wait()
    assert [found.status.postgres_database for found in owner.list_databases(BRANCH)] == [lake.database]


def test_what_makes_no_sense_is_refused_with_the_reason(lake, user, owner):
    def of(role):
        return Database(spec=DatabaseDatabaseSpec(role=role))

    role = next(iter(owner.list_roles(BRANCH))).name
    cases = (
        (lambda: create(owner, "x", postgres_role=user), "already exists"),
        (lambda: create(owner, "x", postgres_role="pg_mine"), "keeps this name to itself"),
        (lambda: create(owner, "X Y", postgres_role="other"), "an id must be"),
        (lambda: owner.list_roles("projects/local/branches/none"), "does not exist"),
        (lambda: owner.reveal_role_password(role), "has no password that is known"),
        (lambda: owner.delete_role(f"{BRANCH}/roles/none"), "does not exist"),
        (lambda: owner.delete_database(f"{BRANCH}/databases/none"), "does not exist"),
        (lambda: owner.create_database(BRANCH, of(role)), "is no name of a database"),
        (lambda: owner.create_database(BRANCH, of("me"), database_id="db"), "resource name"),
    )
    for call, words in cases:
        with pytest.raises(errors.DatabricksError, match=words):
            list(call() or ())


def test_a_forwarded_token_mints_with_the_scope_only(lake, user):
    allowed, other = lake.forwarded_token(user), lake.forwarded_token(user, ["sql", "iam.current-user:read"])
    from databricks.sdk import WorkspaceClient

    def client(token):
        return WorkspaceClient(host=lake.workspace_url, token=token, auth_type="pat")

    assert client(allowed).postgres.generate_database_credential(endpoint=lake.endpoint).token
    assert client(other).current_user.me().user_name == user
    for call in (
        lambda: client(other).postgres.generate_database_credential(endpoint=lake.endpoint),
        lambda: client(other).database.generate_database_credential(instance_names=[lake.instance_name]),
        lambda: client(other).postgres.get_endpoint(lake.endpoint),
    ):
        with pytest.raises(errors.PermissionDenied, match="does not have required scopes: postgres"):
            call()
    assert lake.token(user) not in (allowed, other)


def test_our_error_for_a_token_without_the_scope_names_it(lake, user):
    from lakebase import CredentialError, create_lakebase_pool

    config = lake.config(user, token=lake.forwarded_token(user, []))
    with create_lakebase_pool(config, timeout=30) as pool, pytest.raises(CredentialError, match="scope 'postgres'"):
        pool.getconn()
