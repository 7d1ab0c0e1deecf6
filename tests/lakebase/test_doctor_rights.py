"""The doctor on schemas, tables, sequences and policies: each gap is made, found, and mended by the finding's SQL."""

from __future__ import annotations

import pytest

from lakebase import ConfigurationError
from lakebase.doctor import Verdict, diagnose
from tests.lakebase.doctor_parts import found, found_one, mend

pytestmark = pytest.mark.usefixtures("no_ambient_settings")

ALL = "SELECT, INSERT, UPDATE, DELETE"


def role_of(lakebase_user) -> str:
    return f'"{lakebase_user.name}"'


@pytest.fixture
def notes(admin, schema: str, lakebase_user) -> str:
    """A table that the user may use, with row-level security and a policy."""
    admin.execute(f"CREATE TABLE {schema}.notes (id int GENERATED ALWAYS AS IDENTITY, owner text)")
    admin.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role_of(lakebase_user)}")
    admin.execute(f"GRANT {ALL} ON {schema}.notes TO {role_of(lakebase_user)}")
    admin.execute(f"ALTER TABLE {schema}.notes ENABLE ROW LEVEL SECURITY")
    admin.execute(f"CREATE POLICY own_rows ON {schema}.notes USING (owner = current_user)")
    return f"{schema}.notes"


# Schemas


def test_nothing_is_said_of_schemas_and_tables_that_are_not_named(lakebase_user) -> None:
    for check in ("schema", "table", "row security"):
        assert found(check, lakebase_user.config()) == []


def test_what_cannot_be_seen_without_a_login_is_skipped(lakebase_user) -> None:
    lakebase_user.lake.revoke(lakebase_user.name)
    config = lakebase_user.lake.config("nobody@corp.example", token="dapi-none")
    for check in ("schema", "table", "row security"):
        assert found_one(check, config, schemas=["a"], tables=["b"]).verdict is Verdict.SKIPPED


def test_a_schema_that_is_missing_is_made_by_the_sql_of_the_finding(lakebase_user, admin) -> None:
    finding = found_one("schema", lakebase_user.config(), schemas=["wanted"])
    assert (finding.verdict, finding.found) == (Verdict.FAILED, "there is no schema wanted")
    mend(admin, finding)
    try:
        finding = found_one("schema", lakebase_user.config(), schemas=["wanted"])
        assert f"in which {lakebase_user.name} may create tables" in finding.found
    finally:
        admin.execute("DROP SCHEMA wanted")


def test_a_schema_that_the_first_connection_makes_is_a_note(lakebase_local, monkeypatch) -> None:
    for name, value in lakebase_local.environment().items():
        monkeypatch.setenv(name, value)
    findings = diagnose({"schema": "made_at_first", "create_schema": True}, schemas=["made_at_first"])
    (finding,) = [each for each in findings if each.check == "schema"]
    assert finding.verdict is Verdict.NOTE


def test_a_schema_that_is_closed_is_opened_by_the_sql_of_the_finding(lakebase_user, admin, schema: str) -> None:
    finding = found_one("schema", lakebase_user.config(), schemas=[schema])
    assert finding.verdict is Verdict.FAILED
    assert finding.fixes[0].where == f"as {lakebase_user.lake.admin_user}"
    mend(admin, finding)
    finding = found_one("schema", lakebase_user.config(), schemas=[schema])
    assert finding.verdict is Verdict.OK
    assert "may not create tables; it has 0 tables and views" in finding.found


def test_tables_of_a_schema_are_opened_now_and_later(lakebase_user, admin, schema: str) -> None:
    admin.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role_of(lakebase_user)}")
    admin.execute(f'CREATE TABLE {schema}.visits (id serial); CREATE TABLE {schema}."Odd Name" (id int)')
    now, later = found("schema", lakebase_user.config(), schemas=[schema])
    assert now.verdict is Verdict.FAILED
    assert now.details == (f"{schema}.Odd Name: no {ALL}", f"{schema}.visits: no {ALL}")
    assert later.verdict is Verdict.NOTE
    assert "stays closed" in later.found
    mend(admin, now)
    mend(admin, later)
    assert found_one("schema", lakebase_user.config(), schemas=[schema]).verdict is Verdict.OK
    admin.execute(f"CREATE TABLE {schema}.later (id serial)")
    assert found_one("schema", lakebase_user.config(), schemas=[schema]).verdict is Verdict.OK
    assert found_one("table", lakebase_user.config(), tables=[f"{schema}.later"]).verdict is Verdict.OK


def test_partitions_are_not_the_apps_to_grant(lakebase_user, admin, schema: str) -> None:
    admin.execute(f'GRANT USAGE ON SCHEMA {schema} TO "{lakebase_user.name}"')
    admin.execute(f"CREATE TABLE {schema}.visits (day int) PARTITION BY RANGE (day)")
    admin.execute(f"CREATE TABLE {schema}.visits_1 PARTITION OF {schema}.visits FOR VALUES FROM (0) TO (9)")
    admin.execute(f'GRANT {ALL} ON {schema}.visits TO "{lakebase_user.name}"')
    now, _ = found("schema", lakebase_user.config(), schemas=[schema])
    assert (now.verdict, "it has 1 tables and views" in now.found) == (Verdict.OK, True)
    gap = found_one("row security", lakebase_user.config(), schemas=[schema])
    assert gap.found.startswith(f"{schema}.visits is a table")


def test_a_schema_of_many_closed_tables_names_ten(lakebase_user, admin, schema: str) -> None:
    admin.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role_of(lakebase_user)}")
    for number in range(12):
        admin.execute(f"CREATE TABLE {schema}.t{number} (id int)")
    now, _ = found("schema", lakebase_user.config(), schemas=[schema])
    assert len(now.details) == 11
    assert now.details[-1] == "… and 2 more"


# Tables


def test_a_table_that_may_be_used_is_fine(lakebase_user, notes: str) -> None:
    finding = found_one("table", lakebase_user.config(), tables=[notes, notes])
    assert finding.verdict is Verdict.OK
    assert finding.found.endswith(f"{lakebase_user.name} may {ALL}")
    assert f"of {lakebase_user.lake.admin_user}, who alone may alter and drop it" in finding.found


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none_such", "there is no table none_such in the schemas that a session looks in"),
        ("clinic.none_such", "there is no table none_such in the schema clinic"),
        ("a.b.c", "it has more than one dot"),
        ("a..b", "is no name of a table"),
        ("x'; DROP TABLE y", "is no name of a table"),
    ],
)
def test_a_table_that_there_is_not_is_told(lakebase_user, schema: str, name: str, words: str) -> None:
    finding = found_one("table", lakebase_user.config(), tables=[name])
    assert finding.verdict is Verdict.FAILED
    assert words in finding.found


def test_a_table_of_another_schema_or_spelling_is_named(lakebase_user, admin, schema: str, notes: str) -> None:
    assert "is it clinic.notes" in found_one("table", lakebase_user.config(), tables=["notes"]).advice
    admin.execute(f'CREATE TABLE {schema}."Visits" (id int)')
    assert 'is it clinic."Visits"' in found_one("table", lakebase_user.config(), tables=["clinic.Visits"]).advice
    assert found_one("table", lakebase_user.config(schema=schema), tables=["notes"]).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("granted", "asked", "verdict", "missing"),
    [
        ("SELECT", {}, Verdict.WARNING, "INSERT, UPDATE, DELETE"),
        ("INSERT", {}, Verdict.FAILED, "SELECT, UPDATE, DELETE"),
        ("SELECT", {"privileges": ["select"]}, Verdict.OK, ""),
        ("SELECT", {"privileges": ["select", "insert"]}, Verdict.FAILED, "INSERT"),
    ],
)
def test_privileges_that_are_missing_are_granted_by_the_sql_of_the_finding(
    lakebase_user, admin, notes: str, granted: str, asked: dict, verdict: Verdict, missing: str
) -> None:
    admin.execute(f"REVOKE ALL ON {notes} FROM {role_of(lakebase_user)}")
    admin.execute(f"GRANT {granted} ON {notes} TO {role_of(lakebase_user)}")
    finding = found_one("table", lakebase_user.config(), tables=[notes], **asked)
    assert finding.verdict is verdict
    if missing:
        assert finding.sql.startswith(f"GRANT {missing} ON TABLE ")
        mend(admin, finding)
        assert found_one("table", lakebase_user.config(), tables=[notes], **asked).verdict is Verdict.OK


def test_a_schema_that_hides_a_table_is_opened_with_it(lakebase_user, admin, schema: str) -> None:
    admin.execute(f"CREATE TABLE {schema}.hidden (id int)")
    finding = found_one("table", lakebase_user.config(), tables=[f"{schema}.hidden"])
    assert finding.verdict is Verdict.FAILED
    mend(admin, finding)
    assert found_one("table", lakebase_user.config(), tables=[f"{schema}.hidden"]).verdict is Verdict.OK


def test_the_sequence_of_a_serial_column_has_a_right_of_its_own(lakebase_user, admin, schema: str) -> None:
    admin.execute(f"CREATE TABLE {schema}.visits (id serial)")
    admin.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role_of(lakebase_user)}")
    admin.execute(f"GRANT {ALL} ON {schema}.visits TO {role_of(lakebase_user)}")
    finding = found_one("table", lakebase_user.config(), tables=[f"{schema}.visits"])
    assert finding.verdict is Verdict.WARNING
    assert f"may not use the sequence {schema}.visits_id_seq" in finding.found
    mend(admin, finding)
    assert found_one("table", lakebase_user.config(), tables=[f"{schema}.visits"]).verdict is Verdict.OK


@pytest.mark.parametrize("name", ["schemas", "tables", "privileges"])
def test_a_text_is_no_list_of_names(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{name}='select': expected a list of names"):
        diagnose({}, environ={}, **{name: "select"})


def test_a_privilege_that_there_is_not_ends_the_examination(lakebase_user) -> None:
    finding = found_one("configuration", lakebase_user.config(), privileges=["read"])
    assert finding.found == "privileges: 'READ': expected some of SELECT, INSERT, UPDATE, DELETE"


# Policies


def test_policies_that_apply_are_fine(lakebase_user, notes: str) -> None:
    finding = found_one("row security", lakebase_user.config(), tables=[notes])
    assert (finding.verdict, finding.found) == (Verdict.OK, f"its policies apply to {lakebase_user.name}")


def test_a_table_without_row_level_security_is_a_users_warning_and_an_apps_note(
    lakebase_user, admin, notes: str
) -> None:
    admin.execute(f"ALTER TABLE {notes} DISABLE ROW LEVEL SECURITY")
    finding = found_one("row security", lakebase_user.config(), tables=[notes])
    assert finding.verdict is Verdict.WARNING
    # With no policy it would hide all rows: what it should be is for a person to write.
    assert {line[:3] for line in finding.sql.splitlines()} == {"-- "}
    client = lakebase_user.lake.workspace_client(lakebase_user.name)
    config = lakebase_user.config().merged({"workspace_client": client, "user": lakebase_user.name})
    assert found_one("row security", config, tables=[notes]).verdict is Verdict.NOTE


def test_an_owner_is_subject_to_policies_once_they_are_forced(lakebase_user, admin, notes: str) -> None:
    lake = lakebase_user.lake
    finding = found_one("row security", lake.config(lake.admin_user), tables=[notes])
    assert finding.verdict is Verdict.WARNING
    assert "an owner is not subject to policies" in finding.found
    mend(admin, finding)
    finding = found_one("row security", lake.config(lake.admin_user), tables=[notes])
    assert (finding.verdict, finding.found) == (
        Verdict.OK,
        "row-level security is on, and this role bypasses it",
    )


def test_a_table_whose_policies_show_nothing_is_told(lakebase_user, admin, notes: str) -> None:
    admin.execute(f"DROP POLICY own_rows ON {notes}")
    finding = found_one("row security", lakebase_user.config(), tables=[notes])
    assert finding.verdict is Verdict.WARNING
    assert "it sees no row" in finding.found
    admin.execute(f"CREATE POLICY others ON {notes} TO {lakebase_user.lake.client_id!r}".replace("'", '"'))
    assert found_one("row security", lakebase_user.config(), tables=[notes]).verdict is Verdict.WARNING
    admin.execute(f"CREATE POLICY theirs ON {notes} TO {role_of(lakebase_user)} USING (true)")
    assert found_one("row security", lakebase_user.config(), tables=[notes]).verdict is Verdict.OK


def test_a_view_reads_with_the_rights_of_who_asks_once_it_is_mended(lakebase_user, admin, notes: str) -> None:
    admin.execute(f"CREATE VIEW {notes}_of_all AS SELECT * FROM {notes}")
    admin.execute(f"GRANT SELECT ON {notes}_of_all TO {role_of(lakebase_user)}")
    finding = found_one("row security", lakebase_user.config(), tables=[f"{notes}_of_all"])
    assert finding.verdict is Verdict.WARNING
    assert "with the owner's rights" in finding.found
    mend(admin, finding)
    assert found("row security", lakebase_user.config(), tables=[f"{notes}_of_all"]) == []


def test_a_materialized_view_is_a_copy_that_no_policy_guards(lakebase_user, admin, schema: str, notes: str) -> None:
    admin.execute(f"CREATE MATERIALIZED VIEW {notes}_copy AS SELECT * FROM {notes}")
    copy = found_one("row security", lakebase_user.config(), tables=[f"{notes}_copy"])
    assert copy.verdict is Verdict.WARNING
    # With its schema, each table and view is looked at once.
    assert found("row security", lakebase_user.config(), schemas=[schema], tables=[notes]) == [copy]


def test_a_policy_for_a_table_with_a_line_end_in_its_name_stays_a_comment(lakebase_user, admin, schema: str) -> None:
    admin.execute(f'CREATE TABLE {schema}."x\nDROP TABLE y; --" (id int)')
    finding = found_one("row security", lakebase_user.config(), schemas=[schema])
    assert {line[:3] for line in finding.sql.splitlines()} == {"-- "}
