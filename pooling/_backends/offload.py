"""Running blocking work without blocking an event loop, and awaiting work that must not be cut short."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from .threads import shared

logger = logging.getLogger("pooling")

R = TypeVar("R")

_background: set[asyncio.Future[Any]] = set()  # the loop itself keeps only weak references


def in_loop() -> bool:
    """Whether this thread is running an event loop, and so must not block."""
    return _get_running_loop() is not None


async def in_worker(work: Callable[[], R], unwanted: Callable[[R], None] | None = None) -> R:
    """
    Run blocking work on a worker thread, in a copy of this context.

    Cancelling the wait does not stop the work; its result then goes to `unwanted`, on the worker.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[R] = loop.create_future()
    run = contextvars.copy_context().run

    def job() -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = run(work)
        except BaseException as caught:  # noqa: BLE001 - raised in the coroutine that waits
            error = caught
        try:
            loop.call_soon_threadsafe(deliver, result, error)
        except RuntimeError:  # the loop is closed, so nothing waits any more
            drop(result, error)

    def deliver(result: Any, error: BaseException | None) -> None:
        if future.cancelled():
            shared.workers.submit(partial(drop, result, error))
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def drop(result: Any, error: BaseException | None = None) -> None:
        if unwanted is not None and error is None:
            try:
                unwanted(result)
            except Exception:
                logger.exception("giving back a value that came too late failed")

    shared.workers.submit(job)
    try:
        return await future
    except asyncio.CancelledError:
        if future.done() and not future.cancelled() and future.exception() is None:
            shared.workers.submit(partial(drop, future.result()))
        raise


def in_background(awaitable: Awaitable[R]) -> asyncio.Future[R]:
    """Have the running loop await this to its end, also if the caller stops waiting."""
    task = asyncio.ensure_future(awaitable)
    _background.add(task)
    task.add_done_callback(_background.discard)
    return task


async def through(awaitable: Awaitable[R]) -> R:
    """Await something that must not be cut short: a cancellation is raised after it, a second one interrupts it."""
    task = asyncio.ensure_future(_coroutine(awaitable))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if task.done():
            raise
        try:
            await task
        except asyncio.CancelledError:
            pass
        raise


async def _coroutine(awaitable: Awaitable[R]) -> R:
    return await awaitable
