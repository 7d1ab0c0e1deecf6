"""IDLE, ASSIGNED, HELD, OUT: which borrower gets which slot, and in which order."""

from __future__ import annotations

import pytest

from pooling._engine import ledger
from pooling._engine.audit import AUDIT_EVERY, find_lost
from pooling._engine.slots import ASSIGNED, CLOSING, GONE, LIVE, Waiter

from .driver import Driver, Work, filled


def test_the_resource_given_back_last_is_handed_out_first():
    driver, (first, second) = filled(2, lifo=True)
    driver.give_back(first)
    driver.give_back(second)
    assert [driver.borrow(), driver.borrow()] == [second, first]


def test_with_fifo_the_resource_given_back_first_is_handed_out_first():
    driver, (first, second) = filled(2, lifo=False)
    driver.give_back(first)
    driver.give_back(second)
    assert [driver.borrow(), driver.borrow()] == [first, second]


@pytest.mark.parametrize("lifo", [True, False])
def test_a_resource_that_was_only_looked_at_goes_to_the_cold_end_of_a_stack(lifo):
    driver, (looked_at, used) = filled(2, lifo=lifo, validate_idle=60.0)
    driver.give_back(used)
    assert driver.ledger.reclaim(looked_at.value) is looked_at
    driver.ledger.give_back(looked_at, driver.now, cold=True)
    assert driver.borrow() is used
    assert looked_at.due == driver.now + 60.0


def test_a_resource_that_comes_back_is_assigned_to_the_oldest_waiter_in_the_same_call():
    driver, (slot,) = filled(1, max_size=1)
    oldest, younger = driver.queue(), driver.queue()
    driver.give_back(slot)
    assert oldest.slot is slot
    assert slot.state == ASSIGNED
    assert younger.slot is None
    assert driver.woken() == [oldest]


def test_priority_0_is_served_first_and_each_priority_in_order_of_arrival():
    driver, slots = filled(4, max_size=4, priorities=2)
    patient, urgent, urgent_too, patient_too = driver.queue(1), driver.queue(0), driver.queue(0), driver.queue(1)
    served = []
    for slot in slots:
        driver.give_back(slot)
        served += driver.woken()
    assert served == [urgent, urgent_too, patient, patient_too]


def test_a_borrower_whose_resource_was_no_good_queues_before_all_of_its_priority():
    driver, (slot,) = filled(1, max_size=1)
    first = driver.queue()
    returned = driver.queue(first=True)
    driver.give_back(slot)
    assert driver.woken() == [returned]
    assert first.slot is None


def test_no_borrower_passes_the_queue():
    driver, (slot,) = filled(1, max_size=1)
    waiter = driver.queue()
    driver.give_back(slot)
    late = driver.queue()
    assert driver.ledger.take(driver.now) is None
    assert driver.borrow(waiter) is slot
    assert late.slot is None


def test_nothing_is_taken_from_a_pool_without_idle_resources():
    driver, _ = filled(1)
    assert driver.ledger.take(driver.now) is None


def test_an_assigned_resource_is_its_waiters_after_the_claim():
    driver, (slot,) = filled(1, max_size=1)
    waiter = driver.queue()
    driver.give_back(slot)
    assert driver.ledger.claim(waiter) is slot
    assert slot.state == LIVE
    assert slot not in driver.ledger.idle


def test_a_waiter_may_claim_late_and_while_the_audit_takes_its_resource_for_lost(monkeypatch):
    driver, (slot,) = filled(1, max_size=1)
    waiter = driver.queue(operation=Work())
    driver.give_back(slot)

    def claimed_meanwhile(*args):
        found = find_lost(*args)
        assert found[0] == [slot]
        driver.borrow(waiter)
        return found

    driver.ledger.audit(driver.now)
    driver.now += AUDIT_EVERY
    monkeypatch.setattr(ledger, "find_lost", claimed_meanwhile)
    driver.ledger.audit(driver.now)
    assert slot.state is LIVE
    assert driver.ledger.out[id(slot.value)] is slot
    assert not driver.closes()


def test_a_waiter_that_does_not_claim_is_woken_again():
    driver, (slot,) = filled(1, max_size=1)
    waiter = driver.queue(operation=Work())
    driver.give_back(slot)
    assert driver.woken() == [waiter]
    for _ in range(2):
        driver.ledger.audit(driver.now)
        driver.now += AUDIT_EVERY
    assert driver.woken() == [waiter]
    assert driver.ledger.claim(waiter) is slot


def test_there_is_nothing_to_claim_for_a_waiter_that_was_not_served():
    driver, _ = filled(1, max_size=1)
    assert driver.ledger.claim(driver.queue()) is None


def test_what_a_waiter_was_assigned_goes_to_the_next_when_it_gives_up():
    driver, (slot,) = filled(1, max_size=1)
    cancelled, next_one = driver.queue(), driver.queue()
    driver.give_back(slot)
    driver.ledger.withdraw(cancelled, driver.now)
    assert next_one.slot is slot
    assert driver.woken()[-1] is next_one


def test_a_slot_assigned_to_a_waiter_that_gives_up_is_idle_if_no_other_waits():
    driver, (slot,) = filled(1, max_size=1)
    waiter = driver.queue()
    driver.give_back(slot)
    driver.ledger.withdraw(waiter, driver.now)
    assert (slot.state, list(driver.ledger.idle)) == (LIVE, [slot])
    assert driver.ledger.fast


def test_a_waiter_that_gives_up_unserved_leaves_the_queue_in_any_order():
    driver, (slot,) = filled(1, max_size=1)
    waiters = [driver.queue() for _ in range(5)]
    for index in (3, 0, 4, 1):
        driver.ledger.withdraw(waiters[index], driver.now)
    assert driver.ledger.waiting == 1
    driver.give_back(slot)
    assert waiters[2].slot is slot


def test_of_two_callers_that_give_back_one_resource_one_wins():
    driver, (slot,) = filled(1)
    driver.reclaim(slot)
    assert driver.ledger.reclaim(slot.value) is None


def test_resources_are_told_apart_by_identity():
    driver = Driver()
    waiter = driver.queue()
    (slot,) = driver.opens()
    driver.ledger.opened(slot, [], None, driver.now)  # unhashable, and equal to every other empty list
    driver.borrow(waiter)
    assert driver.ledger.reclaim([]) is None
    driver.reclaim(slot)


def test_the_fast_path_is_open_only_while_nothing_needs_looking_at():
    driver, (slot, _) = filled(2, max_size=2)
    assert driver.ledger.fast
    waiter = driver.queue()
    assert not driver.ledger.fast
    driver.give_back(slot)
    assert driver.ledger.fast
    driver.borrow(waiter)
    driver.ledger.expire(driver.now)
    assert not driver.ledger.fast


def test_a_pool_with_more_to_do_than_the_hand_over_is_never_fast():
    driver, (slot,) = filled(1, plain=False)
    driver.give_back(slot)
    assert not driver.ledger.fast


def test_a_waiter_closes_the_fast_path_before_it_looks_at_idle_resources():
    driver, (slot,) = filled(1, max_size=1)
    driver.reclaim(slot)  # a releaser without the lock: it saw `fast`, and has not put yet
    waiter = driver.queue()
    driver.ledger.put(slot)
    assert not driver.ledger.fast  # so it looks again, and settles
    driver.ledger.settle(driver.now)
    assert waiter.slot is slot


def test_a_resource_whose_borrower_is_garbage_is_destroyed_at_the_next_look():
    driver, (slot,) = filled(1, max_size=1)
    driver.ledger.drop(slot.value)
    assert not driver.ledger.fast
    driver.queue()
    assert driver.close_all() == [slot]
    assert slot.reason == "abandoned"
    assert len(driver.opens()) == 1


def test_a_resource_dropped_while_a_borrower_waits_is_found_within_a_second():
    driver, (slot,) = filled(1, max_size=1)
    driver.queue()
    driver.ledger.drop(slot.value)
    driver.turn(1.0)
    assert driver.closes() == [slot]


def test_a_dropped_resource_that_came_back_and_is_out_again_stays_with_its_new_borrower():
    driver, (slot,) = filled(1, max_size=1)
    loan = slot.uses
    driver.give_back(slot)
    driver.borrow()
    driver.ledger.drop(slot.value, loan)
    driver.ledger.settle(driver.now)
    assert not driver.closes()
    assert driver.ledger.out[id(slot.value)] is slot


def test_every_acquisition_counts_also_those_of_destroyed_resources():
    driver, (slot,) = filled(1)
    driver.give_back(slot)
    driver.borrow()
    driver.ledger.reclaim(slot.value)
    driver.ledger.condemn(slot, "max_uses", driver.now)
    driver.close_all()
    assert driver.ledger.uses == 2
    assert driver.ledger.closed_by == {"max_uses": 1}


def test_a_condemned_resource_keeps_its_place_until_its_destroy_has_ended():
    driver, (slot,) = filled(1, max_size=1)
    waiter = driver.queue()
    driver.ledger.reclaim(slot.value)
    driver.ledger.condemn(slot, "invalid", driver.now)
    assert slot.state == CLOSING
    assert not driver.opens()
    driver.close_all()
    assert slot.state == GONE
    assert len(driver.opens()) == 1
    assert waiter.slot is None


def test_to_condemn_twice_is_to_condemn_once():
    driver, (slot,) = filled(1)
    driver.ledger.reclaim(slot.value)
    driver.ledger.condemn(slot, "invalid", driver.now)
    driver.ledger.condemn(slot, "again", driver.now)
    assert driver.close_all() == [slot]
    assert slot.reason == "invalid"


def test_a_condemned_resource_cannot_be_given_back():
    driver, (slot,) = filled(1)
    driver.ledger.reclaim(slot.value)
    driver.ledger.condemn(slot, "invalid", driver.now)
    driver.ledger.give_back(slot, driver.now)
    assert slot not in driver.ledger.idle


def test_settling_again_changes_nothing():
    driver, (slot, _) = filled(2, max_size=2, min_size=1)
    waiter = Waiter(object())
    driver.ledger.enqueue(waiter, driver.now)
    driver.give_back(slot)
    before = (list(driver.ledger.outbox), list(driver.ledger.slots), driver.ledger.alarm, waiter.slot)
    driver.ledger.settle(driver.now)
    driver.ledger.settle(driver.now)
    assert (list(driver.ledger.outbox), list(driver.ledger.slots), driver.ledger.alarm, waiter.slot) == before
