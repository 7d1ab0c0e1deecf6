"""How long a key waits for others depends on how many keys wait, not on how many borrowers they have."""

from __future__ import annotations

from random import Random

import pytest

from pooling import PoolingServiceOptions
from pooling._engine.budget import TURNS
from pooling.simulation._events import Events
from pooling.simulation._pools import SimulatedPools

CREATE, USE = 0.05, 0.005


class Visitor:
    """Comes again and again, and notes how long it waited each time."""

    def __init__(self, pools, key, pause):
        self.pools = pools
        self.key = key
        self.pause = pause
        self.waits = []
        self.waiter = self.slot = None
        pools.events.at(pause(), self.come, None)

    def come(self, _):
        self.came_at = self.pools.events.now
        self.pools.acquire(self.key, self)

    def served(self):
        events = self.pools.events
        self.waits.append(events.now - self.came_at)
        events.at(events.now + USE, self.leave, None)

    def leave(self, _):
        events = self.pools.events
        self.pools.release(self)
        events.at(events.now + self.pause(), self.come, None)

    def timed_out(self):
        raise AssertionError(f"{self.key} waited for {self.pools.options.timeout} s")


def waits_beside_a_crowd(seed, *, max_total, crowd, lonely):
    """The waits of keys that have one visitor each, beside one key that has a crowd."""
    random, events = Random(seed), Events()
    pools = SimulatedPools(
        events,
        PoolingServiceOptions(max_size=max_total, max_creating=2, timeout=60.0),
        max_total=max_total,
        create_time=lambda: CREATE,
        jitter=random.random,
    )
    for _ in range(crowd):
        Visitor(pools, "crowd", float)
    visitors = [Visitor(pools, f"lonely{number}", lambda: random.expovariate(5.0)) for number in range(lonely)]
    while events.now < 10.0:
        events.step()
    return [wait for visitor in visitors for wait in visitor.waits]


@pytest.mark.parametrize("max_total", [1, 2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_a_lonely_key_waits_for_a_few_turns_of_a_crowd_and_for_its_own_create(seed, max_total):
    waits = waits_beside_a_crowd(seed, max_total=max_total, crowd=100, lonely=1)
    assert len(waits) > 10
    # A create that is under way for the crowd ends first.
    assert max(waits) <= CREATE + (1 + TURNS) * USE + CREATE + 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_many_lonely_keys_wait_for_each_other_and_not_for_the_crowd(seed):
    small, large = (waits_beside_a_crowd(seed, max_total=4, crowd=crowd, lonely=20) for crowd in (10, 300))
    turns = 20 / 4 + 1  # of the places, until each of the others has had one
    for waits in (small, large):
        assert len(waits) > 100
        assert max(waits) <= turns * ((1 + TURNS) * USE + CREATE)
