"""What should be allowed is checked where it is said, and is written as SQL without a look at the database."""

from __future__ import annotations

import pytest

from lakebase import ConfigurationError
from lakebase._role_sql import laid_out
from lakebase.roles import (
    Access,
    create_role_statements,
    grant_statements,
    revoke_statements,
    row_security_statements,
)

APPLICATION = "1b2c3d4e-0000-4000-8000-00805f9b34fb"


def test_a_role_is_made_by_the_function_of_lakebase_with_the_name_as_a_literal() -> None:
    assert create_role_statements("o'hara@corp.example") == [
        "CREATE EXTENSION IF NOT EXISTS databricks_auth",
        "SELECT databricks_create_role('o''hara@corp.example', 'USER')",
    ]
    assert create_role_statements(APPLICATION, "service_principal")[1].endswith("'SERVICE_PRINCIPAL')")


def test_reading_is_a_schema_its_tables_and_those_to_come() -> None:
    assert grant_statements(Access("ann@corp.example", schemas=["app"])) == [
        'GRANT USAGE ON SCHEMA "app" TO "ann@corp.example"',
        'GRANT SELECT ON ALL TABLES IN SCHEMA "app" TO "ann@corp.example"',
        'ALTER DEFAULT PRIVILEGES IN SCHEMA "app" GRANT SELECT ON TABLES TO "ann@corp.example"',
    ]


def test_writing_named_tables_says_nothing_of_others() -> None:
    statements = grant_statements(Access('a"b', schemas=["app"], tables=["notes", "my notes"], level="write"))
    assert statements == [
        'GRANT USAGE ON SCHEMA "app" TO "a""b"',
        'GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE "app"."notes", "app"."my notes" TO "a""b"',
    ]


def test_tables_to_come_are_those_of_each_creator() -> None:
    statements = grant_statements(Access("ann", schemas=["app"], level="write", creators=["maker", "other"]))
    of_tables = 'IN SCHEMA "app" GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO "ann"'
    of_sequences = 'IN SCHEMA "app" GRANT USAGE ON SEQUENCES TO "ann"'
    assert [line for line in statements if line.startswith("ALTER DEFAULT")] == [
        f'ALTER DEFAULT PRIVILEGES FOR ROLE "maker" {of_tables}',
        f'ALTER DEFAULT PRIVILEGES FOR ROLE "maker" {of_sequences}',
        f'ALTER DEFAULT PRIVILEGES FOR ROLE "other" {of_tables}',
        f'ALTER DEFAULT PRIVILEGES FOR ROLE "other" {of_sequences}',
    ]


def test_owning_named_tables_leaves_the_schema_to_its_owner() -> None:
    assert grant_statements(Access("ann", schemas=["app"], tables=["notes"], level="own")) == [
        'GRANT USAGE, CREATE ON SCHEMA "app" TO "ann"',
        'ALTER TABLE "app"."notes" OWNER TO "ann"',
    ]
    assert 'ALTER SCHEMA "app" OWNER TO "ann"' in grant_statements(Access("ann", schemas=["app"], level="own"))


def test_what_is_granted_is_what_is_revoked_in_reverse_order() -> None:
    access = Access("ann", schemas=["app", "other"], level="write", member_of=["readers"])
    turned = [line.replace("REVOKE", "GRANT").replace(" FROM ", " TO ") for line in revoke_statements(access)]
    assert turned[::-1] == grant_statements(access)


def test_statements_are_laid_out_without_a_break_inside_a_name() -> None:
    statement = grant_statements(Access("a long name " * 5, schemas=["app"], level="write"))[1]
    lines = laid_out(statement, 60).splitlines()
    assert [line.strip() for line in lines] == [
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA",
        '"app" TO',
        f'"{"a long name " * 5}"',
    ]
    assert " ".join(line.removeprefix("    ") for line in lines) == statement


def test_what_is_owned_cannot_be_revoked() -> None:
    with pytest.raises(ConfigurationError, match=r"give what is owned to another role"):
        revoke_statements(Access("ann", schemas=["app"], level="own"))


def test_row_level_security_is_enabled_and_forced() -> None:
    statements = [
        'ALTER TABLE "app"."notes" ENABLE ROW LEVEL SECURITY',
        'ALTER TABLE "app"."notes" FORCE ROW LEVEL SECURITY',
    ]
    assert row_security_statements("app", ["notes"]) == statements
    assert grant_statements(Access("ann", schemas=["app"], tables=["notes"], row_security=True))[-2:] == statements


def test_the_kind_is_told_by_the_form_of_the_identity() -> None:
    assert Access(APPLICATION).identity_kind == "service_principal"
    assert Access("ann@corp.example").identity_kind == "user"
    assert Access("data team", kind="group").identity_kind == "group"


@pytest.mark.parametrize(
    ("identity", "values", "field", "words"),
    [
        ("", {}, "identity", "expected the name of a role"),
        ("Public", {}, "identity", "keeps this name to itself"),
        ("pg_monitor", {}, "identity", "keeps this name to itself"),
        ("x" * 64, {}, "identity", "64 bytes"),
        ("é" * 32, {}, "identity", "64 bytes"),
        ("a\0b", {}, "identity", "zero byte"),
        ("a\udc80b", {}, "identity", "UTF-8"),
        ("ann", {"member_of": ["none"]}, "member_of", "keeps this name to itself"),
        ("ann", {"member_of": ["ann"]}, "member_of", "member of itself"),
        ("ann", {"kind": "robot"}, "kind", "'service_principal'"),
        ("ann@corp.example", {"kind": "service_principal"}, "identity", "application id"),
        ("ann", {"level": "admin"}, "level", "'own'"),
        ("ann", {"future": "no"}, "future", "True or False"),
        ("ann", {"schemas": "app"}, "schemas", "such as ['app']"),
        ("ann", {"schemas": ["a\udc80b"]}, "schemas", "is no name"),
        ("ann", {"schemas": ["x" * 64]}, "schemas", "64 bytes"),
        ("ann", {"schemas": [""]}, "schemas", "is no name"),
        ("ann", {"schemas": ["pg_catalog"]}, "schemas", "Postgres itself"),
        ("ann", {"schemas": ["app"], "tables": []}, "tables", "tables=None for all"),
        ("ann", {"schemas": ["app", "b"], "tables": ["notes"]}, "tables", "one schema"),
        ("ann", {"tables": ["notes"]}, "tables", "one schema"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_says_what_can(identity, values, field, words) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Access(identity, **values)
    assert refused.value.field == field
    assert words in str(refused.value)
