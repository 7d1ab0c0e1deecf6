"""Whose place a borrower gets under a spent budget, and when: its wait is weighed against the cost of a create."""

from __future__ import annotations

import pytest

from pooling import PoolingServiceOptions
from pooling._engine.budget import ANY, FURTHER, LONGEST_PATIENCE, MOST_TURNS, SURPLUS
from pooling.simulation import Workload, simulate
from pooling.simulation._events import Events
from pooling.simulation._pools import SimulatedPools

CREATE = 1.0


class Borrower:
    """Borrows once, for a number of seconds."""

    def __init__(self, pools, key, seconds):
        self.pools = pools
        self.seconds = seconds
        self.waiter = self.slot = None
        self.served_at = None
        pools.acquire(key, self)

    def served(self):
        events = self.pools.events
        self.served_at = events.now
        events.at(events.now + self.seconds, lambda _: self.pools.release(self), None)

    def timed_out(self):
        pass


class Town:
    """Pools whose creates take `CREATE` seconds, and their clock."""

    def __init__(self, max_total, *, create=CREATE, **options):
        self.events = Events()
        self.pools = SimulatedPools(
            self.events,
            PoolingServiceOptions(**{"max_size": 3, "timeout": 1000.0, **options}),
            max_total=max_total,
            create_time=lambda: create,
            jitter=lambda: 0.5,
        )

    def borrow(self, key, seconds=0.01, *, times=1):
        return [Borrower(self.pools, key, seconds) for _ in range(times)]

    def run(self, seconds):
        until = self.events.now + seconds
        self.events.at(until, lambda _: None, None)
        while self.events.now < until:
            self.events.step()

    def use(self, key, *, times, at_once=1):
        """Use a key's resources, so many at once, so many times one after the other."""
        for _ in range(times):
            self.borrow(key, times=at_once)
            self.run(CREATE + 0.1)

    @property
    def places(self):
        return {key: len(ledger.slots) for key, ledger in self.pools.ledgers.items() if ledger.slots}


def test_a_key_without_a_resource_asks_at_once():
    town = Town(max_total=1)
    town.use("ann", times=1)
    [borrower] = town.borrow("bob")
    town.run(CREATE)
    assert borrower.served_at == pytest.approx(town.events.now)
    assert town.places == {"bob": 1}


def test_a_key_with_a_resource_waits_for_its_own_before_it_takes_the_last_one_of_another():
    town = Town(max_total=2)
    town.use("ann", times=1)
    town.use("bob", times=1)
    town.borrow("bob", seconds=100.0)
    [waiter] = town.borrow("bob")
    town.run(ANY * CREATE - 0.1)
    assert town.places == {"ann": 1, "bob": 1}
    town.run(CREATE + 0.2)
    assert waiter.served_at is not None
    assert town.places == {"bob": 2}


def test_it_gets_its_own_where_that_comes_back_in_time_and_nothing_is_created():
    town = Town(max_total=2)
    town.use("ann", times=1)
    town.use("bob", times=1)
    before = town.pools.created
    for _ in range(50):
        town.borrow("bob", seconds=0.3, times=3)  # the third waits for 0.6 s, less than a create takes
        town.run(1.0)
    assert (town.pools.created, town.places) == (before, {"ann": 1, "bob": 1})


def test_it_takes_what_another_key_has_beside_its_last_one_after_the_time_of_a_create():
    town = Town(max_total=3)
    town.use("ann", times=20, at_once=2)
    town.use("bob", times=1)
    town.borrow("bob", seconds=100.0)
    town.borrow("bob")
    town.run(FURTHER * CREATE - 0.1)
    assert town.places == {"ann": 2, "bob": 1}
    town.run(0.2)
    assert town.pools.ledgers["bob"].opening or town.places == {"ann": 1, "bob": 2}


def test_it_takes_what_another_key_has_too_much_of_much_sooner():
    town = Town(max_total=3)
    town.use("ann", times=1, at_once=2)
    town.use("bob", times=20)
    town.borrow("bob", seconds=100.0)
    town.borrow("bob")
    town.run(SURPLUS * CREATE + 0.01)
    town.borrow("bob")  # a look is taken at the next event of that key
    town.run(0.01)
    assert town.places == {"ann": 1, "bob": 2}


def test_further_resources_go_before_last_ones():
    town = Town(max_total=4)
    town.use("often", times=3, at_once=2)
    town.use("seldom", times=1)
    town.use("once", times=1)
    town.borrow("new")
    town.run(CREATE)
    assert town.places == {"often": 1, "seldom": 1, "once": 1, "new": 1}


def test_a_key_used_often_keeps_its_resource_though_it_was_used_less_lately():
    town = Town(max_total=2)
    town.use("often", times=10)
    town.use("once", times=1)
    town.borrow("new")
    town.run(CREATE)
    assert town.places == {"often": 1, "new": 1}


def test_a_key_that_was_used_often_long_ago_loses_its_resource():
    town = Town(max_total=2)
    town.use("once_popular", times=30)
    town.run(1000.0)
    town.use("now", times=3)
    town.borrow("new")
    town.run(CREATE)
    assert town.places == {"now": 1, "new": 1}


def test_a_scan_over_many_keys_does_not_evict_those_in_steady_use():
    town = Town(max_total=5)
    steady = ["a", "b", "c", "d"]
    for turn in range(50):
        for key in steady:
            town.borrow(key)
        town.borrow(f"passing{turn}")
        town.run(CREATE + 0.1)
    assert town.pools.created == len(steady) + 50


def test_all_waiters_of_a_key_profit_from_a_place_before_it_moves_on():
    town = Town(max_total=1)
    for key in ("ann", "bob", "cyd"):
        town.borrow(key, times=8)
    town.run(60.0)
    assert town.pools.created == 3


def test_a_turn_ends_also_where_new_borrowers_keep_coming():
    town = Town(max_total=1)
    town.use("busy", times=1)
    for _ in range(100):
        town.borrow("busy", seconds=0.05, times=2)
        town.run(0.05)
    waiting = town.borrow("late", times=50)
    town.run(2 * MOST_TURNS * 0.05 + CREATE + 0.01)
    assert waiting[0].served_at is not None


def test_patience_ends_long_before_the_timeout():
    town = Town(max_total=2, create=8.0, timeout=10.0)
    town.borrow("ann")
    town.borrow("bob")
    town.run(9.0)
    town.borrow("bob", seconds=100.0)
    [waiter] = town.borrow("bob")
    town.run(ANY * LONGEST_PATIENCE * 10.0 + 0.1)
    assert town.pools.ledgers["bob"].opening
    assert "ann" not in town.places
    town.run(8.0)
    assert waiter.served_at is None, "a create of 8 s and a wait of 5 s are more than its timeout"
    assert town.places == {"bob": 2}


ROWS = [  # users, max_total, skew, creates at most, part of the throughput without a limit
    (20, 50, 0.0, 74, 0.85),
    (20, 40, 0.0, 79, 0.75),
    (20, 30, 0.0, 87, 0.52),
    (100, 80, 0.0, 1000, None),
    (100, 80, 1.0, 500, None),
    (1000, 100, 0.0, 3700, None),
]


@pytest.mark.parametrize(("users", "max_total", "skew", "creates", "part"), ROWS)
def test_users_who_share_a_budget_seldom_pay_for_a_create(users, max_total, skew, creates, part):
    """3 resources each at most, 40 uses of 5 ms at a time, 4,000 in all; a create takes 50 ms."""

    def run(users, skew, max_total):
        load = Workload(users=users, workers=40, requests=4000, use_time=0.005, create_time=0.05, skew=skew)
        return simulate(load, max_total=max_total, max_size=3, timeout=60.0)

    result = run(users, skew, max_total)
    assert result.created <= creates
    assert result.wait(1.0) <= 3 * (0.05 + 0.005)
    if part is not None:
        assert result.throughput >= part * run(20, 0.0, float("inf")).throughput
