"""The diagram in the engine's page is the table of a slot's states."""

from __future__ import annotations

import pooling._engine.ledger
import pooling._engine.slots
from tests.docs.pages import ROOT, blocks


def transitions_of_the_table() -> set[tuple[str, str, str]]:
    """The rows of the table: a state, what it means, and its moves, `method -> STATE | method -> STATE`."""
    found = set()
    for line in (pooling._engine.slots.__doc__ or "").splitlines():
        if " -> " in line:
            first, *others = line.split(" | ")
            state, *_, method, _, target = first.split()
            found.add((state, target, method))
            for move in others:
                method, _, target = move.split()
                found.add((state, target, method))
    return found


def transitions_of_the_diagram() -> set[tuple[str, str, str]]:
    """The arrows of the page's picture: `STATE --> STATE: method`, but for where a resource begins and ends."""
    (picture,) = [block for block in blocks(ROOT / "docs" / "engine.md") if block.language == "mermaid"]
    arrows = [line.replace(":", " ").split() for line in picture.text.splitlines() if "-->" in line and ":" in line]
    return {(state, target, method) for state, _, target, method in arrows}


def test_the_diagram_shows_the_ledgers_transitions():
    table = transitions_of_the_table()
    assert len(table) > 10
    assert transitions_of_the_diagram() == table


def test_every_transition_is_a_method_of_the_ledger():
    for _, _, method in transitions_of_the_table():
        assert hasattr(pooling._engine.ledger.Ledger, method)
