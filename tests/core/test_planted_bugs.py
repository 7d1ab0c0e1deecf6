"""The state machine catches planted bugs, each of a kind that pools have shipped."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from pooling._engine.ledger import RUNNING, Ledger

from .model import BrokenPromiseError
from .test_state_machine import LedgerMachine

SEARCH = settings(
    max_examples=400,
    stateful_step_count=50,
    phases=[Phase.generate],
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


class LosesWakeups(Ledger):
    """Reports no waiters although there are some, so that a release does not look at the queue."""

    def settle(self, now):
        super().settle(now)
        self.fast = self.plain and self.state == RUNNING


class HandsOutTwice(Ledger):
    """Looks at the idle slot and takes it later: another borrower may do the same in between."""

    def take(self, now, operation=None):
        slot = super().take(now, operation)
        if slot is not None:
            self.put(slot)
        return slot


class LosesWhatWasAssigned(Ledger):
    """Forgets, when a waiter leaves, that it had been served: the cancelled borrower's resource is lost."""

    def withdraw(self, waiter, now):
        waiter.slot = None
        super().withdraw(waiter, now)


class OpensForEveryWaiter(Ledger):
    """Takes places without checking the limit."""

    def _order(self, now):
        limit, self.max_size = self.max_size, 100
        super()._order(now)
        self.max_size = limit


class ForgetsItsPauses(Ledger):
    """Sets no alarm for the end of a pause after a failed create, so that waiters are never served."""

    def failed(self, error, now, *, final=False):
        alarm = self.alarm
        super().failed(error, now, final=final)
        self.alarm = alarm


class RingsForWhatIsClosing(Ledger):
    """Leaves an alarm in the past for what is being destroyed: its timer spins until that has ended."""

    def sweep(self, now):
        super().sweep(now)
        if self.closing:
            self.alarm = min(self.alarm, now - 1.0)


class RingsForNothing(Ledger):
    """Comes back every few milliseconds while something is being destroyed, and finds nothing to do."""

    def _look_ahead(self, now):
        super()._look_ahead(now)
        if self.closing:
            self._look_at(now, now)


class LeavesTheOldAlone(Ledger):
    """Sees that a resource in use is too old, does nothing, and comes back for it."""

    def _sweep_lifetimes(self, now):
        ages = {slot: slot.expires_at for slot in self.out.values()}
        super()._sweep_lifetimes(now)
        for slot, expires_at in ages.items():
            slot.expires_at = expires_at


@pytest.mark.parametrize(
    ("planted", "promise"),
    [
        (LosesWakeups, "no borrower queues while a resource is idle"),
        (HandsOutTwice, "no resource has two holders|a slot is in one place"),
        (LosesWhatWasAssigned, "no slot is lost"),
        (OpensForEveryWaiter, "never above max_size"),
        (ForgetsItsPauses, "the alarm is set"),
        (RingsForWhatIsClosing, "no sweep leaves an alarm at or before its own now|no alarm rings again"),
        (RingsForNothing, "an alarm has something to ring for"),
        (LeavesTheOldAlone, "a sweep does all that is due"),
    ],
)
def test_the_state_machine_catches_a_planted_bug(planted, promise):
    """A lost wakeup, a double hand-over, an alarm without end and others: each breaks the promise it should."""

    class Machine(LedgerMachine):
        ledger_type = planted

    with pytest.raises(BrokenPromiseError, match=promise):
        run_state_machine_as_test(Machine, settings=SEARCH)


def test_the_same_search_finds_nothing_in_the_ledger_itself():
    run_state_machine_as_test(LedgerMachine, settings=settings(SEARCH, max_examples=50))
