"""What a check says: how it ended, what was seen, and the text that mends it. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

__all__ = ["Finding", "Fix", "Verdict"]


class Verdict(Enum):
    """
    How a check ended.

    A value is the word that is printed; `severity` is the word in JSON.
    """

    OK = "ok"
    NOTE = "note"
    WARNING = "warn"
    FAILED = "FAIL"
    SKIPPED = "skip"

    @property
    def severity(self) -> str:
        """`ok`, `note`, `warning`, `error` or `skipped`."""
        return {"warn": "warning", "FAIL": "error", "skip": "skipped"}.get(self.value, self.value)


@dataclass(frozen=True, slots=True)
class Fix:
    """
    Text to copy.

    Args:
        kind: The language: `sql`, `shell`, `yaml` or `python`; `settings` is a way through the workspace's pages.
        text: One or more lines.
        where: Where it goes, or who runs it.
    """

    kind: Literal["sql", "shell", "yaml", "python", "settings"]
    text: str
    where: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """
    The outcome of one check.

    Args:
        check: What was looked at.
        verdict: How it ended.
        found: What was seen.
        advice: What to do about it; empty if there is nothing to do.
        fixes: What to copy, in the order in which to try.
        details: Lines that go on where `found` ends, such as one for each setting.
    """

    check: str
    verdict: Verdict
    found: str
    advice: str = ""
    fixes: tuple[Fix, ...] = ()
    details: tuple[str, ...] = ()

    @property
    def severity(self) -> str:
        """The verdict's: `ok`, `note`, `warning`, `error` or `skipped`."""
        return self.verdict.severity

    @property
    def sql(self) -> str:
        """The statements among the fixes; empty if SQL does not mend it."""
        return "\n".join(fix.text for fix in self.fixes if fix.kind == "sql")

    def __str__(self) -> str:
        advice = f" -> {self.advice}" if self.advice else ""
        return f"{self.verdict.value:<4}  {self.check:<13}  {self.found}{advice}"
