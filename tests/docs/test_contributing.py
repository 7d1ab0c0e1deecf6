"""CONTRIBUTING's table of modules and tests is complete, and all that it names exists."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from tests.architecture.source import sources
from tests.docs.pages import ROOT, blocks, tables

PAGE = ROOT / "CONTRIBUTING.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
(TABLE,) = tables(PAGE, "Where things are tested")
PATTERNS = [pattern for cell in TABLE.column(0) for pattern in cell]
PLACES = [place for cell in TABLE.column(1) for place in cell]
MODULES = [source.where for source in sources("pooling", "lakebase")]


def covers(pattern: str, module: str) -> bool:
    """Whether a pattern is of a module, or of a folder above it; `*` stands for no `/`."""
    path = PurePosixPath(module)
    return any(part.match(pattern) and len(part.parts) == pattern.count("/") + 1 for part in (path, *path.parents))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_in_the_table(module):
    assert any(covers(pattern, module) for pattern in PATTERNS), f"add {module} to the table of {PAGE.name}"


def test_every_pattern_of_the_table_is_of_some_module():
    assert [pattern for pattern in PATTERNS if not any(covers(pattern, module) for module in MODULES)] == []


def test_every_place_of_tests_in_the_table_exists_and_has_tests():
    assert [place for place in PLACES if not any((ROOT / place).rglob("test_*.py"))] == []


def test_the_picture_names_only_what_there_is():
    (picture,) = [block for block in blocks(ARCHITECTURE) if block.language == "mermaid"]
    package, missing = "", []
    for line in picture.text.splitlines():
        name, bracket, label = line.strip().partition('["')
        if name.startswith("subgraph "):
            package = name.removeprefix("subgraph ")
        elif bracket:
            for part in label.partition("<br>")[0].split(", "):
                base = ROOT / package / part
                if not (base.is_dir() or base.with_suffix(".py").is_file()):
                    missing.append(f"{package}/{part}")
    assert not missing


@pytest.mark.parametrize(
    ("pattern", "module", "expected"),
    [
        ("pooling/di", "pooling/di/_plan.py", True),
        ("pooling/_*.py", "pooling/_engine/ledger.py", False),
        ("pooling/_*", "pooling/_engine/ledger.py", True),
        ("pooling/context*", "pooling/context/values.py", True),
        ("pooling/*.py", "pooling/di/container.py", False),
    ],
)
def test_what_a_pattern_covers(pattern, module, expected):
    assert covers(pattern, module) is expected
