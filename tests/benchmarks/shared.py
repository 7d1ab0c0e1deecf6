"""Four worker processes with one limit, against four with a quarter of it each."""

from __future__ import annotations

import itertools
import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pooling import KeyedPoolingService, PoolBudget, SharedBudget
from pooling._engine.lease_book import Claim
from pooling.leases import FileLeases, LeaseStore, PostgresLeases, RayLeases, RedisLeases
from tests.leases.servers import RedisServer, find_redis

from .measure import PER_USE, Figures, Metric, Race, Racer, Scale, Target
from .postgres import lake
from .shared_process import BUSY, CREATE, LIMIT, QUIET, TURN, USE, WORKERS, Done

ROOT = Path(__file__).resolve().parents[2]

RATE = Metric("rate", "uses per second", "", more_is_better=True)
LONGEST = Metric("longest", "longest wait", "ms", 1e3)
CLAIMS = Metric("claims", "claims per second and worker", "")

MEDIAN = Metric("median", "median", "ms", 1e3)
SLOW = Metric("slow", "p99", "ms", 1e3)

CREATES, PAUSE = 300, 0.002  # seconds: about as fast as logins follow one another
OWN = "PoolBudget"
QUARTER, FILES, REDIS = "a quarter each", "shared, FileLeases", "shared, RedisLeases"
NO_REDIS = "no redis-server on this machine; .ci/get-redis fetches one on Debian"
TOO_LONG = "takes too long for a smoke run"


def serve(settings: dict[str, Any], seconds: float) -> list[Done]:
    """All workers at once; what each did."""
    command = [sys.executable, "-c", "from tests.benchmarks.shared_process import main; main()"]
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
        return [pickle.loads(bytes.fromhex(hear(worker))) for worker in workers]


def figures_of(done: list[Done], seconds: float) -> Figures:
    return {
        RATE.key: sum(each.uses for each in done) / seconds,
        LONGEST.key: max(each.longest for each in done),
        CLAIMS.key: sum(each.claims for each in done) / seconds / WORKERS,
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
    return lambda tenths: figures_of(serve(make_settings(), tenths / 10), tenths / 10)


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
def ways(*, with_redis: bool) -> Iterator[dict[str, Callable[[], dict[str, Any]]]]:
    """For each way to divide the limit, what makes the settings of a run; Redis only where there is a server."""
    numbers = itertools.count()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        found: dict[str, Callable[[], dict[str, Any]]] = {
            QUARTER: dict,
            FILES: lambda: {"files": str(directory / str(next(numbers)))},
        }
        if with_redis and find_redis() is not None:
            server = stack.enter_context(RedisServer(directory))

            def redis() -> dict[str, Any]:
                name = f"race-{next(numbers)}"
                server.clear(name)
                return {"redis": server.url, "name": name}

            found[REDIS] = redis
        yield found


@contextmanager
def shared(scale: Scale) -> Iterator[Race]:
    """Load that moves from one worker to the next."""
    with ways(with_redis=not scale.tiny) as found:
        racers = [Racer(name, serving(make), is_ours=name != QUARTER) for name, make in found.items()]
        yield Race(
            "shared",
            f"{WORKERS} worker processes, {LIMIT} resources",
            f"Every {TURN:g} s another worker has {BUSY} uses at a time, the others {QUIET} each. A use takes "
            f"{USE * 1e3:g} ms, a create {CREATE * 1e3:g} ms.",
            racers,
            metrics=(RATE, LONGEST, CLAIMS),
            reference=QUARTER,
            in_order=True,
            missing=[] if REDIS in found else [f"RedisLeases: {TOO_LONG if scale.tiny else NO_REDIS}"],
            repetitions=scale.pick(60, 60, 5),
            rounds=scale.pick(3, 1, 1),
            targets=[Target(RATE.key, racer.name, 1.5, QUARTER) for racer in racers[1:]],
        )


def claiming(store: LeaseStore) -> Callable[[int], Figures]:
    """A racer's `run`: so many claims of as many processes as there are workers, one after the other."""
    sessions = [store.open(f"worker-{number}", "race") for number in range(WORKERS)]
    turns = itertools.count(1)

    def run(claims: int) -> Figures:
        took = []
        for _ in range(claims):
            turn = next(turns)
            has_more = turn // WORKERS % 2  # each process takes a place and gives it back in turn
            claim = Claim(f"worker-{turn % WORKERS}", turn, LIMIT, 30.0, 2 + has_more, 2, 2, 1 - has_more)
            asked = time.perf_counter()
            sessions[turn % WORKERS].exchange(claim)
            took.append(time.perf_counter() - asked)
        took.sort()
        return {MEDIAN.key: took[claims // 2], SLOW.key: took[claims * 99 // 100]}

    return run


@contextmanager
def claims(scale: Scale) -> Iterator[Race]:
    """How long each store takes to answer a claim, with nothing between that is slow."""
    racers, missing = [], []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        racers.append(Racer("FileLeases", claiming(FileLeases(directory / "leases")), is_ours=True))
        if scale.tiny or find_redis() is None:
            missing.append(f"RedisLeases: {TOO_LONG if scale.tiny else NO_REDIS}")
        else:
            server = stack.enter_context(RedisServer(directory))
            racers.append(Racer("RedisLeases", claiming(RedisLeases(server.url)), is_ours=True))
        if scale.tiny:
            missing.append(f"PostgresLeases: {TOO_LONG}")
        else:
            racers.append(Racer("PostgresLeases", claiming(stack.enter_context(postgres_leases())), is_ours=True))
        if scale.tiny or find_spec("ray") is None:
            missing.append(f"RayLeases: {TOO_LONG if scale.tiny else 'Ray is not installed'}")
        else:
            racers.append(Racer("RayLeases", claiming(stack.enter_context(ray_leases())), is_ours=True))
        yield Race(
            "shared-claims",
            "a claim, by its store",
            f"{WORKERS} processes are known to the store, which is on this machine: no network is between.",
            racers,
            metrics=(MEDIAN, SLOW),
            in_order=True,
            missing=missing,
            repetitions=scale.pick(1000, 200, 20),
            rounds=scale.pick(5, 1, 1),
        )


@contextmanager
def postgres_leases() -> Iterator[PostgresLeases]:
    """Leases in a table of an embedded Postgres, asked without the gateway of a local Lakebase."""
    import psycopg

    with lake() as running:
        connect = partial(
            psycopg.connect, host=running.socket_directory, dbname=running.database, user=running.admin_user
        )
        store = PostgresLeases(connect)
        with connect(autocommit=True) as connection:
            connection.execute(store.create_sql())
        yield store


@contextmanager
def ray_leases() -> Iterator[RayLeases]:
    """Leases in a cluster of Ray that is this machine alone."""
    import ray

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield RayLeases()
    finally:
        ray.shutdown()
