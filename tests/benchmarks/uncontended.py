"""One borrower at a time, and always an idle resource: what a pool costs by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from . import peers
from .measure import Figures, Race, Racer, Scale, Target, timed
from .peers import BARE, GENERIC, OURS, OURS_ASYNC, PSYCOPG, PSYCOPG_ASYNC, QUEUE, Peer

SIZE = 8


def uses(peer: Peer) -> Callable[[int], None]:
    """Acquire and release, as a caller of the pool's methods does."""

    def loop(repetitions: int) -> None:
        acquire, release = peer.acquire, peer.release
        assert acquire is not None
        assert release is not None
        for _ in range(repetitions):
            value = acquire()
            release(value)

    return loop


def leases(peer: Peer) -> Callable[[int], None]:
    def loop(repetitions: int) -> None:
        lease: Any = peer.lease
        for _ in range(repetitions):
            with lease():
                pass

    return loop


def inline_uses() -> Callable[[int], None]:
    """Lock and deque without even a method around them."""
    bare = peers.LockAndDeque(SIZE)
    lock, idle = bare._lock, bare._idle

    def loop(repetitions: int) -> None:
        for _ in range(repetitions):
            with lock:
                value = idle.pop()
            with lock:
                idle.append(value)

    return loop


def auses(peer: Peer) -> Callable[[int], Awaitable[None]]:
    async def loop(repetitions: int) -> None:
        acquire, release = peer.acquire, peer.release
        assert acquire is not None
        assert release is not None
        for _ in range(repetitions):
            value = await acquire()
            await release(value)

    async def queue_loop(repetitions: int) -> None:  # `put_nowait` is no coroutine function
        acquire, release = peer.acquire, peer.release
        assert acquire is not None
        assert release is not None
        for _ in range(repetitions):
            value = await acquire()
            release(value)

    return queue_loop if peer.name == QUEUE else loop


def aleases(peer: Peer) -> Callable[[int], Awaitable[None]]:
    async def loop(repetitions: int) -> None:
        lease: Any = peer.lease
        for _ in range(repetitions):
            async with lease():
                pass

    return loop


def in_loop(runner: asyncio.Runner, loop: Callable[[int], Awaitable[None]]) -> Callable[[int], Figures]:
    """A racer's `run`, timed inside the event loop."""

    async def turn(repetitions: int) -> Figures:
        clock = asyncio.get_running_loop().time
        began = clock()
        await loop(repetitions)
        return {"seconds": (clock() - began) / repetitions}

    return lambda repetitions: runner.run(turn(repetitions))


@contextmanager
def opened_async(size: int) -> Iterator[tuple[asyncio.Runner, list[Peer], list[str]]]:
    """All asyncio contenders in one event loop, closed at the end."""
    with asyncio.Runner() as runner:
        contenders = [runner.run(peers.asyncio_queue(size)), runner.run(peers.ours_async(size))]
        others, missing = runner.run(peers.asynchronous(size))
        contenders += others
        try:
            yield runner, contenders, missing
        finally:
            for peer in contenders:
                runner.run(peer.close())


@contextmanager
def opened(size: int, *extra: Peer) -> Iterator[tuple[list[Peer], list[str]]]:
    """All contenders for threads, closed at the end."""
    others, missing = peers.threaded(size)
    contenders = [peers.bare(size), peers.ours(size), *extra, *others]
    try:
        yield contenders, missing
    finally:
        for peer in contenders:
            peer.close()


@contextmanager
def threads(scale: Scale) -> Iterator[Race]:
    """Acquire and release in one thread."""
    with opened(SIZE, peers.lifo_queue(SIZE)) as (contenders, missing):
        racers = [Racer("lock + deque, inline", timed(inline_uses()))]
        racers += [Racer(peer.name, timed(uses(peer)), peer.is_ours) for peer in contenders]
        yield Race(
            "threads",
            "acquire + release in a thread",
            "Eight idle resources, one thread, no hooks.",
            racers,
            reference=BARE,
            targets=[
                Target("seconds", OURS, 1.5, BARE, aim=1.0),
                Target("seconds", OURS, 4.0, PSYCOPG, times_faster=True),
            ],
            missing=missing,
        )


@contextmanager
def asyncio_(scale: Scale) -> Iterator[Race]:
    """Acquire and release in one task."""
    with opened_async(SIZE) as (runner, contenders, missing):
        yield Race(
            "asyncio",
            "acquire + release in a task",
            "Eight idle resources, one task, no hooks; the queue is used by `await get()` and `put_nowait()`.",
            [Racer(peer.name, in_loop(runner, auses(peer)), peer.is_ours) for peer in contenders if peer.acquire],
            reference=QUEUE,
            targets=[
                Target("seconds", OURS_ASYNC, 2.0, QUEUE),
                Target("seconds", OURS_ASYNC, 4.0, PSYCOPG_ASYNC, times_faster=True),
            ],
            missing=missing,
        )


@contextmanager
def lease(scale: Scale) -> Iterator[Race]:
    """A `with` block around one use."""
    with opened(SIZE) as (contenders, missing):
        racers = [Racer(BARE, timed(uses(contenders[0])))]
        for peer in contenders:
            name = f"{BARE}, @contextmanager" if peer.name == BARE else peer.name
            if peer.lease is not None:
                racers.append(Racer(name, timed(leases(peer)), peer.is_ours))
        yield Race(
            "lease",
            "a with block in a thread",
            "`with pool.lease(): pass` and what the peers call it; psycopg_pool's also ends a transaction.",
            racers,
            reference=BARE,
            targets=[Target("seconds", OURS, 2.5, BARE)],
            missing=missing,
        )


@contextmanager
def lease_asyncio(scale: Scale) -> Iterator[Race]:
    """An `async with` block around one use."""
    with opened_async(SIZE) as (runner, contenders, missing):
        racers = [Racer(QUEUE, in_loop(runner, auses(contenders[0])))]
        racers += [Racer(peer.name, in_loop(runner, aleases(peer)), peer.is_ours) for peer in contenders if peer.lease]
        yield Race(
            "lease-asyncio",
            "an async with block in a task",
            "`async with pool.lease(): pass` and what the peers call it.",
            racers,
            reference=QUEUE,
            targets=[Target("seconds", OURS_ASYNC, 4.0, PSYCOPG_ASYNC, times_faster=True)],
            missing=missing,
        )


@contextmanager
def hooks(scale: Scale) -> Iterator[Race]:
    """Hooks that do nothing: what it costs to have them called."""
    hooked = peers.hooked
    ours = [
        peers.ours(SIZE, hooked("release"), f"{OURS}: release"),
        peers.ours(SIZE, hooked("acquire", "release"), f"{OURS}: acquire, release, inline", inline_hooks=True),
        peers.ours(
            SIZE,
            hooked("validate", "acquire", "release"),
            f"{OURS}: validate, acquire, release, inline",
            inline_hooks=True,
            validate_on_acquire=True,
        ),
        peers.ours(
            SIZE,
            hooked("validate", "acquire", "release"),
            f"{OURS}: validate, acquire, release, with a deadline",
            validate_on_acquire=True,
        ),
    ]
    others, missing = [], []
    for name, module, build in (
        (PSYCOPG, "psycopg_pool", lambda: peers.psycopg(SIZE, check=lambda conn: None, reset=lambda conn: None)),
        (peers.CONNPOOL, "connpool", lambda: peers.connpool(SIZE, validate=lambda conn: True, reset=lambda conn: None)),
        (GENERIC, "generic_connection_pool", lambda: peers.generic_connection_pool(SIZE)),
    ):
        if peers.is_installed(module):
            others.append(build())
        else:
            missing.append(f"{name}: not installed")
    bare = peers.LockAndDeque(SIZE)

    def bare_with_hooks(repetitions: int) -> None:
        validate, prepare, reset = lambda value: True, lambda value, ctx: None, lambda value: None
        for _ in range(repetitions):
            value = bare.acquire()
            if validate(value):
                prepare(value, None)
            reset(value)
            bare.release(value)

    racers = [Racer(f"{BARE}: three calls", timed(bare_with_hooks))]
    racers += [Racer(peer.name, timed(uses(peer)), peer.is_ours) for peer in (*ours, *others)]
    try:
        yield Race(
            "hooks",
            "acquire + release with hooks",
            "Hooks that do nothing. Inline ones run in the borrower's thread; with a deadline, validate and the "
            "acquire hook run on a worker, so that one that hangs does not keep its borrower. Of the peers, each with "
            "what it has: check and reset, validate and reset, on_acquire and on_release; theirs run inline.",
            racers,
            reference=f"{BARE}: three calls",
            missing=missing,
        )
    finally:
        for peer in (*ours, *others):
            peer.close()
