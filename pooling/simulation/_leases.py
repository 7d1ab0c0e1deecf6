"""
A shared limit under a virtual clock: the real book, leaseholders and budgets, without threads, files or servers.

A process does what `SharedBudget` and the thread of its `LeaseKeeper` do: it tells the leaseholder each change of its
pools, sends the claim that is due, and looks again when it is rung or time has come. One claim is under way at a time.
It is entered in the middle of its latency. A claim fails if the store is away then, and its answer is lost if the store
goes away before it arrives.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from .._engine.lease_book import LeaseBook
from .._engine.leased_budget import LeasedBudget
from .._engine.leaseholder import Leaseholder

if TYPE_CHECKING:
    from .._engine.lease_book import Answer, Claim
    from .._engine.standing import Member
    from ._events import Events
    from ._pools import SimulatedPools
    from .shared import Sharing

SHORTEST_PAUSE = 0.0001  # seconds between two looks at what is due: about what a thread takes to wake up


class SimulatedStore:
    """
    Where the processes agree.

    Args:
        events: The clock.
        sharing: What it is like.
        limit: The limit of all processes.
        latency: Gives the seconds from the next claim to its answer.
    """

    def __init__(self, events: Events, sharing: Sharing, limit: int, latency: Callable[[], float]) -> None:
        self.events = events
        self.sharing = sharing
        self.limit = limit
        self.latency = latency
        self.book = LeaseBook()
        self.members: dict[str, LeasingProcess] = {}
        self.claims = 0
        self.recoveries: list[float] = []  # seconds from the end of a process until its places were free
        self._died_at: dict[str, float] = {}
        self._serial = 0

    def join(self) -> LeasingProcess:
        """Add a process."""
        self._serial += 1
        process = LeasingProcess(self, f"process-{self._serial}")
        self.members[process.holder.name] = process
        return process

    def leave(self, name: str) -> None:
        """Note that a process has died."""
        del self.members[name]
        if name in self.book.holders:
            self._died_at[name] = self.events.now

    @property
    def is_away(self) -> bool:
        """Whether it cannot be reached now."""
        return any(begins_at <= self.events.now < begins_at + seconds for begins_at, seconds in self.sharing.away)

    def enter(self, claim: Claim) -> Answer | None:
        """Enter a claim, and ring; `None` if a later claim of its process came before."""
        if self.sharing.sees_death:
            for name in self._died_at:
                self.book.forget(name)
        if claim.holder not in self.members:  # it died after it had sent this
            self._died_at.setdefault(claim.holder, self.events.now)
        answer = self.book.exchange(claim, self.events.now)
        for name in [name for name in self._died_at if name not in self.book.holders]:
            self.recoveries.append(self.events.now - self._died_at.pop(name))
        if answer is not None and self.sharing.can_hear:
            for name in answer.ring:
                self.events.at(self.events.now + self.latency() / 2, self._ring, name)
        return answer

    def _ring(self, name: str) -> None:
        if name in self.members:
            self.members[name].rung()


class LeasingProcess:
    """
    One process's side of the limit.

    Args:
        store: Where it leases.
        name: Tells it from all others.
    """

    def __init__(self, store: SimulatedStore, name: str) -> None:
        sharing = store.sharing
        self.store = store
        self.events = store.events
        self.holder = Leaseholder(
            name,
            store.limit,
            ttl=inf if sharing.sees_death else sharing.lease_ttl,
            block=sharing.block_of(store.limit),
            idle_after=sharing.idle_after,
            can_hear=sharing.can_hear,
        )
        self.budget = LeasedBudget(store.limit, lambda used: self.holder.permits(used, self.events.now), self._tell)
        self.pools: SimulatedPools  # as soon as they are made
        self.is_dead = False
        self._told = (0, 0)
        self._is_claiming = False
        self._turn_at = inf  # when the next event of `_turn` comes

    def die(self) -> None:
        """End without a word to the store."""
        self.is_dead = True
        self.store.leave(self.holder.name)

    def rung(self) -> None:
        """Look what others need."""
        self.holder.rung()
        self._turn_by(self.events.now)

    # -- the pools' side -------------------------------------------------------

    def _tell(self, ledger: Member | None) -> None:
        """After each change of the ledgers: see whether the process needs more or less."""
        if (self.budget.used, self.budget.wanted) != self._told:
            self._settle()
            if self.holder.next_at(self.events.now) <= self.events.now:
                self._turn_by(self.events.now)

    def _settle(self) -> None:
        budget, holder = self.budget, self.holder
        self._told = budget.used, budget.wanted
        budget.lease(holder.settle(*self._told, self.events.now), holder.beyond)

    def _ask_pools(self) -> None:
        """Have the pools take their limit, and tell their numbers."""
        now = self.events.now
        self._settle()
        self.holder.needs = self.budget.needs(now)
        self.budget.offer(now)
        self.pools.dispatch()

    # -- claims ----------------------------------------------------------------

    def _turn_by(self, when: float) -> None:
        """Look what is due at this instant, if not before."""
        if when < self._turn_at and not self._is_claiming:
            self._turn_at = when
            self.events.at(when, self._turn, when)

    def _turn(self, due: float) -> None:
        if self.is_dead or self._is_claiming or due != self._turn_at:
            return  # dead, or another event comes or has come in its place
        now = self.events.now
        self._turn_at = inf
        self._ask_pools()
        if self.holder.next_at(now) <= now:
            self._claim()
        elif not self.holder.is_at_rest:
            self._turn_by(max(min(self.holder.next_at(now), self.holder.look_at()), now + SHORTEST_PAUSE))

    def _claim(self) -> None:
        now, half = self.events.now, self.store.latency() / 2
        claim = self.holder.claim(now)
        self.store.claims += 1
        self._is_claiming = True
        self.events.at(now + half, lambda _: self._enter(claim, half), None)

    def _enter(self, claim: Claim, half: float) -> None:
        """The claim has come to the store; that of a process which has died meanwhile if the store sees no death."""
        if self.is_dead and self.store.sharing.sees_death:
            return
        answer = None if self.store.is_away else self.store.enter(claim)
        if not self.is_dead:
            self.events.at(self.events.now + half, lambda _: self._end_claim(claim, answer), None)

    def _end_claim(self, claim: Claim, answer: Answer | None) -> None:
        if self.is_dead:
            return
        now = self.events.now
        self._is_claiming = False
        if answer is None or self.store.is_away:
            self.holder.failed(now)
        else:
            self.holder.answered(claim, answer, now)
        self._ask_pools()
        self._turn_by(now)
