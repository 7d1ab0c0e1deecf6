"""
Our managers under a load: reads the load from stdin, and writes when each request was asked and answered.

    python -m tests.benchmarks.manager_process threads|asyncio|uvloop [alone] [one-core] < load.json

It is a process of its own, as Node is, and imports nothing but the library. `alone` is psycopg without a pool: what
Python's driver takes by itself, so the least that any pool on it can. `one-core` keeps all threads on one core: one of
them runs at a time anyway, and on two cores they take the interpreter from each other more often.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from psycopg import AsyncConnection, Connection

from lakebase import AsyncLakebasePoolManager, LakebasePoolManager, UserIdentity


class Log:
    """When each request was asked and answered, in seconds since the first one, and which errors there were."""

    def __init__(self) -> None:
        self.answered: list[tuple[float, float]] = []
        self.errors: Counter[str] = Counter()
        self._began_at = time.time()
        self._began = time.perf_counter()

    def now(self) -> float:
        return time.perf_counter() - self._began

    def add_error(self, error: Exception) -> None:
        self.errors[getattr(error, "sqlstate", None) or type(error).__name__] += 1

    def write(self) -> None:
        json.dump({"began": self._began_at, "answered": self.answered, "errors": self.errors}, sys.stdout)


def arguments(load: dict[str, Any]) -> dict[str, Any]:
    """What both managers are made with."""
    base = {
        "host": load["host"],
        "port": load["port"],
        "database": load["database"],
        "endpoint": load["endpoint"],
        "workspace_url": load["workspace_url"],
        "ssl_root_cert": load["ca_file"],
        "ssl_mode": "verify-full",
        "max_size": load["max_size"],
    }
    return {"base_config": base, "max_total": load["max_total"], "kwargs": {"autocommit": True}}


def requests(load: dict[str, Any]) -> Iterator[UserIdentity]:
    """The user of each request."""
    identities = [UserIdentity(user["name"], user["token"]) for user in load["users"]]
    return iter([identities[number] for number in load["draws"]])


def run_threads(load: dict[str, Any]) -> Log:
    users = requests(load)
    with LakebasePoolManager(**arguments(load)) as manager:

        def work(log: Log, _: int) -> None:
            for user in users:  # a list's iterator may be shared by threads
                asked = log.now()
                try:
                    with manager.for_user(user).connection() as conn:
                        conn.execute("select 1").fetchone()
                    log.answered.append((asked, log.now()))
                except Exception as error:
                    log.add_error(error)

        return in_threads(load, work)


def in_threads(load: dict[str, Any], work: Callable[[Log, int], None]) -> Log:
    """Run it in as many threads as there are requests at a time, from one moment on."""
    gate = threading.Barrier(load["at_a_time"] + 1)

    def start(number: int) -> None:
        gate.wait()
        work(log, number)

    threads = [threading.Thread(target=start, args=(number,)) for number in range(load["at_a_time"])]
    for thread in threads:
        thread.start()
    time.sleep(load["idle_before"])
    log = Log()
    gate.wait()
    for thread in threads:
        thread.join()
    return log


async def run_asyncio(load: dict[str, Any]) -> Log:
    users = requests(load)
    async with AsyncLakebasePoolManager(**arguments(load)) as manager:

        async def work() -> None:
            for user in users:
                asked = log.now()
                try:
                    async with manager.for_user(user).connection() as conn:
                        await (await conn.execute("select 1")).fetchone()
                    log.answered.append((asked, log.now()))
                except Exception as error:
                    log.add_error(error)

        await asyncio.sleep(load["idle_before"])
        log = Log()
        async with asyncio.TaskGroup() as group:
            for _ in range(load["at_a_time"]):
                group.create_task(work())
    return log


# psycopg alone: each of those that ask has a connection of its own, of one of the users, and a password already.


def connection_of(load: dict[str, Any], number: int) -> dict[str, Any]:
    """What psycopg connects with for one of those that ask."""
    user = load["users"][number % len(load["users"])]
    return {
        "host": load["host"],
        "port": load["port"],
        "dbname": load["database"],
        "user": user["name"],
        "password": user["password"],
        "sslmode": "verify-full",
        "sslrootcert": load["ca_file"],
        "autocommit": True,
    }


def run_threads_alone(load: dict[str, Any]) -> Log:
    users = requests(load)

    def work(log: Log, number: int) -> None:
        with Connection.connect(**connection_of(load, number)) as conn:
            for _ in users:
                asked = log.now()
                conn.execute("select 1").fetchone()
                log.answered.append((asked, log.now()))

    return in_threads(load, work)


async def run_asyncio_alone(load: dict[str, Any]) -> Log:
    users = requests(load)
    log = Log()

    async def work(number: int) -> None:
        async with await AsyncConnection.connect(**connection_of(load, number)) as conn:
            for _ in users:
                asked = log.now()
                await (await conn.execute("select 1")).fetchone()
                log.answered.append((asked, log.now()))

    async with asyncio.TaskGroup() as group:
        for number in range(load["at_a_time"]):
            group.create_task(work(number))
    return log


def main(front_end: str, *how: str) -> Log:
    load = json.load(sys.stdin)
    alone = "alone" in how
    if "one-core" in how:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if front_end == "threads":
        return run_threads_alone(load) if alone else run_threads(load)
    with asyncio.Runner(loop_factory=None if front_end == "asyncio" else uvloop_factory()) as runner:
        return runner.run(run_asyncio_alone(load) if alone else run_asyncio(load))


def uvloop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the loop that `uvicorn[standard]` brings."""
    import uvloop

    return uvloop.new_event_loop


if __name__ == "__main__":
    main(*sys.argv[1:]).write()
