"""Celery's own worker, with two processes, which are replaced now and then, and Redis between."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("celery", reason="of the extra recipes")

from kombu.exceptions import EncodeError
from psycopg import Connection

from lakebase import UserIdentity, create_lakebase_pool
from pooling import PoolingService
from tests.docs.conftest import enter_environment
from tests.leases.servers import RedisServer, until
from tests.recipes.conftest import RECIPES, password_variables
from tests.recipes.servers import ROOT

ANN, WORKER = "ann@corp.example", "jobs@test"
LIMIT = 60.0  # seconds for a task on a busy machine
TASKS = 16  # of a worker process, before another takes its place: which only the last test comes to


@dataclass(frozen=True)
class Jobs:
    """The recipe, its worker in a process, and a connection of the tables' owner."""

    recipe: ModuleType
    owner: Connection[Any]

    def end(self, task: Any, what: str) -> Any:
        """The result of a task, or the error that it ended with."""
        until(task.ready, f"{what}: the task has not ended within {LIMIT:g} s", LIMIT)
        return task.result

    def count(self, query: str, *values: object) -> int:
        (count,) = self.owner.execute(query, values).fetchone()
        return int(count)

    @contextmanager
    def halted_task(self, **options: Any) -> Iterator[Any]:
        """A task that waits for the end of this block, in which another transaction has a row of the same id."""
        task_id = str(uuid.uuid4())
        with self.owner.transaction(force_rollback=True):
            self.owner.execute("insert into runs (id, what) values (%s, 'of another')", [task_id])
            yield self.recipe.record.apply_async(["halted"], task_id=task_id, **options)

    @contextmanager
    def all_places(self) -> Iterator[None]:
        """A block in which this process has all places of the limit."""
        with PoolingService(object, max_size=8, timeout=LIMIT, budget=self.recipe.budget) as pool, ExitStack() as stack:
            for _ in range(8):
                stack.enter_context(pool.lease())
            yield


@pytest.fixture(scope="module")
def jobs(lakebase_local, tmp_path_factory) -> Iterator[Jobs]:
    """The tables are new, and go."""
    directory = tmp_path_factory.mktemp("celery")
    settings = {"LEASES": str(directory / "leases"), "PYTHONPATH": f"{RECIPES}{os.pathsep}{ROOT}"}
    with (
        RedisServer(directory) as redis,
        create_lakebase_pool(lakebase_local.config(), max_size=1) as pool,
        pool.connection() as owner,
        pytest.MonkeyPatch.context() as patch,
    ):
        owner.autocommit = True
        owner.execute((RECIPES / "jobs.sql").read_bytes())
        owner.execute("alter table runs add session int default pg_backend_pid()")
        owner.execute("insert into members values (%s)", [ANN])
        variables = lakebase_local.environment() | password_variables(lakebase_local, "celery", directory)
        enter_environment(patch, settings | variables | {"REDIS_URL": redis.url})
        patch.syspath_prepend(RECIPES)
        recipe = importlib.import_module("celery_jobs")
        patch.delitem(sys.modules, "celery_jobs")
        with worker():
            yield Jobs(recipe, owner)
        owner.execute("drop table runs, member_runs, members")


@contextmanager
def worker() -> Iterator[None]:
    """Celery's worker, in this process's environment. It ends by itself when it is told to."""
    options = ["--concurrency", "2", "--max-tasks-per-child", str(TASKS), "--loglevel", "ERROR", "--hostname", WORKER]
    command = [sys.executable, "-m", "celery", "-A", "celery_jobs", "worker", *options]
    quick_start = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    patience = f"worker.proc_alive_timeout={LIMIT}"  # a busy machine may take longer than 4 s to start a process
    running = subprocess.Popen([*command, *quick_start, patience], start_new_session=True)
    try:
        yield
        running.terminate()
        assert running.wait(LIMIT) == 0
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait(LIMIT)


def test_a_task_has_committed_when_it_ends_and_one_that_fails_leaves_nothing(jobs):
    assert jobs.end(jobs.recipe.record.delay("first"), "the worker's first task") == 1
    assert jobs.count("select count(*) from runs") == 1
    assert isinstance(jobs.end(jobs.recipe.record.delay(""), "a task that raises"), ValueError)
    assert jobs.end(jobs.recipe.record.delay("second"), "the next task") == 2


@pytest.mark.parametrize("where", ["while it waits for a connection", "in a statement"])
def test_a_soft_time_limit_loses_nothing(jobs, where):
    in_statement = where == "in a statement"
    with ExitStack() as stack:
        if in_statement:
            task = stack.enter_context(jobs.halted_task(soft_time_limit=1))
        else:
            stack.enter_context(jobs.all_places())
            task = jobs.recipe.record.apply_async(["late"], soft_time_limit=1)
        assert type(jobs.end(task, f"a soft limit {where}")).__name__ == "SoftTimeLimitExceeded"
    assert jobs.count("select count(*) from runs where id = %s", task.id) == 0
    assert isinstance(jobs.end(jobs.recipe.record.delay("next"), f"the task after one interrupted {where}"), int)
    with jobs.all_places():  # the processes give up all they have
        pass


def test_a_task_whose_process_is_killed_runs_again_and_writes_once(jobs):
    with jobs.halted_task() as task:
        killed = process_of(jobs, task.id)
        os.kill(killed, signal.SIGKILL)
        until(lambda: process_of(jobs, task.id) != killed, "no other process has got the task", LIMIT)
    assert isinstance(jobs.end(task, "the task in another process"), int)
    assert jobs.count("select count(*) from runs where id = %s and what = 'halted'", task.id) == 1


def process_of(jobs: Jobs, task_id: str) -> int:
    """The process that runs this task."""
    found: list[int] = []

    def is_found() -> bool:
        active = jobs.recipe.app.control.inspect([WORKER], timeout=LIMIT).active() or {}
        found[:] = [task["worker_pid"] for task in active.get(WORKER, []) if task["id"] == task_id]
        return bool(found)

    until(is_found, "no process runs the task", LIMIT)
    return found[0]


def test_a_task_acts_for_a_user_if_the_database_allows_it(jobs):
    assert jobs.end(jobs.recipe.record_for.delay(ANN, "hers"), "a task of a user") is None
    refused = {"bob@corp.example": "ForeignKeyViolation", "": "IdentityError"}
    for user, error in refused.items():
        task = jobs.recipe.record_for.delay(user, "not his")
        assert type(jobs.end(task, f"a task of {user!r}")).__name__ == error
    assert jobs.owner.execute("select owner, what from member_runs").fetchall() == [(ANN, "hers")]


def test_an_identity_with_its_token_does_not_get_into_the_broker(jobs):
    with pytest.raises(EncodeError):
        jobs.recipe.record_for.delay(UserIdentity(ANN, "token"), "hers")


def test_processes_take_the_places_of_those_that_have_done_their_tasks(jobs):
    before = jobs.count("select count(*) from runs")
    tasks = [jobs.recipe.record.delay(str(number)) for number in range(2 * TASKS + 1)]
    for number, task in enumerate(tasks):
        assert isinstance(jobs.end(task, f"task {number} of {len(tasks)}"), int)
    assert jobs.count("select count(*) from runs") == before + len(tasks)
    assert jobs.count("select count(distinct session) from runs") >= 3
    with jobs.all_places():
        pass
