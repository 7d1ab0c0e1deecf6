"""Processes of one host that share a limit through lock files: killed, stopped, forked, and under real servers."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.leases.jobs import LIMIT as JOBS_LIMIT
from tests.leases.jobs import LOOKS
from tests.leases.servers import until
from tests.platform.programs import run
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 6


@pytest.mark.parametrize("side", ["threads", "asyncio"])
def test_the_places_of_a_killed_process_are_free_at_once(start, counter, tmp_path, side):
    store = {"files": str(tmp_path)}
    one, other = (start(store, limit=LIMIT, side=side) for _ in range(2))
    assert one.do("acquire", count=5)["held"] == 5
    assert other.do("acquire", count=1)["held"] == 1
    other.send(do="acquire", count=5)
    one.signal(signal.SIGKILL)
    assert other.answer()["held"] == 6
    until(lambda: counter.most == LIMIT, "the limit is not reached, or exceeded")
    assert len(list((tmp_path / "default").glob("*.held"))) == 1


def test_a_stopped_process_keeps_its_places_since_its_connections_are_open(start, counter, tmp_path):
    store = {"files": str(tmp_path)}
    one, other = (start(store, limit=LIMIT) for _ in range(2))
    one.do("acquire", count=4)
    one.do("release", count=4)
    one.signal(signal.SIGSTOP)
    answer = other.do("acquire", count=3, timeout=3)
    until(lambda: counter.count == 4 + answer["held"], "the server has not accepted the last one yet")
    assert counter.count <= LIMIT
    assert answer["held"] <= 2, "what it has leased ahead of need it keeps as well"
    one.signal(signal.SIGCONT)
    assert other.do("acquire", count=3)["held"] == answer["held"] + 3
    until(lambda: counter.most == LIMIT, "the limit is not reached, or exceeded")


def test_a_forked_child_begins_without_places_and_leaves_its_parents_alone(tmp_path):
    outcome = run(
        """
        import os, sys, warnings, pooling
        from pooling.leases import FileLeases
        warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
        budget = pooling.SharedBudget(3, FileLeases(sys.argv[1]))
        pool = pooling.PoolingService(object, max_size=9, budget=budget)
        held = [pool.acquire(), pool.acquire()]
        pid = os.fork()
        if pid == 0:
            assert (budget.used, budget.leased, pool.size) == (0, 0, 0)
            mine = pool.acquire()
            try:
                pool.acquire(timeout=0.2)
            except pooling.PoolTimeoutError:
                print("the parent's places are taken", flush=True)
            pool.release(mine)
            pool.stop()
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        held.append(pool.acquire())
        print("all are back", budget.used)
        for value in held:
            pool.release(value)
        pool.stop()
        """,
        str(tmp_path),
    )
    assert outcome.err == "", outcome
    assert outcome.out.splitlines() == ["the parent's places are taken", "all are back 3"]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_jobs_of_multiprocessing_share_a_limit_however_their_processes_begin(method, counter, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LEASES": str(tmp_path), "COUNTER": str(counter.port)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.leases.jobs", method],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=80,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout.strip()) == (0, "", str(12 * LOOKS))
    assert counter.most <= JOBS_LIMIT


SERVERS = {
    "uvicorn": ["uvicorn", "tests.leases.app:app", "--workers", "4", "--log-level", "critical", "--port"],
    "gunicorn": [
        *("gunicorn", "tests.leases.app:wsgi", "--workers", "4", "--threads", "8", "--preload", "--log-level"),
        *("critical", "--bind"),
    ],
}


@pytest.mark.parametrize("server", SERVERS)
def test_four_workers_of_a_server_stay_below_the_limit_and_serve_everybody(server, counter, tmp_path):
    pytest.importorskip(server, reason=f"{server} comes with the extra `test`")
    port = free_port()
    address = str(port) if server == "uvicorn" else f"127.0.0.1:{port}"
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "LEASES": str(tmp_path),
        "COUNTER": str(counter.port),
        "LIMIT": str(LIMIT),
    }
    command = [sys.executable, "-m", *SERVERS[server], address]
    workers: list[str] = []
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        try:
            until(lambda: _answers(port), "it does not start")
            threads = [threading.Thread(target=_ask, args=(port, 25, workers)) for _ in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
        finally:
            process.terminate()
            process.wait(30)
    assert len(workers) == 16 * 25
    assert len(set(workers)) == 4
    assert 2 <= counter.most <= LIMIT
    until(lambda: counter.count == 0, "connections are left")


def _answers(port: int) -> bool:
    try:
        return bool(_get(port))
    except OSError:
        return False


def _get(port: int) -> str:
    """One request over a new connection, so that any worker may answer."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        client.request("GET", "/")
        answer = client.getresponse()
        assert answer.status == 200
        return answer.read().decode()
    finally:
        client.close()


def _ask(port: int, times: int, workers: list[str]) -> None:
    for _ in range(times):
        workers.append(_get(port))  # noqa: PERF401 - what was answered before a failure counts
