"""The servers end with the process that owns them, however it ends; and the user that they run as."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from lakebase.local.postgres import ServerProcesses
from tests.local.owner import ROOT, assert_gone, start_owner


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGHUP])
def test_a_signal_that_ends_the_process_ends_everything(short_path, number):
    process, started = start_owner("threading.Event().wait()", short_path)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (-number, 130)
    assert "Traceback" not in errors or number == signal.SIGINT
    assert_gone(started, short_path)


@pytest.mark.parametrize("then", ["", "os._exit(0)", "1 / 0"])
def test_a_process_that_does_not_stop_it_ends_at_once_and_leaves_nothing(short_path, then):
    process, started = start_owner(then, short_path)
    _, errors = process.communicate(timeout=60)
    assert errors == "" or then == "1 / 0"
    assert_gone(started, short_path)


def test_servers_inherit_no_tokens_and_no_settings_for_libpq(short_path, monkeypatch):
    for name in ("DATABRICKS_TOKEN", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "a secret")
    monkeypatch.setenv("LC_MESSAGES", "C")
    processes = ServerProcesses([short_path], [])
    try:
        assert processes.run([shutil.which("env")], log=short_path / "log", env={"OF_ITS_OWN": "1"}) == 0
    finally:
        processes.close()
    lines = (short_path / "log").read_text().splitlines()
    assert {f"PATH={os.environ['PATH']}", "LC_MESSAGES=C", "OF_ITS_OWN=1"} < set(lines)
    assert not [line for line in lines if "a secret" in line]


AS = """
import os
import psycopg
from lakebase.local import LocalLakebase
from lakebase.local.postgres import ServerProcesses
processes = ServerProcesses([], [])
with LocalLakebase(pooler="off") as lake:
    settings = dict(host=lake.host, port=lake.port, dbname=lake.database, user=lake.admin_user, sslmode="require")
    with psycopg.connect(**settings, password=lake.mint(lake.admin_user)) as connection:
        print(os.geteuid(), connection.execute("select 1").fetchone()[0], processes.identity)
processes.close()
"""


def as_user(uid):
    return ["unshare", "--user", f"--map-user={uid}", f"--map-group={uid}"]


def namespaces_work():
    try:
        return subprocess.run([*as_user(1), "true"], capture_output=True, timeout=20).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not namespaces_work(), reason="user namespaces are blocked here, or there is no unshare")
@pytest.mark.parametrize(("uid", "identity"), [(0, "namespace"), (1, "own"), (54321, "namespace")])
def test_it_runs_as_root_as_a_user_and_as_a_user_without_a_name(short_path, uid, identity):
    result = subprocess.run(
        [*as_user(uid), sys.executable, "-c", AS],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(short_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stdout == f"{uid} 1 {identity}\n", result.stderr
    assert list(short_path.iterdir()) == []
