"""The supervisor: what happens when it, or its owner, ends first."""

import json
import subprocess
import sys

import psutil

from tests.local.owner import ROOT, start_owner


def test_an_owner_that_reads_no_answers_gets_no_error_from_it(tmp_path):
    (tmp_path / "removed").mkdir()
    command = [sys.executable, "-I", "-S", ROOT / "lakebase" / "local" / "postgres" / "supervisor.py"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True) as process:
        process.stdout.close()
        orders = {"do": "prepare", "paths": [], "remove": [str(tmp_path / "removed")]}
        process.stdin.write(json.dumps(orders) + "\n")
        process.stdin.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 0
    assert list(tmp_path.iterdir()) == []


def test_the_servers_end_when_it_is_killed(short_path):
    process, started = start_owner("threading.Event().wait()", short_path)
    supervisor = next(child for child in started if child.ppid() == process.pid)
    supervisor.kill()
    _, alive = psutil.wait_procs([child for child in started if child.pid != supervisor.pid], timeout=60)
    process.kill()
    process.communicate(timeout=60)
    assert not alive
