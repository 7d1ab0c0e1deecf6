"""Taskiq's own worker, with Redis between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

pytest.importorskip("taskiq_redis", reason="of the extra recipes")

from lakebase import create_lakebase_pool
from tests.leases.servers import RedisServer
from tests.recipes.conftest import RECIPES
from tests.recipes.servers import ROOT


@pytest.fixture
def worker(documented_environment, monkeypatch, tmp_path):
    """A worker of one process; the table, which is new, goes with it."""
    with RedisServer(tmp_path) as redis, create_lakebase_pool(max_size=1) as pool:
        monkeypatch.setenv("REDIS_URL", redis.url)
        with pool.connection() as connection:
            connection.execute("create table runs (what text not null)")
        command = [sys.executable, "-m", "taskiq", "worker", "taskiq_jobs:broker", "--workers", "1"]
        environ = {**os.environ, "PYTHONPATH": f"{RECIPES}{os.pathsep}{ROOT}"}
        running = subprocess.Popen([*command, "--log-level", "ERROR"], env=environ, start_new_session=True)
        try:
            yield
        finally:
            os.killpg(running.pid, signal.SIGKILL)  # told to stop, an idle worker waits for one more message
            running.wait(30)
            with pool.connection() as connection:
                connection.execute("drop table runs")


async def test_a_task_that_fails_leaves_nothing_and_the_next_ones_go_on(worker, load_recipe):
    recipe = load_recipe("taskiq_jobs.py")
    assert await recipe.asend("first") == 1
    with pytest.raises(ValueError, match="a run of nothing"):
        await recipe.asend("")
    assert await recipe.asend("second") == 2
