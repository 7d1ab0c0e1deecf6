"""One limit for several pools."""

from __future__ import annotations

import math
import threading

from ._backends.fork import Survivors
from ._engine.budget import Budget
from .errors import ConfigurationError

__all__ = ["PoolBudget"]

_budgets: Survivors[PoolBudget] = Survivors()


class PoolBudget:
    """
    The most resources that several pools may have together, those being created or destroyed included.

    Give it to each pool as `budget=`. Where it is spent and a borrower waits, an idle resource of the pool that was
    quiet for longest is destroyed for it; where nothing is idle, the pools take turns. Pools for threads and
    pools of an event loop cannot share one.

    Args:
        max_total: A whole number, or `math.inf`.

    Raises:
        ConfigurationError: `max_total` is neither.
    """

    def __init__(self, max_total: float) -> None:
        self._max_total = _checked(max_total)
        self._kind: type | None = None
        self.renew()
        _budgets.add(self)

    def renew(self) -> None:
        """Have no pools, as in a child process."""
        self._lock = threading.Lock()
        self._budget = Budget(self._max_total)

    def join(self, kind: type) -> tuple[threading.Lock, Budget]:
        """What one more pool shares with the others."""
        if self._kind is not None and self._kind is not kind:
            raise ConfigurationError(
                "budget is shared with a pool of the other kind: pools for threads and pools for asyncio need one each",
                field="budget",
            )
        self._kind = kind
        return self._lock, self._budget

    @property
    def max_total(self) -> float:
        """The limit now in force."""
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

        A higher one serves who waits; above a lower one idle resources are destroyed, and what is out as it
        comes back while others wait. Does not block; for asyncio pools, call it in their loop.

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
            budget.resize(self._max_total, members[0].owner.backend.now())
        members[0].owner.dispatch()

    def squeeze(self, seconds: float = 30.0) -> None:
        """
        Do with the resources there are now for a while: whoever makes them has no room for more.

        Where somebody waits, an idle resource of another pool is destroyed first. For factories that learn of
        such a limit, like that of a server's connections, from a create that failed. Does not block.

        Args:
            seconds: Until the limit is `max_total` again.
        """
        budget = self._budget
        with self._lock:
            members = list(budget.active)
            if members:
                budget.squeeze(members[0].owner.backend.now() + seconds)

    def __repr__(self) -> str:
        return f"<PoolBudget {self.used} of max_total={self.max_total} used>"


def _checked(max_total: float) -> float:
    is_whole = isinstance(max_total, int) and not isinstance(max_total, bool) and max_total >= 1
    if not is_whole and max_total != math.inf:
        raise ConfigurationError(
            f"max_total={max_total!r}: expected a whole number, at least 1 (math.inf for no limit)", field="max_total"
        )
    return max_total
