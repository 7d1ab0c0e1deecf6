"""The recipe for `multiprocessing`, with each way to begin a process."""

import os
import re
import subprocess
import sys

import pytest

from lakebase import create_lakebase_pool
from tests.recipes.conftest import RECIPES
from tests.sessions import Sessions

LIMIT = 3


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_share_a_limit_however_they_begin(method, password_environment, tmp_path):
    name = f"processes-{method}"
    environment = os.environ | {"LEASES": str(tmp_path / "leases"), "PGAPPNAME": name}
    # Python 3.12 and newer warn of a fork beside threads, which is what this is about.
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "worker_processes.py", method]
    with Sessions(name, LIMIT) as sessions:
        done = subprocess.run(
            command, cwd=RECIPES, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=170
        )
    found = re.fullmatch(r"60 rows, (\d+) sessions, the parent's among them: False\n", done.stdout)
    assert found is not None, done.stdout
    assert int(found[1]) >= 2
    assert 1 <= sessions.most <= LIMIT
    with create_lakebase_pool(max_size=1) as pool, pool.connection() as conn:
        assert conn.execute("select count(distinct number), sum(square) from numbers").fetchone() == (60, 70210)
