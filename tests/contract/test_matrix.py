"""
Every combination of hooks that work, fail, are slow or never return, with borrowers that give up at random.

A sample by default; all 1,024 with `CI=true`. Hooks that never return wait for an event that the case opens at its end.
"""

from __future__ import annotations

import itertools
import os
import random
import time
import traceback

import pytest

from pooling import PoolingError
from tests.contract.harness import LIMIT, InterruptedBySignal, on_both, whole
from tests.contract.workshop import STEPS, Workshop

BEHAVIOURS = ("works", "fails", "slow", "never returns")
COMBINATIONS = list(itertools.product(BEHAVIOURS, repeat=5))
CHUNK = 64
CHUNKS = range(len(COMBINATIONS) // CHUNK) if os.environ.get("CI") == "true" else range(1)
AT_ONCE = 16  # cases; nearly all of their time is waiting


class HookError(Exception):
    """Raised by a hook that fails."""


class Case:
    """One combination: a pool, a few borrowers, and what must hold in the end in every case."""

    def __init__(self, side, behaviours, seed):
        self.side = side
        self.rng = random.Random(seed)
        self.never = side.gate()
        self.is_healed = False
        self.behaviours = dict(zip(("create", *STEPS), behaviours, strict=True))
        hangs = "never returns" in (self.behaviours["destroy"], self.behaviours["release"])
        self.workshop = Workshop(side, **{step: self.hook(how) for step, how in self.behaviours.items()})
        self.pool = side.pool(
            self.workshop,
            name=" ".join(f"{step}:{how}" for step, how in self.behaviours.items()),
            max_size=2,
            timeout=0.03,
            validate_on_acquire=True,
            create_timeout=0.02,
            destroy_timeout=0.02 if hangs else LIMIT,
            create_backoff=0.002,
            create_backoff_max=0.01,
            on_error="destroy",
        )

    def hook(self, how):
        async def hook(*_):
            if self.is_healed or how == "works":
                return True
            if how == "fails":
                if self.rng.random() < 0.5:
                    raise HookError
                return False  # for validate; the others do not look at it
            if how == "slow":
                for _ in range(3):
                    await self.side.breathe()
            else:
                await self.never()
            return True

        return hook

    async def borrows(self, way):
        for _ in range(2):
            try:
                if way == "lease":
                    async with self.pool.lease() as thing:
                        await self.uses(thing)
                else:
                    thing = await self.pool.acquire()
                    try:
                        await self.uses(thing)
                    finally:
                        await (self.pool.release(thing) if way == "release" else self.pool.destroy(thing))
            except (PoolingError, HookError):
                pass

    async def uses(self, thing):
        me = object()
        thing.take(me)
        try:
            await self.side.turn()
        finally:
            thing.leave(me)

    def is_in_release_hook(self):
        """A thread whose release hook never returns stays in it: a thread cannot be interrupted."""
        return self.side.name == "threads" and self.behaviours["release"] == "never returns"

    async def plays(self):
        side, pool, rng = self.side, self.pool, self.rng
        ways = ["lease", "release", "destroy", rng.choice(["lease", "release"])]
        # Only a lease is told of an interrupt that comes just before or after it has the resource.
        borrowers = [(way, side.go(self.borrows, way)) for way in ways]
        for way, borrower in borrowers:
            if rng.random() < 0.4 and (side.name == "asyncio" or way == "lease"):
                for _ in range(rng.randrange(4)):
                    await side.breathe()
                borrower.cancel()
        stops_early = rng.random() < 0.5
        if self.is_in_release_hook():
            await side.until(lambda: all(b.is_done or self.never.arrived for _, b in borrowers))
            self.never.open()
        for _, borrower in borrowers:
            await borrower.ended()
            try:
                await borrower.result()
            except BaseException as error:
                traceback.clear_frames(error.__traceback__)  # a lease is given up when nothing refers to it any more
                if not isinstance(error, InterruptedBySignal) and type(error).__name__ != "CancelledError":
                    raise
        if stops_early:
            began = time.monotonic()
            await pool.stop(0.02)
            assert time.monotonic() - began < LIMIT / 2
            assert pool.pending == 0
            self.never.open()
        else:
            self.is_healed = True
            self.never.open()
            await side.until(lambda: pool.pending == 0)
            await whole(pool)
            stats = pool.stats()
            assert stats.size == stats.available + stats.borrowed + stats.creating + stats.closing
            await pool.stop(LIMIT)
        await side.until(lambda: pool.size == 0)
        await side.until(self.workshop.is_even, self.workshop.uneven())
        if side.name == "asyncio" or pool.options.destroy_timeout == LIMIT:
            # A thread inside a hook cannot be stopped: after `destroy_timeout` its place is another's.
            assert self.workshop.most <= 2


@pytest.mark.parametrize("chunk", CHUNKS)
@on_both
async def test_no_behaviour_of_hooks_hangs_a_borrower_or_loses_a_resource(side, chunk, caplog):
    caplog.set_level("CRITICAL")
    shuffled = random.Random(20).sample(COMBINATIONS, len(COMBINATIONS))
    mine = list(enumerate(shuffled))[chunk * CHUNK : (chunk + 1) * CHUNK]
    queue = iter(mine)

    async def works():
        for seed, behaviours in queue:
            case = Case(side, behaviours, seed)
            try:
                await case.plays()
            except BaseException as error:
                error.add_note(f"with seed {seed}: {case.pool.name}")
                raise

    workers = [side.go(works) for _ in range(AT_ONCE)]
    for worker in workers:
        await worker.result()
