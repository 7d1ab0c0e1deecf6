"""
What a request holds: values in use, and values that are being taken.

A request keeps a dictionary from keys to *uses*, whose order is the stack to unwind at its end. A use is

    (way, lender, value)   a value in use; `_lenders` has a way for each kind of lender
    a list                 a value being taken; in the list are the wakers of those who wait for it
    an `Attempt`           the same, taken by a task

No lock is needed, for each step is one atomic operation of a dictionary or a list, by these rules:

- Whoever puts a list of their own under a key, by `setdefault`, leads: they take the value and put its use there
  instead, or remove the list again. After either they wake all who are in it.
- A waiter puts its waker into the list, and looks afterwards whether that still stands under the key. So of waiter and
  leader one sees the other.
- What was removed belongs to the one who removed it, and to nobody else. The end of the request removes what it finds,
  and gives it back; who takes a value looks for the end after putting the use there, and removes it again.
- A failed attempt reaches all who waited for it: the next to ask tries again. An *interrupted* attempt belongs to one
  caller alone; the waiters are woken without an error, and another leads.
"""

from __future__ import annotations

import asyncio
import threading
from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._adapters import Way

Waker = Callable[[BaseException | None], None]


class Attempt(list[Waker]):
    """A value being taken by a task, for all whose wakers are in here. The last of them to go away ends it."""

    __slots__ = ("task", "way")

    def __init__(self, way: Way) -> None:
        super().__init__()
        self.way = way
        self.task: asyncio.Task[Any] | None = None

    def begin(self, leading: Coroutine[Any, Any, Any], uses: dict[Any, Any], key: Any) -> None:
        """Start the task."""

        def over(task: asyncio.Task[Any]) -> None:
            if not task.cancelled():
                task.exception()  # all who were to know have been told
            elif uses.get(key) is self:  # it was cancelled before its first step
                uses.pop(key, None)
                wake(self, asyncio.CancelledError())

        self.task = asyncio.get_running_loop().create_task(leading)
        self.task.add_done_callback(over)


def is_to_be_awaited(use: tuple[Way, Any, Any] | list[Waker]) -> bool:
    """Whether ending this use takes an event loop."""
    if isinstance(use, tuple):
        return use[0].is_async
    return isinstance(use, Attempt) and use.way.is_async


def wake(attempt: list[Waker], error: BaseException | None = None) -> None:
    """Have all who wait for a value look again, or raise an error."""
    while attempt:
        try:
            attempt.pop()(error)
        except IndexError:  # another thread woke the last
            return


def abandon(attempt: list[Waker], error: BaseException) -> Awaitable[Any] | None:
    """Send those away who wait for a value that the request, which has ended, wants no more; what is to be awaited."""
    wake(attempt, error)
    task = getattr(attempt, "task", None)
    if task is None:
        return None
    task.cancel()
    return asyncio.wait((task,))


def follow(attempt: list[Waker], uses: dict[Any, Any], key: Any) -> None:
    """Block until another thread or task has taken the value, or raise what it met with."""
    latch = threading.Lock()
    latch.acquire()
    said: list[BaseException | None] = []

    def waker(error: BaseException | None) -> None:
        said.append(error)
        latch.release()

    attempt.append(waker)
    if uses.get(key) is attempt:
        latch.acquire()
    if said and said[0] is not None:
        raise said[0]


async def afollow(attempt: list[Waker], uses: dict[Any, Any], key: Any) -> None:
    """As `follow`, without blocking the loop. Going away early harms nobody else; the last to go ends the attempt."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[BaseException | None] = loop.create_future()
    waker = partial(_wake, loop, future)
    attempt.append(waker)
    if uses.get(key) is not attempt:
        return
    try:
        error = await future
    except asyncio.CancelledError:
        if waker in attempt:
            attempt.remove(waker)
        if not attempt and isinstance(attempt, Attempt) and attempt.task is not None and uses.get(key) is attempt:
            uses.pop(key, None)
            attempt.task.cancel()
        raise
    if error is not None:
        raise error


def _wake(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[BaseException | None], error: BaseException | None
) -> None:
    if _get_running_loop() is loop:
        if not future.done():
            future.set_result(error)
        return
    try:
        loop.call_soon_threadsafe(_wake, loop, future, error)
    except RuntimeError:  # that loop is closed, and with it the waiter
        pass
