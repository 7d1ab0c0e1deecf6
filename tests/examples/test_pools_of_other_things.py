"""The examples that pool something other than connections to Postgres: they run, and keep what they promise."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pooling import di

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load(name, monkeypatch):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


# --- worker subprocesses ---------------------------------------------------------------------------------------------


@pytest.fixture
def workers(monkeypatch):
    return load("subprocess_pool", monkeypatch)


def test_the_subprocess_example_runs_on_one_process(workers, capsys):
    workers.main()
    assert capsys.readouterr().out.splitlines() == [
        "2 ** 10 = 1024",
        "sqrt(2) = 1.4142135623730951",
        "factorial(20) = 2432902008176640000",
        "1 process(es) started",
    ]


def test_no_more_processes_than_allowed_serve_many_threads_and_all_end(workers):
    app = workers.App()
    with app.running():
        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(workers.calculate, [f"{n} + {n}" for n in range(40)])) == [2 * n for n in range(40)]
        assert app.workers().stats().created <= 2
        with app.workers().lease() as worker:
            process = worker.process
    assert process.returncode == 0


def test_a_worker_that_was_killed_is_replaced(workers):
    app = workers.App()
    with app.running():
        with app.workers().lease() as worker:
            first = worker.process
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        assert workers.calculate("1 + 1") == 2
        with app.workers().lease() as worker:
            assert worker.process is not first


def test_a_worker_that_dies_in_the_middle_fails_one_request_and_no_other(workers):
    app = workers.App()
    with app.running():
        with pytest.raises(ConnectionError, match="died"), app.request():
            os.kill(app.worker().process.pid, signal.SIGKILL)
            app.calculator().calculate("1 + 1")
        assert app.workers().borrowed == 0
        assert workers.calculate("1 + 1") == 2


def test_a_wrong_expression_keeps_its_worker_and_an_interrupted_request_does_not(workers):
    app = workers.App()
    with app.running():
        with pytest.raises(ArithmeticError, match="ZeroDivisionError"):
            workers.calculate("1 / 0")
        assert workers.calculate("1 + 1") == 2
        assert app.workers().stats().created == 1
        with pytest.raises(KeyboardInterrupt), app.request():
            app.worker()
            raise KeyboardInterrupt
        assert app.workers().borrowed == 0
        assert workers.calculate("1 + 1") == 2
        assert app.workers().stats().created == 2


# --- HTTP connections ------------------------------------------------------------------------------------------------


@pytest.fixture
def http(monkeypatch):
    return load("http_client_pool", monkeypatch)


def test_the_http_example_serves_many_requests_over_few_connections(http, capsys):
    asyncio.run(http.main())
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["sunny in city-0", "sunny in city-1"]
    assert lines[-1] == "20 requests over 3 connections"


@pytest.fixture
async def station(http):
    station = http.Station()
    server = await asyncio.start_server(station.serve, "127.0.0.1", 0)
    app = http.App()
    app.config.from_dict({"host": "127.0.0.1", "port": server.sockets[0].getsockname()[1], "connections": 1})
    station.app, station.server = app, server
    async with server:
        async with app.running():
            yield station
        await asyncio.gather(*station.tasks)


async def test_a_connection_serves_one_request_after_the_other(http, station):
    assert [await http.weather_in(city) for city in "abc"] == ["sunny in a", "sunny in b", "sunny in c"]
    assert station.connections == 1


async def test_a_connection_whose_request_was_cancelled_is_not_used_again(http, station):
    ready = asyncio.Event()

    @di.task(station.app)
    async def interrupted():
        connection = await station.app.connection.aget()
        connection.is_busy = True  # as in the middle of an answer
        ready.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(interrupted())
    await ready.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await http.weather_in("b") == "sunny in b"
    assert station.connections == 2


async def test_a_connection_that_the_server_closed_is_noticed(http, station):
    assert await http.weather_in("a") == "sunny in a"
    async with station.app.connections().lease() as connection:
        writer = connection.writer
    writer.close()
    assert await http.weather_in("b") == "sunny in b"
    assert station.connections == 2


# --- objects that are dear to make -----------------------------------------------------------------------------------


@pytest.fixture
def objects(monkeypatch):
    return load("cpu_objects", monkeypatch)


def test_the_objects_example_shares_few_objects_among_many_threads(objects, capsys):
    objects.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "80 words found"
    for line, key in zip(lines[1:], (objects.INDEX, objects.BUFFER), strict=True):
        assert line.startswith(f"{key}: 60 uses of ")
        assert int(line.split()[-2]) <= 2


def test_both_pools_are_separate_and_configured_by_their_keys(objects):
    app = objects.build()
    with app.running():
        assert app.get(objects.INDEX) is not app.get(objects.BUFFER)
        assert {app.get(key).options.max_size for key in (objects.INDEX, objects.BUFFER)} == {2}
        assert objects.count("a pool of pools") == 2
        with app.get(objects.BUFFER).lease() as buffer:
            assert not any(buffer.data)
