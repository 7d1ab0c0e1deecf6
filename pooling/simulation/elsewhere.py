"""Simulations in other processes, so that each takes a processor of its own."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import TYPE_CHECKING, ParamSpec, Self, TypeVar

from . import _ending
from .workload import check_whole

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

P = ParamSpec("P")
T = TypeVar("T")


class SimulationProcesses:
    """
    Processes that simulate: a context manager, at whose end what they still do is given up within a moment.

    As with `multiprocessing`, a script that uses it must be importable: do so below `if __name__ == "__main__":`.

    Args:
        count: How many. Each begins when it is first needed, and takes about a second for that.

    Raises:
        ConfigurationError: `count` is no whole number of at least 1.
    """

    def __init__(self, count: int) -> None:
        check_whole("count", count, 1)
        self._count = count
        self._begun: tuple[ProcessPoolExecutor, Event] | None = None  # the event says that they have to end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._begun is not None:
            executor, ends = self._begun
            ends.set()
            executor.shutdown(cancel_futures=True)

    def submit(self, call: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> Future[T]:
        """
        Make a call in one of the processes as soon as one is free: of `simulate`, for example.

        Args:
            call: A function of a module.
            *arguments: What it is given. It is pickled.
            **keywords: As `arguments`.
        """
        if self._begun is None:
            context = get_context("spawn")
            ends = context.Event()  # with the first of these, Python begins a process that keeps track of them
            executor = ProcessPoolExecutor(self._count, mp_context=context, initializer=_begin, initargs=(ends,))
            self._begun = executor, ends
        executor, _ = self._begun
        with _interrupts_blocked():
            return executor.submit(call, *arguments, **keywords)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """
    Have processes that begin in this block inherit that SIGINT is blocked: a terminal sends Ctrl-C to them, too.

    A handler that they set themselves would come too late. This process gets its own interrupt at the block's end.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(ends: Event) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where none can be blocked
    _ending.is_wanted = ends.is_set
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Let a process not outlive the one that began it, which may be killed and say nothing."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
