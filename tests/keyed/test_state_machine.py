"""Several ledgers under one budget, in any order of events, keep every promise of `budget_model.BudgetModel`."""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule, run_state_machine_as_test

from pooling._engine.budget import Budget
from pooling._engine.nested import NestedBudget
from pooling.options import PoolingServiceOptions
from tests.core.model import BrokenPromiseError
from tests.core.test_state_machine import LedgerMachine, one_of, picks, settings_of_pools
from tests.keyed.budget_model import BudgetModel


class BudgetMachine(LedgerMachine):
    """The rules of one ledger, each for the member whose turn it is."""

    budget_type: type[Budget] = Budget

    @initialize(
        settings=st.lists(settings_of_pools, min_size=2, max_size=4),
        plain=st.booleans(),
        watches=st.booleans(),
        jitter=st.floats(0, 1),
        max_total=st.integers(1, 5),
    )
    def found(self, settings, plain, watches, jitter, max_total):
        self.budget_model = BudgetModel(max_total, self.budget_type)
        for options in settings:
            self.budget_model.add(
                PoolingServiceOptions(**options),
                plain=plain and options["leak_timeout"] is None,
                watches=watches,
                jitter=jitter,
            )
        self.model = self.budget_model.members[0]

    @rule(pick=picks)
    def turn_to(self, pick):
        self.model = one_of(self.budget_model.members, pick)

    @rule(pick=picks, priority=st.just(0))
    def turn_to_and_acquire(self, pick, priority):
        self.turn_to(pick)
        self.model.see_fast(priority)

    @rule(max_total=st.integers(1, 6))
    def budget_is_resized(self, max_total):
        self.budget_model.budget.resize(max_total, self.budget_model.now)

    @precondition(lambda self: self.budget_model.budget.active)
    @rule(seconds=st.sampled_from([0.5, 5.0]))
    def budget_is_squeezed(self, seconds):
        self.budget_model.budget.squeeze(self.budget_model.now + seconds)

    @invariant()
    def every_promise_is_kept(self):
        if hasattr(self, "budget_model"):
            self.budget_model.check()

    def teardown(self):
        if hasattr(self, "budget_model"):
            self.budget_model.calm()


TestBudget = BudgetMachine.TestCase


class NestedMachine(BudgetMachine):
    """Some members count in a budget within the other one, too: from the beginning, or from some moment on."""

    nested_type: type[NestedBudget] = NestedBudget

    @initialize(
        settings=st.lists(settings_of_pools, min_size=2, max_size=5),
        groups=st.lists(st.integers(0, 2), min_size=5, max_size=5),
        plain=st.booleans(),
        jitter=st.floats(0, 1),
        max_total=st.integers(1, 6),
        limits=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    )
    def found(self, settings, groups, plain, jitter, max_total, limits):
        self.budget_model = BudgetModel(max_total, self.budget_type)
        nested = [None, *(self.budget_model.nest(limit, self.nested_type) for limit in limits)]
        for options, group in zip(settings, groups, strict=False):
            self.budget_model.add(
                PoolingServiceOptions(**options),
                nested[group],
                plain=plain and options["leak_timeout"] is None,
                jitter=jitter,
            )
        self.model = self.budget_model.members[0]

    @rule(max_total=st.integers(1, 4), pick=picks)
    def nested_budget_is_resized(self, max_total, pick):
        one_of(self.budget_model.nested, pick).resize(max_total, self.budget_model.now)

    @precondition(lambda self: self.model.nested is None)
    @rule(pick=picks)
    def member_is_counted_in_a_nested_budget(self, pick):
        self.model.count_in(one_of(self.budget_model.nested, pick))


TestNestedBudget = NestedMachine.TestCase
TestNestedBudget.settings = settings(max_examples=min(settings().max_examples, 100))


class OneTooMany(Budget):
    def grant(self, ledger, now):
        self.limit += 1
        try:
            return super().grant(ledger, now)
        finally:
            self.limit -= 1


class ClosesNothingForOthers(Budget):
    def _make_room(self, now):
        pass


class LeavesOthersFast(Budget):
    def _raise_alert(self, now):
        self.alert = True
        super()._raise_alert(now)


class GrantsNothing(Budget):
    def _give_places(self, now):
        self._make_room(now)


class CountsTwice(Budget):
    def vacated(self, ledger):
        super().vacated(ledger)
        self.used -= not ledger.slots


class AsksOutsideOnly(NestedBudget):
    def set_demand(self, ledger, places):
        self.outer.set_demand(ledger, places)


class ForgetsTheInnerPlace(NestedBudget):
    def grant(self, ledger, now):
        return self.inner.grant(ledger, now) and self.outer.grant(ledger, now)


class SharesOutsideOnly(NestedBudget):
    def share(self, ledger, now):
        self.outer.share(ledger, now)


@pytest.mark.parametrize("broken", [AsksOutsideOnly, ForgetsTheInnerPlace, SharesOutsideOnly])
def test_a_nested_budget_that_breaks_a_promise_is_found_out(broken):
    class Machine(NestedMachine):
        nested_type = broken

    with pytest.raises((BrokenPromiseError, KeyError)):
        run_state_machine_as_test(
            Machine, settings=settings(max_examples=400, database=None, derandomize=True, phases=[Phase.generate])
        )


@pytest.mark.parametrize(
    "broken",
    [OneTooMany, ClosesNothingForOthers, LeavesOthersFast, GrantsNothing, CountsTwice],
)
def test_a_budget_that_breaks_a_promise_is_found_out(broken):
    class Machine(BudgetMachine):
        budget_type = broken

    with pytest.raises(BrokenPromiseError):
        run_state_machine_as_test(
            Machine, settings=settings(max_examples=400, database=None, derandomize=True, phases=[Phase.generate])
        )
