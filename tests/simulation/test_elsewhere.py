"""Simulations in other processes: their results, and their end in the midst of the work."""

from __future__ import annotations

from concurrent.futures import CancelledError

import pytest

from pooling.simulation import SimulationProcesses, Workload, simulate
from tests.platform.programs import run

WORKLOAD = Workload(users=30, workers=20, requests=1000)
ENDLESS = Workload(users=1, workers=1, requests=10**10)  # weeks


def test_another_process_finds_the_same():
    with SimulationProcesses(1) as others:
        there = others.submit(simulate, WORKLOAD, max_total=10, seed=2)
        here = simulate(WORKLOAD, max_total=10, seed=2)
        assert there.result() == here


def test_no_process_begins_before_it_is_needed():
    """Nor one of Python's own; a small plan needs none."""
    outcome = run(
        """
        import os
        from pooling.simulation import SimulationProcesses

        with SimulationProcesses(1):
            try:
                os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                print("no child")
        """
    )
    assert (outcome.status, outcome.out.strip()) == (0, "no child")


def test_the_end_gives_up_what_is_under_way():
    with SimulationProcesses(1) as others:
        others.submit(simulate, WORKLOAD).result()  # its process has begun
        under_way = others.submit(simulate, ENDLESS)
        further = [others.submit(simulate, ENDLESS) for _ in range(3)]
    for future in (under_way, *further):
        with pytest.raises((KeyboardInterrupt, CancelledError)):
            future.result()


def test_an_interrupt_ends_the_other_parts_too():
    def interrupt(ended, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(ENDLESS, jobs=2, progress=interrupt)
