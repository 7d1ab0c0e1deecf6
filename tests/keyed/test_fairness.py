"""Turns between keys while the budget is spent, seen by the order in which borrowers are served."""

from __future__ import annotations

import pytest

from pooling._engine.budget import TURNS
from pooling.options import PoolingServiceOptions
from tests.contract.harness import on_both
from tests.contract.workshop import Workshop
from tests.core.model import Borrower
from tests.keyed.budget_model import BudgetModel
from tests.keyed.drivers import keyed


class Shop:
    """Keys whose borrowers wait and are served one after the other, with a record of the turns."""

    def __init__(self, max_total, **crowds):
        self.budget_model = BudgetModel(max_total)
        self.members = {}
        self.served = []
        for name, (count, max_size) in crowds.items():
            options = PoolingServiceOptions(max_size=max_size, max_creating=max_size, priorities=1)
            self.members[name] = self.budget_model.add(options)
            self.come(name, count)

    def come(self, name, count):
        for _ in range(count):
            self.members[name].acquire(Borrower(0))

    def serve_one(self):
        """Go on until one more borrower is served, which releases at once; returns its key, or `None`."""
        for _ in range(50):
            for name, member in self.members.items():
                if any(borrower.is_woken for borrower in member.waiting):
                    member.claim(next(borrower for borrower in member.waiting if borrower.is_woken))
                    member.lend(member.holding[0])
                    member.release(member.using[0])
                    if member.putting:
                        member.put_fast(member.putting[0])
                        member.recheck()
                    else:
                        member.returned(member.returning[0], works=True)
                    self.budget_model.check()
                    self.served.append(name)
                    return name
            for member in self.members.values():
                member.dispatch()
                for slot in list(member.creating):
                    member.opened(slot)
                for slot in list(member.destroying):
                    member.closed(slot)
            self.budget_model.check()
        return None


def test_a_key_with_one_waiter_is_served_within_two_turns_of_a_key_with_a_thousand():
    shop = Shop(1, crowd=(1000, 5), lonely=(0, 5))
    for _ in range(7):
        shop.serve_one()
    shop.come("lonely", 1)
    before = len(shop.served)
    while shop.served[-1] != "lonely":
        assert shop.serve_one()
    assert len(shop.served) - before <= TURNS + 1
    while shop.serve_one():
        pass
    assert shop.served.count("crowd") == 1000


@pytest.mark.parametrize("max_total", [1, 3, 10])
def test_many_keys_take_turns(max_total):
    keys = [f"key{number}" for number in range(20)]
    shop = Shop(max_total, **dict.fromkeys(keys, (8, 4)))
    while shop.serve_one():
        pass
    assert {key: shop.served.count(key) for key in keys} == dict.fromkeys(keys, 8)
    first = {key: shop.served.index(key) for key in keys}
    # No key gets a third turn of one place before all have had their first.
    assert max(first.values()) <= len(keys) * (TURNS + 1)


def test_two_keys_that_are_short_do_not_just_swap_places():
    shop = Shop(1, left=(50, 1), right=(50, 1))
    while shop.serve_one():
        pass
    changes = sum(a != b for a, b in zip(shop.served, shop.served[1:], strict=False))
    assert changes <= len(shop.served) / TURNS, "half of the hand-overs at most cost a create"
    assert {shop.served.count("left"), shop.served.count("right")} == {50}


def test_places_even_out_between_keys_that_all_want_more():
    shop = Shop(6, greedy=(300, 6), modest=(0, 6))
    for _ in range(20):
        shop.serve_one()
    assert len(shop.members["greedy"].ledger.slots) == 6
    shop.come("modest", 300)
    for _ in range(60):
        shop.serve_one()
    assert {name: len(member.ledger.slots) for name, member in shop.members.items()} == {"greedy": 3, "modest": 3}


def test_a_key_whose_creates_fail_does_not_delay_other_keys():
    shop = Shop(1, broken=(3, 1), sound=(3, 1))
    broken = shop.members["broken"]
    for _ in range(40):
        for member in shop.members.values():
            member.dispatch()
        for slot in list(broken.creating):
            broken.open_failed(slot, final=False)
        sound = shop.members["sound"]
        for slot in list(sound.creating):
            sound.opened(slot)
        for member in shop.members.values():
            for slot in list(member.destroying):
                member.closed(slot)
        for borrower in [borrower for borrower in sound.waiting if borrower.is_woken]:
            sound.claim(borrower)
            sound.put_down(borrower)
        shop.budget_model.check()
        if not sound.waiting:
            break
        shop.budget_model.turn(0.5)
    assert not sound.waiting


@on_both
async def test_one_waiter_beside_a_thousand_is_served_after_few_of_them(side):
    workshop = Workshop(side)
    pool = keyed(side, workshop, max_total=1, max_size=4)
    served = []
    gate = side.gate()

    async def borrow(key):
        value = await pool.acquire(key)
        served.append(key)
        await pool.release(value)

    held = await pool.acquire("crowd")
    many = 1000 if side.name == "asyncio" else 60
    crowd = [side.go(borrow, "crowd") for _ in range(many)]
    await side.until(lambda: pool.of("crowd").pending == many)
    lonely = side.go(borrow, "lonely")
    await side.until(lambda: pool.of("lonely").pending == 1)
    gate.open()
    await pool.release(held)
    await lonely.result()
    assert served.index("lonely") <= TURNS
    for borrower in crowd:
        await borrower.result()
    assert workshop.most == 1
