"""The virtual clock."""

from __future__ import annotations

from pooling.simulation._events import TOGETHER, Events


def test_calls_are_made_at_their_instants_and_those_of_one_instant_in_their_order():
    events, made = Events(), []
    for when, name in ((2.0, "late"), (1.0, "first"), (1.0, "second")):
        events.at(when, lambda name: made.append((events.now, name)), name)
    events.run()
    assert made == [(1.0, "first"), (1.0, "second"), (2.0, "late")]


def test_a_call_about_an_instant_is_never_early_and_a_moment_late_at_most():
    events, made = Events(), []
    instants = [number * 0.0037 for number in range(100)]
    for when in instants:
        events.about(when, lambda when: made.append((when, events.now)), when)
    events.run()
    assert [when for when, _ in made] == instants
    assert all(when < now <= when + TOGETHER * 1.001 for when, now in made)


def test_a_stop_ends_the_run_after_the_present_call():
    events, made = Events(), []
    for number in range(3):
        events.at(float(number), made.append, number)
    events.at(1.0, lambda _: events.stop(), None)
    events.run()
    assert (made, events.next_at) == ([0, 1], 2.0)
