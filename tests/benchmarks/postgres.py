"""Pools of real connections, on a local Lakebase: an embedded Postgres behind its TLS gateway."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

from .measure import Figures, Metric, Race, Racer, Scale, Target, timed
from .peers import PSYCOPG

OURS = "LakebasePool"
OURS_MANAGER = "LakebasePoolManager"
RAW = "one psycopg connection"
PASSWORD = "benchmarks"  # of roles of a server that lives as long as the race
PER_QUERY = Metric("seconds", "per query", "µs", 1e6)

USERS, THREADS, BUDGET, PER_USER = 1000, 200, 50, 3


@contextmanager
def lake(max_connections: int = 100) -> Iterator[Any]:
    """
    A running local Lakebase.

    Raises:
        LocalLakebaseError: No Postgres was found; the message says how to get one.
    """
    from lakebase.local import LocalLakebase

    with LocalLakebase(max_connections=max_connections) as running:
        yield running


def unavailable(name: str, title: str, error: Exception) -> Race:
    """A race that cannot be run here, and why."""
    return Race(name, title, "", [], missing=[f"not run: {error}"])


def conninfo(running: Any, user: str) -> str:
    from psycopg.conninfo import make_conninfo

    from lakebase import lakebase_pg_config

    return make_conninfo(**lakebase_pg_config(running.config(user, password=PASSWORD)))


def getconns(pool: Any) -> Callable[[int], None]:
    def loop(repetitions: int) -> None:
        for _ in range(repetitions):
            conn = pool.getconn()
            pool.putconn(conn)

    return loop


def queries(pool: Any) -> Callable[[int], None]:
    def loop(repetitions: int) -> None:
        for _ in range(repetitions):
            with pool.connection() as conn:
                conn.execute("select 1").fetchone()

    return loop


@contextmanager
def pools(running: Any) -> Iterator[tuple[Any, Any, Any]]:
    """A LakebasePool, psycopg's pool and a connection without a pool, of the same role."""
    import psycopg
    from psycopg_pool import ConnectionPool

    from lakebase import create_lakebase_pool

    user = "benchmarks@corp.example"
    running.add_password_role(user, PASSWORD)
    config = running.config(user, password=PASSWORD)
    info = conninfo(running, user)
    with (
        create_lakebase_pool(config, min_size=4, max_size=4) as ours,
        ConnectionPool(info, min_size=4, max_size=4, open=False) as theirs,
        psycopg.connect(info) as raw,
    ):
        theirs.wait()
        yield ours, theirs, raw


@contextmanager
def lakebase_pool(scale: Scale) -> Iterator[Race]:
    """getconn and putconn of real connections."""
    name, title = "getconn", "getconn + putconn of real connections"
    try:
        with lake() as running, pools(running) as (ours, theirs, _):
            yield Race(
                name,
                title,
                "Four open connections, one thread; nothing is sent to the server.",
                [Racer(OURS, timed(getconns(ours)), is_ours=True), Racer(PSYCOPG, timed(getconns(theirs)))],
                reference=PSYCOPG,
                targets=[Target("seconds", OURS, 0.8, PSYCOPG)],
            )
    except ImportError as error:
        yield unavailable(name, title, error)


@contextmanager
def select(scale: Scale) -> Iterator[Race]:
    """One query in a `connection()` block."""
    name, title = "select", "select 1 through connection()"
    try:
        with lake() as running, pools(running) as (ours, theirs, raw):

            def alone(repetitions: int) -> None:
                for _ in range(repetitions):
                    raw.execute("select 1").fetchone()
                    raw.commit()

            yield Race(
                name,
                title,
                "Borrow, begin, select, commit, give back; without a pool: begin, select, commit.",
                [
                    Racer(RAW, timed(alone)),
                    Racer(OURS, timed(queries(ours)), is_ours=True),
                    Racer(PSYCOPG, timed(queries(theirs))),
                ],
                metrics=(PER_QUERY,),
                reference=RAW,
                turn=scale.turn / 4,  # the machine places server, gateway and client anew all the time
                rounds=4 * scale.rounds,
                targets=[Target("seconds", OURS, 1.0, PSYCOPG)],
            )
    except ImportError as error:
        yield unavailable(name, title, error)


# --- many users ------------------------------------------------------------------------------------------------------

PER_REQUEST = Metric("seconds", "per request", "ms", 1e3)
P99 = Metric("p99", "99 % wait", "ms", 1e3)
LONGEST = Metric("longest", "longest wait", "ms", 1e3)
AGAINST_IDEAL = Metric("ideal", "÷ ideal", "")
OPENED = Metric("opened", "opened per request", "")
PEAK = Metric("peak", "connections at most", "")
FAILED = Metric("failed", "failed", "")
HOLD = 0.002  # seconds, in the server


def crowd(
    running: Any, connection_of: Callable[[int], Any], users: int, threads: int, budget: int
) -> Callable[[int], Figures]:
    """
    A racer's `run`: threads that each serve that many requests of evenly drawn users, one query each.

    `ideal` is the longest wait divided by that of a perfect pool: all requests ahead of a newcomer, as long as uses
    really lasted on average, connects included, on as many connections as the budget has.
    """

    def run(repetitions: int) -> Figures:
        gate = threading.Barrier(threads + 1)
        waits: list[float] = []
        uses: list[float] = []
        failures: list[Exception] = []
        now = time.perf_counter

        def serve(number: int) -> None:
            gate.wait()
            for turn in range(repetitions):
                user = (number * 7919 + turn * 104729) % users
                asked = now()
                try:
                    with connection_of(user) as conn:
                        taken = now()
                        conn.execute("select pg_sleep(%s)", (HOLD,))
                    waits.append(taken - asked)
                    uses.append(now() - taken)
                except Exception as error:
                    failures.append(error)

        before = running.stats()
        with ThreadPoolExecutor(threads) as executor:
            served = [executor.submit(serve, number) for number in range(threads)]
            gate.wait()
            began = now()
            for future in served:
                future.result()
        seconds = now() - began
        after = running.stats()
        requests = threads * repetitions
        done = max(len(waits), 1)
        waits.sort()
        # What a connection is busy with for one request: all of the time, of all connections.
        ideal = (threads / budget - 1) * seconds * budget / requests
        return {
            "seconds": seconds / done,
            "p99": waits[int(len(waits) * 0.99)] if waits else 0.0,
            "longest": waits[-1] if waits else 0.0,
            "ideal": waits[-1] / ideal if waits else 0.0,
            "opened": (after.total - before.total) / requests,
            "peak": after.peak,
            "failed": len(failures),
        }

    return run


@contextmanager
def users(scale: Scale) -> Iterator[Race]:
    """Many users under one budget."""
    count = scale.pick(USERS, 60, 6)
    threads = scale.pick(THREADS, 50, 6)
    budget = scale.pick(BUDGET, 15, 2)
    name, title = "users", f"{threads} threads, {count:,} users, at most {budget} connections"
    try:
        with ExitStack() as stack:
            servers = Servers(stack, budget, is_one=scale.tiny)
            yield many_users(servers, count, threads, name, title, scale)
    except ImportError as error:
        yield unavailable(name, title, error)


class Servers:
    """A separate server for each racer, which counts that racer's connections alone."""

    def __init__(self, stack: ExitStack, budget: int, *, is_one: bool) -> None:
        self.stack = stack
        self.budget = budget
        self._one = self._start() if is_one else None

    def _start(self) -> Any:
        return self.stack.enter_context(lake(max_connections=4 * self.budget + 20))

    def with_users(self, count: int) -> tuple[Any, list[str]]:
        """A server and the names of its users."""
        running = self._one or self._start()
        names = [f"user{number}@corp.example" for number in range(count)]
        for user in names:
            running.add_password_role(user, PASSWORD)
        return running, names


def with_manager(servers: Servers, users: int, threads: int, **sizes: int) -> Callable[[int], Figures]:
    from lakebase import LakebasePoolManager

    running, names = servers.with_users(users)
    base = running.config(names[0], password=PASSWORD, **sizes)
    manager = LakebasePoolManager(base, max_total=servers.budget, timeout=120.0)
    servers.stack.callback(manager.close_all)
    return crowd(
        running,
        lambda user: manager.get_pool(names[user], {"user": names[user]}).connection(),
        users,
        threads,
        servers.budget,
    )


def with_a_connect_each(servers: Servers, users: int, threads: int) -> Callable[[int], Figures]:
    import psycopg

    running, names = servers.with_users(users)
    infos = [conninfo(running, user) for user in names]
    gate = threading.BoundedSemaphore(servers.budget)

    @contextmanager
    def connection(user: int) -> Iterator[Any]:
        with gate, psycopg.connect(infos[user]) as conn:
            yield conn

    return crowd(running, connection, users, threads, servers.budget)


def with_psycopg_pools(servers: Servers, users: int, threads: int) -> Callable[[int], Figures]:
    from psycopg_pool import ConnectionPool

    running, names = servers.with_users(users)
    pools = [
        servers.stack.enter_context(
            ConnectionPool(conninfo(running, user), min_size=0, max_size=1, num_workers=1, timeout=120.0)
        )
        for user in names
    ]
    return crowd(running, lambda user: pools[user].connection(), users, threads, servers.budget)


def many_users(servers: Servers, count: int, threads: int, name: str, title: str, scale: Scale) -> Race:
    # As far as psycopg's pools go: each may have a connection, so there can be no more users than connections.
    few = min(servers.budget, count)
    a_few, their_few = f"{OURS_MANAGER}, {few} users", f"{PSYCOPG} for each of {few} users"
    each = "a connection per request"
    return Race(
        name,
        title,
        f"Each request is another user's: it borrows a connection of that user and queries for {HOLD * 1e3:g} ms. "
        "Pools of psycopg_pool know no common budget, so they are compared with as many users as there may be "
        "connections, one each; with all users the comparison is to connect for each request, behind a semaphore.",
        [
            Racer(OURS_MANAGER, with_manager(servers, count, threads), is_ours=True),
            Racer(each, with_a_connect_each(servers, count, threads)),
            Racer(a_few, with_manager(servers, few, threads, max_size=1), is_ours=True),
            Racer(their_few, with_psycopg_pools(servers, few, threads)),
        ],
        metrics=(PER_REQUEST, P99, LONGEST, AGAINST_IDEAL, OPENED, PEAK, FAILED),
        drawn=PER_REQUEST.key,
        repetitions=scale.pick(10, 4, 1),
        rounds=scale.pick(3, 1, 1),
        targets=[
            Target("peak", OURS_MANAGER, servers.budget),
            Target("failed", OURS_MANAGER, 0),
            Target("seconds", OURS_MANAGER, 1.0, each),
            Target("seconds", a_few, 1.0, their_few),
        ],
    )
