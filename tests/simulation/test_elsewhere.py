"""Simulations in other processes: their results, and their end in the midst of the work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import CancelledError
from contextlib import suppress

import pytest

from pooling import ConfigurationError
from pooling.simulation import SimulationProcesses, Workload, simulate
from tests.platform.programs import ROOT, run

WORKLOAD = Workload(users=30, workers=20, requests=1000)
ENDLESS = Workload(users=1, workers=1, requests=10**10)  # weeks


@pytest.mark.parametrize("count", [0, 1.5])
def test_a_number_of_processes_that_cannot_be_is_refused(count):
    with pytest.raises(ConfigurationError, match="count"):
        SimulationProcesses(count)


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


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="there are no masks of signals")
def test_ctrl_c_does_not_reach_a_process_even_while_it_begins():
    with SimulationProcesses(1) as others:
        blocked_there = others.submit(signal.pthread_sigmask, signal.SIG_BLOCK, []).result()
    assert signal.SIGINT in blocked_there
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_an_interrupt_ends_the_other_parts_too():
    def interrupt(ended, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(ENDLESS, jobs=2, progress=interrupt)


@pytest.mark.parametrize("next_call", ["simulate, Workload(users=1, workers=1, requests=10**10)", "int"])
def test_the_processes_end_when_that_which_began_them_is_killed(next_call):
    program = f"""
import os, threading
from pooling.simulation import SimulationProcesses, Workload, simulate

with SimulationProcesses(1) as others:
    pid = others.submit(os.getpid).result()
    others.submit({next_call})
    print(pid, flush=True)
    threading.Event().wait()
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    other = int(process.stdout.readline())
    process.kill()
    try:
        process.communicate(timeout=60)  # until no process has its output open
    finally:
        with suppress(ProcessLookupError):
            os.kill(other, signal.SIGKILL)
