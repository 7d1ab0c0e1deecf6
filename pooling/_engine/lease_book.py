"""
Who holds how many places of a limit that several processes share: what a store keeps, and the rules by which it gives.

Pure and synchronous. A process sends a `Claim` and gets an `Answer`; the time comes in as `now`, by the clock of the
store. A claim says what its process keeps, not what it changes. So a lost or repeated message does no harm: the
process never uses more than the last answer to its last claim has given it. Rules:

- The places of all holders never exceed the limit. If processes were given different limits, the lowest counts.
- A holder that has not claimed for `ttl` seconds is forgotten, and its places are free.
- The store's clock may jump. A step between two claims counts for at most a part of a ttl, and a step back for nothing.
  So a jump takes no places from a holder that renews them in time.
- A claim that is older than the last one of its holder is ignored.
- A store may lose the book. After that, holders may go on with what they have, and for a ttl no further place is given.
- Free places go to any holder, until holders that need more are more than they suffice for. Then each gets what it
  needs, up to an equal share; what some need less is shared by the others. A holder above its share is told to come
  down as far as others are short. If there are more holders than places, they take turns.
- While a holder above its share cannot come down, the others do not get theirs. Then each free place is kept for the
  one of them that has least: if it were kept for all of them, none would get it.
- A holder is told once to what it should come down. So while nobody gives, holders do not ring each other.
"""

from __future__ import annotations

import json
from heapq import heapify, heapreplace
from math import inf
from typing import NamedTuple

LONGEST_STEP = 0.35  # part of a ttl that one step of the store's clock counts at most; more than between two renewals
STALE = 0.25  # seconds after which a holder is asked again what it needs, if others are short
TURN = 1.0  # seconds for which a holder keeps a place at least, where there are more holders than places


class Claim(NamedTuple):
    """What a process tells the store."""

    holder: str
    turn: int  # the number of this claim; each has a greater one
    limit: int
    ttl: float
    keeps: int  # places it goes on using
    used: int  # of these, how many have a resource
    needs: int  # places that borrowers use or wait for
    wants: int  # further places it takes if they are free


class Answer(NamedTuple):
    """What the store tells the process."""

    places: int  # how many it has now
    goal: int  # to how many it should come down, since others are short
    free: int  # further places that it could get: no process has them, and they are not kept for others
    recovers_in: float  # seconds for which the store gives no further places, since it may have lost its book
    ring: tuple[str, ...]  # holders that should claim soon: there is a place for them, or they should give one back


class Holder:
    """One process, as the book knows it."""

    __slots__ = (
        "claimed_at",
        "ends_at",
        "gained_at",
        "is_rung",
        "limit",
        "needs",
        "places",
        "told",
        "ttl",
        "turn",
        "used",
        "wants",
    )

    def __init__(self) -> None:
        self.turn = 0
        self.limit = 0
        self.ttl = inf
        self.places = 0
        self.used = 0
        self.needs = 0
        self.wants = 0  # further places that it did not get
        self.claimed_at = 0.0
        self.ends_at = inf
        self.gained_at = 0.0  # when it last got a place, or began to wait for its first
        self.told = 0  # its goal in the last answer
        self.is_rung = False


class LeaseBook:
    """
    All holders of one limit.

    Args:
        is_new: Whether the store is known to have never had an earlier book, or to have one only of ended leases.
    """

    def __init__(self, *, is_new: bool = True) -> None:
        self.holders: dict[str, Holder] = {}
        self.age = 0.0  # seconds that count
        self.seen_at: float | None = None  # the store's clock at the last claim
        self.may_miss = not is_new  # whether there may be holders that it does not know
        self.recovers_until = 0.0

    # -- keeping it somewhere --------------------------------------------------

    def dumps(self) -> str:
        """Return the book as a text."""
        holders = {
            name: [getattr(holder, field) for field in Holder.__slots__] for name, holder in self.holders.items()
        }
        return json.dumps([self.age, self.seen_at, self.may_miss, self.recovers_until, holders])

    @classmethod
    def loads(cls, text: str) -> LeaseBook:
        """Read a book from a text."""
        book = cls()
        book.age, book.seen_at, book.may_miss, book.recovers_until, holders = json.loads(text)
        for name, values in holders.items():
            book.holders[name] = holder = Holder()
            for field, value in zip(Holder.__slots__, values, strict=True):
                setattr(holder, field, value)
        return book

    # -- claims ----------------------------------------------------------------

    @property
    def taken(self) -> int:
        """Places that holders have."""
        return sum(holder.places for holder in self.holders.values())

    @property
    def limit(self) -> int:
        """The lowest limit of all holders."""
        return min((holder.limit for holder in self.holders.values()), default=0)

    def forget(self, name: str) -> None:
        """Free the places of a holder that is known to be dead."""
        self.holders.pop(name, None)

    def exchange(self, claim: Claim, now: float) -> Answer | None:
        """Enter a claim; `None` if a later one of the same holder came before."""
        self._advance(now, claim.ttl)
        known = self.holders.get(claim.holder)
        if known is not None and claim.turn <= known.turn:
            return self._answer(claim.holder) if claim.turn == known.turn else None
        if known is None and claim.keeps:
            self.may_miss = True
        if self.may_miss:
            self.may_miss = False
            self.recovers_until = self.age + (claim.ttl if claim.ttl < inf else 0.0)
        self._enter(claim, known)
        answer = self._answer(claim.holder)
        if not claim.keeps and not claim.wants and not claim.used:
            del self.holders[claim.holder]
        return answer

    def _advance(self, now: float, ttl: float) -> None:
        """Let time pass, and forget the holders whose time has ended."""
        if self.seen_at is not None:
            shortest = min((holder.ttl for holder in self.holders.values()), default=ttl)
            self.age += min(max(now - self.seen_at, 0.0), LONGEST_STEP * shortest)
        self.seen_at = now
        for name in [name for name, holder in self.holders.items() if holder.ends_at <= self.age]:
            del self.holders[name]

    def _enter(self, claim: Claim, known: Holder | None) -> None:
        holder = self.holders[claim.holder] = known or Holder()
        had = holder.places
        if known is None:
            holder.gained_at = self.age
        holder.turn, holder.limit, holder.ttl = claim.turn, claim.limit, claim.ttl
        holder.used, holder.needs = claim.used, claim.needs
        holder.claimed_at = self.age
        holder.ends_at = self.age + claim.ttl
        holder.is_rung = False
        holder.places = 0
        # What it had before it may keep, also above a limit that was lowered meanwhile: its goal is lower then.
        holder.places = min(claim.keeps, max(self.limit - self.taken, had))
        if had and not holder.places:
            holder.gained_at = self.age
        kept, holder.wants = holder.places, claim.wants
        if self.age >= self.recovers_until:
            holder.places += max(min(claim.wants, self._rooms(self._shares())[claim.holder]), 0)
        holder.wants -= holder.places - kept
        if holder.places > kept:
            holder.gained_at = self.age

    def _answer(self, name: str) -> Answer:
        free = self.limit - self.taken
        shares = self._shares()
        goals = self._goals(shares, free)
        rooms = self._rooms(shares)
        self.holders[name].told = goals[name]
        is_short = any(holder.needs > holder.places for holder in self.holders.values())
        ring = []
        for other, holder in self.holders.items():
            is_to_give = goals[other] < min(holder.places, holder.told)
            # What it needs may be less by now: a process says nothing while it has enough.
            may_need_less = is_short and holder.places > 0 and self.age - holder.claimed_at > STALE
            may_get = rooms[other] > 0 and holder.wants > 0 and self.age >= self.recovers_until
            if other != name and not holder.is_rung and (is_to_give or may_get or may_need_less):
                holder.is_rung = True
                ring.append(other)
        recovers_in = max(self.recovers_until - self.age, 0.0)
        return Answer(self.holders[name].places, goals[name], max(rooms[name], 0), recovers_in, tuple(ring))

    # -- sharing ---------------------------------------------------------------

    def _shares(self) -> dict[str, int]:
        """How many places each holder may have at most while others need more."""
        left = self.limit
        shares = {}
        others = sorted(self.holders.items(), key=lambda item: item[1].needs)
        while others and others[0][1].needs * len(others) <= left:
            name, holder = others.pop(0)
            shares[name] = holder.needs
            left -= holder.needs
        if others:
            equal, more = divmod(left, len(others))
            # One more for some: for those that have most, so that nothing moves; or else in turns.
            others.sort(key=lambda item: -item[1].places if equal else self._turn(item[1]))
            for number, (name, _) in enumerate(others):
                shares[name] = equal + (number < more)
        return shares

    def _turn(self, holder: Holder) -> tuple[int, float]:
        """The order of holders of which not each can have a place: new ones, the longest waiting, the latest served."""
        if holder.places and self.age - holder.gained_at < TURN:
            return 0, holder.gained_at
        return (2, -holder.gained_at) if holder.places else (1, holder.gained_at)

    def _rooms(self, shares: dict[str, int]) -> dict[str, int]:
        """How many of the free places each holder may get: those that are not kept for others."""
        free = self.limit - self.taken
        kept = {name: max(min(shares[name] - holder.places, holder.wants), 0) for name, holder in self.holders.items()}
        if sum(kept.values()) > free:
            kept = self._kept_for_the_least(kept, free)
        left = free - sum(kept.values())
        return {name: left + places for name, places in kept.items()}

    def _kept_for_the_least(self, short: dict[str, int], free: int) -> dict[str, int]:
        """Of these missing places those that are free, one by one for the holder that has least, and waits longest."""
        kept = dict.fromkeys(short, 0)
        order: list[tuple[float, float, str]] = [
            (self.holders[name].places, self.holders[name].gained_at, name) for name, places in short.items() if places
        ]
        heapify(order)
        for _ in range(free):
            places, gained_at, name = order[0]
            kept[name] += 1
            is_done = kept[name] == short[name]
            heapreplace(order, (inf if is_done else places + 1, gained_at, name))
        return kept

    def _goals(self, shares: dict[str, int], free: int) -> dict[str, int]:
        """To how many places each should come down: first without what it does not use, then those furthest above."""
        goals = {name: holder.places for name, holder in self.holders.items()}
        missing = sum(max(shares[name] - holder.places, 0) for name, holder in self.holders.items()) - free
        for unused_only in (True, False):
            for name in sorted(goals, key=lambda name: shares[name] - goals[name]):
                holder = self.holders[name]
                floor = max(shares[name], min(holder.used, goals[name]) if unused_only else 0)
                gives = max(min(goals[name] - floor, missing), 0)
                goals[name] -= gives
                missing -= gives
        return goals
