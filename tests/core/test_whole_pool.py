"""Start, stop, suspend, retire, resize, expire; and those who watch for a state."""

from __future__ import annotations

from pooling._engine.ledger import NEW, RETIRING, RUNNING, STOPPED, SUSPENDED, Wake, Watcher

from .books import Books, filled


def test_a_pool_that_was_not_started_opens_nothing():
    books = Books(start=False, min_size=2)
    books.ledger.settle(books.now)
    assert not books.opens()
    assert books.ledger.state == NEW
    assert not books.ledger.fast


def test_stop_sends_all_who_wait_away_and_destroys_what_is_idle():
    books, (_out,) = filled(1, idle=1, max_size=2)
    (idle,) = books.ledger.idle
    books.borrow()
    waiters = [books.queue(), books.queue()]
    books.give_back(idle)
    assert books.woken() == waiters[:1]
    books.ledger.stop(books.now)
    assert waiters[1].verdict == "closed"
    assert books.woken() == waiters[1:]


def test_what_is_out_at_stop_is_destroyed_as_it_comes_back():
    books, (slot,) = filled(1)
    books.ledger.stop(books.now)
    assert not books.closes()
    books.give_back(slot)
    assert books.close_all() == [slot]
    assert slot.reason == "stopped"
    assert not books.ledger.slots


def test_what_was_being_opened_at_stop_is_destroyed_and_nothing_is_opened_after_it():
    books = Books(min_size=1)
    (slot,) = books.opens()
    books.ledger.stop(books.now)
    books.open(slot)
    assert books.close_all() == [slot]
    books.turn(100.0)
    assert not books.opens()


def test_what_a_waiter_was_assigned_at_stop_is_still_its_own_and_destroyed_afterwards():
    books, (slot,) = filled(1, max_size=1)
    waiter = books.queue()
    books.give_back(slot)
    books.ledger.stop(books.now)
    assert books.borrow(waiter) is slot
    books.give_back(slot)
    assert books.closes() == [slot]


def test_after_a_restart_leftovers_of_the_time_before_do_not_come_back_in():
    books, (slot,) = filled(1, max_size=1)
    books.ledger.stop(books.now)
    books.ledger.start(books.now)
    waiter = books.queue()
    assert not books.opens()  # its place is still taken
    books.give_back(slot)
    assert waiter.slot is None
    assert books.close_all() == [slot]
    (fresh,) = books.opens()
    books.open(fresh)
    assert waiter.slot is fresh
    books.borrow(waiter)
    books.give_back(fresh)
    assert books.ledger.fast


def test_a_suspended_pool_hands_out_nothing_and_a_resumed_one_serves_in_order():
    books, (slot,) = filled(1)
    books.ledger.suspend(books.now)
    books.give_back(slot)
    assert books.ledger.state == SUSPENDED
    assert books.ledger.take(books.now) is None
    first, _second = books.queue(), books.queue()
    assert not books.woken()
    assert not books.opens()
    books.ledger.resume(books.now)
    assert first.slot is slot
    assert len(books.opens()) == 1


def test_starting_a_running_pool_changes_nothing():
    books, _ = filled(1)
    books.ledger.start(books.now)
    assert not books.ledger.outbox
    assert books.ledger.state == RUNNING


def test_a_suspended_pool_is_not_started_by_accident():
    books, _ = filled(1)
    books.ledger.suspend(books.now)
    books.ledger.start(books.now)
    assert books.ledger.state == SUSPENDED


def test_a_retiring_pool_serves_those_who_wait_and_then_stops():
    books, (slot,) = filled(1, max_size=1)
    waiter = books.queue()
    books.ledger.retire(books.now)
    assert books.ledger.state == RETIRING
    assert books.ledger.take(books.now) is None
    books.give_back(slot)
    assert waiter.slot is slot
    assert books.ledger.state == STOPPED
    books.borrow(waiter)
    books.give_back(slot)
    assert books.close_all() == [slot]


def test_expire_destroys_what_is_idle_now_and_what_is_out_as_it_comes_back():
    books, (out,) = filled(1, idle=1)
    (idle,) = books.ledger.idle
    books.ledger.expire(books.now)
    assert books.close_all() == [idle]
    assert idle.reason == "expired"
    books.give_back(out)
    assert books.close_all() == [out]
    books.queue()
    (fresh,) = books.opens()
    books.open(fresh)
    assert not books.closes()
    assert books.ledger.fast


def test_what_was_being_opened_when_all_were_expired_is_replaced():
    books = Books(max_size=1)
    waiter = books.queue()
    (old,) = books.opens()
    books.ledger.expire(books.now)
    books.open(old)
    assert waiter.slot is None
    assert books.close_all() == [old]
    (fresh,) = books.opens()
    books.open(fresh)
    assert waiter.slot is fresh


def test_a_higher_maximum_profits_the_waiting_at_once():
    books, _ = filled(2, max_size=2)
    books.queue()
    assert not books.opens()
    books.ledger.resize(0, 3, books.now)
    assert len(books.opens()) == 1


def test_a_lower_maximum_destroys_the_coldest_idle_ones_now():
    books, slots = filled(3, max_size=3)
    for slot in slots:
        books.give_back(slot)
    books.ledger.resize(0, 1, books.now)
    assert books.close_all() == slots[:2]
    assert slots[0].reason == "resized"
    assert list(books.ledger.idle) == [slots[2]]


def test_a_lower_maximum_while_all_are_out_takes_effect_as_they_come_back():
    books, slots = filled(3, max_size=3)
    books.ledger.resize(0, 1, books.now)
    assert not books.closes()
    assert not books.ledger.fast
    waiter = books.queue()
    books.give_back(slots[0])
    books.give_back(slots[1])
    assert books.close_all() == slots[:2]
    assert waiter.slot is None
    books.give_back(slots[2])
    assert waiter.slot is slots[2]
    assert books.ledger.fast


def test_a_higher_minimum_is_filled_up_at_once():
    books = Books()
    books.ledger.resize(2, 8, books.now)
    assert len(books.opens()) == 2


def test_a_watcher_is_woken_once_when_its_state_is_reached():
    books = Books(min_size=1)
    watcher = Watcher(object(), lambda ledger: ledger.live >= 1)
    books.ledger.watchers.append(watcher)
    books.ledger.settle(books.now)
    assert not books.woken()
    books.open(*books.opens())
    assert books.woken() == [watcher]
    books.ledger.settle(books.now)
    assert not books.orders(Wake)
    assert not books.ledger.watchers
