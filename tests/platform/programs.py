"""Runs small programs, each in a separate process."""

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


def run(source: str, *arguments: str, dev: bool = True) -> Outcome:
    """
    Run a program with warnings as errors.

    Args:
        dev: With all that Python has to complain about switched on, which makes it slower and its objects larger.
    """
    began = time.monotonic()
    options = ["-X", "dev", "-W", "error"] if dev else ["-W", "error"]
    done = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(source), *arguments],
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


def heap_of(source: str) -> float:
    """
    Run a program that prints a number of bytes, with `traced()` for the bytes that Python's heap has now.

    In a separate process, since the size of an object depends on what ran before: a class whose first instances were
    created in unusual ways lays out all later ones differently, and a registry that grows at that moment counts too.
    """
    traced = """
        import gc, tracemalloc

        def traced():
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
    """
    outcome = run(textwrap.dedent(traced) + textwrap.dedent(source), dev=False)
    assert (outcome.status, outcome.err) == (0, ""), outcome
    return float(outcome.out)
