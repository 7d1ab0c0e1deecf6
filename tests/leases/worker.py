"""
A process with one pool under a shared budget. Reads commands, each a line of JSON, and answers each with a line.

Its resources are connections to a server that counts them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pooling
from pooling.leases import FileLeases, LeaseStore, PostgresLeases, RayLeases, RedisLeases

ROOT = Path(__file__).resolve().parents[2]


def make_store(spec: dict[str, Any]) -> LeaseStore:
    if "files" in spec:
        return FileLeases(spec["files"])
    if "redis" in spec:
        return RedisLeases(spec["redis"])
    if "ray" in spec:
        import ray

        ray.init(address=spec["ray"], logging_level="ERROR", log_to_driver=False)
        return RayLeases(spec["name"])
    import psycopg

    return PostgresLeases(lambda: psycopg.connect(**spec["postgres"]))


class Worker:
    """The process, as a test sees it."""

    def __init__(self, counter: int, store: dict[str, Any], *, limit: int, ttl: float = 30.0, side: str) -> None:
        spec = {"counter": counter, "store": store, "limit": limit, "ttl": ttl, "side": side}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.leases.worker", json.dumps(spec)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def send(self, **command: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the worker ended"
        return json.loads(line)  # type: ignore[no-any-return]

    def do(self, what: str, **arguments: Any) -> dict[str, Any]:
        self.send(do=what, **arguments)
        return self.answer()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def close(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait(30)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


async def serve(spec: dict[str, Any]) -> None:
    """The process itself; on the side of threads nothing here suspends for long."""

    def create() -> socket.socket:
        return socket.create_connection(("127.0.0.1", spec["counter"]))

    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("pooling").addHandler(handler)
    is_async = spec["side"] == "asyncio"
    budget = pooling.SharedBudget(spec["limit"], make_store(spec["store"]), lease_ttl=spec["ttl"])
    factory = pooling.PoolFactory.of(create, destroy=socket.socket.close)
    kind: Any = pooling.AsyncPoolingService if is_async else pooling.PoolingService
    pool = kind(factory, max_size=100, budget=budget)
    held: list[Any] = []

    async def call(method: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        return await result if is_async else result

    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        answer: dict[str, Any] = {}
        if command["do"] == "acquire":
            try:
                for _ in range(command["count"]):
                    value = await call(pool.acquire, timeout=command.get("timeout", 20.0))
                    held.append(value)
            except pooling.PoolTimeoutError as error:
                answer["error"] = str(error)
        elif command["do"] == "release":
            for _ in range(command["count"]):
                await call(pool.release, held.pop())
        elif command["do"] == "stop":
            await call(pool.stop)
        answer |= {
            "held": len(held),
            "used": budget.used,
            "leased": budget.leased,
            "limit": budget.limit,
            "claims": budget.claims,
            "error_type": type(budget.store_error).__name__,
            "log": messages,
            "pid": os.getpid(),
        }
        print(json.dumps(answer), flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.argv[1])))
