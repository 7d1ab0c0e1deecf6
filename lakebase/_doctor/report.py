"""Findings as text for a terminal, as JSON, and as a file of SQL. Pure functions: nothing is asked or written here."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from .finding import Finding, Fix, Verdict

__all__ = ["SQL_HEAD", "as_json", "as_sql_file", "as_text", "exit_status"]

WIDTH = 80
_CHECK = 13
_FOUND = 6 + _CHECK + 2  # columns before what was found
_MORE = 6  # and before all that follows
#: The first line of a file of SQL, by which a later examination knows that it may be replaced.
SQL_HEAD = "-- Written by lakebase doctor."
_NEXT_STATEMENT = re.compile(r"(?<=;)\n(?=[A-Z])")
_COLOURS = {Verdict.OK: "32", Verdict.NOTE: "36", Verdict.WARNING: "33", Verdict.FAILED: "1;31", Verdict.SKIPPED: "2"}


def as_text(finding: Finding, *, colour: bool = False) -> str:
    """
    One finding in lines of at most 80 columns, but for text to copy, whose lines stay whole.

    Args:
        finding: Any.
        colour: Whether the verdict has its colour, by the escape sequences of terminals.
    """
    word = f"{finding.verdict.value:<4}"
    if colour:
        word = f"\x1b[{_COLOURS[finding.verdict]}m{word}\x1b[0m"
    found = _wrapped(finding.found, begin=" " * _FOUND)
    lines = [f"{word}  {finding.check:<{_CHECK}}  {found[0].lstrip()}", *found[1:]]
    for detail in finding.details:
        lines += _wrapped(detail, begin=" " * _MORE + "- ")
    if finding.advice:
        lines += _wrapped(finding.advice, begin=" " * _MORE + "-> ")
    for fix in finding.fixes:
        lines += _fix(fix)
    return "\n".join(lines) + "\n"


def as_json(findings: Sequence[Finding], status: int) -> str:
    """
    All findings as one JSON object, whose members are on the page of the doctor.

    Args:
        findings: Any.
        status: The exit status.
    """
    found: dict[str, Any] = {"version": 1, "status": status, "findings": [_as_dict(finding) for finding in findings]}
    return json.dumps(found, indent=2, ensure_ascii=True) + "\n"


def as_sql_file(findings: Iterable[Finding]) -> str:
    """The statements of all findings, each once, under the finding that they mend and who may run them."""
    parts = [SQL_HEAD + " Read each statement before you run it."]
    seen: set[str] = set()
    for finding in findings:
        for fix in finding.fixes:
            if fix.kind != "sql" or not (text := _new_sql(fix.text, seen)):
                continue
            comment = _plain(f"{finding.check}: {finding.found}")
            lines = textwrap.wrap(comment, WIDTH - 3, break_on_hyphens=False)
            lines += [_plain(f"Run {fix.where}.")] if fix.where.startswith("as ") else []
            parts.append("\n".join([*(f"-- {line}" for line in lines), text]))
    if len(parts) == 1:
        parts.append("-- No finding is mended by SQL.")
    return "\n\n".join(parts) + "\n"


def exit_status(findings: Iterable[Finding], *, strict: bool = False) -> int:
    """
    0 if a pool would work, warnings or not, else 1.

    Args:
        findings: Any.
        strict: Whether a warning counts as well.
    """
    bad = {Verdict.FAILED, Verdict.WARNING} if strict else {Verdict.FAILED}
    return int(any(finding.verdict in bad for finding in findings))


def _new_sql(text: str, seen: set[str]) -> str:
    """The text of a fix without statements that another fix has; a line that goes on with one begins with a space."""
    statements = _NEXT_STATEMENT.split(text)
    if any(each.count(quote) % 2 for each in statements for quote in "\"'"):
        statements = [text]  # what looks like an end is within a name
    new = [each for each in statements if each not in seen]
    seen.update(new)
    return "\n".join(new)


def _fix(fix: Fix) -> list[str]:
    title = {"sql": "SQL", "yaml": "YAML", "python": "Python", "shell": "shell", "settings": "settings"}[fix.kind]
    lines = _wrapped(f"{title}, {fix.where}:" if fix.where else f"{title}:", begin=" " * _MORE)
    begin = " " * (_MORE + 2)
    if fix.kind == "settings":
        return lines + _wrapped(fix.text, begin=begin)
    return lines + [f"{begin}{_plain(line)}".rstrip() for line in fix.text.splitlines()]


def _as_dict(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "severity": finding.severity,
        "found": finding.found,
        "details": list(finding.details),
        "advice": finding.advice,
        "fixes": [{"kind": fix.kind, "text": fix.text, "where": fix.where} for fix in finding.fixes],
    }


def _wrapped(text: str, *, begin: str) -> list[str]:
    """Lines of text; the first has `begin` before it, the others as many spaces."""
    after = " " * len(begin)
    return textwrap.wrap(
        _plain(text), WIDTH, initial_indent=begin, subsequent_indent=after, break_on_hyphens=False
    ) or [begin]


def _plain(text: str) -> str:
    """Text of servers and files without what would move a terminal's cursor or end a line."""
    return "".join(each if each.isprintable() else " " if each.isspace() else f"\\x{ord(each):02x}" for each in text)
