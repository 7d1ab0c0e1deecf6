"""The scripted environment catches what it is there for: bugs planted by hand in the flows."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from pooling._engine.operations import Operations

from .script import AFTER, BEFORE, Script
from .test_every_await import giving_back, play, steps_of, taking_idle, taking_what_comes_back


class SwallowsCancellation(Operations):
    """Takes an interrupt for a spurious wakeup, and goes on."""

    async def take(self, *args, **options):
        try:
            return await super().take(*args, **options)
        except asyncio.CancelledError:
            return await super().take(*args, **options)


class LosesWakeups(Operations):
    """Puts a resource back without looking whether somebody waits, and wakes nobody."""

    async def give_back(self, value, exc):
        slot = self.ledger.reclaim(value)
        self.ledger.put(slot)
        return True


class HandsOutTwice(Operations):
    """Gives back what an interrupted release was about to reset, although it is being destroyed."""

    async def give_back(self, value, exc):
        slot = self.ledger.out[id(value)]
        try:
            return await super().give_back(value, exc)
        except asyncio.CancelledError:
            self.ledger.put(slot)
            raise


@pytest.mark.parametrize(
    ("planted", "operation"),
    [(SwallowsCancellation, taking_idle), (LosesWakeups, taking_what_comes_back), (HandsOutTwice, giving_back)],
)
def test_the_scripted_environment_catches_a_planted_bug(planted, operation):
    """A swallowed cancel, a lost wakeup and a double hand-over: each fails at one of the awaits at least."""
    play(operation, {}, Script())
    with pytest.raises(AssertionError):
        play(operation, {}, Script(), planted)
        for number, place in itertools.product(range(1, steps_of(operation, {}) + 1), (BEFORE, AFTER)):
            play(operation, {}, Script({number: (place, asyncio.CancelledError)}), planted)
