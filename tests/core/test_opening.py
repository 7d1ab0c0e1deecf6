"""OPENING and LATE: when a resource is made, for whom, and what follows when that fails."""

from __future__ import annotations

from math import inf

import pytest

from pooling._engine.ledger import CHECKING, CLOSING, GONE, LATE, LIVE, OPENING, TRIES_APART, Overdue

from .books import Books, Resource, filled


def test_a_waiter_with_room_orders_one_open():
    books = Books()
    books.queue()
    (slot,) = books.opens()
    assert slot.state == OPENING
    assert len(books.ledger.slots) == 1


def test_a_new_resource_goes_to_whoever_is_first_by_then():
    books = Books(max_size=1)
    cancelled, next_one = books.queue(), books.queue()
    (slot,) = books.opens()
    books.ledger.withdraw(cancelled, books.now)
    books.open(slot)
    assert next_one.slot is slot


def test_a_new_resource_that_nobody_waits_for_any_more_is_idle():
    books = Books()
    waiter = books.queue()
    (slot,) = books.opens()
    books.ledger.withdraw(waiter, books.now)
    books.open(slot)
    assert list(books.ledger.idle) == [slot]
    assert slot.state == LIVE


def test_a_resource_that_comes_back_serves_the_waiter_an_open_was_ordered_for():
    books, (out,) = filled(1, max_size=2)
    waiter = books.queue()
    (opening,) = books.opens()
    books.give_back(out)
    assert waiter.slot is out
    books.open(opening)
    assert list(books.ledger.idle) == [opening]


def test_at_most_max_creating_are_opened_at_once_and_the_next_when_one_has_ended():
    books = Books(max_size=8, max_creating=2)
    for _ in range(5):
        books.queue()
    first, _second = books.opens()
    books.open(first)
    assert len(books.opens()) == 1
    assert len(books.ledger.opening) == 2


def test_never_more_than_max_size_places_are_taken():
    books = Books(max_size=3, max_creating=10)
    for _ in range(10):
        books.queue()
    assert len(books.opens()) == 3


def test_no_more_is_opened_than_there_are_waiters():
    books = Books(max_size=8, max_creating=8)
    books.queue()
    books.ledger.settle(books.now)
    books.queue()
    assert len(books.opens()) == 2


def test_a_spike_opens_few_where_resources_come_back_sooner_than_new_ones():
    books = Books(max_size=10, max_creating=2)
    waiting = [books.queue() for _ in range(50)]
    opening = books.opens()
    opened = len(opening)
    while waiting:
        books.now += 0.150
        out = [books.open(slot) for slot in opening]
        for _ in range(70):  # uses of 2 ms fit into one create
            for slot in out:
                if waiting and waiting[0].slot is slot:
                    books.borrow(waiting.pop(0))
                    books.give_back(slot)
            books.now += 0.002
        opening = books.opens()
        opened += len(opening)
    assert opened < 7


def test_a_started_pool_fills_up_to_min_size_a_few_at_a_time():
    books = Books(min_size=3, max_creating=2)
    first, second = books.opens()
    books.open(first)
    books.open(second)
    (third,) = books.opens()
    books.open(third)
    assert not books.opens()
    assert len(books.ledger.idle) == 3


def test_min_size_is_restored_when_a_resource_is_destroyed():
    books = Books(min_size=1)
    (slot,) = books.opens()
    books.open(slot)
    books.borrow()
    books.ledger.reclaim(slot.value)
    books.ledger.condemn(slot, "invalid", books.now)
    books.close_all()
    assert len(books.opens()) == 1


def test_a_failed_create_is_tried_again_for_the_waiter_after_a_pause():
    books = Books(create_backoff=0.5)
    waiter = books.queue()
    (slot,) = books.opens()
    books.fail(slot)
    assert slot.state == GONE
    assert not books.ledger.slots
    assert not books.opens()
    assert not waiter.is_settled
    books.turn(0.49)
    assert not books.opens()
    books.turn(0.02)
    assert len(books.opens()) == 1


def test_the_pause_doubles_with_each_failure_up_to_its_limit_and_ends_with_a_success():
    books = Books(create_backoff=0.5, create_backoff_max=2.0)
    books.queue()
    pauses = []
    for _ in range(4):
        (slot,) = books.opens()
        books.fail(slot)
        pauses.append(books.ledger.retry_at - books.now)
        books.turn(pauses[-1])
    assert pauses == [0.5, 1.0, 2.0, 2.0]
    (slot,) = books.opens()
    books.open(slot)
    assert (books.ledger.failures, books.ledger.retry_at, books.ledger.last_error) == (0, -inf, None)


@pytest.mark.parametrize(("jitter", "pause"), [(0.0, 0.375), (1.0, 0.625)])
def test_the_pause_is_spread_by_a_quarter_to_both_sides(jitter, pause):
    books = Books(create_backoff=0.5, jitter=jitter)
    books.queue()
    books.fail(*books.opens())
    assert books.ledger.retry_at - books.now == pytest.approx(pause)


def test_the_pause_also_grows_where_each_new_resource_turns_out_to_be_no_good():
    books = Books(create_backoff=0.5, create_backoff_max=60.0)
    waiter, pauses = books.queue(), []
    for _ in range(4):
        slot = books.open(*books.opens())
        assert books.ledger.claim(waiter) is slot
        books.ledger.refused(slot, OSError("invalid"), books.now)
        books.ledger.condemn(slot, "invalid", books.now)
        waiter = books.queue(first=True)
        books.close_all()
        pauses.append(books.ledger.retry_at - books.now)
        books.turn(pauses[-1])
    assert pauses == [0.5, 1.0, 2.0, 4.0]


def test_during_the_pause_a_new_waiter_opens_nothing_and_a_returned_resource_serves():
    books, (out,) = filled(1, max_size=2, create_backoff=1.0)
    first = books.queue()
    books.fail(*books.opens())
    books.queue()
    assert not books.opens()
    books.give_back(out)
    assert first.slot is out


def in_a_long_pause(**options):
    """Books of a pool that has failed to create for so long that its pauses are 60 s."""
    books = Books(**{"create_backoff": 0.05, "create_backoff_max": 60.0, **options})
    waiter = books.queue()
    for number in range(12):
        (slot,) = books.opens()
        books.fail(slot)
        if number < 11:
            books.turn(books.ledger.retry_at - books.now)
    books.ledger.withdraw(waiter, books.now)
    assert not books.opens()
    return books


def test_who_comes_during_a_long_pause_has_one_attempt_made_at_once():
    books = in_a_long_pause()
    books.turn(1.0)
    waiters = [books.queue(), books.queue()]
    (slot,) = books.opens()
    books.open(slot)
    assert waiters[0].slot is slot
    assert len(books.opens()) == 1  # the pause is over


def test_who_comes_right_after_a_failure_has_an_attempt_made_a_little_later():
    books = in_a_long_pause()
    books.queue()
    books.turn(TRIES_APART - 0.01)
    assert not books.opens()
    books.turn(0.02)
    assert len(books.opens()) == 1


def test_who_came_while_the_attempt_that_failed_was_under_way_has_another_one():
    books = in_a_long_pause()
    books.turn(1.0)
    first = books.queue()
    (slot,) = books.opens()
    books.ledger.withdraw(first, books.now)
    books.turn(5.0)
    books.queue()
    books.fail(slot)
    assert not books.opens()
    books.turn(TRIES_APART)
    assert len(books.opens()) == 1


def test_who_has_had_an_attempt_waits_out_the_pause():
    books = in_a_long_pause()
    books.turn(1.0)
    books.queue()
    (slot,) = books.opens()
    books.fail(slot)
    books.turn(40.0)
    assert not books.opens()


def test_however_many_come_attempts_are_apart_while_all_fail():
    books = in_a_long_pause()
    attempts, until = 0, books.now + 20.0
    while books.now < until:
        waiter = books.queue()
        books.turn(0.01)
        for slot in books.opens():
            attempts += 1
            books.fail(slot)
        books.ledger.withdraw(waiter, books.now)
    assert 50 < attempts <= 20.0 / TRIES_APART


def test_attempts_for_newcomers_are_at_least_the_shortest_pause_apart():
    books = in_a_long_pause(create_backoff=5.0)
    books.queue()
    books.turn(4.9)
    assert not books.opens()
    books.turn(0.2)
    assert len(books.opens()) == 1


def test_a_refused_resource_gives_nobody_an_attempt_before_the_pause_is_over():
    books = in_a_long_pause()
    books.turn(1.0)
    waiter = books.queue()
    slot = books.open(*books.opens())
    assert books.ledger.claim(waiter) is slot
    books.ledger.refused(slot, OSError("invalid"), books.now)
    books.ledger.condemn(slot, "invalid", books.now)
    books.queue(first=True)
    books.close_all()
    books.turn(40.0)
    assert not books.opens()
    assert books.ledger.create_failures == 12


def test_whoever_asks_for_it_has_the_pause_ended():
    books = Books(min_size=1, create_backoff=60.0, create_backoff_max=60.0)
    books.fail(*books.opens())
    books.turn(1.0)
    assert not books.opens()
    books.ledger.retry(books.now)
    assert len(books.opens()) == 1


def test_a_final_failure_reaches_the_waiter_at_once():
    books = Books(max_size=1)
    waiter, error = books.queue(), TypeError("wrong")
    books.fail(*books.opens(), error, final=True)
    assert waiter.verdict is error
    assert books.woken() == [waiter]
    assert books.ledger.waiting == 0


def test_a_final_failure_leaves_those_alone_whom_other_attempts_cover():
    books = Books(max_size=2, max_creating=2)
    first, second = books.queue(), books.queue()
    failing, other = books.opens()
    books.fail(failing, final=True)
    assert first.verdict is not None
    assert second.verdict is None
    books.open(other)
    assert second.slot is other


def test_a_final_failure_leaves_those_alone_who_came_after_its_attempt_began():
    books = Books(max_size=1)
    early = books.queue()
    (slot,) = books.opens()
    late = books.queue()
    books.fail(slot, final=True)
    assert early.verdict is not None
    assert late.verdict is None
    assert len(books.opens()) == 1  # an attempt of its own, without a pause


def test_a_pool_that_cannot_be_filled_pauses_also_after_a_final_failure():
    books = Books(min_size=1, create_backoff=0.5)
    books.fail(*books.opens(), final=True)
    assert not books.opens()
    books.turn(0.5)
    assert len(books.opens()) == 1


def test_a_resource_that_would_not_start_is_destroyed_and_counts_as_a_failed_create():
    books = Books(max_size=1, create_backoff=0.5)
    waiter = books.queue()
    (slot,) = books.opens()
    books.ledger.spoiled(slot, Resource(), None, OSError("would not start"), books.now, final=False)
    assert slot.state == CLOSING
    assert books.close_all() == [slot]
    assert not books.opens()
    assert not waiter.is_settled
    assert books.ledger.create_failures == 1
    books.turn(0.5)
    assert len(books.opens()) == 1


def test_a_resource_that_cannot_start_at_all_reaches_the_waiter_at_once():
    books = Books(max_size=1)
    waiter, error = books.queue(), TypeError("start() takes 2 arguments")
    (slot,) = books.opens()
    books.ledger.spoiled(slot, Resource(), None, error, books.now, final=True)
    assert waiter.verdict is error
    books.close_all()
    assert not books.opens()


def test_an_overdue_create_keeps_its_place_and_counts_as_a_failure():
    books = Books(max_size=2, create_timeout=3.0, create_backoff=0.5)
    books.queue()
    (slot,) = books.opens()
    books.turn(3.0)
    assert slot.state == LATE
    assert books.orders(Overdue) == [Overdue(slot, "create")]
    assert len(books.ledger.slots) == 1
    assert isinstance(books.ledger.last_error, TimeoutError)
    books.turn(0.5)
    assert len(books.opens()) == 1  # for the waiter, beside the late one


def test_a_resource_that_comes_late_is_used_all_the_same():
    books = Books(max_size=1, create_timeout=3.0)
    waiter = books.queue()
    (slot,) = books.opens()
    books.turn(3.0)
    books.open(slot)
    assert waiter.slot is slot
    assert not books.ledger.late


def test_a_late_create_that_fails_frees_its_place():
    books = Books(max_size=1, create_timeout=3.0)
    books.queue()
    (slot,) = books.opens()
    books.turn(9.0)
    assert not books.opens()
    books.fail(slot)
    assert slot.state == GONE
    books.turn(3.0)
    assert len(books.opens()) == 1


def test_where_the_environment_ends_overdue_steps_itself_the_ledger_does_not_watch_them():
    books = Books(watches=False, create_timeout=3.0)
    waiter = books.queue()
    (slot,) = books.opens()
    books.ledger.withdraw(waiter, books.now)
    books.turn(100.0)
    assert slot.state == OPENING


def test_work_delivered_twice_begins_once():
    books = Books(validate_idle=1.0)
    waiter = books.queue()
    (slot,) = books.opens()
    begins = books.ledger.begins
    assert [begins(slot, OPENING), begins(slot, OPENING)] == [True, False]
    books.open(slot)
    books.borrow(waiter)
    assert not begins(slot, CHECKING)
    books.ledger.reclaim(slot.value)
    books.ledger.condemn(slot, "invalid", books.now)
    assert [begins(slot, CLOSING), begins(slot, CLOSING), begins(slot, OPENING)] == [True, False, False]


def test_an_open_whose_place_was_never_taken_does_not_begin():
    books = Books()
    books.queue()
    (slot,) = books.opens()
    del books.ledger.slots[slot]  # as an interrupt between ordering and taking the place leaves it
    assert not books.ledger.begins(slot, OPENING)
