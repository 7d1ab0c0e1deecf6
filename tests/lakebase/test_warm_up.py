"""What minting needs is loaded at start-up, in the background: once, switchable, safe with forks and exits."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

ENDPOINT = "projects/p/branches/b/endpoints/e"
BASE = f"dict(host='h', database='d', endpoint='{ENDPOINT}', workspace_url='https://w.example')"
POOL = f"LakebasePool(config=dict(user='app', **{BASE}))"
MANAGER = f"LakebasePoolManager({BASE})"
BEGIN = """
import sys, threading
from lakebase import AsyncLakebasePoolManager, LakebasePool, LakebasePoolConfig, LakebasePoolManager
def wait():
    for thread in threading.enumerate():
        if thread.name == "lakebase-warm-up":
            thread.join()
def loaded():
    wait()
    return sorted({"databricks.sdk", "urllib3"} & set(sys.modules))
"""


def printed(program: str, **environment: str) -> str:
    """What a fresh process prints, which may say nothing else."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    kept |= {"PYTHONPATH": os.pathsep.join(sys.path), "DATABRICKS_CONFIG_FILE": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:.*fork:DeprecationWarning", "-c", BEGIN + program],
        capture_output=True,
        text=True,
        timeout=120,
        env=kept | environment,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_the_apps_pool_loads_the_sdk() -> None:
    assert printed(f"pool = {POOL}; print(loaded())") == "['databricks.sdk', 'urllib3']"


@pytest.mark.parametrize("manager", [MANAGER, f"Async{MANAGER}"])
def test_a_manager_of_users_loads_what_users_need_and_not_the_sdk(manager: str) -> None:
    assert printed(f"manager = {manager}; print(loaded())") == "['urllib3']"


def test_a_users_own_pool_loads_what_users_need() -> None:
    assert printed(f"pool = LakebasePool(config=dict(user='u', token='t', **{BASE})); print(loaded())") == "['urllib3']"


@pytest.mark.parametrize(
    "what",
    [
        "LakebasePool(config=dict(host='h', database='d', user='u', password='p'))",
        "LakebasePoolManager(dict(host='h', database='d', password='p'))",
        # Without an endpoint users have passwords; without an address the SDK may have to find the workspace.
        "LakebasePoolManager(dict(host='h', database='d', workspace_url='https://w.example'))",
        f"LakebasePoolManager(dict(host='h', database='d', endpoint='{ENDPOINT}'))",
        "LakebasePool('host=h')",
        f"LakebasePool(config=dict(user='app', warm_up=False, **{BASE}))",
        f"LakebasePoolManager(dict(warm_up=False, **{BASE}))",
    ],
)
def test_nothing_is_loaded_where_nothing_is_minted_or_it_is_switched_off(what: str) -> None:
    assert printed(f"made = {what}; print(loaded(), threading.active_count())") == "[] 1"


@pytest.mark.parametrize("value", ["0", "false", "No", "off"])
def test_the_environment_switches_it_off(value: str) -> None:
    assert printed(f"pool = {POOL}; manager = {MANAGER}; print(loaded())", LAKEBASE_WARM_UP=value) == "[]"


def test_pools_do_not_wait_for_it_and_share_one_thread() -> None:
    program = f"""
from lakebase._slow_imports import slow_import
with slow_import():  # what another thread imports meanwhile keeps it from beginning
    pools = [{POOL} for _ in range(50)]
    managers = [{MANAGER} for _ in range(50)]
    print(sum(thread.name == "lakebase-warm-up" for thread in threading.enumerate()), end=" ")
    print("databricks.sdk" in sys.modules, end=" ")
print(loaded())
"""
    assert printed(program) == "2 False ['databricks.sdk', 'urllib3']"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_process_that_forks_meanwhile_has_children_that_can_mint() -> None:
    program = f"""
import os, signal
pool = {POOL}
while "databricks.sdk" not in sys.modules:  # until it has begun
    pass
child = os.fork()
if child == 0:
    signal.alarm(60)
    from databricks.sdk import WorkspaceClient  # would wait for ever for the parent's thread
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), loaded())
"""
    assert printed(program) == "0 ['databricks.sdk', 'urllib3']"


@pytest.mark.parametrize("after", ["", "while 'databricks.sdk.service' not in sys.modules: pass"])
def test_a_process_ends_quietly_in_the_middle_of_it(after: str) -> None:
    assert printed(f"pool = {POOL}\n{after}") == ""


def test_what_cannot_be_loaded_is_told_by_the_first_mint() -> None:
    program = f"""
import logging
logging.disable()
sys.modules["databricks.sdk"] = None
pool = {POOL}
wait()
try:
    pool.connection(timeout=5).__enter__()
except Exception as error:
    print(type(error).__name__)
"""
    assert printed(program) == "CredentialError"
