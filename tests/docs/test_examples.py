"""
The Python of the documents, run.

The blocks of one document are run in order and share their names, as a reader would type them;
`<!--- clear-namespace -->` starts anew. What a page only wants to prove stands in an
`<!--- invisible-code-block: python … -->`, where `lake` is the local Lakebase.
"""

from __future__ import annotations

import sys
import types

import pytest
from sybil import Document
from sybil.parsers.markdown import ClearNamespaceParser, PythonCodeBlockParser

from tests.docs.pages import PYTHONS, ROOT, SHELLS, SHOWN, Block, blocks, pages
from tests.docs.shown_files import shown_files, text_of


@pytest.mark.parametrize("page", pages(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_examples_of_a_document_run_as_written(page, request, monkeypatch):
    document = Document.parse(str(page), PythonCodeBlockParser(), ClearNamespaceParser())
    # A real module: frameworks look for the annotations of a function in the module it was defined in.
    module = types.ModuleType(f"example_{page.stem.lower()}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    document.namespace = module.__dict__
    given = {"__name__": module.__name__}
    if any(block.language in PYTHONS and not block.file and "lakebase" in block.text for block in blocks(page)):
        given["lake"] = request.getfixturevalue("documented_environment")  # for invisible blocks

    for example in document.examples():
        module.__dict__.update(given)
        example.evaluate()


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
