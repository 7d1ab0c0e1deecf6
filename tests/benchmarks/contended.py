"""More borrowers than resources: throughput, and who waits how long."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from . import peers
from .measure import Figures, Metric, Race, Racer, Scale, Target
from .peers import OURS, OURS_ASYNC, QUEUE, Peer
from .uncontended import opened, opened_async

THREADS, RESOURCES = 32, 8
TASKS, TASK_RESOURCES = 1000, 10

PER_USE = Metric("seconds", "per use", "µs", 1e6)
LONGEST = Metric("longest", "longest wait ÷ ideal", "×")


def crowd(peer: Peer, hold: float, threads: int, resources: int) -> Callable[[int], Figures]:
    """
    A racer's `run`: that many threads, each borrowing `repetitions` times for `hold` seconds.

    `longest` is the longest wait divided by what it is in a perfect queue: the uses of all who are ahead of a
    newcomer, as long as uses really lasted on average, spread over the resources.
    """

    def run(repetitions: int) -> Figures:
        acquire, release, now, rest = peer.acquire, peer.release, time.perf_counter, time.sleep
        assert acquire is not None
        assert release is not None
        gate = threading.Barrier(threads + 1)
        longest = [0.0] * threads
        held = [0.0] * threads

        def borrow(number: int) -> None:
            gate.wait()
            worst = total = 0.0
            for _ in range(repetitions):
                asked = now()
                value = acquire()
                taken = now()
                rest(hold)
                total += now() - taken
                release(value)
                worst = max(worst, taken - asked)
            longest[number], held[number] = worst, total

        workers = [threading.Thread(target=borrow, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        gate.wait()
        began = now()
        for worker in workers:
            worker.join()
        uses = threads * repetitions
        ideal = (threads / resources - 1) * sum(held) / uses
        return {"seconds": (now() - began) / uses, "longest": max(longest) / ideal}

    return run


def acrowd(runner: asyncio.Runner, peer: Peer, hold: float, tasks: int, resources: int) -> Callable[[int], Figures]:
    """As `crowd`, with tasks; a hold of 0 is one turn of the loop."""
    is_queue = peer.name == QUEUE

    async def turn(repetitions: int) -> Figures:
        acquire, release, now = peer.acquire, peer.release, time.perf_counter
        assert acquire is not None
        assert release is not None
        longest = held = 0.0

        async def borrow() -> None:
            nonlocal longest, held
            for _ in range(repetitions):
                asked = now()
                value = await acquire()
                taken = now()
                await asyncio.sleep(hold)
                held += now() - taken
                if is_queue:
                    release(value)
                else:
                    await release(value)
                longest = max(longest, taken - asked)

        began = now()
        async with asyncio.TaskGroup() as group:
            for _ in range(tasks):
                group.create_task(borrow())
        uses = tasks * repetitions
        ideal = (tasks / resources - 1) * held / uses
        return {"seconds": (now() - began) / uses, "longest": longest / ideal}

    return lambda repetitions: runner.run(turn(repetitions))


@contextmanager
def contention(scale: Scale) -> Iterator[Race]:
    """Threads that do nothing but borrow."""
    threads = scale.pick(THREADS, THREADS, 2 * RESOURCES)
    with opened(RESOURCES, peers.simple_queue(RESOURCES)) as (contenders, missing):
        yield Race(
            "contention",
            f"{threads} threads on {RESOURCES} resources, no hold",
            "Each thread lets go of the interpreter once while it holds a resource, and comes back at once.",
            [
                Racer(peer.name, crowd(peer, 0.0, threads, RESOURCES), peer.is_ours)
                for peer in contenders
                if peer.name != peers.BARE  # it cannot wait
            ],
            metrics=(PER_USE,),
            reference="queue.SimpleQueue",
            repetitions=scale.pick(60, 20, 2),
            rounds=scale.pick(15, 3, 1),
            missing=missing,
        )


@contextmanager
def waits(scale: Scale) -> Iterator[Race]:
    """Threads that hold what they borrow."""
    threads = scale.pick(THREADS, THREADS, 2 * RESOURCES)
    hold = 0.005
    with opened(RESOURCES, peers.simple_queue(RESOURCES)) as (contenders, missing):
        yield Race(
            "waits",
            f"{threads} threads on {RESOURCES} resources, {hold * 1e3:g} ms hold",
            f"A perfect pool needs {hold * 1e6 / RESOURCES:,.0f} µs per use; no waiter in its queue waits longer than "
            "the uses ahead of it last.",
            [
                Racer(peer.name, crowd(peer, hold, threads, RESOURCES), peer.is_ours)
                for peer in contenders
                if peer.name != peers.BARE
            ],
            metrics=(PER_USE, LONGEST),
            drawn=LONGEST.key,
            reference="queue.SimpleQueue",
            repetitions=scale.pick(15, 8, 1),
            rounds=scale.pick(15, 2, 1),
            targets=[Target("longest", OURS, 1.5, unit="×")],
            missing=missing,
        )


@contextmanager
def tasks(scale: Scale) -> Iterator[Race]:
    """Tasks that hold what they borrow for one turn of the loop."""
    count = scale.pick(TASKS, TASKS, 30)
    with opened_async(TASK_RESOURCES) as (runner, contenders, missing):
        yield Race(
            "tasks",
            f"{count:,} tasks on {TASK_RESOURCES} resources, no hold",
            "Each holds its resource for one turn of the event loop, and comes back at once.",
            [
                Racer(peer.name, acrowd(runner, peer, 0.0, count, TASK_RESOURCES), peer.is_ours)
                for peer in contenders
                if peer.acquire
            ],
            metrics=(PER_USE,),
            reference=QUEUE,
            repetitions=scale.pick(5, 2, 1),
            rounds=scale.pick(15, 3, 1),
            missing=missing,
        )


@contextmanager
def task_waits(scale: Scale) -> Iterator[Race]:
    """Tasks that hold what they borrow."""
    count = scale.pick(TASKS, TASKS, 30)
    hold = 0.005
    with opened_async(TASK_RESOURCES) as (runner, contenders, missing):
        yield Race(
            "task-waits",
            f"{count:,} tasks on {TASK_RESOURCES} resources, {hold * 1e3:g} ms hold",
            f"A perfect pool needs {hold * 1e6 / TASK_RESOURCES:,.0f} µs per use; no waiter in its queue waits longer "
            "than the uses ahead of it last.",
            [
                Racer(peer.name, acrowd(runner, peer, hold, count, TASK_RESOURCES), peer.is_ours)
                for peer in contenders
                if peer.acquire
            ],
            metrics=(PER_USE, LONGEST),
            drawn=LONGEST.key,
            reference=QUEUE,
            repetitions=scale.pick(2, 1, 1),
            rounds=scale.pick(5, 1, 1),
            targets=[Target("longest", OURS_ASYNC, 1.5, unit="×")],
            missing=missing,
        )
