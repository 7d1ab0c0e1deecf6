"""
The pooled values and callbacks that a request holds, and how it gives them back.

Threads and tasks of a request share this without a lock: each step is one atomic operation of a dictionary.

- `_uses` has what is held. A caller that removes an item gives it back.
- `_flights` has what is being taken. The caller that puts a flight there is its leader, the others wait for it. The
  leader puts its value into `_uses`, and then removes its flight. So a caller that finds a key in neither takes it.
- A caller sets `_is_shared` before it looks for a flight to wait for. The leader reads it after removing its flight: as
  long as it is false, there is no waiter to wake.
- The end of the request sets `_is_closed`, and then removes everything. A caller that takes a value reads `_is_closed`
  after putting it into `_uses`, and if it is set removes it again. So one of the two gives back a late value.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

from .._adapters import ASYNC_CALLBACK, CALLBACK, Adapter
from .._backends.fork import snapshot as members
from .._single_flight import SingleFlight, TaskFlight
from ..errors import RequestContextError
from .current import NOTHING_RESOLVED
from .ending import ended_error, raise_errors

if TYPE_CHECKING:
    import weakref

__all__ = ["AcquireTask", "HeldResources", "abandon", "must_be_awaited"]

C = TypeVar("C", bound=Callable[..., Any])

#: Adapter, pool and value; for a callback: adapter, callback and `None`.
Use: TypeAlias = tuple[Adapter, Any, Any]


class AcquireTask(TaskFlight[Any]):
    """Flight of a task that takes a value."""

    def __init__(self, adapter: Adapter, remove: Callable[[], object]) -> None:
        super().__init__(remove)
        self.adapter = adapter


class HeldResources:
    """
    The part of a request that has its pooled values and callbacks. They are given back last in, first out.

    The *owner context* holds pooled values: the request itself, or for a part of a request the request it is part of.

    Attributes:
        resolved: The values of pooled providers in this request; replaced by `NOTHING_RESOLVED` at the end.
        error: An exception that a framework turned into a response, so that the request's code ends normally.
            `close` without an exception takes this one.
    """

    # `RequestContext.__init__` sets them all, which saves a call for each request.
    __slots__ = (
        "_uses",  # what is held, by key, in the order in which it was taken
        "_flights",  # what is being taken, by key
        "_is_closed",  # whether its end has begun; never reset
        "_is_shared",  # whether other callers may wait for a flight, or other contexts use the values; never reset
        "_may_need_loop",  # whether giving back may have to be awaited; never reset
        "_owner",  # the owner context, if it is another; set before other code sees this one
        "_sharers",  # the contexts whose owner this is, if there are any
        "resolved",
        "error",
    )

    _uses: dict[Any, Use]
    _flights: dict[Any, SingleFlight[Any]]
    _is_closed: bool
    _is_shared: bool
    _may_need_loop: bool
    _owner: Self | None
    _sharers: weakref.WeakSet[HeldResources] | None
    resolved: dict[Any, Any]
    error: BaseException | None

    @property
    def is_closed(self) -> bool:
        """Whether the request has ended, or its end has begun."""
        return self._is_closed

    @property
    def has_ended(self) -> bool:
        """Whether the end of the request is over: what it held went back, and its callbacks have run."""
        return self._is_closed and self.resolved is NOTHING_RESOLVED

    # --- giving back ---------------------------------------------------------------------------------------------

    def on_close(self, callback: C) -> C:
        """
        Call `callback(exc)` when the request ends, with the exception that ended it or `None`.

        Callbacks and pooled values unwind together, last in, first out: values taken before
        the callback was added are still usable in it. If it returns an awaitable, that is awaited.

        Returns:
            The callback, so that you can use this as a decorator.

        Raises:
            RequestContextError: The request has ended.
        """
        if self._is_closed:
            raise ended_error(self)
        adapter = CALLBACK
        if inspect.iscoroutinefunction(callback):
            adapter, self._may_need_loop = ASYNC_CALLBACK, True
        self._uses[object()] = (adapter, callback, None)
        return callback

    def close(self, exc: BaseException | None = None) -> None:
        """
        End the request: call its callbacks and give back what it holds.

        Closing it again does nothing. If a callback or pool fails, the others are still called.

        Args:
            exc: What ended the request, for callbacks and release hooks; `None` takes `error`.

        Raises:
            RequestContextError: It holds something that must be awaited. The request is still open; use `aclose`.
            ExceptionGroup: Several callbacks or releases failed; a single failure is raised as it is.
        """
        if self._is_closed:
            return
        if self._may_need_loop and self._has_to_be_awaited():
            raise RequestContextError(
                f"{self} holds values of an asyncio pool or callbacks that must be awaited, and was closed without "
                "`await`: end it with `await ctx.aclose()`, or open it with `async with`"
            )
        self._is_closed = True
        if self._is_shared:
            _ = self._end_uses_of_others()
        if exc is None:
            exc = self.error
        errors: list[BaseException] | None = None
        uses = self._uses
        while uses:
            try:
                adapter, pool, value = uses.popitem()[1]
            except KeyError:  # another thread has removed its late value
                break
            try:
                if exc is None and adapter.is_direct:
                    pool.release(value)
                else:
                    adapter.give(pool, value, exc)
            except BaseException as error:  # noqa: BLE001 - raised below, after the others were given back
                errors = [*(errors or ()), error]
        self.resolved = NOTHING_RESOLVED
        if errors:
            raise_errors(errors, self, exc)

    async def aclose(self, exc: BaseException | None = None) -> None:
        """
        As `close`, awaiting what has to be awaited.

        If it is cancelled meanwhile, everything is given back first and the cancellation is
        raised at the end. A second cancellation interrupts the callback or release that is running.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if exc is None:
            exc = self.error
        errors: list[BaseException] = []
        if self._is_shared:
            tasks = self._end_uses_of_others()
            if tasks:
                try:
                    await asyncio.wait(tasks)
                except asyncio.CancelledError as error:
                    errors.append(error)
        uses = self._uses
        while uses:
            try:
                adapter, pool, value = uses.popitem()[1]
            except KeyError:  # another thread has removed its late value
                break
            try:
                ending = adapter.give_in_loop(pool, value, exc)
                if ending is not None:
                    await ending
            except BaseException as error:  # noqa: BLE001 - raised below, after the others were given back
                errors.append(error)
        self.resolved = NOTHING_RESOLVED
        if errors:
            raise_errors(errors, self, exc)

    def _has_to_be_awaited(self) -> bool:
        uses, flights = tuple(self._uses.values()), tuple(self._flights.values())
        return any(adapter.is_async for adapter, _, _ in uses) or any(
            isinstance(flight, AcquireTask) and flight.adapter.is_async for flight in flights
        )

    def _end_uses_of_others(self) -> list[asyncio.Task[Any]]:
        """
        End the shared use of the values: clear them in contexts that share them, fail the flights of waiting callers.

        Returns:
            The tasks that were taking a value in the running loop, and are being cancelled.
        """
        if self._sharers is not None:
            for ctx in members(self._sharers):
                ctx.resolved = NOTHING_RESOLVED
        tasks = []
        while self._flights:
            try:
                flight = self._flights.popitem()[1]
            except KeyError:  # it has just ended
                break
            task = flight.cancel(ended_error(self)) if isinstance(flight, TaskFlight) else None
            if task is not None:
                tasks.append(task)
            flight.fail(ended_error(self))
        return tasks


def must_be_awaited(ctx: HeldResources) -> bool:
    """Whether it holds or takes something that only `aclose` can give back."""
    return ctx._may_need_loop and ctx._has_to_be_awaited()


def abandon(ctx: HeldResources) -> None:
    """End the request without giving anything back, after the event loop that this would need was closed."""
    ctx._is_closed = True
    ctx._uses.clear()
    ctx._flights.clear()
    ctx.resolved = NOTHING_RESOLVED
