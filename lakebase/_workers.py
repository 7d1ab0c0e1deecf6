"""A few threads for many functions that block."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

__all__ = ["Workers", "run_alone"]

NAME = "lakebase-mint"


def run_alone(function: Callable[[], object]) -> None:
    """Have a function run on its own thread, for which the end of the process does not wait."""
    threading.Thread(target=function, name=NAME, daemon=True).start()


class Workers:
    """
    Threads that run functions, at most so many at once.

    A thread begins when a function has none to run on, and ends when it has been idle for a while. The threads are
    daemons: a process that ends does not wait for them.

    Args:
        limit: Most threads. A function that finds all of them busy waits for the first that is free.
        idle: Seconds without work after which a thread ends.
        on_quiet: Called by the last thread, when it ends. Another one may begin meanwhile.
    """

    def __init__(self, limit: int, *, idle: float = 5.0, on_quiet: Callable[[], object] = lambda: None) -> None:
        self._limit = limit
        self._idle_seconds = idle
        self._on_quiet = on_quiet
        self._work: deque[Callable[[], object]] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._threads = 0
        self._idle = 0

    def run(self, function: Callable[[], object]) -> None:
        """
        Have a thread call a function, which raises nothing. Never blocks for another function.

        Raises:
            RuntimeError: There is no thread, and none can be begun. The function will not run.
        """
        with self._changed:
            self._work.append(function)
            if len(self._work) <= self._idle:
                self._changed.notify()
                return
            if self._threads >= self._limit:
                return
            self._threads += 1
        try:
            run_alone(self._run)
        except BaseException:
            with self._changed:
                self._threads -= 1
                if self._threads or function not in self._work:
                    return  # another thread will come to it, or has
                self._work.remove(function)
            raise

    def _run(self) -> None:
        while (function := self._next()) is not None:
            function()
            del function  # what it refers to must not live until the next one comes
        if not self._threads:
            self._on_quiet()

    def _next(self) -> Callable[[], object] | None:
        """What to run, or `None` when this thread has ended."""
        with self._changed:
            while not self._work:
                self._idle += 1
                is_woken = self._changed.wait(self._idle_seconds)
                self._idle -= 1
                if not is_woken and not self._work:
                    self._threads -= 1
                    return None
            return self._work.popleft()
