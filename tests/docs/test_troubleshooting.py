"""The messages on the page of troubles are those that the code has."""

from __future__ import annotations

import ast
from functools import cache

import pytest

from tests.docs.pages import ROOT, sections, tables

PAGE = ROOT / "docs" / "troubleshooting.md"
#: Sections with words of others.
OF_OTHERS = {"What the server says", "Databricks Apps"}
#: Words of psycopg_pool in a section of ours.
THEIRS = {"couldn't get a connection after"}


@cache
def literals() -> tuple[str, ...]:
    """The texts in the code; what is filled in is cut out of them as NUL."""
    found = []
    for package in ("pooling", "lakebase"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    found.append("".join(p.value if isinstance(p, ast.Constant) else "\0" for p in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return tuple(found)


def is_said(quoted: str) -> bool:
    """Whether the pieces between the ellipses come in this order in one text, or each sentence in one."""
    pieces = [piece.strip() for piece in quoted.split("…") if piece.strip()]

    def has_all(text: str) -> bool:
        at = 0
        for piece in pieces:
            at = text.find(piece, at)
            if at < 0:
                return False
        return True

    return any(has_all(text) for text in literals())


MESSAGES = [
    pytest.param(quoted, id=quoted[:40])
    for table in tables(PAGE)
    if table.section not in OF_OTHERS
    for cell in table.column(0)
    for quoted in cell
    if quoted not in THEIRS
]


@pytest.mark.parametrize("quoted", MESSAGES)
def test_a_message_on_the_page_is_in_the_code(quoted):
    first, _, second = quoted.partition("… Check")  # a message and the advice that it ends with
    assert is_said(first)
    assert not second or is_said(f"Check{second}")


def test_a_message_that_is_not_in_the_code_is_found():
    assert not is_said("no connection for love nor money")
    assert set(sections(PAGE)) > OF_OTHERS
    assert len(MESSAGES) > 15
