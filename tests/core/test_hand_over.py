"""IDLE, ASSIGNED, HELD, OUT: who gets what, and in which order."""

from __future__ import annotations

import pytest

from pooling._engine.ledger import ASSIGNED, CLOSING, GONE, LIVE, Waiter

from .books import Books, filled


def test_the_resource_given_back_last_is_handed_out_first():
    books, (first, second) = filled(2, lifo=True)
    books.give_back(first)
    books.give_back(second)
    assert [books.borrow(), books.borrow()] == [second, first]


def test_with_fifo_the_resource_given_back_first_is_handed_out_first():
    books, (first, second) = filled(2, lifo=False)
    books.give_back(first)
    books.give_back(second)
    assert [books.borrow(), books.borrow()] == [first, second]


@pytest.mark.parametrize("lifo", [True, False])
def test_a_resource_that_was_only_looked_at_goes_to_the_cold_end_of_a_stack(lifo):
    books, (looked_at, used) = filled(2, lifo=lifo, validate_idle=60.0)
    books.give_back(used)
    assert books.ledger.reclaim(looked_at.value) is looked_at
    books.ledger.give_back(looked_at, books.now, cold=True)
    assert books.borrow() is used
    assert looked_at.due == books.now + 60.0


def test_a_resource_that_comes_back_is_assigned_to_the_oldest_waiter_in_the_same_call():
    books, (slot,) = filled(1, max_size=1)
    oldest, younger = books.queue(), books.queue()
    books.give_back(slot)
    assert oldest.slot is slot
    assert slot.state == ASSIGNED
    assert younger.slot is None
    assert books.woken() == [oldest]


def test_priority_0_is_served_first_and_each_priority_in_order_of_arrival():
    books, slots = filled(4, max_size=4, priorities=2)
    patient, urgent, urgent_too, patient_too = books.queue(1), books.queue(0), books.queue(0), books.queue(1)
    served = []
    for slot in slots:
        books.give_back(slot)
        served += books.woken()
    assert served == [urgent, urgent_too, patient, patient_too]


def test_a_borrower_whose_resource_was_no_good_queues_before_all_of_its_priority():
    books, (slot,) = filled(1, max_size=1)
    first = books.queue()
    returned = books.queue(first=True)
    books.give_back(slot)
    assert books.woken() == [returned]
    assert first.slot is None


def test_nobody_passes_a_queue():
    books, (slot,) = filled(1, max_size=1)
    waiter = books.queue()
    books.give_back(slot)
    late = books.queue()
    assert books.ledger.take(books.now) is None
    assert books.borrow(waiter) is slot
    assert late.slot is None


def test_nothing_is_taken_from_a_pool_without_idle_resources():
    books, _ = filled(1)
    assert books.ledger.take(books.now) is None


def test_an_assigned_resource_is_its_waiters_after_the_claim():
    books, (slot,) = filled(1, max_size=1)
    waiter = books.queue()
    books.give_back(slot)
    assert books.ledger.claim(waiter) is slot
    assert slot.state == LIVE
    assert slot not in books.ledger.idle


def test_there_is_nothing_to_claim_for_a_waiter_that_was_not_served():
    books, _ = filled(1, max_size=1)
    assert books.ledger.claim(books.queue()) is None


def test_what_a_waiter_was_assigned_goes_to_the_next_when_it_gives_up():
    books, (slot,) = filled(1, max_size=1)
    cancelled, next_one = books.queue(), books.queue()
    books.give_back(slot)
    books.ledger.withdraw(cancelled, books.now)
    assert next_one.slot is slot
    assert books.woken()[-1] is next_one


def test_what_a_waiter_was_assigned_is_idle_when_it_gives_up_and_nobody_waits():
    books, (slot,) = filled(1, max_size=1)
    waiter = books.queue()
    books.give_back(slot)
    books.ledger.withdraw(waiter, books.now)
    assert (slot.state, list(books.ledger.idle)) == (LIVE, [slot])
    assert books.ledger.fast


def test_a_waiter_that_gives_up_unserved_leaves_the_queue_in_any_order():
    books, (slot,) = filled(1, max_size=1)
    waiters = [books.queue() for _ in range(5)]
    for index in (3, 0, 4, 1):
        books.ledger.withdraw(waiters[index], books.now)
    assert books.ledger.waiting == 1
    books.give_back(slot)
    assert waiters[2].slot is slot


def test_of_two_who_give_back_one_resource_one_wins():
    books, (slot,) = filled(1)
    assert books.ledger.reclaim(slot.value) is slot
    assert books.ledger.reclaim(slot.value) is None


def test_resources_are_told_apart_by_identity():
    books = Books()
    waiter = books.queue()
    (slot,) = books.opens()
    books.ledger.opened(slot, [], None, books.now)  # unhashable, and equal to every other empty list
    books.borrow(waiter)
    assert books.ledger.reclaim([]) is None
    assert books.ledger.reclaim(slot.value) is slot


def test_the_fast_path_is_open_only_while_nothing_needs_looking_at():
    books, (slot, _) = filled(2, max_size=2)
    assert books.ledger.fast
    waiter = books.queue()
    assert not books.ledger.fast
    books.give_back(slot)
    assert books.ledger.fast
    books.borrow(waiter)
    books.ledger.expire(books.now)
    assert not books.ledger.fast


def test_a_pool_with_more_to_do_than_the_hand_over_is_never_fast():
    books, (slot,) = filled(1, plain=False)
    books.give_back(slot)
    assert not books.ledger.fast


def test_whoever_queues_closes_the_fast_path_before_it_looks_at_the_idle_ones():
    books, (slot,) = filled(1, max_size=1)
    assert books.ledger.reclaim(slot.value) is slot  # a releaser without the lock: it saw `fast`, and has not put yet
    waiter = books.queue()
    books.ledger.put(slot)
    assert not books.ledger.fast  # so it looks again, and settles
    books.ledger.settle(books.now)
    assert waiter.slot is slot


def test_a_resource_whose_borrower_is_garbage_is_destroyed_at_the_next_look():
    books, (slot,) = filled(1, max_size=1)
    books.ledger.drop(slot.value)
    assert not books.ledger.fast
    books.queue()
    assert books.close_all() == [slot]
    assert slot.reason == "abandoned"
    assert len(books.opens()) == 1


def test_a_resource_dropped_while_somebody_waits_is_found_within_a_second():
    books, (slot,) = filled(1, max_size=1)
    books.queue()
    books.ledger.drop(slot.value)
    books.turn(1.0)
    assert books.closes() == [slot]


def test_a_dropped_resource_that_came_back_and_is_out_again_stays_with_its_new_borrower():
    books, (slot,) = filled(1, max_size=1)
    loan = slot.uses
    books.give_back(slot)
    books.borrow()
    books.ledger.drop(slot.value, loan)
    books.ledger.settle(books.now)
    assert not books.closes()
    assert books.ledger.out[id(slot.value)] is slot


def test_every_acquisition_counts_also_those_of_destroyed_resources():
    books, (slot,) = filled(1)
    books.give_back(slot)
    books.borrow()
    books.ledger.reclaim(slot.value)
    books.ledger.condemn(slot, "max_uses", books.now)
    books.close_all()
    assert books.ledger.uses == 2
    assert books.ledger.closed_by == {"max_uses": 1}


def test_a_condemned_resource_keeps_its_place_until_its_destroy_has_ended():
    books, (slot,) = filled(1, max_size=1)
    waiter = books.queue()
    books.ledger.reclaim(slot.value)
    books.ledger.condemn(slot, "invalid", books.now)
    assert slot.state == CLOSING
    assert not books.opens()
    books.close_all()
    assert slot.state == GONE
    assert len(books.opens()) == 1
    assert waiter.slot is None


def test_to_condemn_twice_is_to_condemn_once():
    books, (slot,) = filled(1)
    books.ledger.reclaim(slot.value)
    books.ledger.condemn(slot, "invalid", books.now)
    books.ledger.condemn(slot, "again", books.now)
    assert books.close_all() == [slot]
    assert slot.reason == "invalid"


def test_a_condemned_resource_cannot_be_given_back():
    books, (slot,) = filled(1)
    books.ledger.reclaim(slot.value)
    books.ledger.condemn(slot, "invalid", books.now)
    books.ledger.give_back(slot, books.now)
    assert slot not in books.ledger.idle


def test_settling_again_changes_nothing():
    books, (slot, _) = filled(2, max_size=2, min_size=1)
    waiter = Waiter(object())
    books.ledger.enqueue(waiter, books.now)
    books.give_back(slot)
    before = (list(books.ledger.outbox), list(books.ledger.slots), books.ledger.alarm, waiter.slot)
    books.ledger.settle(books.now)
    books.ledger.settle(books.now)
    assert (list(books.ledger.outbox), list(books.ledger.slots), books.ledger.alarm, waiter.slot) == before
