"""Processes that own a local Lakebase, and what is left of it."""

import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]

OWNER = """\
import os, signal, sys, threading
from lakebase.local import LocalLakebase
lake = LocalLakebase().start()
print(lake.port, flush=True)
sys.stdin.readline()
"""


def children_of_this_process():
    """The direct children, by name: what the Postgres of another local Lakebase starts in the meantime is not meant."""
    return {child.pid: child.name() for child in psutil.Process(os.getpid()).children()}


def temporary_directories():
    """The temporary directories of local Lakebases."""
    return set(Path(tempfile.gettempdir()).glob("lakebase-*"))


def start_owner(then, directory):
    """A process that starts a local Lakebase and goes on with these statements; and all processes that it started."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER + textwrap.dedent(then)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(directory)},
        text=True,
    )
    port = process.stdout.readline()
    assert port.strip().isdigit(), process.communicate()
    started = psutil.Process(process.pid).children(recursive=True)
    assert any("postgres" in child.name() for child in started)
    process.stdin.write("go on\n")
    process.stdin.flush()
    return process, started


def assert_gone(started, directory):
    _, alive = psutil.wait_procs(started, timeout=60)
    assert not alive
    assert list(directory.glob("lakebase-*")) == []
