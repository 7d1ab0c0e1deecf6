"""What a person sees: progress, then the summary; in a terminal with colour and bars, elsewhere in plain lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ._report import Report

__all__ = ["Screen", "screen"]

_NEXT = (
    ("lakebase demo --users 30 --requests 500", "more users than connections: they share one budget"),
    ("lakebase local up", "a Lakebase to develop on, and how to connect to it"),
    ("lakebase/demo/app.py", "the app you just saw: a container, two services, five routes"),
)


class Screen:
    """Plain lines on standard output."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._start = monotonic()
        self._shown = 0

    def say(self, text: str) -> None:
        """A step that begins, or has come out."""
        if not self._quiet:
            print(f"[{monotonic() - self._start:5.1f} s] {text}", flush=True)

    def answered(self, user: str, done: int, of: int, total: int, of_total: int) -> None:
        """Progress of the requests: a user's, and all."""
        quarter = total * 4 // of_total
        if quarter > self._shown:
            self._shown = quarter
            self.say(f"{total} of {of_total} requests answered")

    def finish(self) -> None:
        """Leave the terminal as it was."""

    def summary(self, report: Report) -> None:
        """The numbers, what had to hold, and what to try next."""
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
            for what, why in _NEXT:
                print(f"  {what:<42}{why}")
        else:
            print("The demo FAILED: see above.")
        sys.stdout.flush()


class RichScreen(Screen):
    """A terminal."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        from rich.console import Console

        self._console = Console(highlight=False)
        self._progress: Progress | None = None
        self._bars: dict[str, TaskID] = {}

    def say(self, text: str) -> None:
        if not self._quiet:
            self._console.print(f"[dim]{monotonic() - self._start:5.1f} s[/]  {_plain(text)}")

    def answered(self, user: str, done: int, of: int, total: int, of_total: int) -> None:
        if self._quiet:
            return
        if self._progress is None:
            self._progress = self._new_progress()
            self._progress.start()
        if user not in self._bars:
            self._bars[user] = self._progress.add_task(user, total=of)
        self._progress.update(self._bars[user], completed=done)

    def _new_progress(self) -> Progress:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = TextColumn("         {task.description}"), BarColumn(bar_width=30), MofNCompleteColumn()
        return Progress(*columns, console=self._console)

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
        steps = Table.grid(padding=(0, 2))
        for what, why in _NEXT:
            steps.add_row(f"  [bold]{what}[/]", f"[dim]{why}[/]")
        self._console.print("Next:")
        self._console.print(steps)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


@contextmanager
def screen(*, quiet: bool) -> Iterator[Screen]:
    """The screen that fits where standard output goes."""
    shown = RichScreen(quiet=quiet) if sys.stdout.isatty() else Screen(quiet=quiet)
    try:
        yield shown
    finally:
        shown.finish()
