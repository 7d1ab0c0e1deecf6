"""How findings are printed, written as SQL and as JSON, and what the exit status says. Nothing is asked here."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import pytest

from lakebase._doctor.examination import ALL_CHECKS
from lakebase._doctor.statements import as_sql
from lakebase.doctor import (
    Finding,
    Fix,
    Verdict,
    add_arguments,
    as_json,
    as_sql_file,
    as_text,
    exit_status,
    main,
)
from tests.docs.pages import ROOT, tables
from tests.lakebase.doctor_parts import run

pytestmark = pytest.mark.usefixtures("no_ambient_settings")

GRANT = as_sql(['GRANT SELECT ON TABLE "a"."b" TO "c"'], "as owner")
FINDING = Finding(
    "table",
    Verdict.FAILED,
    "a.b is of owner, who alone may alter and drop it; c may not SELECT, INSERT, UPDATE, DELETE",
    "grant it",
    (GRANT, Fix("yaml", "a:\n  - b", "in databricks.yml")),
    ("one", "two"),
)


def test_a_finding_is_laid_out_for_a_terminal() -> None:
    assert as_text(FINDING).splitlines() == [
        "FAIL  table          a.b is of owner, who alone may alter and drop it; c may not",
        "                     SELECT, INSERT, UPDATE, DELETE",
        "      - one",
        "      - two",
        "      -> grant it",
        "      SQL, as owner:",
        '        GRANT SELECT ON TABLE "a"."b" TO "c";',
        "      YAML, in databricks.yml:",
        "        a:",
        "          - b",
    ]


def test_colour_is_the_verdicts_alone() -> None:
    text = as_text(FINDING, colour=True)
    assert text.startswith("\x1b[1;31mFAIL\x1b[0m  table")
    assert text.count("\x1b") == 2


def test_text_of_a_server_moves_no_cursor() -> None:
    text = as_text(Finding("login", Verdict.FAILED, "a\x1b[2Jb\nc", fixes=(Fix("sql", "x\x07"),)))
    assert text == "FAIL  login          a\\x1b[2Jb c\n      SQL:\n        x\\x07\n"


def test_long_words_and_long_statements_stay_in_80_columns() -> None:
    long = as_sql(["GRANT SELECT ON TABLE " + ", ".join(f'"app"."table {n}"' for n in range(20)) + ' TO "ann b"'])
    text = as_text(Finding("host", Verdict.OK, "x" * 200, fixes=(long,)))
    assert max(map(len, text.splitlines())) <= 80
    # Only spaces between words became line ends.
    assert '"table 19"' in long.text
    assert " ".join(long.text.split()) == " ".join(long.text.replace("\n    ", " ").split())


def test_sql_is_written_once_under_what_it_mends() -> None:
    text = as_sql_file([FINDING, FINDING, Finding("TLS", Verdict.OK, "fine")])
    assert text.splitlines() == [
        "-- Written by lakebase doctor. Read each statement before you run it.",
        "",
        "-- table: a.b is of owner, who alone may alter and drop it; c may not SELECT,",
        "-- INSERT, UPDATE, DELETE",
        "-- Run as owner.",
        'GRANT SELECT ON TABLE "a"."b" TO "c";',
    ]
    assert as_sql_file([]).endswith("-- No finding is mended by SQL.\n")


def test_a_statement_that_two_findings_need_is_written_once() -> None:
    usage, select = 'GRANT USAGE ON SCHEMA "a" TO "c"', 'GRANT SELECT ON TABLE "a"."b" TO "c"'
    findings = [Finding("x", Verdict.FAILED, "", fixes=(as_sql(each),)) for each in ([usage], [usage, select])]
    assert as_sql_file(findings).splitlines()[2:] == ["-- x:", f"{usage};", "", "-- x:", f"{select};"]


def test_a_name_that_looks_like_two_statements_stays_whole() -> None:
    fixes = [as_sql([f'GRANT SELECT ON TABLE "{schema};\nX" TO "c"']) for schema in "ab"]
    text = as_sql_file([Finding("x", Verdict.FAILED, "", fixes=(fix,)) for fix in fixes])
    assert all(fix.text in text for fix in fixes)


def test_no_name_ends_a_comment() -> None:
    evil = Finding("table", Verdict.FAILED, "x\nDROP TABLE y;", fixes=(Fix("sql", "SELECT 1;", "as z\nDROP TABLE z;"),))
    assert [line for line in as_sql_file([evil]).splitlines() if line and not line.startswith("--")] == ["SELECT 1;"]


def test_json_has_every_part() -> None:
    found = json.loads(as_json([FINDING], 1))
    assert (found["version"], found["status"]) == (1, 1)
    assert found["findings"] == [
        {
            "check": "table",
            "severity": "error",
            "found": FINDING.found,
            "details": ["one", "two"],
            "advice": "grant it",
            "fixes": [
                {"kind": "sql", "text": GRANT.text, "where": "as owner"},
                {"kind": "yaml", "text": "a:\n  - b", "where": "in databricks.yml"},
            ],
        }
    ]


def test_the_status_is_the_worst_findings() -> None:
    def status(*verdicts: Verdict, strict: bool = False) -> int:
        return exit_status([Finding("x", verdict, "") for verdict in verdicts], strict=strict)

    assert status() == status(Verdict.OK, Verdict.NOTE, Verdict.SKIPPED) == status(Verdict.WARNING) == 0
    assert status(Verdict.WARNING, Verdict.FAILED) == 1
    assert status(Verdict.WARNING, strict=True) == 1
    assert status(Verdict.NOTE, strict=True) == 0
    assert [verdict.severity for verdict in Verdict] == ["ok", "note", "warning", "error", "skipped"]


# The command, on a configuration that ends at once

NOWHERE = ("--host", "db.example", "--database", "d", "--user", "u", "--port", "0")


def test_json_is_all_that_is_printed() -> None:
    status, text = run(*NOWHERE, "--json")
    assert (status, json.loads(text)["status"]) == (1, 1)


def test_with_nothing_to_mend_there_is_no_file_and_that_of_an_earlier_run_loses_its_statements(
    tmp_path: Path, capsys
) -> None:
    path = tmp_path / "fix.sql"
    status, text = run(*NOWHERE, "--fix-sql", str(path))
    assert (status, text.startswith("FAIL  configuration")) == (1, True)
    assert not path.exists()
    assert capsys.readouterr().err == f"no finding is mended by SQL: {path} is not written\n"
    path.write_text(as_sql_file([FINDING]))
    assert run(*NOWHERE, "--fix-sql", str(path))[0] == 1
    assert path.read_text() == as_sql_file([])
    assert capsys.readouterr().err == f"wrote {path}: 0 findings\n"


def test_sql_that_mends_is_written_to_the_file_and_that_is_said(lakebase_user, monkeypatch, tmp_path, capsys) -> None:
    for name, value in lakebase_user.lake.environment(user=lakebase_user.name).items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "fix.sql"
    assert run("--schema", "not_there", "--fix-sql", str(path))[0] == 1
    assert capsys.readouterr().err == f"wrote {path}: 1 finding\n"
    assert 'CREATE SCHEMA "not_there";' in path.read_text()


def test_a_file_of_somebody_else_is_left_as_it_is(tmp_path: Path, capsys) -> None:
    path = tmp_path / "schema.sql"
    path.write_text("CREATE TABLE a ();\n")
    assert run(*NOWHERE, "--fix-sql", str(path)) == (2, "")
    assert "left as it is" in capsys.readouterr().err
    assert path.read_text() == "CREATE TABLE a ();\n"
    assert run(*NOWHERE, "--fix-sql", str(tmp_path)) == (2, "")
    assert run(*NOWHERE, "--fix-sql", str(tmp_path / "none" / "fix.sql")) == (2, "")
    assert "there is no directory" in capsys.readouterr().err


def test_sql_alone_is_on_stdout_for_a_pipe(capsys) -> None:
    status, text = run(*NOWHERE, "--fix-sql", "-")
    assert status == 1
    assert text.startswith("-- Written by lakebase doctor.")
    assert capsys.readouterr().err.startswith("FAIL  configuration")
    assert run(*NOWHERE, "--fix-sql", "-", "--json") == (2, "")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("variables", "has_colour"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colour_is_for_terminals_that_want_it(variables: dict, has_colour: bool, monkeypatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    out = _Terminal()
    assert main(parser.parse_args(NOWHERE), out) == 1
    assert ("\x1b" in out.getvalue()) is has_colour


def test_what_excludes_each_other_is_refused(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        run("--max-total", "5", "--budget", "5")
    assert ended.value.code == 2
    assert "not allowed with" in capsys.readouterr().err
    assert run("--user-token", "-", "--native-password") == (2, "")
    assert "give one of --native-password" in capsys.readouterr().err


def test_the_page_has_every_check_in_order() -> None:
    (table, *_) = tables(ROOT / "docs" / "doctor.md", "What it looks at")
    assert [name for (name,) in table.column(0)] == [name for name, _ in ALL_CHECKS]
