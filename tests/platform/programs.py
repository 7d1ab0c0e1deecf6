"""Runs small programs in processes of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Outcome:
    """How a program ended; `left` is how long it took from its last line, `seconds`, to the end of the process."""

    status: int
    out: str
    err: str
    seconds: float


def run(source: str, *arguments: str) -> Outcome:
    """Run a program with warnings as errors, and all that Python has to complain about switched on."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(source), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr, time.monotonic() - began)


def exit_of(source: str) -> tuple[Outcome, float]:
    """Run a program, and tell how long the process lived on after its last line."""
    ending = "\nimport time as _time\nprint('the last line at', _time.monotonic(), flush=True)\n"
    outcome = run(textwrap.dedent(source) + ending)
    ended = time.monotonic()
    last = [line for line in outcome.out.splitlines() if line.startswith("the last line at")]
    assert last, f"it did not get there: {outcome}"
    return outcome, ended - float(last[0].rpartition(" ")[2])
