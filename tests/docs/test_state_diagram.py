"""The diagram in the engine's page is the table in the ledger."""

from __future__ import annotations

import re

import pooling._engine.ledger
from tests.docs.pages import ROOT

ROW = re.compile(r"^    ([A-Z]+) {2,}.*?(?=\b\w+ -> )(.*)$", re.MULTILINE)


def transitions_of_the_table() -> set[tuple[str, str, str]]:
    found = set()
    for state, moves in ROW.findall(pooling._engine.ledger.__doc__ or ""):
        for move in moves.split("|"):
            method, _, target = move.strip().partition(" -> ")
            found.add((state, target, method))
    return found


def transitions_of_the_diagram() -> set[tuple[str, str, str]]:
    page = (ROOT / "docs" / "engine.md").read_text(encoding="utf-8")
    return set(re.findall(r"^    ([A-Z]+) --> ([A-Z]+): (\w+)$", page, re.MULTILINE))


def test_the_diagram_shows_the_ledgers_transitions():
    table = transitions_of_the_table()
    assert len(table) > 10
    assert transitions_of_the_diagram() == table


def test_every_transition_is_a_method_of_the_ledger():
    for _, _, method in transitions_of_the_table():
        assert hasattr(pooling._engine.ledger.Ledger, method)
