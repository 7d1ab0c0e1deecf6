"""Start, stop, suspend, retire, resize, expire, and watchers of a state."""

from __future__ import annotations

from pooling._engine.audit import AUDIT_EVERY
from pooling._engine.ledger import NEW, RETIRING, RUNNING, STOPPED, SUSPENDED
from pooling._engine.slots import Watcher

from .driver import Driver, filled


def test_a_pool_that_was_not_started_opens_nothing():
    driver = Driver(start=False, min_size=2)
    driver.ledger.settle(driver.now)
    assert not driver.opens()
    assert driver.ledger.state == NEW
    assert not driver.ledger.fast


def test_stop_rejects_all_waiters_and_destroys_idle_resources():
    driver, (_out,) = filled(1, idle=1, max_size=2)
    (idle,) = driver.ledger.idle
    driver.borrow()
    waiters = [driver.queue(), driver.queue()]
    driver.give_back(idle)
    assert driver.woken() == waiters[:1]
    driver.ledger.stop(driver.now)
    assert waiters[1].verdict == "closed"
    assert driver.woken() == waiters[1:]


def test_what_is_out_at_stop_is_destroyed_as_it_comes_back():
    driver, (slot,) = filled(1)
    driver.ledger.stop(driver.now)
    assert not driver.closes()
    driver.give_back(slot)
    assert driver.close_all() == [slot]
    assert slot.reason == "stopped"
    assert not driver.ledger.slots


def test_what_was_being_opened_at_stop_is_destroyed_and_nothing_is_opened_after_it():
    driver = Driver(min_size=1)
    (slot,) = driver.opens()
    driver.ledger.stop(driver.now)
    driver.open(slot)
    assert driver.close_all() == [slot]
    driver.turn(100.0)
    assert not driver.opens()


def test_a_slot_assigned_before_a_stop_is_still_claimed_and_destroyed_afterwards():
    driver, (slot,) = filled(1, max_size=1)
    waiter = driver.queue()
    driver.give_back(slot)
    driver.ledger.stop(driver.now)
    assert driver.borrow(waiter) is slot
    driver.give_back(slot)
    assert driver.closes() == [slot]


def test_after_a_restart_leftovers_of_the_time_before_do_not_come_back_in():
    driver, (slot,) = filled(1, max_size=1)
    driver.ledger.stop(driver.now)
    driver.ledger.start(driver.now)
    waiter = driver.queue()
    assert not driver.opens()  # its place is still taken
    driver.give_back(slot)
    assert waiter.slot is None
    assert driver.close_all() == [slot]
    (fresh,) = driver.opens()
    driver.open(fresh)
    assert waiter.slot is fresh
    driver.borrow(waiter)
    driver.give_back(fresh)
    assert driver.ledger.fast


def test_a_suspended_pool_lends_nothing_and_a_resumed_one_serves_in_order():
    driver, (slot,) = filled(1)
    driver.ledger.suspend(driver.now)
    driver.give_back(slot)
    assert driver.ledger.state == SUSPENDED
    assert driver.ledger.take(driver.now) is None
    first, _second = driver.queue(), driver.queue()
    assert not driver.woken()
    assert not driver.opens()
    driver.ledger.resume(driver.now)
    assert first.slot is slot
    assert len(driver.opens()) == 1


def test_starting_a_running_pool_changes_nothing():
    driver, _ = filled(1)
    driver.ledger.start(driver.now)
    assert not driver.ledger.outbox
    assert driver.ledger.state == RUNNING


def test_a_suspended_pool_is_not_started_by_accident():
    driver, _ = filled(1)
    driver.ledger.suspend(driver.now)
    driver.ledger.start(driver.now)
    assert driver.ledger.state == SUSPENDED


def test_a_retiring_pool_serves_its_waiters_and_then_stops():
    driver, (slot,) = filled(1, max_size=1)
    waiter = driver.queue()
    driver.ledger.retire(driver.now)
    assert driver.ledger.state == RETIRING
    assert driver.ledger.take(driver.now) is None
    driver.give_back(slot)
    assert waiter.slot is slot
    assert driver.ledger.state == STOPPED
    driver.borrow(waiter)
    driver.give_back(slot)
    assert driver.close_all() == [slot]


def test_expire_destroys_what_is_idle_now_and_what_is_out_as_it_comes_back():
    driver, (out,) = filled(1, idle=1)
    (idle,) = driver.ledger.idle
    driver.ledger.expire(driver.now)
    assert driver.close_all() == [idle]
    assert idle.reason == "expired"
    driver.give_back(out)
    assert driver.close_all() == [out]
    driver.queue()
    (fresh,) = driver.opens()
    driver.open(fresh)
    assert not driver.closes()
    assert driver.ledger.fast


def test_what_was_being_opened_when_all_were_expired_is_replaced():
    driver = Driver(max_size=1)
    waiter = driver.queue()
    (old,) = driver.opens()
    driver.ledger.expire(driver.now)
    driver.open(old)
    assert waiter.slot is None
    assert driver.close_all() == [old]
    (fresh,) = driver.opens()
    driver.open(fresh)
    assert waiter.slot is fresh


def test_a_higher_maximum_profits_the_waiting_at_once():
    driver, _ = filled(2, max_size=2)
    driver.queue()
    assert not driver.opens()
    driver.ledger.resize(0, 3, driver.now)
    assert len(driver.opens()) == 1


def test_a_lower_maximum_destroys_the_coldest_idle_ones_now():
    driver, slots = filled(3, max_size=3)
    for slot in slots:
        driver.give_back(slot)
    driver.ledger.resize(0, 1, driver.now)
    assert driver.close_all() == slots[:2]
    assert slots[0].reason == "resized"
    assert list(driver.ledger.idle) == [slots[2]]


def test_a_lower_maximum_while_all_are_out_takes_effect_as_they_come_back():
    driver, slots = filled(3, max_size=3)
    driver.ledger.resize(0, 1, driver.now)
    assert not driver.closes()
    assert not driver.ledger.fast
    waiter = driver.queue()
    driver.give_back(slots[0])
    driver.give_back(slots[1])
    assert driver.close_all() == slots[:2]
    assert waiter.slot is None
    driver.give_back(slots[2])
    assert waiter.slot is slots[2]
    assert driver.ledger.fast


def test_a_higher_minimum_is_filled_up_at_once():
    driver = Driver()
    driver.ledger.resize(2, 8, driver.now)
    assert len(driver.opens()) == 2


def test_a_watcher_is_woken_when_its_state_is_reached_until_it_is_forgotten():
    driver = Driver(min_size=1)
    watcher = Watcher(object(), lambda: driver.ledger.live >= 1)
    driver.ledger.watch(watcher, driver.now)
    driver.ledger.settle(driver.now)
    assert not driver.woken()
    driver.open(*driver.opens())
    assert driver.woken() == [watcher]
    driver.turn(AUDIT_EVERY + 0.01)
    assert driver.woken() == [watcher]
    driver.ledger.forget(watcher)
    driver.turn(AUDIT_EVERY + 0.01)
    assert not driver.woken()
