"""
Our managers under a load: reads the load from stdin, and writes when each request was asked and answered.

    python -m tests.benchmarks.manager_process threads|asyncio < load.json

It is a process of its own, as Node is, and imports nothing but the library.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

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
        gate = threading.Barrier(load["at_a_time"] + 1)

        def work() -> None:
            gate.wait()
            for user in users:  # a list's iterator may be shared by threads
                asked = log.now()
                try:
                    with manager.for_user(user).connection() as conn:
                        conn.execute("select 1").fetchone()
                    log.answered.append((asked, log.now()))
                except Exception as error:
                    log.add_error(error)

        threads = [threading.Thread(target=work) for _ in range(load["at_a_time"])]
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


if __name__ == "__main__":
    given = json.load(sys.stdin)
    (run_threads(given) if sys.argv[1] == "threads" else asyncio.run(run_asyncio(given))).write()
