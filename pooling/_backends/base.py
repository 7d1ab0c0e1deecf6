"""What operations need of a backend: time, waiting, hooks, background work."""

from __future__ import annotations

import threading
from asyncio import _get_running_loop, current_task
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .._engine import call_site

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

R_co = TypeVar("R_co", covariant=True)


class StepTimeoutError(Exception):
    """A hook did not end before its deadline."""


class Runnable(Protocol[R_co]):
    """Work of several steps that awaits only the backend."""

    def begin(self) -> Coroutine[Any, Any, R_co]:
        """Return the coroutine to run. Call it once."""


class Backend(Protocol):
    """Threads, an event loop, or a test's fake."""

    @property
    def can_interrupt(self) -> bool:
        """Whether a running hook can be interrupted."""

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """The lock that is held during each call of the ledger, and never during a hook, a wait or a log call."""

    @property
    def now(self) -> Callable[[], float]:
        """The monotonic clock, in seconds."""

    def latch(self) -> Any:
        """Make something that one borrower can wait for."""

    def wake(self, latch: Any) -> None:
        """Open a latch; opening it again does nothing."""

    async def wait(self, latch: Any, deadline: float) -> bool:
        """Wait until the latch is opened or the deadline has passed; whether it was opened."""

    async def call(
        self, hook: Callable[..., Any], args: tuple[Any, ...], deadline: float, *, stays: bool = False
    ) -> Any:
        """
        Run a hook of the user's; raises `StepTimeoutError` if the deadline passes first.

        asyncio cancels the hook and waits until it has ended. A thread cannot be stopped, and is left behind.
        A caller that `stays` takes what comes late.
        """

    def spawn(self, work: Runnable[Any], name: str) -> None:
        """Run work in the background."""

    def at(self, when: float, callback: Callable[[], None]) -> None:
        """Call `callback` at this instant."""

    def visit(self, callback: Callable[[], None]) -> bool:
        """
        Call `callback` where the ledger may be changed: in this thread, or soon in the loop; whether it will be.

        May be called from any thread.
        """


class _ThreadName(threading.local):
    """The current thread's name, for messages; found once for each thread."""

    def __init__(self) -> None:
        self.text = f"thread {threading.current_thread().name!r}"


_thread_name = _ThreadName()


def _noted_runner() -> Any:
    """The current task's name in a tuple, or a text for the current thread."""
    loop = _get_running_loop()
    task = None if loop is None else current_task(loop)
    return _thread_name.text if task is None else (task.get_name(),)


call_site.noted_runner = _noted_runner
