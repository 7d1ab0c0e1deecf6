"""The documents of the tree, as a Markdown parser sees them: blocks, tables, links, and the commands they show."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
SHELLS = {"bash", "console", "sh", "shell"}
PYTHONS = {"python"}
# Shown, not run: output, configuration, pictures.
SHOWN = {"text", "toml", "yaml", "json", "ini", "sql", "mermaid", "html", "dockerfile"}


def pages() -> list[Path]:
    """README and its neighbours, and everything below docs/, sorted."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    page: Path
    line: int  # of the opening fence
    language: str
    text: str
    file: str = ""  # that it shows, below the tree: ```python title="examples/…"

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def command_lines(self) -> list[str]:
        """The lines a reader types: all, or those behind a `$ ` where the block shows output too."""
        lines = self.text.replace("\\\n", " ").splitlines()
        prompted = [line[2:] for line in lines if line.startswith("$ ")]
        return prompted or [line for line in lines if line.strip() and not line.lstrip().startswith("#")]

    def commands(self) -> list[list[str]]:
        """Each command by itself, as words: the parts of a line between `&&`, `||`, `;`, `|`, without assignments."""
        found: list[list[str]] = []
        for line in self.command_lines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            words: list[str] = []
            for token in [*lexer, ";"]:
                if not set(token) <= set("&|;()"):
                    if words or not token.partition("=")[0].isidentifier() or "=" not in token:
                        words.append(token)
                elif words:
                    found.append(words[1:] if words[0] == "export" else words)
                    words = []
        return [words for words in found if words]


@dataclass(frozen=True)
class Table:
    """A table of a document."""

    page: Path
    line: int
    section: str  # the heading of the second level above it, as written
    header: list[Token]
    rows: list[list[Token]]

    def column(self, number: int) -> list[list[str]]:
        """The names in a column: for each row, what its cell shows as code."""
        return [code_in(row[number]) for row in self.rows]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a document, in order; one that is never closed is an error."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found = []
    for token in _tokens(page):
        if token.type == "fence" and token.map:
            start, end = token.map
            assert lines[end - 1].strip() == token.markup, f"{page}:{start + 1} opens a block that nothing closes"
            language, _, title = token.info.partition(' title="')
            found.append(Block(page, start + 1, language, token.content.removesuffix("\n"), title.removesuffix('"')))
    return found


def tables(page: Path, section: str | None = None) -> list[Table]:
    """The tables of a document, or of one of its sections."""
    found, heading, cells = [], "", []
    for before, token in _pairs(page):
        if (before.type, before.tag) == ("heading_open", "h2"):
            heading = token.content
        elif token.type == "table_open" and token.map:
            found.append(Table(page, token.map[0] + 1, heading, [], []))
        elif token.type == "tr_open":
            cells = []
        elif before.type in {"th_open", "td_open"}:
            cells.append(token)
        elif token.type == "thead_close":
            found[-1].header.extend(cells)
        elif token.type == "tr_close" and found[-1].header:
            found[-1].rows.append(cells)
    return [table for table in found if section in {None, table.section}]


def sections(page: Path) -> list[str]:
    """The headings of the second level, as written."""
    return [token.content for before, token in _pairs(page) if (before.type, before.tag) == ("heading_open", "h2")]


def paragraphs(page: Path, section: str) -> list[Token]:
    """The paragraphs of a section."""
    found, heading = [], ""
    for before, token in _pairs(page):
        if (before.type, before.tag) == ("heading_open", "h2"):
            heading = token.content
        elif before.type == "paragraph_open" and heading == section:
            found.append(token)
    return found


def code_in(text: Token) -> list[str]:
    """What a paragraph or a cell shows as code."""
    return [token.content for token in text.children or [] if token.type == "code_inline"]


def links(page: Path) -> list[str]:
    """Where the links of a document lead."""
    inline = [child for token in _tokens(page) for child in token.children or []]
    return [str(token.attrs["href"]) for token in inline if token.type == "link_open"]


def quick_start() -> Block:
    """The first fenced block below README's `## Quick start`."""
    page = ROOT / "README.md"
    heading = page.read_text(encoding="utf-8").splitlines().index("## Quick start") + 1
    return next(block for block in blocks(page) if block.line > heading)


@cache
def _tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def _pairs(page: Path) -> Iterator[tuple[Token, Token]]:
    tokens = _tokens(page)
    return pairwise(tokens)
