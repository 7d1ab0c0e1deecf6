"""
Compares the pools with their peers, all in one run.

    python -m tests.benchmarks                     everything, a few minutes; writes benchmarks.png
    python -m tests.benchmarks --quick             about twenty seconds
    python -m tests.benchmarks --only threads,lease
    python -m tests.benchmarks appkit              side by side with AppKit on Node
    python -m tests.benchmarks --json figures.json --plot docs/benchmarks.png
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from . import appkit, budget, contended, footprint, plot, postgres, report, requests, shared, uncontended
from .measure import FULL, QUICK, TINY, BenchmarkError, Race, Result, Scale, run_race

Builder = Callable[[Scale], AbstractContextManager[Race]]

RACES: dict[str, Builder] = {
    "threads": uncontended.threads,
    "asyncio": uncontended.asyncio_,
    "lease": uncontended.lease,
    "lease-asyncio": uncontended.lease_asyncio,
    "hooks": uncontended.hooks,
    "contention": contended.contention,
    "waits": contended.waits,
    "tasks": contended.tasks,
    "task-waits": contended.task_waits,
    "footprint": footprint.footprint,
    "request": requests.request,
    "request-asyncio": requests.request_asyncio,
    "second-use": requests.second_use,
    "getconn": postgres.lakebase_pool,
    "select": postgres.select,
    "users": postgres.users,
    "budget": budget.budget,
    "shared": shared.shared,
    "shared-creates": shared.shared_creates,
    "shared-claims": shared.claims,
}
# Side by side with AppKit. They run only when asked for: they need Node, and install AppKit.
APPKIT_RACES: dict[str, Builder] = {
    "first": appkit.first,
    "first-later": appkit.first_later,
    "steady": appkit.steady,
    "crowded": appkit.crowded,
    "budget": budget.budget,
}


def chosen(races: Mapping[str, Builder], only: Sequence[str]) -> Iterator[str]:
    """
    The races whose name, or the beginning of it, was given; all if none was.

    Raises:
        SystemExit: A name that fits none.
    """
    for wanted in only:
        if not any(name.startswith(wanted) for name in races):
            raise SystemExit(f"--only {wanted}: no such race; there are {', '.join(races)}")
    for name in races:
        if not only or name in only or any(name.startswith(wanted) for wanted in only if wanted not in races):
            yield name


class Progress:
    """One line on stderr that says where the run is."""

    def __init__(self, races: int) -> None:
        self._races = races
        self._number = 0
        self._name = ""
        self._is_live = sys.stderr.isatty()

    def race(self, name: str) -> None:
        self._number += 1
        self._name = name
        self._write(f"[{self._number}/{self._races}] {name}: setting up")
        if not self._is_live:
            sys.stderr.write("\n")

    def round(self, done: int, rounds: int) -> None:
        if self._is_live:
            self._write(f"[{self._number}/{self._races}] {self._name}: round {min(done + 1, rounds)} of {rounds}")

    def clear(self) -> None:
        if self._is_live:
            self._write("")

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}" if self._is_live else text)
        sys.stderr.flush()


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=(__doc__ or "").strip().partition("\n")[0],
        epilog=f"Races: {', '.join(RACES)}. Races of appkit: {', '.join(APPKIT_RACES)}.",
    )
    found.add_argument(
        "suite", nargs="?", choices=["appkit"], help="side by side with AppKit; needs Node, and installs AppKit"
    )
    found.add_argument("--quick", action="store_true", help="about twenty seconds; the spread is wide")
    found.add_argument("--smoke", action="store_true", help="a few repetitions of everything: the figures mean nothing")
    found.add_argument("--rounds", type=int, help="rounds of each race")
    found.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME,…",
        help="only these races, by (the beginning of) their names",
    )
    found.add_argument("--json", type=Path, metavar="PATH", help="write every figure of every round")
    found.add_argument(
        "--plot", type=Path, metavar="PATH", default=Path("benchmarks.png"), help="the picture (default: %(default)s)"
    )
    found.add_argument("--no-plot", action="store_true", help="no picture")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the races; 0 whatever the targets say, for a loaded machine proves nothing."""
    given = parser().parse_args(argv)
    try:
        return run(given)
    except BenchmarkError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. Tables above are complete; no picture and no figures were written.", file=sys.stderr)
        return 130


def run(given: argparse.Namespace) -> int:
    races = APPKIT_RACES if given.suite == "appkit" else RACES
    scale = TINY if given.smoke else QUICK if given.quick else FULL
    if given.rounds is not None:
        scale = Scale(given.rounds, scale.turn, scale.quick, scale.tiny)
    names = list(chosen(races, [part for only in given.only for part in only.split(",") if part]))
    facts = report.machine()
    heading = report.heading(facts, scale)
    print(heading, flush=True)
    began = time.monotonic()
    progress = Progress(len(names))
    results: list[Result] = []
    for name in names:
        progress.race(name)
        with races[name](scale) as race:
            race.rounds = race.rounds if given.rounds is None else given.rounds
            result = run_race(race, scale, progress.round)
        progress.clear()
        if result.samples:
            results.append(result)
            print(f"\n{report.table(result)}", flush=True)
        else:
            print(f"\n{race.title}   ({race.name})\n" + "\n".join(f"  {line}" for line in race.missing), flush=True)
    print(f"\n{time.monotonic() - began:.0f} s")
    if given.json is not None:
        given.json.write_text(json.dumps(report.as_json(results, facts, scale), indent=1), encoding="utf-8")
        print(f"figures: {given.json}")
    if not given.no_plot:
        try:
            plot.write(results, given.plot, heading)
            print(f"picture: {given.plot}")
        except ImportError:
            print("no picture: matplotlib is not installed (pip install 'lakebase-pooling[bench]')")
    return 0


if __name__ == "__main__":
    sys.exit(main())
