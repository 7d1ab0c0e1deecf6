"""Keys without resources are forgotten, so that a million users need little memory."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from pooling.simulation import Workload, simulate
from pooling.simulation import _pools as simulated


@pytest.mark.parametrize("most", [0, 10])
def test_as_many_empty_ledgers_are_kept_as_allowed_and_those_used_last(monkeypatch, most):
    monkeypatch.setattr(simulated, "MOST_EMPTY", most)
    kept = []

    class Watched(simulated.SimulatedPools):
        def _note_empty(self, pool):
            super()._note_empty(pool)
            kept.append(len(self.pools) - sum(bool(pool.ledger.slots) for pool in self.pools.values()))

    monkeypatch.setattr("pooling.simulation.simulator.SimulatedPools", Watched)
    simulate(Workload(users=1000, rate=100.0, requests=1000), max_total=5)
    assert len(kept) > 500
    assert most <= max(kept) <= most + 100  # some keys that are waiting have no resource either


def test_memory_depends_on_the_limit_and_not_on_the_number_of_users():
    def peak(users):
        gc.collect()
        tracemalloc.start()
        try:
            simulate(Workload(users=users, rate=100.0, requests=800), max_total=20, max_key_idle=0.0)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    assert peak(1_000_000) < 2 * peak(1000)
