"""README's example, served by two processes: what one of them answered, the other one sees."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.ports import free_port
from tests.web.servers import PLAIN, eventually

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def url(lakebase_user, database):
    port = free_port()
    prefixes = ("PG", "DATABRICKS", "LAKEBASE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    environment |= {**lakebase_user.lake.environment(), "DATABRICKS_CONFIG_FILE": os.devnull, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "uvicorn", "tests.web.readme_app:app", "--workers", "2", "--port", str(port)]
    with subprocess.Popen([*command, "--log-level", "critical"], env=environment, cwd=ROOT) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            eventually(lambda: answers(f"{url}/items/0", lakebase_user.headers), timeout=60, every=0.05)
            yield url
        finally:
            server.terminate()
            server.wait(30)


def answers(url, headers):
    try:
        return httpx.get(url, headers=headers, timeout=30, **PLAIN).status_code == 200
    except httpx.TransportError:
        return False


def test_what_was_answered_201_is_found_by_the_next_request_of_either_process(url, lakebase_user):
    missed = []
    with (
        httpx.Client(base_url=url, headers=lakebase_user.headers, timeout=30) as writer,
        httpx.Client(base_url=url, headers=lakebase_user.headers, timeout=30) as reader,
    ):
        for path, first in (("/items", 10_000_000), ("/later", 20_000_000)):
            for n in range(first, first + 60):
                assert writer.post(f"{path}/{n}").status_code == 201
                if not reader.get(f"/items/{n}").json():
                    missed.append((path, n))
    assert missed == []
