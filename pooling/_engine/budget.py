"""
One budget for many ledgers: which of them may open one more, and who makes room for whom.

Pure and synchronous like the ledgers, and called under the lock that they all share. A place is a slot of any
ledger. Rules:

- The sum of all ledgers' places never exceeds the limit, those being opened or destroyed included. The limit is
  `max_total`, or less for a while after a `squeeze`.
- While a ledger is hungry (it has waiters, could grow by its own limits, and the budget is spent), every free place
  goes by `feed`: first to a ledger that has none at all, in order of their coming; then to the hungry one with fewest.
- For each place wanted one idle resource is destroyed, of the ledger that was quiet for longest; where
  nothing is idle, the next resource that comes back to a ledger with more than its share.
- A resource serves two borrowers of its own ledger before it is taken away for another's: two hungry ledgers never just
  swap places, and half of the time a hand-over costs no create.
- From the first that is hungry to the last (`alert`) no ledger with places is `fast`: whoever gives back looks here.
- What the ledgers' states say is counted as it changes. An interrupt between two lines may leave a count too high,
  never too low; `recount` puts it right within a second of somebody's being hungry.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .ledger import Ledger, Slot

EVICTED = "evicted"
TURNS = 2  # borrowers that a resource serves while others are hungry
RECOUNT = 1.0  # seconds between two looks for counts that an interrupt has left wrong


class Budget:
    """
    The common books of all ledgers under one budget.

    Args:
        max_total: Most places.
    """

    __slots__ = (
        "active",
        "alert",
        "counted_at",
        "demand",
        "fed",
        "fed_at",
        "limit",
        "max_total",
        "outbox",
        "peckish",
        "relax_at",
        "resting",
        "starving",
        "stirred",
        "used",
    )

    def __init__(self, max_total: float) -> None:
        self.max_total = max_total
        self.limit = max_total
        self.relax_at = inf  # when the limit is `max_total` again
        self.used = 0
        self.active: dict[Ledger, None] = {}  # those that have places; never more than `max_total`
        self.starving: dict[Ledger, int] = {}  # hungry without any place, and how many they want
        self.peckish: dict[Ledger, int] = {}  # hungry for more
        self.demand = 0  # places wanted by all of them
        self.alert = False
        self.resting: dict[Ledger, None] = {}  # while `alert`: those that may have something idle to spare
        self.fed: Ledger | None = None
        self.fed_at = -inf
        self.counted_at = -inf
        self.stirred: list[Ledger] = []  # changed on another's behalf: their alarms are to be looked at
        self.outbox: list[Any] = []

    @property
    def is_hungry(self) -> bool:
        """Whether somebody waits for the budget."""
        return bool(self.starving or self.peckish)

    # -- places ------------------------------------------------------------

    def grant(self, ledger: Ledger) -> bool:
        """Take a place for this ledger, if it may have one now."""
        if self.used >= self.limit or (self.is_hungry and self.fed is not ledger):
            return False
        self.used += 1
        self.active[ledger] = None
        return True

    def vacated(self, ledger: Ledger) -> None:
        """A place of this ledger's is free."""
        self.used -= 1
        if not ledger.slots:
            self.active.pop(ledger, None)

    def room_for(self, ledger: Ledger, now: float) -> float:
        """How many places this ledger could have without waiting for what borrowers give back."""
        limit = self.max_total if self.relax_at <= now else self.limit
        active = list(self.active)
        spare = sum(len(other.idle) for other in active if other is not ledger and not any(other.queues))
        freed = sum(len(other.closing) for other in active)
        others = self.demand - self.starving.get(ledger, 0) - self.peckish.get(ledger, 0)
        return limit - self.used + freed + spare - others

    def wants(self, ledger: Ledger, places: int) -> None:
        """Note how many places more this ledger would open at once; 0 takes it off the list."""
        queue, other = (self.peckish, self.starving) if ledger.slots else (self.starving, self.peckish)
        self.demand += places - queue.get(ledger, 0) - other.pop(ledger, 0)
        if not places:
            queue.pop(ledger, None)
            return
        queue[ledger] = places
        if not self.alert:
            self.alert = True
            for member in list(self.active):
                member.fast = False
                self.resting[member] = None

    # -- sharing -----------------------------------------------------------

    def feed(self, ledger: Ledger | None, now: float) -> None:
        """Give free places to those who are hungry, and make room for the others; after any change of `ledger`."""
        if self.relax_at <= now:
            self.limit, self.relax_at = self.max_total, inf
        if ledger is not None and self.fed is ledger and now - self.fed_at < RECOUNT:
            return  # called by `feed`
        if self.alert and ledger is not None and ledger.idle:
            self.resting[ledger] = None
        if self.is_hungry or self.used > self.limit:
            self._share(now)
        if self.alert and not self.is_hungry:
            self.alert = False
            self.resting.clear()

    def _share(self, now: float) -> None:
        if now - self.counted_at >= RECOUNT:
            self.recount()
            self.counted_at = now
        try:
            while self.is_hungry and self.used < self.limit:
                used = self.used
                self.fed_at = now
                self.fed = ledger = self._neediest()
                places = self.starving.pop(ledger, 0) or self.peckish.pop(ledger, 0)
                self.demand -= places
                ledger.settle(now)
                self.stirred.append(ledger)
                if self.used == used and (ledger in self.starving or ledger in self.peckish):
                    break
        finally:
            self.fed = None
        self._make_room(now)

    def _neediest(self) -> Ledger:
        if self.starving:
            return next(iter(self.starving))
        return min(self.peckish, key=lambda ledger: len(ledger.slots))

    def _make_room(self, now: float) -> None:
        missing = self.demand + max(self.used - self.limit, 0) - self._being_freed()
        if missing <= 0:
            return
        candidates = self.resting if self.alert else self.active
        spare = [ledger for ledger in candidates if ledger.idle and not any(ledger.queues)]
        if self.alert:
            self.resting = dict.fromkeys(spare)
        while missing > 0 and spare:
            victim = min(spare, key=_last_taken)
            if victim.evict(now):
                self.stirred.append(victim)
                missing -= 1
            if not victim.idle:
                spare.remove(victim)
                self.resting.pop(victim, None)

    def _being_freed(self) -> int:
        return sum(len(ledger.closing) for ledger in self.active)

    def must_yield(self, ledger: Ledger, slot: Slot) -> bool:
        """Whether a resource that has come back to a ledger with waiters of its own is to make room for another's."""
        if not self.is_hungry:
            slot.turns = 0
            return False
        slot.turns += 1
        if slot.turns <= TURNS or self._being_freed() >= self.demand:
            return False
        if self.starving:
            return True
        return any(len(other.slots) + 1 < len(ledger.slots) for other in self.peckish if other is not ledger)

    # -- limits ------------------------------------------------------------

    def resize(self, max_total: float, now: float) -> None:
        """Another limit from now on."""
        self.max_total = self.limit = max_total
        self.relax_at = inf
        self.feed(None, now)

    def squeeze(self, until: float) -> None:
        """There is no room for more than there is: until then, that is the limit."""
        self.recount()
        standing = sum(ledger.live for ledger in self.active)
        self.limit = min(self.limit, max(standing, 1))
        self.relax_at = until

    def recount(self) -> None:
        """Derive every count anew."""
        for ledger in [ledger for ledger in self.active if not ledger.slots]:
            del self.active[ledger]
        self.used = sum(len(ledger.slots) for ledger in self.active)
        self.demand = sum(self.starving.values()) + sum(self.peckish.values())


def _last_taken(ledger: Ledger) -> float:
    return max((slot.taken_at for slot in ledger.slots), default=0.0)
