"""What is printed: progress, then the summary; in a terminal with colours and bars, elsewhere in plain lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from .report import Report

__all__ = ["Screen", "screen"]

_MOST_BARS = 8
_MORE_USERS = "lakebase demo --users 30 --requests 500"


class Screen:
    """Plain lines on standard output."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._start = monotonic()
        self._requests = self._answered = 0

    def say(self, text: str) -> None:
        """Print a line of progress."""
        if not self._quiet:
            print(f"[{monotonic() - self._start:5.1f} s] {text}", flush=True)

    def begin(self, shares: Mapping[str, int]) -> None:
        """Show how many requests each user is about to send."""
        self._requests = sum(shares.values())
        self.say(f"{self._requests} requests of {len(shares)} users, many at once")

    def add_answer(self, user: str) -> None:
        """Count an answer to a user."""
        self._answered += 1
        if self._answered * 4 // self._requests > (self._answered - 1) * 4 // self._requests:
            self.say(f"{self._answered} of {self._requests} requests answered")

    def finish(self) -> None:
        """Leave the terminal as it was."""

    def summary(self, report: Report) -> None:
        """Print the numbers, the checks, and what to try next."""
        rows = list(report.table())
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        print()
        for row in rows:
            numbers = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
            print("  ".join([row[0].ljust(widths[0]), *numbers]))
        print()
        for name, value in report.facts():
            print(f"{name + ':':<13}{value}")
        print()
        for check in report.checks:
            mark = "ok    " if check.holds else "FAILED"
            print(f"{mark}  {check.claim}{f': {check.detail}' if check.detail else ''}")
        for failure in report.shown_failures():
            print(f"error   {failure}")
        print()
        if report.is_good:
            print("Next:")
            for what, why in _next_steps(report):
                print(f"  {what}\n      {why}")
        else:
            print("The demo FAILED: see above.")
        sys.stdout.flush()


class RichScreen(Screen):
    """Colours and bars in a terminal."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        from rich.console import Console

        self._console = Console(highlight=False)
        self._progress: Progress | None = None
        self._bars: dict[str, TaskID] = {}

    def say(self, text: str) -> None:
        if not self._quiet:
            self._console.print(f"[dim]{monotonic() - self._start:5.1f} s[/]  {_plain(text)}")

    def begin(self, shares: Mapping[str, int]) -> None:
        super().begin(shares)
        if self._quiet:
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = TextColumn("         {task.description}"), BarColumn(bar_width=30), MofNCompleteColumn()
        self._progress = Progress(*columns, console=self._console)
        self._progress.start()
        if len(shares) > _MOST_BARS:
            together = self._progress.add_task(f"{len(shares)} users", total=self._requests)
            self._bars = dict.fromkeys(shares, together)
        else:
            self._bars = {user: self._progress.add_task(user, total=share) for user, share in shares.items()}

    def add_answer(self, user: str) -> None:
        if self._progress is not None:
            self._progress.advance(self._bars[user])

    def finish(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def summary(self, report: Report) -> None:
        from rich import box
        from rich.table import Table

        heading, *rows = report.table()
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for number, title in enumerate(heading):
            table.add_column(title, justify="right" if number else "left")
        for row in rows:
            is_wrong = row[3] not in {"0", "-"}
            table.add_row(*row, style="bold red" if is_wrong else None)
        self._console.print(table)
        facts = Table.grid(padding=(0, 2))
        for name, value in report.facts():
            facts.add_row(f"[dim]{name}[/]", _plain(value))
        self._console.print(facts)
        self._console.print()
        for check in report.checks:
            mark = "[green]ok[/]    " if check.holds else "[bold red]FAILED[/]"
            self._console.print(f"{mark}  {check.claim}{f': {_plain(check.detail)}' if check.detail else ''}")
        for failure in report.shown_failures():
            self._console.print(f"[red]error[/]   {_plain(failure)}")
        self._console.print()
        if not report.is_good:
            self._console.print("[bold red]The demo FAILED[/]: see above.")
            return
        self._console.print("Next:")
        for what, why in _next_steps(report):
            self._console.print(f"  [bold]{_plain(what)}[/]\n      [dim]{why}[/]", soft_wrap=True)


def _next_steps(report: Report) -> Iterator[tuple[str, str]]:
    app = Path(__file__).with_name("app.py")
    here = Path.cwd()
    if len(report.users) <= report.budget:
        yield _MORE_USERS, "more users than connections: they share one budget"
    yield "lakebase local up", "a Lakebase to develop on, and how to connect to it"
    shown = app.relative_to(here) if app.is_relative_to(here) else app
    yield str(shown), "the app you just saw; a good start for your own"


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


@contextmanager
def screen(*, quiet: bool) -> Iterator[Screen]:
    """The screen for standard output: a terminal or not."""
    shown = RichScreen(quiet=quiet) if sys.stdout.isatty() else Screen(quiet=quiet)
    try:
        yield shown
    finally:
        shown.finish()
