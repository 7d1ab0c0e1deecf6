"""The cost of a keyed pool does not depend on the number of its keys."""

from __future__ import annotations

import gc
import sys

import pytest

from tests.contract.harness import on_both
from tests.keyed.drivers import keyed
from tests.platform.programs import heap_of


class Calls:
    """Counts calls, of Python and of C functions, in a `with` block."""

    def __init__(self):
        self.count = 0

    def _profile(self, frame, event, arg):
        self.count += event in ("call", "c_call")

    def __enter__(self):
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_):
        sys.setprofile(None)


@pytest.mark.parametrize("contended", [False, True], ids=["idle", "evicting"])
@on_both
async def test_the_work_for_one_borrower_is_the_same_for_ten_keys_and_for_a_thousand(side, contended):
    counts = {}
    for keys in (10, 1_000):
        pool = keyed(side, max_total=4, max_key_idle=1e9, max_idle=1e9)
        for key in range(keys):
            pool.pool(key)
        for key in range(4):
            await pool.release(await pool.acquire(key))
        await pool.release(await pool.acquire(9 if contended else 0))
        gc.collect()
        gc.disable()
        try:
            counts[keys] = []
            for turn in range(6):
                key = keys - 1 - turn if contended else 0
                with Calls() as calls:
                    value = await pool.acquire(key)
                    await pool.release(value)
                counts[keys].append(calls.count)
        finally:
            gc.enable()
    # A create in the background may get in between, and the first use of a key costs more than the next.
    few, many = (sorted(counts[keys])[2] for keys in (10, 1_000))
    assert many <= few * 1.25, counts


@pytest.mark.parametrize("kind", ["KeyedPoolingService", "AsyncKeyedPoolingService"])
def test_memory_for_one_key_is_the_same_for_a_hundred_keys_and_for_three_thousand(kind):
    few, many = (
        heap_of(f"""
            from pooling import {kind} as kind

            pool = kind(lambda key: object, max_total=4, max_key_idle=1e9)
            names = [f"user{{number}}" for number in range({keys})]
            for key in range(50):
                pool.pool(key)
            before = traced()
            for name in names:
                pool.pool(name)
            print((traced() - before) / {keys})
        """)
        for keys in (100, 3_000)
    )
    assert many <= few * 1.25, (few, many)
    assert 512 < many <= 3.5 * 1024
