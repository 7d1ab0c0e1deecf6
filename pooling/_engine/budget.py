"""
One budget for many ledgers: decides which of them may open one more slot, and which must make room for another.

Pure and synchronous like the ledgers, and called under the lock that they all share. A place is a slot of any
ledger. Rules:

- The sum of all ledgers' places, those being opened or destroyed included, never exceeds the limit. The limit is
  `max_total`, or less for a while after a `squeeze`.
- While a ledger is short (it has waiters, could grow by its own limits, and the budget is spent), every free place
  is given by `share`: first to the ledgers that wait without a place, in the order in which they began to wait; then
  to the ledger with the fewest places among those that wait for more.
- For each missing place one idle resource is destroyed, of the ledger that lent one least recently. Where none is idle,
  the next resource that comes back to a ledger with more than its share is destroyed.
- A resource serves two borrowers of its own ledger before it is destroyed for another ledger. Otherwise two ledgers
  that are short would swap places at each release, and every acquisition would cost a create.
- While any ledger is short (`alert`), no ledger with places is `fast`, so that each release goes through the budget.
- The counts here follow each change of a ledger. An interrupt between two bytecodes may leave a count too high, never
  too low; the audit corrects it while a ledger is short.
"""

from __future__ import annotations

from collections.abc import Iterable, Sized
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from .audit import AUDIT_EVERY

if TYPE_CHECKING:
    from .slots import Slot

EVICTED = "evicted"
TURNS = 2  # borrowers that a resource serves while other ledgers are short


class Member(Protocol):
    """What a budget needs of a ledger."""

    slots: dict[Slot, None]
    closing: dict[Slot, None]
    out: dict[int, Slot]
    idle: Any
    fast: bool
    owner: Any

    @property
    def queues(self) -> Iterable[Sized]: ...
    @property
    def live(self) -> int: ...
    def settle(self, now: float) -> None: ...
    def evict(self, now: float) -> bool: ...
    def audit(self, now: float) -> None: ...


class Budget:
    """
    The counts of all ledgers under one budget, and the order in which they are served.

    Args:
        max_total: The most places that all ledgers together may take.
    """

    __slots__ = (
        "active",
        "alert",
        "audited_at",
        "demand",
        "served",
        "served_at",
        "limit",
        "max_total",
        "outbox",
        "waiting_for_more",
        "relax_at",
        "has_idle",
        "waiting_without",
        "changed",
        "used",
    )

    def __init__(self, max_total: float) -> None:
        self.max_total = max_total
        self.limit = max_total
        self.relax_at = inf  # when a squeeze ends and the limit is `max_total` again
        self.used = 0
        self.active: dict[Member, None] = {}  # ledgers that have places; never more than `max_total`
        self.waiting_without: dict[Member, int] = {}  # short and without a place -> places wanted
        self.waiting_for_more: dict[Member, int] = {}  # short, with some places -> further places wanted
        self.demand = 0  # places wanted by all of them
        self.alert = False
        self.has_idle: dict[Member, None] = {}  # while `alert`: ledgers that may have an idle resource to spare
        self.served: Member | None = None
        self.served_at = -inf
        self.audited_at = -inf
        self.changed: list[Member] = []  # changed on behalf of another ledger: their timers have to be set again
        self.outbox: list[Any] = []

    @property
    def is_short(self) -> bool:
        """Whether any ledger waits for a place."""
        return bool(self.waiting_without or self.waiting_for_more)

    # -- places ------------------------------------------------------------

    def grant(self, ledger: Member) -> bool:
        """Take a place for this ledger, if it may have one now; whether it was taken."""
        if self.used >= self.limit or (self.is_short and self.served is not ledger):
            return False
        self.used += 1
        self.active[ledger] = None
        return True

    def vacated(self, ledger: Member) -> None:
        """Count a place of this ledger as free."""
        self.used -= 1
        if not ledger.slots:
            self.active.pop(ledger, None)

    def room_for(self, ledger: Member, now: float) -> float:
        """How many places this ledger could get before any borrower releases a resource."""
        limit = self.max_total if self.relax_at <= now else self.limit
        active = list(self.active)
        spare = sum(len(other.idle) for other in active if other is not ledger and not any(other.queues))
        freed = sum(len(other.closing) for other in active)
        others = self.demand - self.waiting_without.get(ledger, 0) - self.waiting_for_more.get(ledger, 0)
        return limit - self.used + freed + spare - others

    def set_demand(self, ledger: Member, places: int) -> None:
        """Record how many further places this ledger would open at once; 0 for none."""
        queue, other = (
            (self.waiting_for_more, self.waiting_without)
            if ledger.slots
            else (self.waiting_without, self.waiting_for_more)
        )
        self.demand += places - queue.get(ledger, 0) - other.pop(ledger, 0)
        if not places:
            queue.pop(ledger, None)
            return
        queue[ledger] = places
        if not self.alert:
            self.alert = True
            for member in list(self.active):
                member.fast = False
                self.has_idle[member] = None

    # -- sharing -----------------------------------------------------------

    def share(self, ledger: Member | None, now: float) -> None:
        """Give free places to ledgers that are short, and make room for the rest; after any change of `ledger`."""
        if self.relax_at <= now:
            self.limit, self.relax_at = self.max_total, inf
        if ledger is not None and self.served is ledger and now - self.served_at < AUDIT_EVERY:
            return  # called by `share`
        if self.alert and ledger is not None and ledger.idle:
            self.has_idle[ledger] = None
        if self.is_short or self.used > self.limit:
            self._give_places(now)
        if self.alert and not self.is_short:
            self.alert = False
            self.has_idle.clear()

    def _give_places(self, now: float) -> None:
        if now - self.audited_at >= AUDIT_EVERY:
            self.audit(now)
        try:
            while self.is_short and self.used < self.limit:
                used = self.used
                self.served_at = now
                self.served = ledger = self._neediest()
                places = self.waiting_without.pop(ledger, 0) or self.waiting_for_more.pop(ledger, 0)
                self.demand -= places
                ledger.settle(now)
                self.changed.append(ledger)
                if self.used == used and (ledger in self.waiting_without or ledger in self.waiting_for_more):
                    break
        finally:
            self.served = None
        self._make_room(now)

    def _neediest(self) -> Member:
        if self.waiting_without:
            return next(iter(self.waiting_without))
        return min(self.waiting_for_more, key=lambda ledger: len(ledger.slots))

    def _make_room(self, now: float) -> None:
        missing = self.demand + max(self.used - self.limit, 0) - self._being_freed()
        if missing <= 0:
            return
        candidates = self.has_idle if self.alert else self.active
        spare = [ledger for ledger in candidates if ledger.idle and not any(ledger.queues)]
        if self.alert:
            self.has_idle = dict.fromkeys(spare)
        while missing > 0 and spare:
            victim = min(spare, key=_last_taken)
            if victim.evict(now):
                self.changed.append(victim)
                missing -= 1
            if not victim.idle:
                spare.remove(victim)
                self.has_idle.pop(victim, None)

    def _being_freed(self) -> int:
        return sum(len(ledger.closing) for ledger in self.active)

    def must_yield(self, ledger: Member, slot: Slot) -> bool:
        """Whether a ledger, though it has waiters, must give up this returned resource for another ledger."""
        if not self.is_short:
            slot.turns = 0
            return False
        slot.turns += 1
        if slot.turns <= TURNS or self._being_freed() >= self.demand:
            return False
        if self.waiting_without:
            return True
        return any(len(other.slots) + 1 < len(ledger.slots) for other in self.waiting_for_more if other is not ledger)

    # -- limits ------------------------------------------------------------

    def resize(self, max_total: float, now: float) -> None:
        """Change the limit."""
        self.max_total = self.limit = max_total
        self.relax_at = inf
        self.share(None, now)

    def squeeze(self, until: float) -> None:
        """Limit all ledgers to the places they take now, until the given instant."""
        self.recount()
        standing = sum(ledger.live for ledger in self.active)
        self.limit = min(self.limit, max(standing, 1))
        self.relax_at = until

    def audit(self, now: float) -> None:
        """Have each ledger with places recover what an interrupt has left, then count again."""
        self.audited_at = now
        for ledger in list(self.active):
            ledger.audit(now)
            self.changed.append(ledger)
        self.recount()

    def recount(self) -> None:
        """Derive every count again from the ledgers."""
        for ledger in [ledger for ledger in self.active if not ledger.slots]:
            del self.active[ledger]
        self.used = sum(len(ledger.slots) for ledger in self.active)
        self.demand = sum(self.waiting_without.values()) + sum(self.waiting_for_more.values())


def _last_taken(ledger: Member) -> float:
    return max((slot.taken_at for slot in ledger.slots), default=0.0)
