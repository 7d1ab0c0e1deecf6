"""One limit that several pools share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Never

from ._backends.fork import Survivors
from ._engine.budget import Budget
from ._engine.nested import NestedBudget
from .errors import ConfigurationError
from .locks import make_lock
from .options import checked_seconds, refuse_unknown

if TYPE_CHECKING:
    import threading

__all__ = ["PoolBudget"]

_budgets: Survivors[PoolBudget] = Survivors()


class PoolBudget:
    """
    The most resources that several pools may have together, those being created or destroyed included.

    Give it to each pool as `budget=`. If the budget is spent, a pool without a resource gets the place of an idle one
    elsewhere, of that which is missed least. A pool with resources waits for these first, about as long as a create
    takes. If no resource is idle, the pools take turns.
    Pools for threads and pools for asyncio cannot share a budget.

    Args:
        max_total: A whole number, or `math.inf`.
        within: Another budget, in which each resource counts as well: its pools then have two limits, one of them in
            common with further pools.
        advice: What errors say to try while it is spent; by default, to raise `max_total`.

    Raises:
        ConfigurationError: `max_total` is neither a whole number of at least 1 nor `math.inf`, or `within` is no
            budget, or one that is within another itself; or an argument has another name.
    """

    def __init__(
        self, max_total: float, *, within: PoolBudget | None = None, advice: str = "", **unknown: Never
    ) -> None:
        refuse_unknown(unknown, ("max_total", "within", "advice"), "a budget")
        self._max_total = _checked(max_total)
        self._advice = advice
        self._within = _checked_outer(within)
        self._kind: type | None = None
        self._renew()
        _budgets.add(self)

    def _renew(self) -> None:
        """Begin without pools in a forked child."""
        self._lock = make_lock()
        self._budget = Budget(self._max_total)
        self._budget.advice = self._advice
        self._nested: NestedBudget | None = None

    @property
    def within(self) -> PoolBudget | None:
        """The budget in which each resource counts as well."""
        return self._within

    @property
    def max_total(self) -> float:
        """The limit, not counting a `squeeze`."""
        return self._budget.max_total

    @property
    def used(self) -> int:
        """Places taken by all pools together."""
        return self._budget.used

    @property
    def limit(self) -> float:
        """`max_total`, or less for a while after `squeeze`."""
        return self._budget.limit

    def resize(self, max_total: float) -> None:
        """
        Change the limit.

        A higher limit serves waiting borrowers. Above a lower limit, idle resources are destroyed, and borrowed ones as
        they come back while others wait. Does not block; for asyncio pools, call it in their loop.

        Raises:
            ConfigurationError: As in the constructor.
        """
        self._max_total = _checked(max_total)
        budget = self._budget
        with self._lock:
            members = [*budget.waiting_without, *budget.waiting_for_more, *budget.active]
            if not members:
                budget.max_total = budget.limit = self._max_total
                return
            (self._nested or budget).resize(self._max_total, members[0].owner.backend.now())
        members[0].owner.dispatch()

    def squeeze(self, seconds: float = 30.0) -> None:
        """
        Lower the limit to the present number of resources for a while.

        For factories that learn from a failed create that the server accepts no more connections. While the limit is
        lower, an idle resource of another pool is destroyed before a waiting borrower gets a new one. Does not block.

        Args:
            seconds: How long to keep the lower limit.

        Raises:
            ConfigurationError: `seconds` is not a number.
        """
        seconds = checked_seconds(seconds, "seconds", repr(self))
        budget = self._budget
        with self._lock:
            members = list(budget.active)
            if members:
                budget.squeeze(members[0].owner.backend.now() + seconds)

    def __repr__(self) -> str:
        return f"<PoolBudget {self.used} of max_total={self.max_total} used>"


def join(budget: PoolBudget, kind: type) -> tuple[threading.Lock, Budget | NestedBudget]:
    """Add a pool of this kind to a budget; returns what it shares with the others."""
    if budget._within is not None:
        return _join_within(budget, budget._within, kind)
    if budget._kind is not None and budget._kind is not kind:
        raise ConfigurationError(
            "budget is shared with a pool of the other kind: pools for threads and pools for asyncio need one each",
            field="budget",
        )
    budget._kind = kind
    return budget._lock, budget._budget


def _join_within(budget: PoolBudget, within: PoolBudget, kind: type) -> tuple[threading.Lock, NestedBudget]:
    lock, outer = join(within, kind)
    assert isinstance(outer, Budget)
    with lock:
        if budget._nested is None:
            budget._nested = NestedBudget(budget._budget, outer)
            budget._lock = lock
        return lock, budget._nested


def _checked_outer(within: PoolBudget | None) -> PoolBudget | None:
    if within is not None and not isinstance(within, PoolBudget):
        raise ConfigurationError(f"within={within!r}: expected a PoolBudget", field="within")
    if within is not None and within.within is not None:
        raise ConfigurationError(
            f"within={within!r}: that budget is within another itself; give the outermost one", field="within"
        )
    return within


def _checked(max_total: float) -> float:
    is_whole = isinstance(max_total, int) and not isinstance(max_total, bool) and max_total >= 1
    if not is_whole and max_total != math.inf:
        raise ConfigurationError(
            f"max_total={max_total!r}: expected a whole number, at least 1 (math.inf for no limit)", field="max_total"
        )
    return max_total
