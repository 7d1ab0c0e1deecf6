"""
One process's side of a shared limit: how many places it may use, what to claim next, and when.

Pure and synchronous, like the book of the store (`lease_book.py`). Two callers share it, each under its lock: the
pools' side tells what they use (`settle`) and asks before each create (`permits`); the background sends claims
(`claim`, `answered`, `failed`). Rules:

- `leased` is what the last answer gave, less what a later claim no longer keeps. It falls when the claim is *made*: an
  answer that is lost leaves the process with less than the store thinks, never with more.
- A lease ends a little before the store ends it: `ttl` after its claim was made, less a margin.
- While the lease has ended, or the pools have not yet been told that it shrank, no place may be taken.
- The pools are told a limit (`settle`); a claim keeps at most the limit that they were told last, or what they use.
"""

from __future__ import annotations

from math import inf

from .lease_book import Answer, Claim

MARGIN = 0.1  # part of a ttl by which a lease ends earlier here than in the store
RENEWALS = 3  # claims in each ttl, though nothing changes
SOONEST_POLL = 0.02  # seconds until a process that waits looks again for a free place; doubled each time
LATEST_POLL = 1.0
UNRUNG = 1.0  # seconds between two claims of a process that grew lately, where the store cannot ring it
FIRST_RETRY = 0.1  # seconds until a claim is tried again that did not reach the store; doubled each time


class Leaseholder:
    """
    What one process has of a shared limit.

    Args:
        name: Tells it from all others, also from its own predecessors.
        limit: The shared limit.
        ttl: Seconds without a claim after which the store gives its places away; `inf` if the store sees its end.
        block: How many places to lease at a time, and to have ready.
        idle_after: Seconds without a new resource after which unused places are given back.
        can_hear: Whether other processes can ring this one.
    """

    __slots__ = (
        "_asked",
        "_claimed_at",
        "_demand",
        "_ends_at",
        "_failures",
        "_grew_at",
        "_is_rung",
        "_look_at",
        "_poll",
        "_told",
        "_turn",
        "beyond",
        "block",
        "can_hear",
        "goal",
        "idle_after",
        "leased",
        "limit",
        "name",
        "needs",
        "recovers_in",
        "ttl",
        "used",
        "wants",
    )

    def __init__(
        self, name: str, limit: int, *, ttl: float, block: int, idle_after: float, can_hear: bool = True
    ) -> None:
        self.name = name
        self.limit = limit
        self.ttl = ttl
        self.block = block
        self.idle_after = idle_after
        self.can_hear = can_hear
        self.leased = 0
        self.goal: float = inf  # to what it should come down, since other processes are short
        self.beyond = limit  # further places that the store would give, as far as is known
        self.recovers_in = 0.0  # seconds for which the store gives no places
        self.used = 0
        self.needs = 0  # places that borrowers use, or wait for and may ask of other processes
        self.wants = 0
        self._told = 0  # the limit that the pools were told last, or what they use
        self._demand = 0  # places that borrowers wait for
        self._asked = 0  # how many of them the last claim asked for and did not get
        self._is_rung = False
        self._turn = 0
        self._claimed_at = -inf
        self._ends_at = -inf
        self._grew_at = -inf  # when the pools last used more, or wanted more
        self._look_at = -inf  # the earliest instant for the next claim that is to get further places
        self._poll = SOONEST_POLL
        self._failures = 0

    # -- the pools' side -------------------------------------------------------

    def permits(self, used: int, now: float) -> bool:
        """Whether the pools, which use so many places, may take one more."""
        return used < self.leased and self._told <= self.leased and now < self._ends_at

    def is_valid(self, now: float) -> bool:
        """Whether nothing that it has leased can have been given to another process."""
        return now < self._ends_at

    def settle(self, used: int, demand: int, now: float) -> int:
        """
        Take the pools' numbers; return the limit that they have from now on.

        Args:
            used: Places they use.
            demand: Further places that borrowers wait for.
            now: The instant.
        """
        if used > self.used or demand > 0:
            self._grew_at = now
        is_growing = demand > 0 or (used > 0 and now - self._grew_at < self.idle_after)
        if demand > self._demand:
            self._poll, self._look_at = SOONEST_POLL, -inf
        if not self.is_valid(now):
            self.leased = 0
        limit = int(min(self.leased, self.goal))
        if not is_growing:
            limit = min(limit, used)
        spare = max(limit - used, 0)
        ahead = self.block if is_growing and self.beyond and spare - demand <= self.block // 2 else 0
        self.used, self._demand = used, demand
        self.wants = max(demand + ahead - spare, 0)
        self._told = max(limit, min(used, self.leased))
        return limit

    @property
    def ends_at(self) -> float:
        """When its lease ends unless it is renewed."""
        return self._ends_at

    # -- claims ----------------------------------------------------------------

    @property
    def claim_number(self) -> int:
        """The number of the last claim."""
        return self._turn

    @property
    def is_at_rest(self) -> bool:
        """Whether it has nothing, wants nothing, and the store knows it."""
        return not (self.leased or self.used or self.wants or self._asked or self._is_rung or self._failures)

    def next_at(self, now: float) -> float:
        """When to make the next claim; in the past for at once."""
        when = inf
        if self.wants or (self.used and not self.is_valid(now)):
            when = self._look_at
        if self._told < self.leased or self._is_rung or (self._asked and not self.wants):
            when = -inf
        if self.leased or self._asked:
            is_growing = now - self._grew_at < self.idle_after
            pause = self.ttl / RENEWALS if self.can_hear or not is_growing else min(UNRUNG, self.ttl / RENEWALS)
            when = min(when, self._claimed_at + pause)
        return max(when, self._look_at) if self._failures else when

    def look_at(self) -> float:
        """When to take the pools' numbers though they told of no change: its lease ends, or they were idle for long."""
        if not self.leased:
            return inf
        return min(self._ends_at, self._grew_at + self.idle_after if self.leased > self.used else inf)

    def rung(self) -> None:
        """Another process has rung: there is a free place, or it should give one back."""
        self._is_rung = True
        self._look_at = -inf

    def claim(self, now: float) -> Claim:
        """Make the next claim. What it does not keep may not be used any more."""
        self._turn += 1
        wants = self.wants
        if self.is_valid(now):
            self.leased = min(self.leased, self._told)
        else:  # what it had may have been given away: asks for it anew
            self.leased = 0
            wants += self.used
        self._claimed_at = now
        self._is_rung = False
        return Claim(self.name, self._turn, self.limit, self.ttl, self.leased, self.used, self.needs, wants)

    def answered(self, claim: Claim, answer: Answer, now: float) -> None:
        """Take the answer to the last claim; one to an earlier claim is ignored."""
        if claim.turn != self._turn:
            return
        self._failures = 0
        self.leased = answer.places
        self._ends_at = self._claimed_at + self.ttl * (1.0 - MARGIN)
        self.goal = answer.goal if answer.goal < answer.places else inf
        self.beyond = answer.free
        self.recovers_in = answer.recovers_in
        gained = answer.places - claim.keeps
        self._asked = min(self._demand, max(claim.wants - gained, 0))
        if gained < claim.wants:
            self._look_at = now + self._poll
            self._poll = SOONEST_POLL if gained > 0 else min(2 * self._poll, LATEST_POLL)

    def failed(self, now: float) -> bool:
        """The last claim did not reach the store, or its answer was lost. Returns whether it is the first in a row."""
        self._failures += 1
        self.beyond = 0
        pause = FIRST_RETRY * 2.0 ** min(self._failures - 1, 10)
        self._look_at = now + min(pause, self.ttl / RENEWALS, 5 * LATEST_POLL)
        return self._failures == 1
