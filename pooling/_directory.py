"""
One budget for many ledgers: which of them may open one more, and who makes room for whom.

Pure and synchronous like the ledgers, and called under the lock that they all share. A place is a slot of any
ledger. Rules:

- The sum of all ledgers' places never exceeds `max_total`, those being opened or destroyed included.
- While a ledger is hungry (it has waiters, could grow by its own limits, and the budget is spent), every free place
  goes by `feed`: first to a ledger that has none at all, in order of their coming; then to the hungry one with fewest.
- For each place wanted one idle resource is destroyed, of the ledger that was quiet for longest; where
  nothing is idle, the next resource that comes back to a ledger with more than its share.
- A resource serves two borrowers of its own ledger before it is taken away for another's: two hungry ledgers never just
  swap places, and half of the time a hand-over costs no create.
- While anybody is hungry no ledger with places is `fast`: whoever gives back looks here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._ledger import Ledger, Slot

EVICTED = "evicted"
TURNS = 2  # borrowers that a resource serves while others are hungry


class Directory:
    """
    The common books of all ledgers under one budget.

    Args:
        max_total: Most places.
    """

    __slots__ = ("active", "demand", "fed", "max_total", "outbox", "peckish", "starving", "stirred", "used")

    def __init__(self, max_total: float) -> None:
        self.max_total = max_total
        self.used = 0
        self.active: dict[Ledger, None] = {}  # those that have places; never more than `max_total`
        self.starving: dict[Ledger, int] = {}  # hungry without any place, and how many they want
        self.peckish: dict[Ledger, int] = {}  # hungry for more
        self.demand = 0  # places wanted by all of them
        self.fed: Ledger | None = None
        self.stirred: list[Ledger] = []  # changed on another's behalf: their alarms are to be looked at
        self.outbox: list[Any] = []

    @property
    def is_hungry(self) -> bool:
        """Whether somebody waits for the budget."""
        return bool(self.starving or self.peckish)

    def grant(self, ledger: Ledger) -> bool:
        """Take a place for this ledger, if it may have one now."""
        if self.used >= self.max_total or (self.is_hungry and self.fed is not ledger):
            return False
        self.used += 1
        self.active[ledger] = None
        return True

    def vacated(self, ledger: Ledger) -> None:
        """A place of this ledger's is free."""
        self.used -= 1
        if not ledger.slots:
            self.active.pop(ledger, None)

    def wants(self, ledger: Ledger, places: int) -> None:
        """Note how many places more this ledger would open at once; 0 takes it off the list."""
        queue, other = (self.peckish, self.starving) if ledger.slots else (self.starving, self.peckish)
        self.demand += places - queue.get(ledger, 0) - other.pop(ledger, 0)
        if not places:
            queue.pop(ledger, None)
            return
        if not self.is_hungry:
            for member in self.active:
                member.fast = False
        queue[ledger] = places

    def feed(self, now: float) -> None:
        """Give free places to those who are hungry, and make room for the others."""
        if self.fed is not None or not (self.is_hungry or self.used > self.max_total):
            return
        try:
            while self.is_hungry and self.used < self.max_total:
                used = self.used
                self.fed = ledger = self._neediest()
                places = self.starving.pop(ledger, 0) or self.peckish.pop(ledger, 0)
                self.demand -= places
                ledger.settle(now)
                self.stirred.append(ledger)
                if self.used == used and (ledger in self.starving or ledger in self.peckish):
                    break  # it pauses after a failed create, and so holds nobody else up
            self._make_room(now)
        finally:
            self.fed = None

    def _neediest(self) -> Ledger:
        if self.starving:
            return next(iter(self.starving))
        return min(self.peckish, key=lambda ledger: len(ledger.slots))

    def _make_room(self, now: float) -> None:
        missing = self.demand + max(self.used - self.max_total, 0) - self._being_freed()
        while missing > 0:
            idle = [ledger for ledger in self.active if ledger.idle and not any(ledger.queues)]
            if not idle:
                return
            victim = min(idle, key=_last_taken)
            if victim.evict(now):
                self.stirred.append(victim)
                missing -= 1

    def _being_freed(self) -> int:
        return sum(len(ledger.closing) for ledger in self.active)

    def must_yield(self, ledger: Ledger, slot: Slot) -> bool:
        """Whether a resource that has come back to a ledger with waiters of its own is to make room for another's."""
        if not self.is_hungry:
            return False
        slot.turns += 1
        if slot.turns <= TURNS or self._being_freed() >= self.demand:
            return False
        if self.starving:
            return True
        return any(len(other.slots) + 1 < len(ledger.slots) for other in self.peckish if other is not ledger)


def _last_taken(ledger: Ledger) -> float:
    return max((slot.taken_at for slot in ledger.slots), default=0.0)
