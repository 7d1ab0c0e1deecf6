"""The rules of ledgers and budget keep their promises over thousands of random schedules, under the real clockwork."""

from __future__ import annotations

import pytest

from pooling._engine.budget import Budget
from tests.core.model import BrokenPromiseError
from tests.keyed.test_state_machine import ClosesNothingForOthers, CountsTwice, GrantsNothing, OneTooMany
from tests.simulation.schedules import Schedule

BATCHES, BATCH = 10, 200


@pytest.mark.parametrize("batch", range(BATCHES))
def test_limits_hold_and_every_borrower_is_served_or_times_out(batch):
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        try:
            Schedule(seed).run()
        except BrokenPromiseError as error:
            raise AssertionError(f"Schedule({seed}): {error}") from error


@pytest.mark.parametrize("broken", [OneTooMany, ClosesNothingForOthers, GrantsNothing, CountsTwice])
def test_a_budget_that_breaks_a_promise_is_found_out(broken: type[Budget]):
    with pytest.raises(BrokenPromiseError):
        for seed in range(BATCHES * BATCH):
            Schedule(seed, broken).run()
