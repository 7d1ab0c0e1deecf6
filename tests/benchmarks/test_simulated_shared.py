"""The race of a shared limit under a virtual clock, whose outcome is the same each time."""

from __future__ import annotations

from pooling.simulation import Sharing
from tests.benchmarks.simulated_shared import SharedRace


def test_workers_that_share_a_limit_do_more_than_with_a_quarter_of_it_each():
    apart, together = (SharedRace(sharing, 6.0).run() for sharing in (None, Sharing.files()))
    assert together.uses >= 1.4 * apart.uses
    assert together.claims > apart.claims == 0
