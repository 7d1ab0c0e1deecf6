"""
Celery: each task has a connection in a transaction of its own, committed before the task is acknowledged.

lakebase local psql < jobs.sql                   # the tables, once, as their owner
celery -A celery_jobs worker --concurrency 2     # runs the tasks; Redis carries them
python -c 'import celery_jobs as jobs; print(jobs.record.delay("first").get(60))'
"""

import os
from typing import Any

from celery import Celery
from celery.signals import worker_process_init, worker_process_shutdown
from psycopg import Connection, OperationalError

from lakebase import UserIdentity, UserScopedPool, create_lakebase_pool
from pooling import SharedBudget, di
from pooling.leases import FileLeases

REDIS = os.environ.get("REDIS_URL", "redis://localhost:6379")

SOFT = 20  # seconds

app = Celery("jobs", broker=REDIS, backend=REDIS)
app.conf.update(
    task_acks_late=True,  # acknowledge a task when it has returned, which is after its commit
    task_reject_on_worker_lost=True,  # a task whose process died runs again
    worker_prefetch_multiplier=1,  # a process that is busy takes no further task from the others
    task_soft_time_limit=SOFT,  # then SoftTimeLimitExceeded is raised in the task
    task_time_limit=SOFT + 10,  # then its process is killed
    result_expires=600,
)

# One limit for all worker processes of this host. Nothing is leased or opened before the first task.
budget = SharedBudget(8, FileLeases(os.environ.get("LEASES", ".leases")))


class Jobs(di.Container):
    pool = di.Managed(
        create_lakebase_pool, max_size=4, budget=budget, timeout=SOFT / 2, statement_timeout=SOFT, stop="close"
    )
    connection: di.Pooled[Connection[Any]] = di.Pooled(pool)
    users = di.Managed(UserScopedPool, pool)


jobs = Jobs()


@worker_process_init.connect
def start(**_: Any) -> None:
    jobs.start()


@worker_process_shutdown.connect
def stop(**_: Any) -> None:
    jobs.stop()


@app.task(bind=True, autoretry_for=(OperationalError,), retry_backoff=True, max_retries=5)
@di.task(jobs)
@di.inject
def record(self: Any, what: str, connection: Connection[Any] = di.Inject[Jobs.connection]) -> int:
    # A task may run again after its commit. Its id stays the same, so a second run changes nothing.
    connection.execute("insert into runs (id, what) values (%s, %s) on conflict do nothing", [self.request.id, what])
    if not what:
        raise ValueError("a run of nothing")  # nothing of this task is kept
    row = connection.execute("select count(*) from runs").fetchone()
    return int(row[0]) if row else 0


@app.task(bind=True)
def record_for(self: Any, user: str, what: str) -> None:
    # Acts for this user. Whether the app may do that is for the database to say, when the task runs.
    with jobs.users().connection(identity=UserIdentity(user)) as connection:
        connection.execute(
            "insert into member_runs (id, what) values (%s, %s) on conflict do nothing", [self.request.id, what]
        )
