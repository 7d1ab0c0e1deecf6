"""
Several ledgers under one budget, each with the model of `tests.core.model`, and the promises of the budget.

Work is carried out per ledger: here each has a separate outbox, while services share one.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import Any

from pooling._engine.budget import ANY, FURTHER, LONGEST_PATIENCE, Budget
from pooling._engine.ledger import REFILL_LOOK, RUNNING, SUSPENDED, Ledger
from pooling._engine.nested import NestedBudget
from pooling._engine.slots import LIVE, OPENING
from pooling.options import PoolingServiceOptions
from tests.core.model import Borrower, Model, promise


class Member(Model):
    """One of the ledgers; its clock is the budget_model's."""

    def __init__(
        self,
        budget_model: BudgetModel,
        options: PoolingServiceOptions,
        nested: NestedBudget | None = None,
        **settings: Any,
    ) -> None:
        self.budget_model = budget_model
        self.nested = nested
        budget = nested or budget_model.budget
        super().__init__(options, ledger_type=partial(Ledger, budget=budget, owner=self), **settings)
        self.ledger.outbox = []

    @property
    def budgets(self) -> list[Budget]:
        """All that its places count in."""
        return [self.budget_model.budget, *([self.nested.inner] if self.nested else [])]

    @property
    def now(self) -> float:
        return self.budget_model.now

    @now.setter
    def now(self, now: float) -> None:
        self.budget_model.now = now

    def turn(self, seconds: float) -> None:
        self.budget_model.turn(seconds)

    def jump(self, seconds: float) -> None:
        self.budget_model.jump(seconds)

    def count_in(self, nested: NestedBudget) -> None:
        self.nested = nested
        self.ledger.count_in(nested, self.now)
        allowed = self.budget_model.allowed
        allowed[nested.inner] = max(allowed[nested.inner], nested.inner.used)

    def _due(self) -> list[tuple[float, str]]:
        ledger, due = self.ledger, super()._due()
        if ledger.state == RUNNING and ledger.live + len(ledger.opening) < ledger.min_size:
            due.append((self.now + REFILL_LOOK, "a look whether a spent budget has room for min_size"))
        for budget in self.budgets:
            if ledger in budget.waiting_for_more:
                standing = budget.active[ledger]
                due += [
                    (when, f"a borrower has waited for {stage:g} creates")
                    for stage in (FURTHER, ANY)
                    if self.now < (when := standing.waits_since + stage * standing.patience)
                ]
        return due

    def _check_idleness(self) -> None:
        """As without a budget, but if the budget is spent, it knows how many places the ledger is short of."""
        ledger = self.ledger
        if ledger.state != RUNNING:
            promise(not self.is_noted, "only a running ledger is short", ledger.state)
            return
        if self.queue and not self.rechecking:
            idle = [slot for slot in ledger.idle if slot.state is LIVE]
            promise(not idle, "no borrower queues while a resource is idle", self.queue, idle)
        room = min(ledger.max_size - len(ledger.slots), self.options.max_creating - len(ledger.opening))
        missing = len(self.queue) - len(ledger.opening)
        is_paused = ledger.backoff.retry_at > self.now
        noted = sum(budget.demand_of(ledger) for budget in self.budgets)
        if room > 0 and missing > 0 and not is_paused and ledger.alarm > self.now:
            # As many places as a nested budget had room for when it last settled: it asks again with the first of them.
            promise(
                noted == min(room, missing) or (self.nested is not None and 0 < noted < min(room, missing)),
                "the budget knows how many places a ledger is short of",
                noted,
                room,
                missing,
            )
        if noted:
            promise(min(room, missing) > 0, "a ledger is short only if it has room and waiters", noted, room, missing)
            promise(
                any(ledger in budget.waiting_without for budget in self.budgets) == (not ledger.slots),
                "a ledger without places waits without",
                ledger.slots,
            )

    @property
    def is_noted(self) -> bool:
        return any(budget.demand_of(self.ledger) for budget in self.budgets)


class BudgetModel:
    """All members and their budget."""

    def __init__(self, max_total: int, budget_type: type[Budget] = Budget) -> None:
        self.now = 1000.0
        self.budget = budget_type(max_total)
        self.nested: list[NestedBudget] = []
        self.members: list[Member] = []
        #: Most places of each budget: the limit, but for what was there before it was lowered.
        self.allowed: dict[Budget, float] = {self.budget: max_total}

    def add(self, options: PoolingServiceOptions, nested: NestedBudget | None = None, **settings: Any) -> Member:
        member = Member(self, options, nested, **settings)
        self.members.append(member)
        return member

    def nest(self, max_total: int, nested_type: type[NestedBudget] = NestedBudget) -> NestedBudget:
        """A budget within this one, for members that are added with it."""
        inner = Budget(max_total)
        self.nested.append(nested_type(inner, self.budget))
        self.allowed[inner] = max_total
        return self.nested[-1]

    def turn(self, seconds: float) -> None:
        """Let time pass, at most to the next alarm of all; then ledgers whose alarm is due sweep."""
        first = min(member.ledger.alarm for member in self.members)
        self.now = min(self.now + seconds, max(first, self.now))
        for member in self.members:
            member.ring()

    def jump(self, seconds: float) -> None:
        """As `Model.jump`, for the clock that all members share."""
        self.now += seconds
        for member in self.members:
            member.after_a_jump(is_back=seconds < 0)

    # -- the promises --------------------------------------------------------

    def check(self) -> None:
        for member in self.members:
            member.check()
        self._check_budget(self.budget, self.members)
        for nested in self.nested:
            self._check_budget(nested.inner, [member for member in self.members if member.nested is nested])
            asking = [member.ledger for member in self.members if member.nested is nested]
            asking = [ledger for ledger in asking if self.budget.demand_of(ledger)]
            promise(set(nested.asking) == set(asking), "those that ask outside are known", nested.asking, asking)
            promise(
                not asking or nested.inner.used < nested.inner.limit,
                "a ledger asks outside only for what it may have inside",
                asking,
            )

    def _check_budget(self, budget: Budget, members: list[Member]) -> None:
        places = {member.ledger: len(member.ledger.slots) for member in members}
        promise(budget.used == sum(places.values()), "every place is counted once", budget.used, places)
        promise(
            set(budget.active) == {ledger for ledger, count in places.items() if count},
            "the active ones are those with places",
        )
        self.allowed[budget] = max(budget.limit, min(self.allowed[budget], budget.used))
        promise(budget.used <= self.allowed[budget], "never above the limit", budget.used, budget.limit)
        short = {**budget.waiting_without, **budget.waiting_for_more}
        promise(not budget.waiting_without.keys() & budget.waiting_for_more.keys(), "no ledger is listed twice")
        promise(
            budget.demand == sum(short.values()), "the demand is the sum of all missing places", budget.demand, short
        )
        promise(all(places > 0 for places in short.values()), "a ledger that is short is short of a place", short)
        promise(budget.is_short == bool(short), "the budget is short while a ledger is short")
        promise(budget.served is None, "no ledger is being served between two calls")
        if not short:
            return
        promise(budget.used >= budget.limit, "no ledger is short while a place is free", budget.used)
        asking = [member for member in members if self._asks(member, budget)]
        if not asking:
            return
        promise(budget.alert, "the alert is on while a ledger asks for a place", asking)
        fast = [member.ledger for member in members if member.ledger.fast and member.ledger.slots]
        promise(not fast, "no ledger with places is fast while one asks", fast)
        closing = sum(len(member.ledger.closing) for member in members)
        excess = max(budget.used - budget.limit, 0) if budget.relax_at == inf else 0  # a squeeze takes effect later
        missing = len(asking) + excess - closing
        spare = [
            member for member in members if member.ledger.idle and not member.ledger.waiting and not member.rechecking
        ]
        promise(missing <= 0 or not spare, "no ledger asks while another has an idle resource to spare", missing, spare)

    def _asks(self, member: Member, budget: Budget) -> bool:
        """Whether a ledger may have any resource of another: it has none, or its first waiter has waited for long."""
        ledger = member.ledger
        if ledger in budget.waiting_without:
            return True
        if ledger not in budget.waiting_for_more or ledger.opening or member.ledger.alarm <= self.now:
            return False
        if ledger.live + len(ledger.late) == 0:
            return True
        gained_at = max((slot.born_at for slot in ledger.slots if slot.state is not OPENING), default=-inf)
        patience = budget.active[ledger].patience
        promise(
            patience <= LONGEST_PATIENCE * member.options.timeout, "patience ends long before the timeout", patience
        )
        return self.now > max(ledger.waiting_since, gained_at) + ANY * patience

    # -- the end -------------------------------------------------------------

    def calm(self) -> None:
        """All borrowers give back and all work succeeds: then all waiters must be served, and nothing lost."""
        budget = self.budget
        for member in self.members:
            if member.ledger.state == SUSPENDED:
                member.ledger.resume(self.now)
            else:
                member.ledger.start(self.now)
            member.resize(0, member.ledger.max_size)
        self._rest(gives_back=True)
        for member in self.members:
            promise(not member.queue and not member.waiting, "all waiters are served", member.waiting)
            idle = [slot for slot in member.ledger.idle if slot.state is LIVE]  # see `putting` in the core's model
            promise(len(idle) == len(member.ledger.slots), "all resources are idle", member)
        promise(not any(each.is_short for each in self.allowed), "no ledger is short any more")
        # Then as few members as possible take the whole budget at once.
        if self.now < budget.relax_at < inf:
            self.jump(budget.relax_at - self.now + 0.001)  # rounding may not reach it
        left = {each: each.max_total for each in self.allowed}
        borrowers = []
        for member in self.members:
            count = min(member.ledger.max_size, *(left[each] for each in member.budgets))
            for each in member.budgets:
                left[each] -= count
            for _ in range(count):
                borrowers.append((member, Borrower(0)))
                member.acquire(borrowers[-1][1])
        self._rest(gives_back=False)
        served = [borrower for member, borrower in borrowers if borrower in member.holding]
        promise(len(served) == len(borrowers), "the whole budget can be used", len(served), len(borrowers))

    def _rest(self, *, gives_back: bool) -> None:
        for _ in range(3000):
            self.check()
            for member in self.members:
                member.ledger.create_time.value = 0.0  # nobody waits for long, though the clock jumped during a create
            steps = [member._step_towards_calm(gives_back=gives_back) for member in self.members]
            if not any(steps):
                return
        promise(False, "pools left alone come to rest", self.members)
