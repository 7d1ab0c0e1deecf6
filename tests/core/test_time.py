"""What happens at due times, and that the alarm is set for it."""

from __future__ import annotations

from math import inf

import pytest

from pooling._engine.ledger import SHORTEST_ALARM, SHORTEST_LOOK
from pooling._engine.slots import CLOSING, Check, Leak, Overdue

from .driver import Driver, filled


def test_a_pool_with_nothing_to_look_at_sets_no_alarm():
    assert Driver(max_idle=inf).ledger.alarm == inf


def test_a_resource_idle_for_too_long_is_destroyed():
    driver, (slot,) = filled(1, max_idle=60.0)
    driver.turn(2.0)
    driver.give_back(slot)
    driver.turn(44.0)
    assert not driver.closes()
    driver.turn(60.0)
    assert driver.closes() == [slot]
    assert slot.reason == "max_idle"


def test_idle_resources_are_kept_down_to_min_size():
    driver, slots = filled(3, min_size=1, max_idle=60.0)
    for slot in slots:
        driver.give_back(slot)
    driver.turn(1000.0)
    assert len(driver.close_all()) == 2
    assert len(driver.ledger.idle) == 1
    assert not driver.opens()


def test_a_resource_in_use_is_never_idle_for_too_long():
    driver, (slot,) = filled(1, max_idle=60.0)
    driver.turn(1000.0)
    assert not driver.closes()
    driver.reclaim(slot)


def test_resources_that_were_needless_before_a_smaller_minimum_age_out_after_it():
    driver, slots = filled(2, min_size=2, max_size=2, max_idle=60.0)
    for slot in slots:
        driver.give_back(slot)
    driver.turn(1000.0)
    assert not driver.closes()
    driver.ledger.resize(0, 2, driver.now)
    driver.turn(100.0)
    assert sorted(map(id, driver.closes())) == sorted(map(id, slots))


@pytest.mark.parametrize(("jitter", "age"), [(0.0, 100.0), (1.0, 90.0)])
def test_an_idle_resource_is_replaced_at_max_lifetime_less_up_to_a_tenth(jitter, age):
    driver = Driver(jitter=jitter, max_lifetime=100.0, max_idle=inf, min_size=1)
    (slot,) = driver.opens()
    driver.open(slot)
    driver.turn(age - 0.01)
    assert not driver.closes()
    driver.turn(0.02)
    assert driver.close_all() == [slot]
    assert slot.reason == "max_lifetime"
    assert len(driver.opens()) == 1


def test_a_resource_in_use_at_max_lifetime_is_destroyed_as_it_comes_back():
    driver, (slot,) = filled(1, max_lifetime=100.0)
    driver.turn(200.0)
    assert not driver.closes()
    assert not driver.ledger.fast
    driver.give_back(slot)
    assert driver.closes() == [slot]
    assert slot.reason == "max_lifetime"


def test_an_overdue_destroy_frees_the_place_and_its_late_end_changes_nothing():
    driver, (slot,) = filled(1, max_size=1, destroy_timeout=5.0)
    driver.queue()
    driver.ledger.reclaim(slot.value)
    driver.ledger.condemn(slot, "invalid", driver.now)
    driver.turn(4.9)
    assert slot.state == CLOSING
    driver.turn(0.2)
    assert slot not in driver.ledger.slots
    assert driver.orders(Overdue) == [Overdue(slot, "destroy")]
    assert len(driver.opens()) == 1
    driver.ledger.closed(slot, driver.now)
    assert driver.ledger.closed_by == {"invalid": 1}
    assert len(driver.ledger.slots) == 1


def test_an_overdue_release_hook_frees_the_place_and_what_it_gives_back_late_is_destroyed():
    driver, (slot,) = filled(1, max_size=1, destroy_timeout=5.0)
    waiter = driver.queue()
    driver.reclaim(slot)
    driver.ledger.begin_release(slot, driver.now)
    driver.turn(5.01)
    assert driver.orders(Overdue) == [Overdue(slot, "release")]
    (replacement,) = driver.opens()
    driver.open(replacement)
    assert waiter.slot is replacement
    driver.ledger.give_back(slot, driver.now)
    assert driver.close_all() == [slot]
    assert slot not in driver.ledger.idle
    assert driver.ledger.closed_by == {"overdue": 1}


def test_a_resource_out_for_too_long_is_reported_once():
    driver, (slot,) = filled(1, leak_timeout=10.0)
    driver.turn(9.9)
    assert not driver.orders(Leak)
    driver.turn(0.2)
    assert [item.slot for item in driver.orders(Leak)] == [slot]
    driver.turn(100.0)
    assert not driver.orders(Leak)


def test_an_idle_resource_is_checked_at_each_interval_and_cannot_be_taken_meanwhile():
    driver, (slot,) = filled(1, validate_idle=10.0, max_idle=inf)
    driver.give_back(slot)
    driver.turn(20.0)
    assert [item.slot for item in driver.orders(Check)] == [slot]
    assert driver.ledger.take(driver.now) is None
    driver.ledger.give_back(slot, driver.now, cold=True)
    driver.turn(9.0)
    assert not driver.orders(Check)
    driver.turn(5.0)
    assert [item.slot for item in driver.orders(Check)] == [slot]


def test_a_resource_in_use_is_not_checked():
    driver, _ = filled(1, validate_idle=10.0)
    driver.turn(100.0)
    assert not driver.orders(Check)


def test_a_resource_whose_idle_time_and_lifetime_end_together_is_destroyed_once_and_sets_no_further_alarm():
    driver, (slot,) = filled(1, max_idle=0.2, max_lifetime=0.4)
    driver.give_back(slot)
    driver.turn(0.15)
    driver.now += 0.6  # without a sweep
    driver.ledger.sweep(driver.now)
    assert driver.closes() == [slot]
    assert slot.reason == "max_idle"
    assert driver.ledger.alarm == slot.due == driver.now + driver.ledger.options.destroy_timeout


def test_a_lifetime_that_ends_while_the_resource_is_being_destroyed_changes_nothing():
    driver, (slot,) = filled(1, max_lifetime=0.2, max_idle=inf, destroy_timeout=inf)
    driver.reclaim(slot)
    driver.ledger.condemn(slot, "destroyed", driver.now)
    driver.turn(1.0)
    assert driver.ledger.alarm == inf
    assert slot.reason == "destroyed"


def test_a_lifetime_that_ends_while_a_release_hook_runs_has_the_resource_destroyed_as_it_comes_back():
    driver, (slot,) = filled(1, max_lifetime=0.2, max_idle=inf)
    driver.reclaim(slot)
    driver.ledger.begin_release(slot, driver.now)
    driver.turn(1.0)
    assert not driver.closes()
    driver.ledger.give_back(slot, driver.now)
    assert driver.closes() == [slot]
    assert slot.reason == "max_lifetime"


def test_a_step_with_no_time_at_all_is_overdue_at_the_next_look_and_not_in_the_same_instant():
    driver, (slot,) = filled(1, destroy_timeout=0.0)
    driver.reclaim(slot)
    driver.ledger.condemn(slot, "destroyed", driver.now)
    assert driver.ledger.alarm == driver.now + SHORTEST_ALARM
    driver.turn(SHORTEST_ALARM)
    assert driver.orders(Overdue) == [Overdue(slot, "destroy")]


def test_resources_that_live_for_no_time_are_replaced_from_look_to_look():
    driver = Driver(min_size=1, max_lifetime=0.0)
    looks = 0
    while looks < 10:
        looks += len(driver.close_all())
        for slot in driver.opens():
            driver.open(slot)
        began = driver.now
        driver.now = driver.ledger.alarm
        assert driver.now >= began + SHORTEST_LOOK
        driver.ledger.sweep(driver.now)


def test_a_day_idle_is_survived():
    driver, (slot,) = filled(1, min_size=1, max_idle=60.0)
    driver.give_back(slot)
    driver.turn(25 * 3600.0)
    assert driver.borrow() is slot
