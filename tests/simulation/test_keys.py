"""Keys without resources are forgotten, so that a million users need little memory."""

from __future__ import annotations

import gc
import tracemalloc

from pooling.simulation import Workload, simulate


def test_memory_depends_on_the_limit_and_not_on_the_number_of_users():
    def peak(users):
        gc.collect()
        tracemalloc.start()
        try:
            simulate(Workload(users=users, rate=100.0, requests=800), max_total=20)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    assert peak(1_000_000) < 2 * peak(1000)
