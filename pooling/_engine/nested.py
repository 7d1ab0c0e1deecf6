"""
A budget within another: holds some of its ledgers to a lower limit of their own.

A ledger here needs a place of both. Both are budgets with the same rules (`budget.py`), the inner one among these
ledgers only: while it is spent, a ledger without a place gets that of an idle resource of one of the others at once.

- A place that a ledger lacks is asked for in one of them: in the inner budget while that is spent, or others wait
  there, else in the outer one.
- A ledger that gets a place settles, and that shares out places again. So each budget passes on what the other one
  has freed, except one that is in the middle of giving: it goes on by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .standing import Member, Standing

if TYPE_CHECKING:
    from .budget import Budget
    from .slots import Slot


class NestedBudget:
    """
    What the ledgers of an inner budget have in place of a `Budget`.

    Args:
        inner: The budget of these ledgers alone.
        outer: The budget that they share with others.
    """

    __slots__ = ("asking", "has_moved", "inner", "outer")

    def __init__(self, inner: Budget, outer: Budget) -> None:
        self.inner = inner
        self.outer = outer
        inner.age = outer.age
        inner.use_time = outer.use_time
        inner.changed = outer.changed
        self.asking: dict[Member, None] = {}  # those that ask for places of the outer budget
        self.has_moved = False  # whether others than the ledger that changes ask inside since the last share

    @property
    def outbox(self) -> list[Any]:
        """The work of all ledgers of the outer budget."""
        return self.outer.outbox

    @property
    def changed(self) -> list[Member]:
        """Ledgers that were changed on behalf of another one."""
        return self.outer.changed

    @property
    def use_time(self) -> Any:
        """How long a resource is out."""
        return self.outer.use_time

    # For messages: the numbers of the one that keeps a ledger from a place.

    @property
    def _spent(self) -> Budget:
        return self.inner if self.inner.used >= self.inner.limit else self.outer

    @property
    def max_total(self) -> float:
        """As of a `Budget`."""
        return self._spent.max_total

    @property
    def limit(self) -> float:
        """As of a `Budget`."""
        return self._spent.limit

    @property
    def used(self) -> int:
        """As of a `Budget`."""
        return self._spent.used

    @property
    def active(self) -> dict[Member, Standing]:
        """As of a `Budget`."""
        return self._spent.active

    @property
    def full(self) -> float:
        """As of a `Budget`."""
        return self._spent.full

    @property
    def hint(self) -> str:
        """As of a `Budget`."""
        return self._spent.hint or self.outer.hint

    @property
    def alert(self) -> bool:
        """Whether each release has to go through one of the budgets."""
        return self.inner.alert or self.outer.alert

    def adopt(self, ledger: Member, now: float) -> None:
        """Count a ledger of the outer budget here, too, with all its places."""
        if ledger.slots:
            self.inner.age.tick(now)
            self.inner.active[ledger] = Standing(ledger, self.inner.age)
        self.inner.recount()
        if self.inner.used >= self.inner.limit:
            self._ask_inside(ledger)

    def grant(self, ledger: Member, now: float) -> bool:
        """As `Budget.grant`, of both."""
        turn = self.inner.to_grant
        if not self.inner.grant(ledger, now):
            return False
        if not self.outer.grant(ledger, now):
            self.inner.vacated(ledger)
            self.inner.to_grant = turn  # its turn is not over: the outer budget may serve it next
            return False
        if self.inner.used >= self.inner.limit:
            self._ask_inside(ledger)
        return True

    def _ask_inside(self, ledger: Member) -> None:
        """Have the others ask in the inner budget, which is spent: they could not use a place of the outer one."""
        for other in [other for other in self.asking if other is not ledger]:
            places = self.outer.demand_of(other)
            self.outer.set_demand(other, 0)
            self.inner.set_demand(other, places)
            del self.asking[other]
            self.has_moved = True

    def created(self, ledger: Member, seconds: float, now: float, *, is_late: bool) -> None:
        """As `Budget.created`."""
        self.outer.created(ledger, seconds, now, is_late=is_late)
        if ledger in self.inner.active:
            self.inner.active[ledger].gained_at = now

    def vacated(self, ledger: Member) -> None:
        """As `Budget.vacated`, of both."""
        self.inner.vacated(ledger)
        self.outer.vacated(ledger)

    def will_free(self, ledger: Member) -> None:
        """As `Budget.will_free`, of both."""
        self.inner.will_free(ledger)
        self.outer.will_free(ledger)

    def room_for(self, ledger: Member, now: float) -> float:
        """As `Budget.room_for`, under both limits."""
        return min(self.inner.room_for(ledger, now), self.outer.room_for(ledger, now))

    def set_demand(self, ledger: Member, places: int) -> None:
        """As `Budget.set_demand`, in the one that keeps the ledger from a place."""
        inner = self.inner
        room = inner.limit - inner.used
        # Others that wait in the inner budget come first, unless it is this one's turn.
        if room > 0 and (inner.served is ledger or inner.demand == inner.demand_of(ledger)):
            outside = int(min(places, room))
            inner.set_demand(ledger, 0)
        else:
            outside = 0
            inner.set_demand(ledger, places)
        self.outer.set_demand(ledger, outside)
        if outside:
            self.asking[ledger] = None
        else:
            self.asking.pop(ledger, None)

    def withdraw(self, ledger: Member) -> None:
        """As `Budget.withdraw`, of both."""
        self.inner.withdraw(ledger)
        self.outer.withdraw(ledger)
        self.asking.pop(ledger, None)

    def next_look(self, ledger: Member, now: float) -> float:
        """As `Budget.next_look`, of both."""
        return min(self.inner.next_look(ledger, now), self.outer.next_look(ledger, now))

    def share(self, ledger: Member | None, now: float) -> None:
        """As `Budget.share`, of both."""
        if not self.inner.is_giving(now):
            changed = None if self.has_moved else ledger
            self.has_moved = False
            self.inner.share(changed, now)
        if not self.outer.is_giving(now):
            self.outer.share(ledger, now)

    def resize(self, max_total: float, now: float) -> None:
        """Change the limit of the inner one."""
        self.inner.resize(max_total, now)
        for ledger in [*self.asking, *self.inner.waiting_without, *self.inner.waiting_for_more]:
            ledger.settle(now)

    def must_yield(self, ledger: Member, slot: Slot, now: float) -> bool:
        """As `Budget.must_yield`, to a ledger of either."""
        turns = slot.turns
        for budget in (self.inner, self.outer):
            if budget.is_short or budget.used > budget.limit:
                slot.turns = turns
                if budget.must_yield(ledger, slot, now):
                    return True
        if not (self.inner.is_short or self.outer.is_short):
            slot.turns = 0
        return False
