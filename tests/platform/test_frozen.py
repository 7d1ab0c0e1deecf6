"""A process or a loop that stood still: what came due meanwhile happens once it goes on, and nothing spins."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from tests.platform.programs import ROOT, run

# A loop that hangs ends the program with the stack that it hangs in.
WATCHED = """
    import asyncio, faulthandler, random, sys, threading, time
    from pooling import AsyncPoolingService, PoolFactory, PoolingService

    faulthandler.dump_traceback_later(60, exit=True)
"""


def ran(source: str) -> str:
    """What a program prints that is to end well."""
    outcome = run(textwrap.dedent(WATCHED) + textwrap.dedent(source), dev=False)
    assert (outcome.status, outcome.err) == (0, ""), outcome
    return outcome.out


def test_a_loop_that_was_held_up_while_idle_time_and_lifetime_ended_goes_on():
    out = ran("""
        async def main():
            async with AsyncPoolingService(object, max_idle=0.2, max_lifetime=0.4) as pool:
                async with pool.lease():
                    pass
                await asyncio.sleep(0.15)
                time.sleep(0.6)
                while pool.size:
                    await asyncio.sleep(0.01)
                print("gone")

        asyncio.run(main())
    """)
    assert out == "gone\n"


def test_a_loop_goes_on_while_a_resource_is_destroyed_for_longer_than_it_was_to_live():
    out = ran("""
        class Slow(PoolFactory):
            async def create(self):
                return object()

            async def destroy(self, value):
                await ends.wait()

        async def main():
            global ends
            ends = asyncio.Event()
            async with AsyncPoolingService(Slow(), max_lifetime=0.2) as pool:
                destroying = asyncio.create_task(pool.destroy(await pool.acquire()))
                await asyncio.sleep(0.25)
                print(pool.size)
                ends.set()
                await destroying
                print(pool.size)

        asyncio.run(main())
    """)
    assert out == "1\n0\n"


def test_clients_that_stop_at_random_leave_a_loop_that_goes_on():
    """Sixty pools, lifetime and idle time in the ratio that connections have by default, for more than one lifetime."""
    out = ran("""
        LIFETIME = 0.9
        at_random = random.Random(1)

        async def client(pool):
            stops_at = time.monotonic() + at_random.uniform(0.0, LIFETIME)
            while time.monotonic() < stops_at:
                async with pool.lease():
                    await asyncio.sleep(at_random.uniform(0.0, 0.1))

        async def main():
            pools = [
                AsyncPoolingService(object, max_size=10, max_creating=10, max_lifetime=LIFETIME, max_idle=LIFETIME / 6)
                for _ in range(60)
            ]
            await asyncio.gather(*(client(pool) for pool in pools for _ in range(10)))
            while any(pool.size for pool in pools):
                await asyncio.sleep(0.01)
            print("all idle ones are gone")

        asyncio.run(main())
    """)
    assert out == "all idle ones are gone\n"


def test_in_threads_a_destroy_that_takes_long_uses_no_processor_time_and_delays_no_other_pools_limits():
    out = ran("""
        ends = threading.Event()
        slow = PoolingService(PoolFactory.of(object, destroy=lambda value: ends.wait()), max_lifetime=0.05)
        other = PoolingService(object, max_idle=0.05)
        value = slow.acquire()
        destroying = threading.Thread(target=slow.destroy, args=(value,))
        destroying.start()
        time.sleep(0.1)
        used = time.process_time()
        for _ in range(5):
            with other.lease():
                pass
            while other.size:
                time.sleep(0.01)
        used = time.process_time() - used
        print(other.stats().destroyed_by, slow.size, used < 0.2 or used)
        ends.set()
        destroying.join()
        slow.stop()
        other.stop()
    """)
    assert out == "{'max_idle': 5} 1 True\n"


FROZEN = {
    "asyncio": """
        async def main():
            async with AsyncPoolingService(object, max_idle=0.2, max_lifetime=0.4) as pool:
                async with pool.lease():
                    pass
                await asyncio.sleep(0.12)  # until the pool has seen it idle
                print("ready", flush=True)
                while pool.size:
                    await asyncio.sleep(0.01)
                async with pool.lease():
                    print("well", flush=True)

        asyncio.run(main())
    """,
    "threads": """
        with PoolingService(object, max_idle=0.2, max_lifetime=0.4) as pool:
            with pool.lease():
                pass
            time.sleep(0.12)
            print("ready", flush=True)
            while pool.size:
                time.sleep(0.01)
            with pool.lease():
                print("well", flush=True)
    """,
}


@pytest.mark.parametrize("kind", FROZEN)
def test_a_process_that_was_frozen_for_longer_than_its_resources_were_to_live_goes_on(kind):
    program = textwrap.dedent(WATCHED) + textwrap.dedent(FROZEN[kind])
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(0.6)  # sleeps: it is frozen for longer than both limits
            os.kill(process.pid, signal.SIGCONT)
            out, err = process.communicate(timeout=90)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    assert (process.returncode, out, err) == (0, "well\n", "")
