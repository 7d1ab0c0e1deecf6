"""How the places of a limit are shared between processes, and when a process talks to the store."""

from __future__ import annotations

from math import inf

import pytest

from pooling._engine.lease_book import TURN, Answer, Claim, LeaseBook
from pooling._engine.leased_budget import LeasedBudget
from pooling._engine.leaseholder import RENEWALS, UNRUNG, Leaseholder
from pooling._engine.ledger import Ledger
from pooling.options import PoolingServiceOptions

TTL = 30.0
RATE = 5  # claims per second of a process that waits, at most


class Town:
    """A book, and the last claim of each process."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.book = LeaseBook()
        self.now = 100.0
        self.turns: dict[str, int] = {}

    def claim(self, name: str, *, keeps: int = 0, used: int | None = None, needs: int = 0, wants: int = 0) -> Answer:
        self.turns[name] = self.turns.get(name, 0) + 1
        used = keeps if used is None else used
        claim = Claim(name, self.turns[name], self.limit, TTL, keeps, used, needs, wants)
        answer = self.book.exchange(claim, self.now)
        assert answer is not None
        return answer

    def takes(self, name: str, places: int) -> None:
        """A process that gets all these places, has a resource in each, and lends all."""
        assert self.claim(name, needs=places, wants=places).places == places
        self.claim(name, keeps=places, needs=places)


def test_while_places_are_free_a_process_gets_what_it_wants():
    town = Town(10)
    answer = town.claim("a", wants=7)
    assert (answer.places, answer.goal, answer.free) == (7, 7, 3)


def test_places_that_another_process_needs_are_not_given_ahead_of_need():
    town = Town(10)
    town.takes("a", 10)
    town.claim("b", needs=5, wants=5)
    assert town.claim("a", keeps=5, needs=5).free == 0
    assert town.claim("a", keeps=5, needs=5, wants=4).places == 5
    assert town.claim("b", needs=5, wants=5).places == 5


@pytest.mark.parametrize(
    ("needs", "shares"),
    [
        ({"a": 10, "b": 10}, {"a": 5, "b": 5}),
        ({"a": 2, "b": 20}, {"a": 2, "b": 8}),
        ({"a": 1, "b": 20, "c": 20}, {"a": 1, "b": 5, "c": 4}),
        ({"a": 0, "b": 3, "c": 3}, {"a": 0, "b": 3, "c": 3}),
    ],
)
def test_each_gets_what_it_needs_up_to_an_equal_share_of_what_others_leave(needs, shares):
    town = Town(10)
    town.takes("b", 10)  # has most, and keeps the odd place
    for name, places in needs.items():
        town.claim(name, keeps=10 if name == "b" else 0, needs=places, wants=0 if name == "b" else places)
    kept = town.claim("b", keeps=10, needs=needs["b"]).goal
    assert kept == 10 - sum(places for name, places in shares.items() if name != "b")


def test_a_place_without_a_resource_is_given_back_before_an_idle_resource():
    town = Town(10)
    town.claim("a", wants=5)
    town.takes("b", 5)
    town.claim("a", keeps=5, used=1)  # four without a resource
    town.claim("b", keeps=5, used=5)  # five idle ones
    answer = town.claim("c", needs=3, wants=3)
    assert answer.ring == ("a",)
    assert town.claim("a", keeps=5, used=1).goal == 2
    assert town.claim("b", keeps=5, used=5).goal == 5


def test_a_process_that_has_not_claimed_for_a_while_is_asked_whether_it_needs_less():
    town = Town(2)
    town.takes("a", 1)
    town.takes("b", 1)
    town.now += 5.0
    assert town.claim("b", keeps=1, needs=2, wants=1).ring == ("a",)
    assert town.claim("b", keeps=1, needs=2, wants=1).ring == (), "once is enough"
    assert town.claim("a", keeps=1, needs=0).goal == 0


def test_more_processes_than_places_take_turns():
    town = Town(1)
    town.takes("a", 1)
    town.claim("b", needs=1, wants=1)
    assert town.claim("a", keeps=1, needs=2).goal == 1, "not before its turn is over"
    town.now += TURN
    assert town.claim("a", keeps=1, needs=2).goal == 0
    town.claim("a", needs=1, wants=1)
    assert town.claim("b", needs=1, wants=1).places == 1
    town.now += TURN
    assert town.claim("b", keeps=1, needs=1).goal == 0


def test_the_lowest_limit_of_all_counts():
    town = Town(10)
    town.takes("a", 8)
    town.limit = 5
    town.claim("b", wants=1)
    town.limit = 10
    assert town.claim("a", keeps=8, used=8).goal == 5


def test_a_process_without_places_and_needs_leaves_no_trace():
    town = Town(10)
    town.takes("a", 3)
    town.claim("a")
    assert town.book.holders == {}


def holder_with(places: int, **settings) -> Leaseholder:
    holder = Leaseholder("a", 10, **({"ttl": TTL, "block": 1, "idle_after": 5.0} | settings))
    holder.settle(0, places, 0.0)
    holder.answered(holder.claim(0.0), Answer(places, places, 10 - places, 0.0, ()), 0.0)
    holder.settle(places, 0, 0.0)
    holder.answered(holder.claim(0.0), Answer(places, places, 0, 0.0, ()), 0.0)
    holder.settle(places, 0, 10.0)
    return holder


def test_a_process_at_rest_renews_its_lease_three_times_in_a_ttl():
    assert RENEWALS == 3
    assert holder_with(4).next_at(10.0) == pytest.approx(TTL / 3)


def test_a_process_whose_end_the_store_sees_says_nothing_at_rest():
    assert holder_with(4, ttl=inf).next_at(10.0) == inf


def test_a_process_that_nobody_can_ring_looks_each_second_after_it_has_grown_and_then_rests():
    holder = holder_with(4, can_hear=False)
    assert holder.next_at(1.0) == pytest.approx(UNRUNG)
    assert holder.next_at(10.0) == pytest.approx(TTL / 3)


def test_a_process_without_places_is_at_rest():
    holder = holder_with(4)
    holder.settle(0, 0, 10.0)
    assert not holder.is_at_rest
    holder.answered(holder.claim(10.0), Answer(0, 0, 10, 0.0, ()), 10.0)
    assert holder.is_at_rest
    assert holder.next_at(10.0) == inf


def test_no_place_is_granted_below_the_limit_unless_the_lease_permits_it_at_that_instant():
    permits = [False]
    budget = LeasedBudget(4, lambda used: permits[0] and used < 2, lambda ledger: None)
    ledger = Ledger(PoolingServiceOptions(), lambda: 0.5, budget=budget, owner=None)
    budget.lease(2, 2)
    assert not budget.grant(ledger, 0.0)
    assert budget.wanted == 1, "it is known that a place is wanted"
    permits[0] = True
    assert budget.grant(ledger, 0.0)
    assert (budget.used, budget.wanted) == (1, 0)
    assert budget.room_for(ledger, 0.0) == 3, "one that is leased, and two that no process has"


class Street:
    """Leaseholders that claim when it is due or one rings, each as fast as the store answers."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.book = LeaseBook()
        self.now = 100.0
        self.holders: dict[str, Leaseholder] = {}
        self.used: dict[str, int] = {}
        self.demand: dict[str, int] = {}

    def want(self, name: str, places: int) -> None:
        if name not in self.holders:
            self.holders[name] = Leaseholder(name, self.limit, ttl=inf, block=1, idle_after=5.0)
            self.used[name] = 0
        self.demand[name] = places
        self.settle(name)

    def settle(self, name: str) -> None:
        """Borrowers take what there is, and give nothing back."""
        holder = self.holders[name]
        limit = holder.settle(self.used[name], self.demand[name], self.now)
        while self.demand[name] and self.used[name] < limit and holder.permits(self.used[name], self.now):
            self.used[name] += 1
            self.demand[name] -= 1
        holder.settle(self.used[name], self.demand[name], self.now)
        holder.needs = self.used[name] + self.demand[name]

    def run(self, seconds: float) -> int:
        """Returns how many claims were made."""
        claims = 0
        ends_at = self.now + seconds
        while self.now < ends_at:
            for name, holder in self.holders.items():
                if holder.next_at(self.now) > self.now:
                    continue
                claim = holder.claim(self.now)
                claims += 1
                answer = self.book.exchange(claim, self.now)
                assert answer is not None
                holder.answered(claim, answer, self.now)
                for other in answer.ring:
                    self.holders[other].rung()
                self.settle(name)
            assert sum(holder.leased for holder in self.holders.values()) <= self.limit
            self.now += 0.002
        return claims


def test_the_last_free_place_goes_to_one_of_two_that_have_none():
    street = Street(4)
    street.want("a", 1)
    street.run(0.1)
    for name in "bcd":
        street.want(name, 4)
    street.run(1.0)
    assert (street.used["a"], street.used["b"], street.used["c"] + street.used["d"]) == (1, 2, 1)
    assert street.book.taken == 4
    claims = street.run(10.0)
    assert claims <= 10 * RATE * len(street.holders), "waiting is no work"


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("names", ["bcd", "bcde", "bcdefg"])
@pytest.mark.parametrize("limit", [2, 3, 4, 5, 7])
def test_nobody_gives_back_and_yet_no_place_is_left_and_waiting_is_no_work(limit, names, first):
    street = Street(limit)
    for name in ("a", *names):
        street.want(name, first if name == "a" else limit)
        street.run(0.004 if first == 1 else 0.1)
    street.run(2.0)
    assert sum(street.used.values()) == limit
    assert street.run(10.0) <= 10 * RATE * len(street.holders)
