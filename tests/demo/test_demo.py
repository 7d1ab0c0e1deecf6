"""`lakebase demo` as a command: its numbers, its exit status, and what it leaves behind."""

import os
import re
import signal
import subprocess
import sys
import threading

import httpx
import pytest

from lakebase.cli import main
from tests.web.servers import PLAIN

COMMAND = [sys.executable, "-m", "lakebase", "demo"]
FEW = ["--requests", "24"]


def table(output):
    """The numbers of each row, by its first word."""
    rows = (re.fullmatch(r"(\S+@\S+|\(the app itself\))((?:\s+[\d,-]+){5})", line) for line in output.splitlines())
    return {row[1]: [int(n.replace(",", "")) if n != "-" else n for n in row[2].split()] for row in rows if row}


def facts(output):
    return dict(re.findall(r"^(\w+): +(\S+)", output, flags=re.MULTILINE))


def test_it_succeeds_and_prints_what_the_server_counted(short_path):
    environment = {**os.environ, "TMPDIR": str(short_path), "PGHOST": "other.example", "PGPASSWORD": "other"}
    environment |= {"DATABRICKS_TOKEN": "other", "HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    ended = subprocess.run([*COMMAND, *FEW], capture_output=True, text=True, timeout=120, env=environment)
    assert (ended.returncode, ended.stderr) == (0, "")

    users = table(ended.stdout)
    assert list(users) == ["ann@corp.example", "bob@corp.example", "cyd@corp.example", "(the app itself)"]
    assert users.pop("(the app itself)")[0] == 2
    assert [numbers[0] for numbers in users.values()] == [8, 8, 8]
    for _, rows, foreign, connections, _ in users.values():
        assert rows >= 12
        assert foreign == 0
        assert 1 <= connections <= 8
    assert [numbers[4] for numbers in users.values()] == [2, 1, 1], "one credential for each token; ann's was rotated"
    shown = facts(ended.stdout)
    assert (shown["pools"], shown["errors"]) == ("4", "0")
    assert "of up to 24 requests at once" in ended.stdout
    assert "FAILED" not in ended.stdout
    assert len(re.findall("^ok ", ended.stdout, flags=re.MULTILINE)) == 11
    assert "rotated" in ended.stdout
    assert "24 of 24 requests answered" in ended.stdout
    assert "Next:" in ended.stdout
    assert list(short_path.iterdir()) == [], "nothing is left behind"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--users", "0"], "--users: '0': expected a whole number"),
        (["--requests", "many"], "--requests: 'many': expected a whole number"),
        (["--users", "1000"], "--users 1000: expected at most"),
        (["--users", "3", "--requests", "8"], "at least 9 are needed for --users 3"),
        (["--colour"], "--colour"),
    ],
)
def test_an_impossible_option_is_named(given, said, capsys):
    try:
        status = main(["demo", *given])
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["fastapi", "uvicorn", "httpx", "cryptography", "rich"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(name):
    hidden = (
        "import sys\n"
        f"sys.modules[{name!r}] = None\n"
        "from importlib.machinery import PathFinder\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {name!r}: raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)\n"
        f"del sys.modules[{name!r}]\n"
        "sys.meta_path.insert(0, Hidden())\n"
        "from lakebase.cli import main\n"
        "sys.exit(main(['demo']))\n"
    )
    ended = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert name in ended.stderr
    assert "pip install 'lakebase-pooling[local]'" in ended.stderr
    assert ended.stdout == "", "told before anything was started"
    assert "Traceback" not in ended.stderr


def test_without_libpq_it_says_how_to_install_one():
    hidden = (
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'psycopg': raise ImportError('no pq wrapper available')\n"
        "sys.meta_path.insert(0, Hidden())\n"
        "from lakebase.cli import main\n"
        "sys.exit(main(['demo']))\n"
    )
    ended = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "no libpq" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "pip install 'lakebase-pooling[local]'" in ended.stderr


def children_of(pid):
    """All descendants of a process."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = dict(map(int, line.split()) for line in listed.splitlines())
    found, wave = set(), {pid}
    while wave:
        wave = {child for child, parent in parents.items() if parent in wave} - found
        found |= wave
    return found


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# CPython drops what a signal raises in this callback of an import, and says so.
DROPPED = "Exception ignored in: <function _get_module_lock"


def interrupted_at(moment, directory):
    """Press Ctrl-C as soon as the demo has printed this; its end, what it said, and the processes there were."""
    process = subprocess.Popen(
        [*COMMAND, "--requests", "48"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(directory)},
    )  # fmt: skip
    timer = threading.Timer(120, process.kill)
    timer.start()
    try:
        seen = ""
        while moment not in seen:
            line = process.stdout.readline()
            assert line, f"it ended before {moment!r}:\n{seen}{process.stderr.read()}"
            seen += line
        started = children_of(process.pid)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    finally:
        timer.cancel()
    return process.returncode, errors, started


@pytest.mark.parametrize("moment", ["starting a local", "an app at", "24 of", "is rotated", "stopping the app"])
def test_ctrl_c_stops_it_whenever_it_comes_and_leaves_nothing(moment, short_path):
    status, errors, started = interrupted_at(moment, short_path)
    while DROPPED in errors:
        status, errors, started = interrupted_at(moment, short_path)
    assert started or moment == "starting a local"
    assert status == 130, errors
    assert errors.endswith("\ninterrupted: all was stopped, and nothing is left behind\n")
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
    assert [pid for pid in started if is_alive(pid)] == []
    assert list(short_path.iterdir()) == []


def test_a_closed_output_ends_it_without_a_traceback(short_path):
    process = subprocess.Popen(
        [*COMMAND, *FEW], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(short_path)},
    )  # fmt: skip
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 141
    assert errors == ""
    assert list(short_path.iterdir()) == []


def page_of(address):
    return httpx.get(f"{address}pools.json", **PLAIN).json()


def test_the_live_page_is_served_and_opened_while_it_runs(tmp_path):
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}.new && mv {opened}.new {opened}\n')
    browser.chmod(0o755)
    process = subprocess.Popen(
        [*COMMAND, "--watch", "--requests", "96"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "BROWSER": f"{browser} %s"},
    )  # fmt: skip
    try:
        line = next(line for line in process.stdout if "the live page" in line)
        address = re.search(r"http://127.0.0.1:\d+/pools/", line)[0]
        again = threading.Event()
        while not (pools := httpx.get(f"{address}pools.json", **PLAIN).json()["pools"]) or not sum(
            p["acquired"] for p in pools
        ):
            again.wait(0.05)
        assert "lakebase" in [pool["name"] for pool in pools]
        assert httpx.get(address, headers={"host": "evil.example"}).status_code == 403, "a name that leads here"
        output, errors = process.communicate(timeout=120)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert "96 of 96 requests answered" in output
    assert opened.read_text().strip() == address
