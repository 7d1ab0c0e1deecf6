"""What the pooler would break is found on Postgres' own parse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from lakebase.transaction_mode import Restriction, _found_before, transaction_mode_violations

FORBIDDEN = {
    Restriction.PREPARED_STATEMENT: [
        "PREPARE q AS SELECT 1",
        "EXECUTE q",
        "DEALLOCATE q",
        "DEALLOCATE ALL",
    ],
    Restriction.SESSION_SETTING: [
        "SET search_path = a",
        "set SESSION statement_timeout to 5",
        "SET ROLE ann",
        "SET SESSION AUTHORIZATION ann",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "RESET search_path",
        "RESET ALL",
        "DISCARD ALL",
        "LOAD 'auto_explain'",
        "SELECT set_config('app.user', %s, false)",
        "SELECT pg_catalog.set_config('search_path', '', 'f')",
        "WITH x AS (SELECT set_config('a.b', 'c', false)) SELECT * FROM x",
        *(f"SELECT set_config('a.b', 'c', '{word}')" for word in ("no", "0", "n", "of", "fal", " OFF ")),
        "SELECT set_config('a.b', 'c', 0::bool)",
        "SELECT set_config('a.b', 'c', not true)",
        "SELECT set_config('a.b', 'c', NOT NOT false)",
        "SELECT set_config('a.b', 'c', is_local => false)",
        "SELECT set_config(is_local => 'no', new_value => 'c', setting_name => 'a.b')",
        "UPDATE pg_settings SET setting = '5' WHERE name = 'statement_timeout'",
        "UPDATE pg_catalog.pg_settings SET setting = '5'",
        "SELECT setseed(0.5)",
    ],
    Restriction.SEQUENCE_STATE: [
        "SELECT currval('s')",
        "SELECT lastval()",
        "INSERT INTO t VALUES (pg_catalog.lastval())",
    ],
    Restriction.TWO_PHASE: ["PREPARE TRANSACTION 'a'"],
    Restriction.TEMPORARY_TABLE: [
        "CREATE TEMP TABLE t (a int)",
        "CREATE TEMPORARY TABLE t (a int) ON COMMIT DELETE ROWS",
        "CREATE TEMP TABLE t AS SELECT 1",
        "SELECT 1 INTO TEMP t",
        "CREATE TEMP VIEW v AS SELECT 1",
        "CREATE TEMP SEQUENCE s",
        "CREATE TABLE pg_temp.t (a int)",
    ],
    Restriction.HELD_CURSOR: [
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "declare c scroll cursor with hold for table t",
    ],
    Restriction.SESSION_LOCK: [
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_try_advisory_lock(1, 2)",
        "SELECT pg_advisory_lock_shared(%(key)s)",
        "SELECT pg_advisory_unlock(1)",
        "SELECT pg_advisory_unlock_all()",
        "SELECT * FROM t WHERE pg_catalog.pg_try_advisory_lock_shared(t.id)",
        "DO $$ BEGIN PERFORM pg_advisory_lock(1); END $$",
        "DO $$ DECLARE b bool; BEGIN b := pg_try_advisory_lock(1); END $$",
    ],
    Restriction.NOTIFICATION: ["LISTEN x", "UNLISTEN *", "NOTIFY x, 'y'", "SELECT pg_notify('x', 'y')"],
    Restriction.SCHEMA_CHANGE: [
        "CREATE TABLE t (a int)",
        "CREATE TABLE t AS SELECT 1",
        "SELECT 1 INTO t",
        "ALTER TABLE t ADD COLUMN b int",
        "DROP TABLE t",
        "CREATE INDEX CONCURRENTLY i ON t (a)",
        "CREATE VIEW v AS SELECT 1",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'select 1'",
        "CREATE POLICY p ON t USING (owner = current_user)",
        "CREATE EXTENSION pg_trgm",
        "ALTER TABLE t RENAME TO u",
    ],
}

FIT = [
    "ALTER ROLE ann SET statement_timeout = '5s'",
    "ALTER ROLE ann RESET ALL",
    "ALTER USER ann IN DATABASE app SET search_path = a",
    "ALTER DATABASE app SET work_mem = '8MB'",
    "ALTER DATABASE app RESET work_mem",
    "ALTER SYSTEM SET work_mem = '8MB'",
    "SELECT set_config('a.b', 'c', 'on')",
    "SELECT set_config('a.b', 'c', 1::bool)",
    "SELECT set_config('a.b', 'c', not false)",
    "SELECT set_config(is_local => true, setting_name => 'a.b', new_value => 'no')",
    "SELECT set_config('timezone', 'UTC', is_local => false)",
    "COMMIT PREPARED 'a'",
    "SELECT nextval('s')",
    "UPDATE settings SET setting = '5'",
    "SELECT 1",
    "",
    "  -- nothing",
    "SELECT * FROM t WHERE a = %s AND b = %(b)s AND c LIKE 'x%%'",
    "INSERT INTO t VALUES ($1) RETURNING *",
    "MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN UPDATE SET b = 1 RETURNING old.b, new.b",
    "BEGIN; SET LOCAL search_path = a; COMMIT",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET CONSTRAINTS ALL DEFERRED",
    "SET TIME ZONE 'UTC'",
    "SET application_name = 'x'",
    "SELECT set_config('app.user', %s, true)",
    "SELECT set_config('timezone', 'UTC', false)",
    "SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock(2)",
    "SELECT mine.pg_advisory_lock(1)",
    "SELECT 'LISTEN x; SET a = 1; pg_advisory_lock(1)' AS text -- PREPARE q",
    'SELECT "pg_advisory_lock" FROM t',
    "CREATE TEMP TABLE t (a int) ON COMMIT DROP",
    "CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1",
    "DECLARE c CURSOR FOR SELECT 1",
    "DO $$ BEGIN PERFORM 1; END $$",
    "COPY t FROM STDIN",
    "EXPLAIN ANALYZE SELECT 1",
    "TRUNCATE t; ANALYZE t",
    "GRANT SELECT ON t TO ann",
]


@pytest.mark.parametrize(
    ("text", "restriction"), [(text, restriction) for restriction, texts in FORBIDDEN.items() for text in texts]
)
def test_each_restriction_is_found_and_says_what_to_use_instead(text: str, restriction: Restriction) -> None:
    found = transaction_mode_violations(text)
    assert [violation.restriction for violation in found] == [restriction]
    assert found[0].instead in str(found[0])
    assert found[0].line == 1


@pytest.mark.parametrize("text", FIT)
def test_what_is_fit_for_the_pooler_is_left_alone(text: str) -> None:
    assert transaction_mode_violations(text) == []


def test_every_restriction_has_an_example_here() -> None:
    assert set(FORBIDDEN) == set(Restriction)
    assert len(Restriction) == 9


def test_each_statement_of_a_script_is_read_with_its_line() -> None:
    script = """SELECT 'é';

-- a comment
LISTEN x;
SELECT 1; SET a.b = 1;
DO $$
BEGIN
  PERFORM pg_advisory_lock(1);
END $$"""
    found = transaction_mode_violations(script)
    assert [(violation.restriction.name, violation.line) for violation in found] == [
        ("NOTIFICATION", 4),
        ("SESSION_SETTING", 5),
        ("SESSION_LOCK", 8),
    ]


def test_the_preamble_of_pg_dump_is_refused() -> None:
    preamble = """SET statement_timeout = 0; SET client_encoding = 'UTF8';
SELECT pg_catalog.set_config('search_path', '', false);"""
    assert [violation.what for violation in transaction_mode_violations(preamble)] == [
        "SET statement_timeout",
        "set_config(…, false)",
    ]


def test_bytes_and_composed_sql_are_read_too() -> None:
    composed = sql.SQL("LISTEN {}").format(sql.Identifier("My Channel"))
    assert len(transaction_mode_violations(composed)) == 1
    assert len(transaction_mode_violations(b"LISTEN x")) == 1


@pytest.mark.parametrize("text", ["SELEC 1", "SELECT %z", "SELECT 'a", 5])
def test_what_is_no_sql_is_a_value_error(text) -> None:
    with pytest.raises(ValueError, match=r"SQL"):
        transaction_mode_violations(text)


@given(st.text(max_size=60))
def test_no_text_whatever_breaks_the_reader(text: str) -> None:
    try:
        transaction_mode_violations(text)
    except ValueError:
        pass


def test_a_text_seen_before_is_not_parsed_again() -> None:
    before = _found_before.cache_info().hits
    transaction_mode_violations("SELECT 42 AS seen_twice")
    transaction_mode_violations("SELECT 42 AS seen_twice")
    assert _found_before.cache_info().hits == before + 1


DEEP = "+".join(["1"] * 400)


@pytest.mark.parametrize(
    "text",
    [
        f"SELECT {DEEP}",
        " UNION ALL ".join(["SELECT 1"] * 200),
        f"INSERT INTO t SELECT {DEEP} -- LISTEN x\n ON CONFLICT DO NOTHING",
    ],
)
def test_a_statement_of_any_depth_is_read(text: str) -> None:
    assert transaction_mode_violations(text) == []


@pytest.mark.parametrize(
    ("text", "restriction"),
    [
        ("PREPARE q AS SELECT {deep}", Restriction.PREPARED_STATEMENT),
        ("SELECT pg_catalog.pg_advisory_lock(1), {deep}", Restriction.SESSION_LOCK),
        ("SELECT pg_notify('x', 'y'), {deep}", Restriction.NOTIFICATION),
        ("SELECT set_config('a.b', 'c', false), {deep}", Restriction.SESSION_SETTING),
        ("SELECT {deep}; SET search_path = a", Restriction.SESSION_SETTING),
        ("SELECT {deep}; RESET ALL", Restriction.SESSION_SETTING),
        ("CREATE TEMP TABLE t AS SELECT {deep}", Restriction.TEMPORARY_TABLE),
        ("SELECT {deep} INTO TEMP t", Restriction.TEMPORARY_TABLE),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT {deep}", Restriction.HELD_CURSOR),
        ("CREATE VIEW v AS SELECT {deep}", Restriction.SCHEMA_CHANGE),
        ("SELECT {deep} + %s; LISTEN x", Restriction.NOTIFICATION),
    ],
)
def test_what_the_pooler_would_break_is_found_at_any_depth(text: str, restriction: Restriction) -> None:
    assert [each.restriction for each in transaction_mode_violations(text.format(deep=DEEP))] == [restriction]


@pytest.mark.parametrize("text", [text for text in FIT if not text.startswith("DO")])
def test_at_any_depth_what_is_fit_is_left_alone(text: str) -> None:
    assert transaction_mode_violations(f"SELECT {DEEP}; {text}") == []


def test_the_lines_of_a_deep_script_are_its_own() -> None:
    found = transaction_mode_violations(f"SELECT 1;\nSELECT {DEEP};\n\nLISTEN x;\nSELECT mine.pg_advisory_lock(1)")
    assert [(each.what, each.line) for each in found] == [("LISTEN", 4)]
