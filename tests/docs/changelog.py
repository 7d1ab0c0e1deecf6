"""
The sections of CHANGELOG.md.

`python -m tests.docs.changelog 1.2.3` prints what the release of that version says.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

from tests.docs.pages import ROOT

HEADING = re.compile(r"^## \[([^\]]+)\](?: - (\d{4}-\d\d-\d\d))?$", flags=re.MULTILINE)


@dataclass(frozen=True)
class Section:
    """What one version brings."""

    version: str  # or `Unreleased`
    day: str | None
    text: str


def sections(text: str | None = None) -> list[Section]:
    """The sections, as they stand: the newest first."""
    parts = HEADING.split(text if text is not None else (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))[1:]
    return [Section(*each[:2], each[2].strip()) for each in zip(parts[::3], parts[1::3], parts[2::3], strict=True)]


def notes(version: str) -> str:
    """
    What a version brings.

    Raises:
        SystemExit: It has no section.
    """
    for section in sections():
        if section.version == version:
            return section.text
    raise SystemExit(f"CHANGELOG.md has no section ## [{version}]: what is under Unreleased becomes that one")


if __name__ == "__main__":
    print(notes(sys.argv[1]))  # noqa: T201
