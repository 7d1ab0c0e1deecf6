"""The fake backend catches bugs that were planted in the operations."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from pooling._engine.engine import Engine

from .fake_backend import AFTER, BEFORE, InterruptPlan
from .test_every_await import play, steps_of, taking_idle, taking_what_comes_back


class SwallowsCancellation(Engine):
    """Takes an interrupt for a spurious wakeup, and goes on."""

    async def take(self, *args, **options):
        try:
            return await super().take(*args, **options)
        except asyncio.CancelledError:
            return await super().take(*args, **options)


class LosesWakeups(Engine):
    """Puts a resource back without looking for waiters, and wakes none."""

    async def give_back(self, value, exc):
        slot = self.ledger.reclaim(value)
        self.ledger.put(slot)
        return True


class HandsOutTwice(Engine):
    """Puts a resource back a second time."""

    async def give_back(self, value, exc):
        slot = self.ledger.out[id(value)]
        is_back = await super().give_back(value, exc)
        self.ledger.put(slot)
        return is_back


@pytest.mark.parametrize(
    ("planted", "operation"),
    [(SwallowsCancellation, taking_idle), (LosesWakeups, taking_what_comes_back), (HandsOutTwice, taking_idle)],
)
def test_the_fake_backend_catches_a_planted_bug(planted, operation):
    """A swallowed cancel, a lost wakeup and a double hand-over: each fails at one of the awaits at least."""
    play(operation, {}, InterruptPlan())
    with pytest.raises(AssertionError):
        play(operation, {}, InterruptPlan(), planted)
        for number, place in itertools.product(range(1, steps_of(operation, {}) + 1), (BEFORE, AFTER)):
            play(operation, {}, InterruptPlan({number: (place, asyncio.CancelledError)}), planted)
