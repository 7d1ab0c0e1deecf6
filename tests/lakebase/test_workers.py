"""A few threads for many functions: begun when needed, never too many, ended when idle."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from lakebase._workers import NAME, Workers

LONG = 30.0


class Work:
    """A function that counts those that run at once, and waits at its gate."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.done = threading.Semaphore(0)
        self.most = self._now = 0
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        self.entered.release()
        assert self.gate.wait(LONG)
        with self._lock:
            self._now -= 1
        self.done.release()


def acquire(semaphore: threading.Semaphore, times: int) -> None:
    for _ in range(times):
        assert semaphore.acquire(timeout=LONG)


def test_functions_run_at_once_up_to_the_limit_and_the_others_after_them() -> None:
    workers, work = Workers(3), Work()
    for _ in range(10):
        workers.run(work)
    acquire(work.entered, 3)
    work.gate.set()
    acquire(work.done, 10)
    assert work.most == 3


def test_a_thread_that_is_idle_runs_the_next_function() -> None:
    workers, seen = Workers(3), set()
    for _ in range(20):
        done = threading.Event()
        workers.run(lambda done=done: (seen.add(threading.current_thread()), done.set()))
        assert done.wait(LONG)
    assert len(seen) <= 2  # one may not have come back yet when the next function comes


def test_idle_threads_end_and_the_last_one_says_so() -> None:
    quiet, work = threading.Semaphore(0), Work()
    workers = Workers(3, idle=0.01, on_quiet=quiet.release)
    work.gate.set()
    for _ in range(2):  # and it starts anew
        for _ in range(3):
            workers.run(work)
        acquire(work.done, 3)
        acquire(quiet, 1)


def test_where_no_thread_can_be_begun_the_caller_is_told_or_another_thread_does_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers, work = Workers(3), Work()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            workers.run(work)
    workers.run(work)
    acquire(work.entered, 1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        workers.run(work)
    work.gate.set()
    acquire(work.done, 2)
    assert work.most == 1


def test_a_process_ends_while_its_threads_wait() -> None:
    program = f"""
import threading
from lakebase._workers import Workers
entered = threading.Semaphore(0)
workers = Workers(4)
for _ in range(8):
    workers.run(lambda: (entered.release(), threading.Event().wait()))
for _ in range(4):
    entered.acquire()
assert sum(thread.name == {NAME!r} for thread in threading.enumerate()) == 4
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=True)
    assert done.stderr == b""


def test_a_function_is_forgotten_when_it_has_run() -> None:
    import weakref

    class Held:
        pass

    held, ran = Held(), threading.Event()
    gone = threading.Event()
    weakref.finalize(held, gone.set)
    workers = Workers(1)
    function: Callable[[], object] | None = lambda held=held: ran.set()  # noqa: E731
    workers.run(function)
    del held, function
    assert ran.wait(LONG)
    assert gone.wait(LONG)
