"""Signals whose handler raises, at random instants while a pool is at work, and what must hold afterwards."""

from __future__ import annotations

import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Self

import pytest

import pooling
from pooling import CreateError

PACKAGE = str(Path(pooling.__file__).parent)
SHORTEST, LONGEST = 5e-6, 120e-6  # seconds from the start of the work to the signal
# Seconds until the next signal, where a hook has swallowed the first, or where the system has given it to a thread that
# is not one of Python, such as those of OpenBLAS: CPython then does not tell the main thread.
AGAIN = 0.005


class SoftLimitError(Exception):
    """What a worker of a task queue raises when its soft time limit is up."""


class CtrlC(BaseException):
    """What Ctrl-C raises, in a notebook."""


KINDS = [CtrlC, SoftLimitError]

#: For every file of these tests. A signal may leave a coroutine that never ran, or be reported in a finaliser; and the
#: signal that `pytest-timeout` would use is taken.
MARKS = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.timeout(180, method="thread"),
]


class Signals:
    """
    Raises an error of this kind in the main thread, at a random instant.

    Args:
        kind: What the handler raises.
        seed: For the instants.
        only_inside: Whether to raise only in code of the package itself, and once: asyncio's own is not proof against
            signals.
    """

    def __init__(self, kind: type[BaseException], seed: int = 1, *, only_inside: bool = False) -> None:
        self.kind = kind
        self.random = random.Random(seed)
        self.only_inside = only_inside
        self.raised = 0

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGALRM, self._handle)
        # What is raised in a finaliser is reported, and nothing else can be done with it.
        self._hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)
        sys.unraisablehook = self._hook

    def _handle(self, _: int, frame: FrameType | None) -> None:
        if self.only_inside:
            if not (frame and frame.f_code.co_filename.startswith(PACKAGE)):
                signal.setitimer(signal.ITIMER_REAL, self.random.uniform(LONGEST, 5 * LONGEST), AGAIN)
                return
            signal.setitimer(signal.ITIMER_REAL, 0)
        self.raised += 1
        raise self.kind

    def interrupt(self, work: Callable[[], Any]) -> None:
        """Do `work` again and again until a signal ends it."""
        delay = self.random.uniform(SHORTEST, LONGEST)
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, delay, AGAIN)
                while True:
                    work()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except self.kind:
            pass

    def interrupt_until(self, work: Callable[[], Any], is_over: Callable[[], bool]) -> None:
        """
        Do `work` until it is over; what the signal raises comes out of it, and it goes on.

        A create in the background that was interrupted reaches the borrower as a `CreateError`.
        """
        delay = self.random.uniform(SHORTEST, LONGEST)
        signal.setitimer(signal.ITIMER_REAL, delay, AGAIN)
        while not is_over():
            try:
                work()
            except (self.kind, CreateError):
                continue
        signal.setitimer(signal.ITIMER_REAL, 0)


class Clock:
    """The machine's clock, which can be put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Made:
    """What the pools of these tests lend."""

    def __init__(self) -> None:
        self.is_unmade = False

    def destroy(self) -> None:
        assert not self.is_unmade, "destroyed twice"
        self.is_unmade = True
