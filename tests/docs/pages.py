"""The documents of the tree and the commands they show."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHELLS = {"bash", "console", "sh", "shell"}
PYTHONS = {"python"}
# Shown, not run: output, configuration, pictures.
SHOWN = {"text", "toml", "yaml", "json", "ini", "sql", "mermaid", "html", "dockerfile"}


def pages() -> list[Path]:
    """README and everything below docs/, sorted."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    page: Path
    line: int  # of the opening fence
    language: str
    text: str

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
                    if words or not re.match(r"\w+=", token):
                        words.append(token)
                elif words:
                    found.append(words[1:] if words[0] == "export" else words)
                    words = []
        return [words for words in found if words]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a document, in order; one that is never closed is an error."""
    found: list[Block] = []
    fence, start, language, body = "", 0, "", []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        opening = re.match(r"\s*(`{3,}|~{3,})\s*(\S*)", line)
        if not fence and opening:
            fence, start, language, body = opening[1], number, opening[2], []
        elif fence and line.strip() == fence:
            found.append(Block(page, start, language, "\n".join(body)))
            fence = ""
        elif fence:
            body.append(line)
    assert not fence, f"{page}:{start} opens a block that nothing closes"
    return found


def quick_start() -> Block:
    """The first fenced block below README's `## Quick start`."""
    page = ROOT / "README.md"
    heading = page.read_text(encoding="utf-8").splitlines().index("## Quick start") + 1
    return next(block for block in blocks(page) if block.line > heading)
