"""What is missing is found in the catalogue and given, as those who then log in notice."""

from __future__ import annotations

import asyncio
import itertools
import threading

import psycopg
import pytest
from psycopg.rows import dict_row

from lakebase.roles import Access, GrantError, aapply, acheck, apply, check

numbers = itertools.count(1)


def connect(lake, user, **arguments):
    return psycopg.connect(**lake.config(user).connect_kwargs(), password=lake.mint(user), autocommit=True, **arguments)


@pytest.fixture(scope="module")
def admin(lakebase_local):
    """The project's owner, who may create roles."""
    with connect(lakebase_local, lakebase_local.admin_user) as connection:
        yield connection


@pytest.fixture
def schema(admin):
    """The admin's schema with two tables, one numbered by a sequence, and a view."""
    name = f"roles{next(numbers)}"
    admin.execute(f"create schema {name}")
    admin.execute(f"create table {name}.notes (id serial primary key, owner text default current_user, text text)")
    admin.execute(f"create table {name}.orders (id int generated always as identity, text text)")
    admin.execute(f"create view {name}.short as select id from {name}.notes")
    return name


@pytest.fixture
def identity():
    """An e-mail address that the database has no role of."""
    return f"grantee{next(numbers)}@corp.example"


def log_in(lake, user):
    """A connection of a user whose role exists: the workspace comes to know the user."""
    lake.add_user(user)
    return connect(lake, user)


def texts(missing):
    return [each.what for each in missing]


def test_who_may_read_logs_in_and_reads_and_writes_nothing(lakebase_local, admin, schema, identity) -> None:
    access = Access(identity, schemas=[schema])
    missing = check(admin, access)
    assert missing[0].what == f"there is no role {identity!r}"
    assert apply(admin, access) == missing
    assert check(admin, access) == apply(admin, access) == []
    with log_in(lakebase_local, identity) as user:
        assert user.execute(f"select * from {schema}.notes, {schema}.orders, {schema}.short").fetchall() == []
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            user.execute(f"insert into {schema}.orders (text) values ('x')")


def test_who_may_write_may_also_write_what_is_created_later(lakebase_local, admin, schema, identity) -> None:
    access = Access(identity, schemas=[schema], level="write")
    apply(admin, access)
    admin.execute(f"create table {schema}.later (id serial)")
    assert check(admin, access) == []
    with log_in(lakebase_local, identity) as user:
        for table in ("notes", "later"):
            user.execute(f"insert into {schema}.{table} default values")
        user.execute(f"update {schema}.notes set text = 'y'")
        user.execute(f"delete from {schema}.notes")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            user.execute(f"truncate {schema}.notes")


def test_a_named_table_comes_with_its_sequence_and_without_its_neighbours(
    lakebase_local, admin, schema, identity
) -> None:
    access = Access(identity, schemas=[schema], tables=["notes"], level="write")
    assert texts(apply(admin, access))[1:] == [
        f"USAGE on schema '{schema}'",
        f"SELECT, INSERT, UPDATE, DELETE in schema '{schema}' on table 'notes'",
        f"USAGE in schema '{schema}' on sequence 'notes_id_seq'",
    ]
    with log_in(lakebase_local, identity) as user:
        user.execute(f"insert into {schema}.notes default values")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            user.execute(f"select * from {schema}.orders")


def test_who_owns_may_alter_and_the_one_who_gave_it_cannot_act_as_the_owner(
    lakebase_local, admin, schema, identity
) -> None:
    access = Access(identity, schemas=[schema], level="own")
    apply(admin, access)
    assert check(admin, access) == []
    with log_in(lakebase_local, identity) as user:
        user.execute(f"alter table {schema}.notes add column more int")
        user.execute(f"create table {schema}.mine ()")
        user.execute(f"drop view {schema}.short")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        admin.execute(f'set role "{identity}"')
    apply(admin, Access(f"another{identity}", member_of=[identity]))  # which it may still grant


def test_who_owns_named_tables_gets_no_other_and_not_the_schema(admin, schema, identity) -> None:
    access = Access(identity, schemas=[schema], tables=["orders"], level="own")
    apply(admin, access)
    assert check(admin, access) == []
    owners = "select relname, pg_get_userbyid(relowner) from pg_class where relnamespace = %s::regnamespace order by 1"
    found = dict(admin.execute(owners, [schema]).fetchall())
    assert [name for name, owner in found.items() if owner == identity] == ["orders", "orders_id_seq"]


def test_what_a_role_may_do_as_a_member_of_another_is_not_missing(admin, schema, identity) -> None:
    readers = f"readers_of_{schema}"
    admin.execute(f"create role {readers}")
    assert texts(check(admin, Access(readers, kind="role"))) == []
    apply(admin, Access(readers, kind="role", schemas=[schema]))
    assert texts(apply(admin, Access(identity, member_of=[readers])))[1:] == [f"membership of '{readers}'"]
    assert check(admin, Access(identity, schemas=[schema], member_of=[readers])) == []


def test_what_everybody_may_do_is_not_missing_for_a_role_that_does_not_exist(admin, schema, identity) -> None:
    admin.execute(f"grant usage on schema {schema} to public")
    admin.execute(f"grant select on {schema}.notes to public")
    missing = check(admin, Access(identity, schemas=[schema], tables=["notes"]))
    assert texts(missing) == [f"there is no role {identity!r}"]


def test_one_who_may_not_grant_is_told_who_may_and_changes_nothing(lakebase_local, admin, schema, identity) -> None:
    apply(admin, Access(identity, schemas=[schema], level="write"))
    other = f"other{identity}"
    apply(admin, Access(other))
    access = Access(other, schemas=[schema])
    with log_in(lakebase_local, identity) as user:
        # For privileges that it has and may not pass on, Postgres would only warn.
        with pytest.raises(GrantError, match="Nothing was changed") as refused:
            apply(user, access)
    assert f"{identity!r} may not: have this run by its owner {lakebase_local.admin_user!r}" in str(refused.value)
    assert {each.what.partition(" ")[0] for each in refused.value.missing} == {"USAGE", "SELECT"}
    assert f"USAGE on schema '{schema}'" in texts(check(admin, access))


def test_one_who_may_not_create_roles_is_told_who_may(lakebase_local, admin, identity) -> None:
    apply(admin, Access(identity))
    with log_in(lakebase_local, identity) as user, pytest.raises(GrantError, match="with CREATEROLE"):
        apply(user, Access(f"other{identity}"))


def test_a_role_that_create_role_has_made_cannot_log_in_with_a_token(admin, identity) -> None:
    admin.execute(f'create role "{identity}" login')
    [missing] = check(admin, Access(identity))
    assert "cannot log in with a token" in missing.what
    assert (missing.statements, "DROP ROLE" in missing.advice) == ((), True)
    assert check(admin, Access(identity, kind="role")) == []


def test_a_role_of_another_kind_is_said(admin, identity) -> None:
    apply(admin, Access(identity, kind="group"))
    [missing] = check(admin, Access(identity))
    assert (missing.what, missing.advice) == (
        f"role {identity!r} is for a group, not for a user",
        "say that it is a group",
    )


def test_a_role_without_login_gets_it(admin, identity) -> None:
    apply(admin, Access(identity))
    admin.execute(f'alter role "{identity}" nologin')
    assert texts(apply(admin, Access(identity))) == [f"LOGIN of role {identity!r}"]
    assert check(admin, Access(identity)) == []


def test_a_misspelled_name_is_not_created(admin, schema, identity) -> None:
    missing = check(admin, Access(identity, schemas=[schema[:-1] + "O"]))
    assert "check its name: there is" in missing[-1].advice
    assert repr(schema) in missing[-1].advice
    missing = check(admin, Access(identity, schemas=[schema], tables=["note"]))
    assert missing[1].advice == "create it, or check its name: there is 'notes'"
    with pytest.raises(GrantError):
        apply(admin, Access(identity, schemas=[schema], tables=["note"]))
    assert f"there is no role {identity!r}" in texts(check(admin, Access(identity)))


def test_policies_apply_to_the_owner_as_well_and_are_not_enabled_where_there_is_none(admin, schema, identity) -> None:
    access = Access(identity, schemas=[schema], tables=["notes"], row_security=True)
    missing = check(admin, access)
    assert "has no policy" in missing[-1].what
    assert "CREATE POLICY" in missing[-1].advice
    admin.execute(f"create policy own on {schema}.notes using (owner = current_user)")
    assert [each.statements for each in apply(admin, access)][-1] == (
        f'ALTER TABLE "{schema}"."notes" ENABLE ROW LEVEL SECURITY',
        f'ALTER TABLE "{schema}"."notes" FORCE ROW LEVEL SECURITY',
    )
    assert check(admin, access) == []
    admin.execute(f"alter table {schema}.notes no force row level security")
    assert [each.what.rpartition(": ")[2] for each in check(admin, access)] == ["force"]


def test_a_role_that_bypasses_policies_does_so_no_more(admin, schema, identity) -> None:
    access = Access(identity, schemas=[schema, "public"], level="usage", row_security=True)
    apply(admin, Access(identity))
    admin.execute(f'alter role "{identity}" bypassrls' if admin.info.server_version >= 160000 else "select")
    wanted = [f"policies for {identity!r}, which has BYPASSRLS"] if admin.info.server_version >= 160000 else []
    assert [what for what in texts(check(admin, access)) if "policies for" in what] == wanted
    apply(admin, Access(identity, row_security=True))
    assert check(admin, Access(identity, row_security=True)) == []


def test_the_projects_owner_cannot_take_its_own_right_to_bypass_policies(lakebase_local, admin) -> None:
    access = Access(lakebase_local.admin_user, row_security=True)
    [missing] = check(admin, access)
    assert missing.what.endswith("which has BYPASSRLS")
    assert "have this run by" in missing.advice


def test_two_at_once_take_turns(lakebase_local, schema, identity) -> None:
    access = Access(identity, schemas=[schema], level="write")
    given, begin = [], threading.Barrier(3)

    def grant():
        with connect(lakebase_local, lakebase_local.admin_user) as connection:
            begin.wait()
            given.append(apply(connection, access))

    threads = [threading.Thread(target=grant) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, given)) == [0, 0, 6]


def test_the_same_for_asyncio_whatever_rows_the_connection_makes(lakebase_local, schema, identity) -> None:
    access = Access(identity, schemas=[schema])
    settings = {**lakebase_local.config().connect_kwargs(), "password": lakebase_local.mint(lakebase_local.admin_user)}

    async def main():
        async with await psycopg.AsyncConnection.connect(**settings, row_factory=dict_row) as connection:
            async with connection.transaction(force_rollback=True):
                await aapply(connection, access)
                assert await acheck(connection, access) == []
            missing = await acheck(connection, access)
            assert await aapply(connection, access) == missing
            return texts(missing), await acheck(connection, access)

    before, after = asyncio.run(main())
    assert before[0] == f"there is no role {identity!r}"
    assert after == []


def test_a_transaction_that_is_rolled_back_gives_nothing(admin, schema, identity) -> None:
    access = Access(identity, schemas=[schema])
    with admin.transaction(force_rollback=True):
        apply(admin, access)
        assert check(admin, access) == []
    assert len(check(admin, access)) == 4


def test_a_statement_that_the_server_refuses_is_named_and_nothing_is_changed(lakebase_local, schema, identity) -> None:
    with connect(lakebase_local, lakebase_local.admin_user) as connection:
        connection.execute("set default_transaction_read_only = on")
        with pytest.raises(GrantError, match=r"cannot execute .* in a read-only transaction\. Nothing was changed"):
            apply(connection, Access(identity, schemas=[schema]))
        assert not connection.closed


def test_a_name_with_quotes_is_one_name(lakebase_local, admin, schema) -> None:
    name = f"o'hara\"{next(numbers)} %s; drop\\ @corp.example"
    apply(admin, Access(name, schemas=[schema], level="write"))
    with log_in(lakebase_local, name) as user:
        user.execute(f"insert into {schema}.notes default values")


def test_a_function_of_the_same_name_is_not_called(lakebase_local, admin, schema, identity) -> None:
    planted = f"create function {schema}.{{}} returns void language sql as 'select 1 / 0'"
    admin.execute(planted.format("databricks_create_role(text, text)"))
    admin.execute(f"create view {schema}.databricks_list_roles as select 'x' as role_name, 'y' as identity_type")
    with connect(lakebase_local, lakebase_local.admin_user) as connection:
        connection.execute(f"set search_path = {schema}, public")
        apply(connection, Access(identity))
        assert check(connection, Access(identity)) == []


def test_what_extensions_have_brought_is_left_alone(admin, identity) -> None:
    admin.execute("create extension if not exists databricks_auth" if admin.info.server_version >= 180000 else "select")
    access = Access(identity, schemas=["public"])
    apply(admin, access)
    assert check(admin, access) == []


def test_a_partition_needs_nothing_and_gets_nothing(lakebase_local, admin, schema, identity) -> None:
    admin.execute(f"create table {schema}.parts (id int, owner text) partition by list (id)")
    admin.execute(f"create table {schema}.part partition of {schema}.parts for values in (1)")
    access = Access(identity, schemas=[schema], level="write", future=False)
    apply(admin, access)
    assert check(admin, access) == []
    with log_in(lakebase_local, identity) as user:
        user.execute(f"insert into {schema}.parts values (1)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            user.execute(f"select * from {schema}.part")
    apply(admin, Access(identity, schemas=[schema], level="own"))
    assert check(admin, Access(identity, schemas=[schema], level="own")) == []
