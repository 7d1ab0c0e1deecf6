"""What time alone brings about, and that the alarm is set for it."""

from __future__ import annotations

from math import inf

import pytest

from pooling._engine.ledger import CLOSING, GONE, SHORTEST_ALARM, SHORTEST_LOOK, Check, Leak, Overdue

from .books import Books, filled


def test_a_pool_with_nothing_to_look_at_sets_no_alarm():
    assert Books(max_idle=inf).ledger.alarm == inf


def test_a_resource_idle_for_too_long_is_destroyed():
    books, (slot,) = filled(1, max_idle=60.0)
    books.turn(2.0)
    books.give_back(slot)
    books.turn(44.0)
    assert not books.closes()
    books.turn(60.0)
    assert books.closes() == [slot]
    assert slot.reason == "max_idle"


def test_idle_resources_are_kept_down_to_min_size():
    books, slots = filled(3, min_size=1, max_idle=60.0)
    for slot in slots:
        books.give_back(slot)
    books.turn(1000.0)
    assert len(books.close_all()) == 2
    assert len(books.ledger.idle) == 1
    assert not books.opens()


def test_a_resource_in_use_is_never_idle_for_too_long():
    books, (slot,) = filled(1, max_idle=60.0)
    books.turn(1000.0)
    assert not books.closes()
    assert books.ledger.reclaim(slot.value) is slot


def test_resources_that_were_needless_before_a_smaller_minimum_age_out_after_it():
    books, slots = filled(2, min_size=2, max_size=2, max_idle=60.0)
    for slot in slots:
        books.give_back(slot)
    books.turn(1000.0)
    assert not books.closes()
    books.ledger.resize(0, 2, books.now)
    books.turn(100.0)
    assert sorted(map(id, books.closes())) == sorted(map(id, slots))


@pytest.mark.parametrize(("jitter", "age"), [(0.0, 100.0), (1.0, 90.0)])
def test_an_idle_resource_is_replaced_at_max_lifetime_less_up_to_a_tenth(jitter, age):
    books = Books(jitter=jitter, max_lifetime=100.0, max_idle=inf, min_size=1)
    (slot,) = books.opens()
    books.open(slot)
    books.turn(age - 0.01)
    assert not books.closes()
    books.turn(0.02)
    assert books.close_all() == [slot]
    assert slot.reason == "max_lifetime"
    assert len(books.opens()) == 1


def test_a_resource_in_use_at_max_lifetime_is_destroyed_as_it_comes_back():
    books, (slot,) = filled(1, max_lifetime=100.0)
    books.turn(200.0)
    assert not books.closes()
    assert not books.ledger.fast
    books.give_back(slot)
    assert books.closes() == [slot]
    assert slot.reason == "max_lifetime"


def test_an_overdue_destroy_frees_the_place_and_its_late_end_changes_nothing():
    books, (slot,) = filled(1, max_size=1, destroy_timeout=5.0)
    books.queue()
    books.ledger.reclaim(slot.value)
    books.ledger.condemn(slot, "invalid", books.now)
    books.turn(4.9)
    assert slot.state == CLOSING
    books.turn(0.2)
    assert slot.state == GONE
    assert books.orders(Overdue) == [Overdue(slot, "destroy")]
    assert len(books.opens()) == 1
    books.ledger.closed(slot, books.now)
    assert books.ledger.closed_by == {"invalid": 1}
    assert len(books.ledger.slots) == 1


def test_an_overdue_release_hook_frees_the_place_and_what_it_gives_back_late_is_destroyed():
    books, (slot,) = filled(1, max_size=1, destroy_timeout=5.0)
    waiter = books.queue()
    books.ledger.reclaim(slot.value)
    books.ledger.returns(slot, books.now)
    books.turn(5.0)
    assert books.orders(Overdue) == [Overdue(slot, "release")]
    (replacement,) = books.opens()
    books.open(replacement)
    assert waiter.slot is replacement
    books.ledger.give_back(slot, books.now)
    assert books.close_all() == [slot]
    assert slot not in books.ledger.idle
    assert books.ledger.closed_by == {"overdue": 1}


def test_a_resource_out_for_too_long_is_reported_once():
    books, (slot,) = filled(1, leak_timeout=10.0)
    books.turn(9.9)
    assert not books.orders(Leak)
    books.turn(0.2)
    assert [item.slot for item in books.orders(Leak)] == [slot]
    books.turn(100.0)
    assert not books.orders(Leak)


def test_an_idle_resource_is_checked_at_each_interval_and_is_nobodys_meanwhile():
    books, (slot,) = filled(1, validate_idle=10.0, max_idle=inf)
    books.give_back(slot)
    books.turn(20.0)
    assert [item.slot for item in books.orders(Check)] == [slot]
    assert books.ledger.take(books.now) is None
    books.ledger.give_back(slot, books.now, cold=True)
    books.turn(9.0)
    assert not books.orders(Check)
    books.turn(5.0)
    assert [item.slot for item in books.orders(Check)] == [slot]


def test_a_resource_in_use_is_not_checked():
    books, _ = filled(1, validate_idle=10.0)
    books.turn(100.0)
    assert not books.orders(Check)


def test_a_resource_whose_idle_time_and_lifetime_end_together_is_destroyed_once_and_sets_no_further_alarm():
    books, (slot,) = filled(1, max_idle=0.2, max_lifetime=0.4)
    books.give_back(slot)
    books.turn(0.15)
    books.now += 0.6  # nobody could sweep meanwhile
    books.ledger.sweep(books.now)
    assert books.closes() == [slot]
    assert slot.reason == "max_idle"
    assert books.ledger.alarm == slot.due == books.now + books.ledger.options.destroy_timeout


def test_a_lifetime_that_ends_while_the_resource_is_being_destroyed_changes_nothing():
    books, (slot,) = filled(1, max_lifetime=0.2, max_idle=inf, destroy_timeout=inf)
    assert books.ledger.reclaim(slot.value) is slot
    books.ledger.condemn(slot, "destroyed", books.now)
    books.turn(1.0)
    assert books.ledger.alarm == inf
    assert slot.reason == "destroyed"


def test_a_lifetime_that_ends_while_a_release_hook_runs_has_the_resource_destroyed_as_it_comes_back():
    books, (slot,) = filled(1, max_lifetime=0.2, max_idle=inf)
    assert books.ledger.reclaim(slot.value) is slot
    books.ledger.returns(slot, books.now)
    books.turn(1.0)
    assert not books.closes()
    books.ledger.give_back(slot, books.now)
    assert books.closes() == [slot]
    assert slot.reason == "max_lifetime"


def test_a_step_with_no_time_at_all_is_overdue_at_the_next_look_and_not_in_the_same_instant():
    books, (slot,) = filled(1, destroy_timeout=0.0)
    assert books.ledger.reclaim(slot.value) is slot
    books.ledger.condemn(slot, "destroyed", books.now)
    assert books.ledger.alarm == books.now + SHORTEST_ALARM
    books.turn(SHORTEST_ALARM)
    assert books.orders(Overdue) == [Overdue(slot, "destroy")]


def test_resources_that_live_for_no_time_are_replaced_from_look_to_look():
    books = Books(min_size=1, max_lifetime=0.0)
    looks = 0
    while looks < 10:
        looks += len(books.close_all())
        for slot in books.opens():
            books.open(slot)
        began = books.now
        books.now = books.ledger.alarm
        assert books.now >= began + SHORTEST_LOOK
        books.ledger.sweep(books.now)


def test_a_day_idle_is_survived():
    books, (slot,) = filled(1, min_size=1, max_idle=60.0)
    books.give_back(slot)
    books.turn(25 * 3600.0)
    assert books.borrow() is slot
