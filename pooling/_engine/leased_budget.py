"""
A budget whose limit is what this process has leased of a limit that several processes share.

To the ledgers it is a budget like another one. Its rules differ where the limit changes by itself:

- A place is granted only if the lease permits it at this instant: it may have ended while the process was stopped.
- Above its limit a budget destroys idle resources; this one also those that come back, though their ledger has waiters,
  for other processes wait for them, or have them already.
- Whoever asks for a place and does not get one makes the process lease more.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from .budget import FURTHER, Budget

if TYPE_CHECKING:
    from .slots import Slot
    from .standing import Member


class LeasedBudget(Budget):
    """
    The counts of all ledgers of this process under one shared limit.

    Args:
        max_total: The limit that all processes share.
        permits: Whether the lease allows one more place than so many.
        tell: Called after each change, with the ledger that changed. Must be quick: the ledgers are locked meanwhile.
    """

    __slots__ = ("beyond", "leased", "permits", "refused", "tell", "trouble")

    def __init__(self, max_total: float, permits: Callable[[int], bool], tell: Callable[[Member | None], None]) -> None:
        super().__init__(max_total)
        self.permits = permits
        self.tell = tell
        self.limit: float = 0
        self.leased: float = 0  # the limit without a squeeze
        self.beyond: float = max_total  # further places that this process could have, as far as is known
        self.trouble = ""  # what keeps the process from leasing more
        self.refused: dict[Member, None] = {}  # ledgers that wanted a place for `min_size`

    @property
    def full(self) -> float:
        return self.leased

    @property
    def hint(self) -> str:
        return self.trouble

    @property
    def wanted(self) -> int:
        """How many further places are waited for."""
        return self.demand + len(self.refused)

    def needs(self, now: float) -> int:
        """How many places borrowers use, or wait for and may ask of others."""
        idle = sum(len(ledger.idle) for ledger in list(self.active))
        asking = sum(self.waiting_without.values())
        asking += sum(places for ledger, places in self.waiting_for_more.items() if self._may_ask(ledger, FURTHER, now))
        return max(self.used - idle - self._being_freed(), 0) + asking

    def grant(self, ledger: Member, now: float) -> bool:
        if self.permits(self.used) and super().grant(ledger, now):
            self.refused.pop(ledger, None)
            return True
        self.refused[ledger] = None
        return False

    def set_demand(self, ledger: Member, places: int) -> None:
        super().set_demand(ledger, places)
        if places or ledger.live + len(ledger.opening) >= ledger.min_size:
            self.refused.pop(ledger, None)

    def withdraw(self, ledger: Member) -> None:
        super().withdraw(ledger)
        self.refused.pop(ledger, None)

    def room_for(self, ledger: Member, now: float) -> float:
        return super().room_for(ledger, now) + self.beyond

    def share(self, ledger: Member | None, now: float) -> None:
        super().share(ledger, now)
        if self.served is None:
            self.tell(ledger)

    def must_yield(self, ledger: Member, slot: Slot, now: float) -> bool:
        return super().must_yield(ledger, slot, now) or self.used - self._being_freed() > self.limit

    def lease(self, places: float, beyond: float) -> None:
        """Take this limit; `beyond` are further ones that this process could have. `offer` puts it into effect."""
        self.leased, self.beyond = places, beyond
        is_squeezed = self.relax_at < inf
        self.limit = min(self.limit, places) if is_squeezed else places

    def offer(self, now: float) -> None:
        """Give the places to the ledgers that want them, or take back what is above the limit."""
        for ledger in list(self.refused):
            ledger.settle(now)
            self.changed.append(ledger)
        self.share(None, now)
