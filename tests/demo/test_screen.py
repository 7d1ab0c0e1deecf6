"""What the demo prints: progress, the summary, and what to try next."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lakebase.cli import main

COMMAND = [sys.executable, "-m", "lakebase", "demo"]


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
