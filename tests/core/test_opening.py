"""OPENING and LATE: when a resource is created, for which borrower, and what follows if that fails."""

from __future__ import annotations

from math import inf

import pytest

from pooling._engine.backoff import TRIES_APART
from pooling._engine.slots import CLOSING, GONE, LATE, LIVE, OPENING, Open, Overdue

from .driver import Driver, Resource, Work, filled


def test_a_waiter_with_room_orders_one_open():
    driver = Driver()
    driver.queue()
    (slot,) = driver.opens()
    assert slot.state == OPENING
    assert len(driver.ledger.slots) == 1


def test_a_new_resource_goes_to_the_first_waiter_at_that_time():
    driver = Driver(max_size=1)
    cancelled, next_one = driver.queue(), driver.queue()
    (slot,) = driver.opens()
    driver.ledger.withdraw(cancelled, driver.now)
    driver.open(slot)
    assert next_one.slot is slot


def test_a_new_resource_is_idle_if_no_borrower_waits_any_more():
    driver = Driver()
    waiter = driver.queue()
    (slot,) = driver.opens()
    driver.ledger.withdraw(waiter, driver.now)
    driver.open(slot)
    assert list(driver.ledger.idle) == [slot]
    assert slot.state == LIVE


def test_a_resource_that_comes_back_serves_the_waiter_an_open_was_ordered_for():
    driver, (out,) = filled(1, max_size=2)
    waiter = driver.queue()
    (opening,) = driver.opens()
    driver.give_back(out)
    assert waiter.slot is out
    driver.open(opening)
    assert list(driver.ledger.idle) == [opening]


def test_at_most_max_creating_are_opened_at_once_and_the_next_when_one_has_ended():
    driver = Driver(max_size=8, max_creating=2)
    for _ in range(5):
        driver.queue()
    first, _second = driver.opens()
    driver.open(first)
    assert len(driver.opens()) == 1
    assert len(driver.ledger.opening) == 2


def test_never_more_than_max_size_places_are_taken():
    driver = Driver(max_size=3, max_creating=10)
    for _ in range(10):
        driver.queue()
    assert len(driver.opens()) == 3


def test_no_more_is_opened_than_there_are_waiters():
    driver = Driver(max_size=8, max_creating=8)
    driver.queue()
    driver.ledger.settle(driver.now)
    driver.queue()
    assert len(driver.opens()) == 2


def test_a_spike_opens_few_where_resources_come_back_sooner_than_new_ones():
    driver = Driver(max_size=10, max_creating=2)
    waiting = [driver.queue() for _ in range(50)]
    opening = driver.opens()
    opened = len(opening)
    while waiting:
        driver.now += 0.150
        out = [driver.open(slot) for slot in opening]
        for _ in range(70):  # uses of 2 ms fit into one create
            for slot in out:
                if waiting and waiting[0].slot is slot:
                    driver.borrow(waiting.pop(0))
                    driver.give_back(slot)
            driver.now += 0.002
        opening = driver.opens()
        opened += len(opening)
    assert opened < 7


def test_a_started_pool_fills_up_to_min_size_a_few_at_a_time():
    driver = Driver(min_size=3, max_creating=2)
    first, second = driver.opens()
    driver.open(first)
    driver.open(second)
    (third,) = driver.opens()
    driver.open(third)
    assert not driver.opens()
    assert len(driver.ledger.idle) == 3


def test_min_size_is_restored_when_a_resource_is_destroyed():
    driver = Driver(min_size=1)
    (slot,) = driver.opens()
    driver.open(slot)
    driver.borrow()
    driver.ledger.reclaim(slot.value)
    driver.ledger.condemn(slot, "invalid", driver.now)
    driver.close_all()
    assert len(driver.opens()) == 1


def test_a_failed_create_is_tried_again_for_the_waiter_after_a_pause():
    driver = Driver(create_backoff=0.5)
    waiter = driver.queue()
    (slot,) = driver.opens()
    driver.fail(slot)
    assert slot.state == GONE
    assert not driver.ledger.slots
    assert not driver.opens()
    assert not waiter.is_settled
    driver.turn(0.49)
    assert not driver.opens()
    driver.turn(0.02)
    assert len(driver.opens()) == 1


def test_the_pause_doubles_with_each_failure_up_to_its_limit_and_ends_with_a_success():
    driver = Driver(create_backoff=0.5, create_backoff_max=2.0)
    driver.queue()
    pauses = []
    for _ in range(4):
        (slot,) = driver.opens()
        driver.fail(slot)
        pauses.append(driver.ledger.backoff.retry_at - driver.now)
        driver.turn(pauses[-1])
    assert pauses == [0.5, 1.0, 2.0, 2.0]
    (slot,) = driver.opens()
    driver.open(slot)
    assert (driver.ledger.backoff.failures, driver.ledger.backoff.retry_at, driver.ledger.backoff.last_error) == (
        0,
        -inf,
        None,
    )


@pytest.mark.parametrize(("jitter", "pause"), [(0.0, 0.375), (1.0, 0.625)])
def test_the_pause_is_spread_by_a_quarter_to_both_sides(jitter, pause):
    driver = Driver(create_backoff=0.5, jitter=jitter)
    driver.queue()
    driver.fail(*driver.opens())
    assert driver.ledger.backoff.retry_at - driver.now == pytest.approx(pause)


def test_the_pause_also_grows_where_each_new_resource_turns_out_to_be_no_good():
    driver = Driver(create_backoff=0.5, create_backoff_max=60.0)
    waiter, pauses = driver.queue(), []
    for _ in range(4):
        slot = driver.open(*driver.opens())
        assert driver.ledger.claim(waiter) is slot
        driver.ledger.refused(slot, OSError("invalid"), driver.now)
        driver.ledger.condemn(slot, "invalid", driver.now)
        waiter = driver.queue(first=True)
        driver.close_all()
        pauses.append(driver.ledger.backoff.retry_at - driver.now)
        driver.turn(pauses[-1])
    assert pauses == [0.5, 1.0, 2.0, 4.0]


def test_during_the_pause_a_new_waiter_opens_nothing_and_a_returned_resource_serves():
    driver, (out,) = filled(1, max_size=2, create_backoff=1.0)
    first = driver.queue()
    driver.fail(*driver.opens())
    driver.queue()
    assert not driver.opens()
    driver.give_back(out)
    assert first.slot is out


def in_a_long_pause(**options):
    """Driver of a pool that has failed to create for so long that its pauses are 60 s."""
    driver = Driver(**{"create_backoff": 0.05, "create_backoff_max": 60.0, **options})
    waiter = driver.queue()
    for number in range(12):
        (slot,) = driver.opens()
        driver.fail(slot)
        if number < 11:
            driver.turn(driver.ledger.backoff.retry_at - driver.now + 0.01)
    driver.ledger.withdraw(waiter, driver.now)
    assert not driver.opens()
    return driver


def test_who_comes_during_a_long_pause_has_one_attempt_made_at_once():
    driver = in_a_long_pause()
    driver.turn(1.0)
    waiters = [driver.queue(), driver.queue()]
    (slot,) = driver.opens()
    driver.open(slot)
    assert waiters[0].slot is slot
    assert len(driver.opens()) == 1  # the pause is over


def test_who_comes_right_after_a_failure_has_an_attempt_made_a_little_later():
    driver = in_a_long_pause()
    driver.queue()
    driver.turn(TRIES_APART - 0.01)
    assert not driver.opens()
    driver.turn(0.02)
    assert len(driver.opens()) == 1


def test_who_came_while_the_attempt_that_failed_was_under_way_has_another_one():
    driver = in_a_long_pause()
    driver.turn(1.0)
    first = driver.queue()
    (slot,) = driver.opens()
    driver.ledger.withdraw(first, driver.now)
    driver.turn(5.0)
    driver.queue()
    driver.fail(slot)
    assert not driver.opens()
    driver.turn(TRIES_APART)
    assert len(driver.opens()) == 1


def test_who_has_had_an_attempt_waits_out_the_pause():
    driver = in_a_long_pause()
    driver.turn(1.0)
    driver.queue()
    (slot,) = driver.opens()
    driver.fail(slot)
    driver.turn(40.0)
    assert not driver.opens()


def test_however_many_come_attempts_are_apart_while_all_fail():
    driver = in_a_long_pause()
    attempts, until = 0, driver.now + 20.0
    while driver.now < until:
        waiter = driver.queue()
        driver.turn(0.01)
        for slot in driver.opens():
            attempts += 1
            driver.fail(slot)
        driver.ledger.withdraw(waiter, driver.now)
    assert 50 < attempts <= 20.0 / TRIES_APART


def test_attempts_for_newcomers_are_at_least_the_shortest_pause_apart():
    driver = in_a_long_pause(create_backoff=5.0)
    driver.queue()
    driver.turn(4.9)
    assert not driver.opens()
    driver.turn(0.2)
    assert len(driver.opens()) == 1


def test_after_a_refused_resource_there_is_no_attempt_before_the_pause_is_over():
    driver = in_a_long_pause()
    driver.turn(1.0)
    waiter = driver.queue()
    slot = driver.open(*driver.opens())
    assert driver.ledger.claim(waiter) is slot
    driver.ledger.refused(slot, OSError("invalid"), driver.now)
    driver.ledger.condemn(slot, "invalid", driver.now)
    driver.queue(first=True)
    driver.close_all()
    driver.turn(40.0)
    assert not driver.opens()
    assert driver.ledger.create_failures == 12


def test_retry_ends_the_pause():
    driver = Driver(min_size=1, create_backoff=60.0, create_backoff_max=60.0)
    driver.fail(*driver.opens())
    driver.turn(1.0)
    assert not driver.opens()
    driver.ledger.retry(driver.now)
    assert len(driver.opens()) == 1


def test_a_final_failure_reaches_the_waiter_at_once():
    driver = Driver(max_size=1)
    waiter, error = driver.queue(), TypeError("wrong")
    driver.fail(*driver.opens(), error, final=True)
    assert waiter.verdict is error
    assert driver.woken() == [waiter]
    assert driver.ledger.waiting == 0


def test_a_final_failure_does_not_reach_waiters_that_other_attempts_cover():
    driver = Driver(max_size=2, max_creating=2)
    first, second = driver.queue(), driver.queue()
    failing, other = driver.opens()
    driver.fail(failing, final=True)
    assert first.verdict is not None
    assert second.verdict is None
    driver.open(other)
    assert second.slot is other


def test_a_final_failure_does_not_reach_waiters_that_came_after_its_attempt_began():
    driver = Driver(max_size=1)
    early = driver.queue()
    (slot,) = driver.opens()
    late = driver.queue()
    driver.fail(slot, final=True)
    assert early.verdict is not None
    assert late.verdict is None
    assert len(driver.opens()) == 1  # a separate attempt, without a pause


def test_a_pool_that_cannot_be_filled_pauses_also_after_a_final_failure():
    driver = Driver(min_size=1, create_backoff=0.5)
    driver.fail(*driver.opens(), final=True)
    assert not driver.opens()
    driver.turn(0.5)
    assert len(driver.opens()) == 1


def test_a_resource_that_would_not_start_is_destroyed_and_counts_as_a_failed_create():
    driver = Driver(max_size=1, create_backoff=0.5)
    waiter = driver.queue()
    (slot,) = driver.opens()
    driver.ledger.spoiled(slot, Resource(), None, OSError("would not start"), driver.now, final=False)
    assert slot.state == CLOSING
    assert driver.close_all() == [slot]
    assert not driver.opens()
    assert not waiter.is_settled
    assert driver.ledger.create_failures == 1
    driver.turn(0.5)
    assert len(driver.opens()) == 1


def test_a_resource_that_cannot_start_at_all_reaches_the_waiter_at_once():
    driver = Driver(max_size=1)
    waiter, error = driver.queue(), TypeError("start() takes 2 arguments")
    (slot,) = driver.opens()
    driver.ledger.spoiled(slot, Resource(), None, error, driver.now, final=True)
    assert waiter.verdict is error
    driver.close_all()
    assert not driver.opens()


def test_an_overdue_create_keeps_its_place_and_counts_as_a_failure():
    driver = Driver(max_size=2, create_timeout=3.0, create_backoff=0.5)
    driver.queue()
    (slot,) = driver.opens()
    driver.turn(3.01)
    assert slot.state == LATE
    assert driver.orders(Overdue) == [Overdue(slot, "create")]
    assert len(driver.ledger.slots) == 1
    assert isinstance(driver.ledger.backoff.last_error, TimeoutError)
    driver.turn(0.5)
    assert len(driver.opens()) == 1  # for the waiter, beside the late one


def test_a_resource_that_comes_late_is_used_all_the_same():
    driver = Driver(max_size=1, create_timeout=3.0)
    waiter = driver.queue()
    (slot,) = driver.opens()
    driver.turn(3.0)
    driver.open(slot)
    assert waiter.slot is slot
    assert not driver.ledger.late


def test_a_late_create_that_fails_frees_its_place():
    driver = Driver(max_size=1, create_timeout=3.0)
    driver.queue()
    (slot,) = driver.opens()
    driver.turn(9.0)
    assert not driver.opens()
    driver.fail(slot)
    assert slot.state == GONE
    driver.turn(3.0)
    assert len(driver.opens()) == 1


def test_a_ledger_does_not_watch_hooks_that_its_backend_interrupts():
    driver = Driver(watches=False, create_timeout=3.0)
    waiter = driver.queue()
    (slot,) = driver.opens()
    driver.ledger.withdraw(waiter, driver.now)
    driver.turn(100.0)
    assert slot.state == OPENING


def test_work_on_a_slot_begins_once():
    driver = Driver()
    driver.queue()
    (slot,) = [item.slot for item in driver.orders(Open)]
    begin_work = driver.ledger.begin_work
    assert [begin_work(slot, Work(), OPENING, LATE), begin_work(slot, Work(), OPENING, LATE)] == [True, False]
    driver.open(slot)
    assert not begin_work(slot, Work(), OPENING, LATE)


def test_work_that_was_interrupted_may_begin_again():
    driver = Driver()
    driver.queue()
    (slot,) = [item.slot for item in driver.orders(Open)]
    interrupted = Work()
    assert driver.ledger.begin_work(slot, interrupted, OPENING, LATE)
    interrupted.is_under_way = False
    assert driver.ledger.begin_work(slot, Work(), OPENING, LATE)
