"""What the tests of the doctor share: running the command, and mending what it found."""

from __future__ import annotations

import argparse
import io
from typing import Any

import psycopg

from lakebase.doctor import Finding, Verdict, add_arguments, diagnose, main


def run(*arguments: str) -> tuple[int, str]:
    """The exit status of the command and what it printed, whose lines fit a terminal."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    out = io.StringIO()
    status = main(parser.parse_args(arguments), out)
    if "--json" not in arguments:
        assert [line for line in out.getvalue().splitlines() if len(line) > 80] == []
    return status, out.getvalue()


def found(check: str, config: Any, **asked: Any) -> list[Finding]:
    """The findings of one check."""
    return [finding for finding in diagnose(config, environ={}, **asked) if finding.check == check]


def found_one(check: str, config: Any, **asked: Any) -> Finding:
    """The only finding of a check."""
    (finding,) = found(check, config, **asked)
    return finding


def mend(connection: psycopg.Connection[Any], finding: Finding) -> None:
    """Run the SQL of a finding, as it is printed."""
    assert finding.sql
    connection.execute(finding.sql.encode())


def is_bad(finding: Finding) -> bool:
    """Whether it is more than a note."""
    return finding.verdict in (Verdict.WARNING, Verdict.FAILED)
