"""
Taskiq: each task has a connection of the app's, in a transaction of its own.

taskiq worker taskiq_jobs:broker                                  # runs the tasks; Redis carries them
python -c 'import taskiq_jobs as jobs; jobs.send("first")'  # an app would await record.kiq(...) instead
"""

import asyncio
import os
from typing import Any

from psycopg import AsyncConnection
from taskiq import TaskiqEvents, TaskiqState
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from lakebase import create_async_lakebase_pool
from pooling import di

REDIS = os.environ.get("REDIS_URL", "redis://localhost:6379")


class Jobs(di.Container):
    pool = di.Managed(create_async_lakebase_pool, max_size=4, stop="close")
    connection: di.Pooled[AsyncConnection[Any]] = di.Pooled(pool)


jobs = Jobs()
results: RedisAsyncResultBackend[Any] = RedisAsyncResultBackend(REDIS, result_ex_time=600)
broker = RedisStreamBroker(REDIS).with_result_backend(results)


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def start(_state: TaskiqState) -> None:
    await jobs.astart()


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def stop(_state: TaskiqState) -> None:
    await jobs.astop()


@broker.task
@di.task(Jobs)
@di.inject
async def record(what: str, connection: AsyncConnection[Any] = di.Inject[Jobs.connection]) -> int:
    await connection.execute("insert into runs (what) values (%s)", [what])
    if not what:
        raise ValueError("a run of nothing")  # nothing of this task is kept
    found = await connection.execute("select count(*) from runs")
    row = await found.fetchone()
    return int(row[0]) if row else 0


async def asend(what: str) -> int:
    await broker.startup()
    try:
        task = await record.kiq(what)
        result = await task.wait_result(timeout=60)
        result.raise_for_error()
        return int(result.return_value)
    finally:
        await broker.shutdown()


def send(what: str) -> None:
    print("runs:", asyncio.run(asend(what)))
