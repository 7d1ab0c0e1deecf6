"""Prometheus' multi-process mode under real servers with several workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
SERVERS = {
    "gunicorn": ["gunicorn", "--preload", "tests.telemetry.worker_app:wsgi", "-w", "2", "-b"],
    "uvicorn": ["uvicorn", "tests.telemetry.worker_app:asgi", "--workers", "2", "--port"],
}


def get(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return response.read().decode()
    except OSError:
        return None


def wait_for(condition, what):
    """Ask until it is so, for a minute at most."""
    ends, pause = time.monotonic() + 60, threading.Event()
    while not (found := condition()):
        assert time.monotonic() < ends, what
        pause.wait(0.02)
    return found


def value(port, name):
    text = get(port, "/metrics") or ""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == name)


@pytest.mark.parametrize("server", SERVERS)
def test_a_scrape_of_any_worker_has_the_sums_of_all_and_those_that_end_leave_the_gauges(server, tmp_path):
    port = free_port()
    command, *arguments = SERVERS[server]
    address = str(port) if command == "uvicorn" else f"127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", command, *arguments, address],
        cwd=ROOT,
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        workers = set()

        def both():
            worker = get(port, "/")
            if worker:
                workers.add(int(worker))
            return len(workers) == 2

        wait_for(both, "two workers that answer")
        wait_for(lambda: value(port, "pooling_resource_max") == 6, "the gauges of both workers")
        creates = "pooling_resource_create_time_seconds_count"
        wait_for(lambda: value(port, creates) == 2, "the creates of both workers")
        assert value(port, "pooling_resource_count") == 2
        os.kill(next(iter(workers)), signal.SIGKILL)  # the others remove what it left
        gone = set(workers)
        wait_for(lambda: (worker := get(port, "/")) and int(worker) not in gone, "a worker in its place")
        wait_for(lambda: value(port, "pooling_resource_max") == 6, "the gauges of those that live")
        wait_for(lambda: value(port, creates) == 3, "the sum of all creates: counters stay")
    finally:
        process.terminate()
        _, said = process.communicate(timeout=60)
    # A scrape may meet a file that a new worker has just made, which prometheus_client cannot read yet.
    assert "pooling/" not in said, said
    if command == "gunicorn":  # uvicorn's workers end by a signal, after their shutdown
        assert not list(tmp_path.glob("gauge_live*.db")), "workers that end in good order take their gauges with them"
