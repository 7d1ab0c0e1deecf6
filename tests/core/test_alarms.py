"""The timers' alarms: each rings when it is due, and none rings endlessly."""

from __future__ import annotations

import gc
import logging
import time

import pytest

from pooling._backends.alarms import (
    LONGEST_PAUSE,
    PAUSE,
    REPORTED_AFTER,
    Alarms,
    Ring,
    by_the_machines_clock,
    report,
)


class Timer:
    """A timer with a manual clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.alarms = Alarms()
        self.rung: list[object] = []
        self.reported: list[object] = []

    def at(self, when, callback):
        if self.alarms.add(when, callback, self.now):
            self.reported.append(callback)

    def turn(self, seconds):
        """Let time pass from one alarm to the next."""
        until = self.now + seconds
        while self.alarms.next_at() <= until:
            self.now = max(self.now, self.alarms.next_at())
            while (callback := self.alarms.pop(self.now)) is not None:
                self.rung.append(callback)
                callback()
        self.now = until


class Pool:
    """An owner of alarms. When one rings, it sets the next as the test says."""

    def __init__(self, timer, again_after=None, name="a pool"):
        self.timer = timer
        self.again_after = again_after
        self.name = name
        self.rings = 0

    def ask(self, when):
        self.timer.at(when, Ring(self, when))

    def _ring(self, when):
        self.rings += 1
        self.timer.now += 1e-5  # that takes a moment
        assert self.rings < 1000, "it is spun on"
        if self.again_after is not None:
            self.ask(self.timer.now + self.again_after)

    def __repr__(self):
        return f"<{self.name}>"


def test_alarms_ring_in_the_order_of_their_instants_whatever_the_order_they_came_in():
    timer, rung = Timer(), []
    for when in (103.0, 101.0, 102.0, 99.0):
        timer.at(when, lambda when=when: rung.append(when))
    timer.turn(2.5)
    assert rung == [99.0, 101.0, 102.0]
    assert timer.alarms.next_at() == 103.0


def test_an_alarm_that_comes_back_later_rings_as_often_as_it_asks_and_is_not_reported():
    timer = Timer()
    pool = Pool(timer, again_after=0.01)
    pool.ask(timer.now)
    timer.turn(1.0)
    assert 99 <= pool.rings <= 101
    assert not timer.reported


def test_an_alarm_a_moment_later_is_not_at_once():
    timer = Timer()
    pools = [Pool(timer) for _ in range(50)]
    for number, pool in enumerate(pools):
        pool.ask(timer.now + number * 1e-6)
    timer.turn(0.001)
    assert [pool.rings for pool in pools] == [1] * 50
    assert not timer.reported


@pytest.mark.parametrize("again_after", [1e-9, 0.0, -1e-9, -5.0])
def test_an_alarm_that_rings_again_at_once_is_slowed_down_and_reported_once(again_after):
    timer = Timer()
    pool = Pool(timer, again_after)
    pool.ask(timer.now)
    timer.turn(1.5 * PAUSE)
    assert pool.rings == 2
    timer.turn(10 * LONGEST_PAUSE)
    assert pool.rings <= 20
    assert timer.reported == [Ring(pool, 0.0)]


def test_others_ring_as_they_are_due_beside_an_alarm_that_rings_again_at_once():
    timer, rung = Timer(), []
    restless = Pool(timer, again_after=-5.0)
    restless.ask(timer.now)
    for when in (100.0, 100.001, 100.5):
        timer.at(when, lambda when=when: rung.append((when, timer.now)))
    timer.turn(1.0)
    assert rung == [(when, pytest.approx(when, abs=1e-4)) for when in (100.0, 100.001, 100.5)]


def test_an_alarm_that_has_come_to_its_senses_starts_with_a_short_pause_again():
    timer = Timer()
    pool = Pool(timer, again_after=-1.0)
    pool.ask(timer.now)
    timer.turn(5.0)
    assert len(timer.reported) == 1
    pool.again_after = 2.0
    timer.turn(LONGEST_PAUSE)
    pool.again_after, rings = -1.0, pool.rings
    timer.turn(2.0 + PAUSE)
    assert pool.rings >= rings + 2
    timer.turn(10.0)
    assert len(timer.reported) == 2, "once a series"


def test_a_single_alarm_that_comes_late_from_elsewhere_is_no_repetition():
    timer = Timer()
    pool = Pool(timer)
    for _ in range(2 * REPORTED_AFTER):
        pool.ask(timer.now)
        timer.turn(0.5)
        other = Pool(timer)
        late = timer.now - 0.75  # its own thread was slow to say so, and a round has come since
        other.ask(late)
        assert timer.alarms.next_at() == late
        timer.turn(0.5)
        assert other.rings == 1
    assert pool.rings == 2 * REPORTED_AFTER
    assert not timer.reported


def test_an_alarm_does_not_keep_its_owner_alive():
    timer = Timer()
    pool = Pool(timer)
    pool.ask(timer.now)
    pool.ask(timer.now + 1.0)
    del pool
    gc.collect()
    timer.turn(2.0)
    assert len(timer.rung) == 2


def test_alarms_of_one_owner_are_the_same_and_those_of_two_are_not():
    timer = Timer()
    one, other = Pool(timer), Pool(timer)
    assert Ring(one, 1.0) == Ring(one, 2.0)
    assert hash(Ring(one, 1.0)) == hash(Ring(one, 1.0))
    assert Ring(one, 1.0) != Ring(other, 1.0)
    assert Ring(one, 1.0) != one


def test_an_instant_of_another_clock_is_as_far_off_by_the_machines_clock():
    assert by_the_machines_clock(1000.0, time.monotonic) == 1000.0
    assert by_the_machines_clock(1000.0, lambda: 990.0) == pytest.approx(time.monotonic() + 10.0, abs=5.0)


def test_the_report_names_the_pool(caplog):
    pool = Pool(Timer(), name="pool 'orders' key 'ann@corp'")
    with caplog.at_level(logging.WARNING, logger="pooling"):
        report(Ring(pool, 1.0))
    (message,) = caplog.messages
    assert message.startswith("<pool 'orders' key 'ann@corp'>: its alarm was due again at once")
