"""`lakebase demo`, run as people run it: its numbers, its end, and what it leaves behind."""

import os
import pty
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lakebase.cli import main

COMMAND = [sys.executable, "-m", "lakebase", "demo"]
FEW = ["--requests", "24"]


def table(output):
    """The numbers of each row, by its first word."""
    rows = (re.fullmatch(r"(\S+@\S+|\(the app itself\))((?:\s+[\d,-]+){5})", line) for line in output.splitlines())
    return {row[1]: [int(n.replace(",", "")) if n != "-" else n for n in row[2].split()] for row in rows if row}


def facts(output):
    return dict(re.findall(r"^(\w+): +(\S+)", output, flags=re.MULTILINE))


def test_it_ends_well_and_says_what_the_server_counted(short_path):
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
    assert "FAILED" not in ended.stdout
    assert len(re.findall("^ok ", ended.stdout, flags=re.MULTILINE)) == 11
    assert "rotated" in ended.stdout
    assert "24 of 24 requests answered" in ended.stdout
    assert "Next:" in ended.stdout
    assert list(short_path.iterdir()) == [], "nothing is left behind"


def test_what_it_says_to_try_next_can_be_tried(capsys):
    assert main(["demo", "--quiet", "--users", "1", "--requests", "3"]) == 0
    _, _, steps = capsys.readouterr().out.partition("Next:\n")
    tried = 0
    for step in re.findall(r"^  (\S.*)", steps, flags=re.MULTILINE):
        if not step.startswith("lakebase "):
            assert Path(step).is_file()
            continue
        words = step.split()[1:]
        with pytest.raises(SystemExit) as ended:
            main([*[word for word in words if not word.startswith("-") and not word.isdecimal()], "--help"])
        assert ended.value.code == 0
        text = capsys.readouterr().out
        assert all(word in text for word in words if word.startswith("-"))
        tried += 1
    assert tried == 2


def test_quiet_shows_the_summary_alone():
    ended = subprocess.run([*COMMAND, "--quiet", "--users", "1", "--requests", "3"], capture_output=True, timeout=120)
    assert ended.returncode == 0
    assert ended.stdout.decode().splitlines()[1].startswith("user ")


def test_a_terminal_gets_bars_and_a_table_with_colours():
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "--users", "2", "--requests", "12"], stdin=slave, stdout=slave, stderr=slave,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "50"},
    )  # fmt: skip
    os.close(slave)
    output = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # the other end is closed: how Linux says so
            break
        if not part:
            break
        output += part
    os.close(master)
    assert process.wait(60) == 0
    text = output.decode()
    assert "\x1b[" in text
    plain = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", text)
    assert re.search(r"bob@corp\.example +6 +\d+ +0 ", plain)
    assert "6/6" in plain
    assert "Traceback" not in plain


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
def test_a_flag_that_cannot_be_meant_is_named(given, said, capsys):
    try:
        status = main(["demo", *given])
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["fastapi", "uvicorn", "httpx", "cryptography", "rich"])
def test_a_package_that_is_missing_is_told_with_the_command_that_brings_it(name):
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


def test_without_libpq_it_says_where_to_have_it():
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
    """All processes that stem from this one."""
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


@pytest.mark.parametrize("moment", ["starting a local", "an app at", "25 of", "is rotated", "stopping the app"])
def test_ctrl_c_stops_it_whenever_it_comes_and_leaves_nothing(moment, short_path):
    process = subprocess.Popen(
        [*COMMAND, "--requests", "100"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(short_path)},
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
        assert started or moment == "starting a local"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    finally:
        timer.cancel()
    assert process.returncode == 130, errors
    assert errors.endswith("\ninterrupted: all was stopped, and nothing is left behind\n")
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
    assert [pid for pid in started if is_alive(pid)] == []
    assert list(short_path.iterdir()) == []


def test_a_reader_that_goes_away_ends_it_without_a_traceback(short_path):
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


def test_the_environment_does_not_matter_and_is_as_before(monkeypatch):
    monkeypatch.setenv("PGHOST", "mine.example")
    monkeypatch.setenv("PGSERVICE", "nobody_has_defined_this")
    monkeypatch.setenv("PGOPTIONS", "-c nonsense=1")
    monkeypatch.setenv("PGTZ", "Nowhere/Nothing")
    before, threads = dict(os.environ), threading.active_count()
    assert main(["demo", "--quiet", "--users", "1", "--requests", "3"]) == 0
    assert dict(os.environ) == before
    assert threading.active_count() < threads + 10
    assert Path.cwd().is_dir()
