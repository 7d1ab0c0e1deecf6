"""
The documents, run as their reader does: what they show, in order, and nothing else.

The blocks of one document share their names; `<!--- clear-namespace -->` starts anew. A document that uses `lakebase`
runs in the environment of `lakebase local up`: its Python, the lines of a shell that set variables, and its SQL, as the
owner of the database. The tests that a block defines are run with pytest's fixtures.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sybil import Document, Example
from sybil.parsers.markdown import ClearNamespaceParser, CodeBlockParser, PythonCodeBlockParser

from tests.docs.conftest import Reader
from tests.docs.pages import PYTHONS, ROOT, SHELLS, SHOWN, Block, blocks, pages
from tests.docs.shown_files import shown_files, text_of


@pytest.mark.parametrize("page", pages(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_examples_of_a_document_run_as_written(page, request, monkeypatch):
    parsers = [PythonCodeBlockParser(), ClearNamespaceParser()]
    if uses_lakebase(page):
        parsers += parsers_for(request.getfixturevalue("reader"))
    document = Document.parse(str(page), *parsers)
    # A real module: frameworks look for the annotations of a function in the module it was defined in.
    module = types.ModuleType(f"example_{page.stem.lower()}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    document.namespace = names = module.__dict__

    for example in document.examples():
        names["__name__"] = module.__name__
        before = dict(names)
        example.evaluate()
        for test in new_tests(names, before):
            test(**{fixture: request.getfixturevalue(fixture) for fixture in inspect.signature(test).parameters})


def uses_lakebase(page: Path) -> bool:
    return any(block.language in PYTHONS and not block.file and "lakebase" in block.text for block in blocks(page))


def parsers_for(reader: Reader) -> list[CodeBlockParser]:
    """Have a reader type the blocks that are not Python."""

    def export(example: Example) -> None:
        if all(line.startswith(("export ", 'eval "$(lakebase local env)"')) for line in example.parsed.splitlines()):
            reader.export(str(example.parsed))

    return [CodeBlockParser("bash", export), CodeBlockParser("sql", lambda example: reader.psql(str(example.parsed)))]


def new_tests(names: dict[str, Any], before: dict[str, Any]) -> Iterator[Callable[..., None]]:
    """The tests that an example has defined."""
    for name, value in names.items():
        if name.startswith("test_") and before.get(name) is not value:
            yield value


@pytest.mark.parametrize("page", pages(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_nothing_runs_that_is_not_shown(page):
    assert "invisible-code" not in page.read_text(encoding="utf-8"), "show it, or test it in a file of the tests"


def test_a_wrong_example_fails_at_its_own_line(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```python\nx = 1\n```\n\nText.\n\n```python\nassert x == 1\nassert x == 2\n```\n")
    first, second = Document.parse(str(page), PythonCodeBlockParser()).examples()
    first.evaluate()
    with pytest.raises(AssertionError) as failure:
        second.evaluate()
    assert (str(failure.traceback[-1].path), failure.traceback[-1].lineno + 1) == (str(page), 11)


@pytest.mark.parametrize("page", pages(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_fenced_block_says_what_it_is(page):
    known = SHELLS | PYTHONS | SHOWN
    assert [f"{block.where} {block.language!r}" for block in blocks(page) if block.language not in known] == []


@pytest.mark.parametrize("block", shown_files(), ids=lambda block: f"{block.where}-{block.file}")
def test_a_document_shows_a_file_as_it_is(block: Block):
    assert block.text == text_of(block), "`nox -s fix` writes the file's text into the document"
