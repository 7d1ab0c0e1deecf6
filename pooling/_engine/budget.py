"""
One budget for many ledgers: decides which of them may open one more slot, and which must make room for another.

Pure and synchronous like the ledgers, and called under the lock that they all share. A place is a slot of any
ledger. What costs is making a resource, not waiting for one that comes back soon. Rules:

- The sum of all ledgers' places, those being opened or destroyed included, never exceeds the limit. The limit is
  `max_total`, or less for a while after a `squeeze`.
- While places are free, whoever is short gets them, one at a time in the order of `_need`: ledgers without a place in
  the order in which they began to wait, then the ledger with the most work for each of its places. Nothing is evicted.
- A ledger without a place asks for one of another ledger at once. A ledger with resources waits for its own first: it
  asks when its first waiter has waited as long as a create takes, and for the last resource of another ledger after
  twice that. After a quarter of it, it may have what another ledger has too much of: a resource without which that one
  still has clearly less work for each place.
- It asks for one place at a time, and not while one is being opened for it. So its waiters share what it gets.
- Taken is the idle resource that its ledger would miss least (`standing.py`).
- Where none is idle, a resource that comes back to a ledger with waiters of its own goes on to serve them for one turn
  before it is destroyed for a ledger that asks: as many as the time of a create allows. Against a ledger with far fewer
  waiters than its own, a turn is `TURNS` borrowers, so that one waiter does not queue behind a thousand.
- While any ledger asks (`alert`), and for a moment after, no ledger with places is `fast`, so that each release goes
  through the budget.
- The counts here follow each change of a ledger. An interrupt between two bytecodes may leave a count too high, never
  too low; the audit corrects it while a ledger is short.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING, Any

from .audit import AUDIT_EVERY
from .standing import Age, Average, Member, Spares, Standing

if TYPE_CHECKING:
    from .slots import Slot

EVICTED = "evicted"
TURNS = 2  # borrowers that a resource serves at least before it is given up for another ledger
MOST_TURNS = 16  # and at most
CALM_AFTER = 0.05  # seconds after the last ask until ledgers may be fast again
MARGIN = 1.5  # how many times as much work for each place a ledger must have to get what another has too much of

#: When a ledger with resources may ask, in creates that its first waiter has waited: for what another ledger has too
#: much of, for any resource but the last of a ledger, for any resource.
SURPLUS, FURTHER, ANY = 0.25, 1.0, 2.0
LONGEST_PATIENCE = 0.25  # part of a pool's timeout: the longest that counts as the time of a create


class Budget:
    """
    The counts of all ledgers under one budget, and the order in which they are served.

    Args:
        max_total: The most places that all ledgers together may take.
    """

    __slots__ = (
        "active",
        "advice",
        "age",
        "alert",
        "audited_at",
        "calm_at",
        "changed",
        "closing",
        "demand",
        "limit",
        "max_total",
        "outbox",
        "relax_at",
        "served",
        "served_at",
        "spares",
        "to_grant",
        "use_time",
        "used",
        "waiting_for_more",
        "waiting_without",
    )

    def __init__(self, max_total: float) -> None:
        self.max_total = max_total
        self.limit = max_total
        self.advice = ""  # for messages, while it is spent; empty for the usual one
        self.relax_at = inf  # when a squeeze ends and the limit is `max_total` again
        self.used = 0
        self.age = Age()
        self.use_time = Average()  # of all ledgers; of resources that came back without the fast path
        self.active: dict[Member, Standing] = {}  # ledgers that have places; never more than `max_total`
        self.closing: dict[Member, None] = {}  # ledgers that may have places which are being freed
        self.waiting_without: dict[Member, int] = {}  # short and without a place -> places wanted
        self.waiting_for_more: dict[Member, int] = {}  # short, with some places -> further places wanted
        self.demand = 0  # places wanted by all of them
        self.alert = False
        self.calm_at = -inf  # when `alert` may end
        self.spares = Spares(self.active)  # while `alert`
        self.served: Member | None = None
        self.served_at = -inf
        self.to_grant = 0  # places that `served` may take now
        self.audited_at = -inf
        self.changed: list[Member] = []  # changed on behalf of another ledger: their timers have to be set again
        self.outbox: list[Any] = []

    @property
    def full(self) -> float:
        """The limit without a squeeze."""
        return self.max_total

    @property
    def hint(self) -> str:
        """Why there are no more places, or what to do about it, for messages; empty if there is no more to say."""
        return self.advice if self.used >= self.limit else ""

    @property
    def is_short(self) -> bool:
        """Whether any ledger waits for a place."""
        return bool(self.waiting_without or self.waiting_for_more)

    def is_giving(self, now: float) -> bool:
        """Whether it is handing out places; an interrupt may have ended that without a trace."""
        return self.served is not None and now - self.served_at < AUDIT_EVERY

    # -- places ------------------------------------------------------------

    def grant(self, ledger: Member, now: float) -> bool:
        """Take a place for this ledger, if it may have one now; whether it was taken."""
        if self.used >= self.limit:
            return False
        if self.is_short:
            if self.served is not ledger or not self.to_grant:
                return False
            self.to_grant -= 1
        self.used += 1
        standing = self.active.get(ledger)
        if standing is None:
            self.age.tick(now)
            self.active[ledger] = Standing(ledger, self.age)
        else:
            standing.rank = None  # with more places it would lose less
        return True

    def created(self, ledger: Member, seconds: float, now: float, *, is_late: bool) -> None:
        """Note that a create of this ledger has succeeded after so many seconds; a late one is not typical."""
        if not is_late:
            ledger.create_time.add(seconds)
            self.age.create_time.add(seconds)
        if ledger in self.active:
            self.active[ledger].gained_at = now

    def vacated(self, ledger: Member) -> None:
        """Count a place of this ledger as free."""
        self.used -= 1
        if not ledger.slots:
            self.active.pop(ledger, None)
        if not ledger.closing:  # else the pool of a key that was evicted would be kept
            self.closing.pop(ledger, None)

    def will_free(self, ledger: Member) -> None:
        """Note that this ledger has places which become free by themselves."""
        self.closing[ledger] = None

    def room_for(self, ledger: Member, now: float) -> float:
        """How many places this ledger could get before any borrower releases a resource."""
        limit = self.full if self.relax_at <= now else self.limit
        spare = sum(len(other.idle) for other in list(self.active) if other is not ledger and not any(other.queues))
        others = self.demand - self.demand_of(ledger)
        return limit - self.used + self._being_freed() + spare - others

    def demand_of(self, ledger: Member) -> int:
        """How many further places this ledger would open at once."""
        return self.waiting_without.get(ledger, 0) + self.waiting_for_more.get(ledger, 0)

    def set_demand(self, ledger: Member, places: int) -> None:
        """Record how many further places this ledger would open at once; 0 for none."""
        without, further = self.waiting_without, self.waiting_for_more
        if not places:
            if ledger in without or ledger in further:
                self.demand -= without.pop(ledger, 0) + further.pop(ledger, 0)
            return
        queue, other = (further, without) if ledger.slots else (without, further)
        self.demand += places - queue.get(ledger, 0) - other.pop(ledger, 0)
        queue[ledger] = places
        if ledger.slots:
            self._note_patience(ledger)

    def withdraw(self, ledger: Member) -> None:
        """Note that a ledger serves nobody now."""
        self.set_demand(ledger, 0)

    def _note_patience(self, ledger: Member) -> None:
        """Note since when a ledger has waited for its own resources, and how long it does: never while it gets one."""
        standing = self.active[ledger]
        standing.patience = min(ledger.create_time.value, ledger.options.timeout * LONGEST_PATIENCE)
        if ledger.opening:
            standing.waits_since = inf
        elif standing.places:
            standing.waits_since = max(ledger.waiting_since, standing.gained_at)
        else:
            standing.waits_since = -inf

    def next_look(self, ledger: Member, now: float) -> float:
        """When a ledger that is short of further places may ask for those that it may not ask for yet."""
        if ledger not in self.waiting_for_more:
            return inf
        standing = self.active[ledger]
        when = standing.waits_since + FURTHER * standing.patience
        if when <= now:
            when = standing.waits_since + ANY * standing.patience
        return when if when > now else inf

    # -- sharing -----------------------------------------------------------

    def share(self, ledger: Member | None, now: float) -> None:
        """Give free places to ledgers that are short, and make room for the rest; after any change of `ledger`."""
        if self.relax_at <= now:
            self.limit, self.relax_at = self.full, inf
        if ledger is not None and self.served is ledger and now - self.served_at < AUDIT_EVERY:
            return  # called by `share`
        if self.alert:
            if now > self.age.now:
                self.age.tick(now)
            standing = self.active.get(ledger) if ledger is not None else None
            if standing is not None and standing.rank is None:
                self.spares.offer(standing)
        if self.waiting_without or self.waiting_for_more or self.used > self.limit:
            if now - self.audited_at >= AUDIT_EVERY:
                ledger = None
                self.audit(now)
            if self.used < self.limit:
                ledger = None
                self._give_places(now)
            if ledger is None or self.used > self.limit or self._may_matter(ledger, now):
                self._make_room(now)
        if self.alert and now >= self.calm_at:
            self._calm_down(now)

    def _give_places(self, now: float) -> None:
        left = len(self.waiting_without) + len(self.waiting_for_more)  # times that a ledger may be served in vain
        try:
            while self.is_short and self.used < self.limit and left >= 0:
                used = self.used
                self.served_at = now
                self.served = ledger = self._neediest(self.waiting_for_more, now)
                places = self.waiting_without.pop(ledger, 0) or self.waiting_for_more.pop(ledger, 0)
                self.demand -= places
                self.to_grant = 1
                ledger.settle(now)
                self.changed.append(ledger)
                if self.used == used:
                    left -= 1
                    if ledger in self.waiting_without or ledger in self.waiting_for_more:
                        break
        finally:
            self.served = None

    def _neediest(self, further: Iterable[Member], now: float) -> Member:
        """The ledger to get the next place: one without a place, else one of those that wait for more."""
        if self.waiting_without:
            return next(iter(self.waiting_without))
        return min(further, key=lambda ledger: self._need(ledger, now))

    def _need(self, ledger: Member, now: float) -> tuple[bool, float]:
        """The order of ledgers that wait for more: those that may ask, then those with more work for each place."""
        standing = self.active[ledger]
        return not self._may_ask(ledger, FURTHER, now), -standing.load()

    def _may_ask(self, ledger: Member, stage: float, now: float) -> bool:
        """Whether a ledger with places has waited long enough for this stage."""
        standing = self.active[ledger]
        return standing.waits_since + stage * standing.patience <= now

    def _may_matter(self, ledger: Member, now: float) -> bool:
        """Whether an eviction may be due after a change of this ledger: it asks for a place, or has one to spare."""
        if ledger in self.waiting_without:
            return True
        standing = self.active.get(ledger)
        if standing is None:
            return False
        return (self.alert and standing.is_spare) or (
            ledger in self.waiting_for_more and self._may_ask(ledger, SURPLUS, now)
        )

    def _raise_alert(self, now: float) -> None:
        """Have each release go through the budget, and list what is idle already."""
        self.calm_at = now + CALM_AFTER
        if not self.alert:
            self.alert = True
            self.age.tick(now)
            for ledger, standing in list(self.active.items()):
                ledger.fast = False
                self.spares.offer(standing)

    def _calm_down(self, now: float) -> None:
        """Let ledgers be fast again, unless one still asks."""
        if self.waiting_without or any(self._may_ask(ledger, SURPLUS, now) for ledger in self.waiting_for_more):
            self.calm_at = now + CALM_AFTER
        else:
            self.alert = False
            self.spares.clear()

    def _make_room(self, now: float) -> None:
        """Have idle resources destroyed: those above the limit, and one for each ledger that may have it."""
        self._raise_alert(now)
        free: float = self._being_freed()
        if self.used > self.limit:
            free -= self.used - self.limit
        asking = len(self.waiting_without) + len(self.waiting_for_more)
        while free < asking:
            spare = self.spares.first()
            if spare is None or not (free < 0 or self._has_takers(spare, free, now)):
                break
            if not spare.ledger.evict(now):  # a borrower was faster
                break
            self.changed.append(spare.ledger)
            free += 1

    def _has_takers(self, spare: Standing, others: float, now: float) -> bool:
        """Whether more than so many ledgers may have a place of the one that would miss it least."""
        takers = len(self.waiting_without)
        too_much = MARGIN * spare.load_on(spare.places - 1) if spare.places > 1 else inf
        for ledger in self.waiting_for_more:
            if takers > others:
                break
            if spare.places == 1:
                takers += self._may_ask(ledger, ANY, now)
            elif self._may_ask(ledger, SURPLUS, now):
                takers += self._may_ask(ledger, FURTHER, now) or self.active[ledger].load() >= too_much
        return takers > others

    def _being_freed(self) -> int:
        """Places that become free without an eviction."""
        if not self.closing:
            return 0
        places = 0
        for ledger in list(self.closing):
            places += len(ledger.closing)
            if not ledger.closing:
                self.closing.pop(ledger, None)  # an error's words are made without the lock
        return places

    def must_yield(self, ledger: Member, slot: Slot, now: float) -> bool:
        """Whether a ledger, though it has waiters, must give up this returned resource for another ledger."""
        if not self.is_short:
            slot.turns = 0
            return False
        slot.turns += 1
        if slot.turns <= TURNS:  # no turn is shorter
            return False
        further = [
            other for other in self.waiting_for_more if other is not ledger and self._may_ask(other, FURTHER, now)
        ]
        if self._being_freed() >= len(self.waiting_without) + len(further):
            return False
        other = self._neediest(further, now)
        if slot.turns <= self._turn(ledger, other):
            return False
        return not other.slots or len(other.slots) + 1 < len(ledger.slots)

    def _turn(self, ledger: Member, other: Member) -> float:
        """How many borrowers a resource of `ledger` may serve while `other` asks for its place."""
        most = min(max(self.age.create_time.value / (self.use_time.value or inf), TURNS), MOST_TURNS)
        waiters, others = (sum(map(len, each.queues)) for each in (ledger, other))
        return TURNS if waiters > most * others else most

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
        self.closing = dict.fromkeys(ledger for ledger in self.active if ledger.closing)
        self.demand = sum(self.waiting_without.values()) + sum(self.waiting_for_more.values())
        self.spares.clear()
        if self.alert:
            for standing in self.active.values():
                self.spares.offer(standing)
