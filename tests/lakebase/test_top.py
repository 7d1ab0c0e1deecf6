"""`lakebase top`: what it prints of a real page and a real local Lakebase, and how it ends."""

from __future__ import annotations

import contextvars
import fcntl
import functools
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from lakebase.cli import main
from lakebase.local.orders import OrderServer
from lakebase.local.registry import Record, claim_name
from pooling import RequestContext
from pooling.web.dashboard import Dashboard
from tests.web.dashboards import ANN, BOB, held, make_pools
from tests.web.servers import Uvicorn

TOKEN = "operators-token-which-is-printed-nowhere"


@pytest.fixture
def page():
    """The address of a page that wants a token, and pools to see on it."""

    def has_token(scope):
        return dict(scope["headers"]).get(b"authorization") == f"Bearer {TOKEN}".encode()

    with make_pools(max_size=2) as pools, held(pools, ANN), held(pools, ANN), held(pools, BOB, "GET /bob"):
        with Uvicorn(Dashboard(has_token, show_keys=True)) as server:
            yield f"{server.url}/", pools


def top(*arguments, env=None, **options):
    return subprocess.run(
        [sys.executable, "-m", "lakebase", "top", *arguments],
        capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "80", **(env or {})}, **options,
    )  # fmt: skip


def test_once_prints_the_pools_in_eighty_columns(page):
    url, pools = page
    ended = top(url, "--once", "--pool", pools.name, env={"LAKEBASE_TOP_TOKEN": TOKEN})
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("budget ███") and line.endswith("3 of 6 places") for line in lines)
    (ann,) = [line for line in lines if line.startswith(ANN) and "2/2" in line]
    assert "██ " in ann
    assert any(re.match(r"\d.*GET /bob", line) for line in lines), "who holds"
    assert TOKEN not in ended.stdout
    assert "\x1b" not in ended.stdout, "no colours where no terminal is"


def test_a_holder_without_a_line_of_its_own_is_named_by_its_request(page, capsys):
    url, pools = page
    taken = []

    def borrow(key, context):  # only the thread itself is in the stack, as where a framework injects for its request
        take = functools.partial(context.run, pools.acquire, key)
        with ThreadPoolExecutor(1, thread_name_prefix="worker") as threads:
            taken.append(threads.submit(take).result(30))

    with RequestContext("GET /injected"):
        borrow("carl", contextvars.copy_context())
    borrow("dora", contextvars.Context())
    try:
        header = f"Authorization: Bearer {TOKEN}"
        assert main(["top", url, "--once", "--header", header, "--pool", pools.name]) == 0
    finally:
        for one in taken:
            pools.release(one)
    lines = capsys.readouterr().out.partition("HELD FOR")[2].splitlines()
    assert any(re.search(r"GET /injected +carl +for the request", line) for line in lines)
    assert any(re.search(r"– +dora +thread .worker", line) for line in lines)


def test_a_header_is_sent_and_rows_are_found_and_sorted(page, capsys):
    url, pools = page
    arguments = [url, "--once", "--header", f"Authorization: Bearer {TOKEN}", "--pool", pools.name]
    assert main(["top", *arguments, "--find", "bob", "--sort", "key"]) == 0
    keys = capsys.readouterr().out.partition("HELD FOR")[0]
    assert BOB in keys
    assert ANN not in keys


def test_why_there_is_nothing_to_show_is_said(page, capsys, monkeypatch):
    monkeypatch.delenv("LAKEBASE_TOP_TOKEN", raising=False)
    url, _ = page
    for arguments, words in [
        ([url], "You may not see this page"),
        ([f"{url}nowhere"], "You may not see this page"),
        ([url, "--pool", "nope", "--header", f"Authorization: Bearer {TOKEN}"], "has the name 'nope'"),
        (["http://127.0.0.1:9/pools/"], "does not answer: "),
        (["ftp://127.0.0.1/"], "is no address"),
        (["http://ann:secret@127.0.0.1/"], "leave user and password out"),
    ]:
        assert main(["top", *arguments, "--once"]) == 2, arguments
        printed = capsys.readouterr()
        assert words in printed.err
        assert "secret" not in printed.err
        assert TOKEN not in printed.err


@pytest.mark.parametrize("wrong", [["--interval", "0"], ["--interval", "x"], ["--header", TOKEN], ["--sort", "x"]])
def test_an_argument_that_makes_no_sense_is_refused(wrong, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["top", "http://127.0.0.1:9/", *wrong])
    assert ended.value.code == 2
    assert TOKEN not in capsys.readouterr().err


@pytest.mark.parametrize("end", [b"q", b"\x03"], ids=["q", "Ctrl-C"])
def test_in_a_terminal_it_follows_and_ends_cleanly(page, end):
    url, pools = page
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 80, 0, 0))
    before = termios.tcgetattr(slave)
    process = subprocess.Popen(
        [sys.executable, "-m", "lakebase", "top", url, "--interval", "0.2", "--pool", pools.name],
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),  # so that Ctrl-C reaches it
        env={**os.environ, "TERM": "xterm-256color", "LAKEBASE_TOP_TOKEN": TOKEN},
    )  # fmt: skip
    try:
        seen = read_until(master, lambda text: ANN in text and "q quits" in text)
        os.write(master, b"s")
        seen += read_until(master, lambda text: "by waiting" in text)
        os.write(master, b" ")
        seen += read_until(master, lambda text: "paused" in text)
        os.write(master, end)
        seen += read_until(master, lambda text: "\x1b[?1049l" in text)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    assert termios.tcgetattr(slave) == before, "the terminal is as it was"
    os.close(master)
    os.close(slave)
    assert "Traceback" not in seen
    assert TOKEN not in seen


def read_until(fd, is_enough):
    """What a program writes to its terminal, until it is enough."""
    seen = ""
    while not is_enough(seen):
        seen += os.read(fd, 65536).decode(errors="replace")
    return seen


@contextmanager
def running_as(name, orders):
    """Let commands find a local Lakebase by this name."""
    fields = {**dict.fromkeys(Record.__dataclass_fields__, ""), "name": name, "pid": os.getpid()}
    with claim_name(name) as claim:
        claim.publish(Record(**{**fields, "orders_address": orders.address, "orders_token": orders.token}))
        yield


def test_without_an_address_it_shows_a_local_lakebase(lakebase_local, short_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path))
    assert main(["top", "--once"]) == 2
    assert capsys.readouterr().err == (
        "lakebase top: no local Lakebase runs: `lakebase local up` starts one. "
        "For an app, give the address of its live page\n"
    )
    user = "top@corp.example"
    lakebase_local.add_user(user)
    with OrderServer(lakebase_local) as orders, running_as("topped", orders), connection_of(lakebase_local, user):
        assert main(["top", "--once"]) == 0
    printed = capsys.readouterr().out
    assert "local Lakebase 'topped'" in printed
    assert re.search(rf"{user}\s+█\s+1\s+1\s+1", printed)
    assert orders.token not in printed


def test_of_several_local_lakebases_it_shows_the_one_that_is_named(lakebase_local, short_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path))
    with OrderServer(lakebase_local) as orders, running_as("one", orders), running_as("two", orders):
        for arguments, words in (
            ([], "several local Lakebases run (one, two): say which, as --name one"),
            (["--name", "three"], "no local Lakebase 'three' runs (there run: one, two)"),
            (["http://127.0.0.1:9/", "--name", "one"], "both were given"),
        ):
            assert main(["top", "--once", *arguments]) == 2
            assert words in capsys.readouterr().err
        assert main(["top", "--once", "--name", "two"]) == 0
    assert "local Lakebase 'two'" in capsys.readouterr().out


def connection_of(lake, user):
    import psycopg

    return psycopg.connect(**lake.config(user).connect_kwargs(), password=lake.mint(user))


def test_many_pools_leave_room_for_keys(page, capsys):
    url, pools = page
    arguments = [url, "--once", "--header", f"Authorization: Bearer {TOKEN}"]
    with ExitStack() as stack:
        more = [stack.enter_context(make_pools()) for _ in range(12)]
        assert main(["top", *arguments]) == 0
        table = capsys.readouterr().out.partition("KEY ")[0]
        assert re.search(r"and \d+ more", table)
        assert pools.name in table, "the busiest are shown"
        assert main(["top", *arguments, "--pool", more[0].name]) == 0
        shown = capsys.readouterr().out
        assert "1 of 6" not in shown
        assert pools.name not in shown
        assert "none held" in shown
