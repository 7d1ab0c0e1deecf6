"""The environment of the process does not disturb the demo, and is restored."""

import os
import threading
from pathlib import Path

from lakebase.cli import main


def test_the_environment_does_not_matter_and_is_restored(monkeypatch):
    monkeypatch.setenv("PGHOST", "mine.example")
    monkeypatch.setenv("PGSERVICE", "not_defined_anywhere")
    monkeypatch.setenv("PGOPTIONS", "-c nonsense=1")
    monkeypatch.setenv("PGTZ", "Nowhere/Nothing")
    before, threads = dict(os.environ), threading.active_count()
    assert main(["demo", "--quiet", "--users", "1", "--requests", "3"]) == 0
    assert dict(os.environ) == before
    assert threading.active_count() < threads + 10
    assert Path.cwd().is_dir()
