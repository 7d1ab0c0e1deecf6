"""Four worker processes with one limit, against four with a quarter of it each."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pooling import KeyedPoolingService, PoolBudget, SharedBudget
from pooling.leases import FileLeases
from tests.leases.servers import RedisServer, find_redis

from .measure import PER_USE, Figures, Metric, Race, Racer, Scale, Target
from .shared_process import BUSY, CREATE, LIMIT, QUIET, TURN, USE, WORKERS

ROOT = Path(__file__).resolve().parents[2]

RATE = Metric("rate", "uses per second", "", more_is_better=True)
LONGEST = Metric("longest", "longest wait", "ms", 1e3)
CLAIMS = Metric("claims", "claims per second and worker", "")

CREATES, PAUSE = 300, 0.002  # seconds: about as fast as logins follow one another
OWN = "PoolBudget"
QUARTER, FILES, REDIS = "a quarter each", "shared, FileLeases", "shared, RedisLeases"


def serve(settings: dict[str, Any], seconds: float) -> Figures:
    """All workers at once."""
    command = [sys.executable, "-m", "tests.benchmarks.shared_process"]
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(WORKERS)
        ]
        for number, worker in enumerate(workers):
            tell(worker, json.dumps({**settings, "number": number, "seconds": seconds}))
        for worker in workers:
            hear(worker)
        began = time.time() + 0.2
        for worker in workers:
            tell(worker, str(began))
        done = [json.loads(hear(worker)) for worker in workers]
    return {
        RATE.key: sum(each["uses"] for each in done) / seconds,
        LONGEST.key: max(each["longest"] for each in done),
        CLAIMS.key: sum(each["claims"] for each in done) / seconds / WORKERS,
    }


def tell(worker: subprocess.Popen[str], line: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(line + "\n")
    worker.stdin.flush()


def hear(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline()


def serving(make_settings: Callable[[], dict[str, Any]]) -> Callable[[int], Figures]:
    """A racer's `run`; its repetitions are tenths of a second."""
    return lambda tenths: serve(make_settings(), tenths / 10)


def creating(make_budget: Callable[[], PoolBudget]) -> Callable[[int], Figures]:
    """A racer's `run`: so many acquisitions, each of which needs a create."""

    def run(creates: int) -> Figures:
        seconds = 0.0
        with KeyedPoolingService(lambda _: object, budget=make_budget(), max_keys=2 * creates) as pool:
            pool.release(pool.acquire(-1))
            for key in range(creates):
                time.sleep(PAUSE)
                asked = time.perf_counter()
                value = pool.acquire(key)
                seconds += time.perf_counter() - asked
                pool.release(value)
        return {PER_USE.key: seconds / creates}

    return run


@contextmanager
def shared_creates(scale: Scale) -> Iterator[Race]:
    """What a limit for many processes costs a create."""
    numbers = itertools.count()
    # A budget gives its last places back in the background: it may still write there when the race is over.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        limit = 2 * CREATES
        yield Race(
            "shared-creates",
            "an acquisition that needs a create",
            f"A KeyedPoolingService, a new key each time, {PAUSE * 1e3:g} ms apart; the create itself takes no time.",
            [
                Racer(OWN, creating(lambda: PoolBudget(limit))),
                Racer(
                    FILES,
                    creating(lambda: SharedBudget(limit, FileLeases(Path(directory) / str(next(numbers))))),
                    is_ours=True,
                ),
            ],
            reference=OWN,
            in_order=True,
            repetitions=scale.pick(CREATES, 100, 5),
            rounds=scale.pick(9, 3, 1),
            targets=[Target(PER_USE.key, FILES, 1.5, OWN)],
        )


@contextmanager
def shared(scale: Scale) -> Iterator[Race]:
    """Load that moves from one worker to the next."""
    numbers = itertools.count()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        racers = [
            Racer(QUARTER, serving(dict)),
            Racer(FILES, serving(lambda: {"files": str(directory / str(next(numbers)))}), is_ours=True),
        ]
        missing = ["RedisLeases: no redis-server on this machine; .ci/get-redis fetches one on Debian"]
        if scale.tiny:
            missing = ["RedisLeases: takes too long for a smoke run"]
        elif find_redis() is not None:
            server = stack.enter_context(RedisServer(directory))
            missing = []

            def redis() -> dict[str, Any]:
                name = f"race-{next(numbers)}"
                server.clear(name)
                return {"redis": server.url, "name": name}

            racers.append(Racer(REDIS, serving(redis), is_ours=True))
        yield Race(
            "shared",
            f"{WORKERS} worker processes, {LIMIT} resources",
            f"Every {TURN:g} s another worker has {BUSY} uses at a time, the others {QUIET} each. A use takes "
            f"{USE * 1e3:g} ms, a create {CREATE * 1e3:g} ms.",
            racers,
            metrics=(RATE, LONGEST, CLAIMS),
            reference=QUARTER,
            in_order=True,
            missing=missing,
            repetitions=scale.pick(60, 60, 5),
            rounds=scale.pick(3, 1, 1),
            targets=[Target(RATE.key, racer.name, 1.5, QUARTER) for racer in racers[1:]],
        )
