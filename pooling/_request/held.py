"""
What one request holds: pooled values and callbacks, and how it gives all of it back.

Threads and tasks of the request share this without a lock, for each step is one atomic operation of a dictionary:

- `_uses` has what is held. What a caller removes from it is that caller's to give back.
- `_flights` has what is being taken: the caller that puts a flight there leads, the others wait for it. The leader puts
  its value into `_uses`, and then removes its flight. So a caller that finds a value in neither takes it.
- A caller sets `_is_shared` before it looks for a flight to wait for. The leader looks at that after removing its
  flight: as long as nothing is shared, there is no waiter to wake.
- The end of the request sets `_is_closed`, and then removes everything. A caller that takes a value looks at
  `_is_closed` after putting it into `_uses`, and removes it again. So one of the two gives back what comes late.
"""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections.abc import Callable
from typing import Any, Self, TypeAlias, TypeVar

from .._adapters import ASYNC_CALLBACK, CALLBACK, Adapter
from .._backends.fork import snapshot as members
from .._single_flight import SingleFlight, TaskFlight
from ..errors import RequestContextError
from .current import NOTHING_RESOLVED
from .ending import ended_error, raise_errors

__all__ = ["AcquireTask", "HeldResources"]

C = TypeVar("C", bound=Callable[..., Any])

#: The adapter, the pool and the value; for a callback the adapter, the callback and `None`.
Use: TypeAlias = tuple[Adapter, Any, Any]


class AcquireTask(TaskFlight[Any]):
    """A value that a task takes."""

    def __init__(self, adapter: Adapter, remove: Callable[[], object]) -> None:
        super().__init__(remove)
        self.adapter = adapter


class HeldResources:
    """
    The part of a request that is its pooled values and callbacks, given back last in, first out.

    Pooled values are held by the *owner context*: the request itself, or for a part of a request the one it belongs to.

    Attributes:
        resolved: What providers give in this request; replaced by `NOTHING_RESOLVED` at the end.
        error: What ended the request, where a framework made a response of it and its code ends normally: a
            `close` without an exception takes this one.
    """

    # `RequestContext` sets them all: a call less for each request.
    __slots__ = (
        "_uses",  # what is held, by key, in the order in which it was taken
        "_flights",  # what is being taken, by key
        "_is_closed",  # whether the end has begun; never reset
        "_is_shared",  # whether others wait for a flight here, or use the values here; never reset
        "may_need_loop",  # whether some of it may have to be awaited; never reset
        "_owner",  # the owner context, unless it is this one; set before others see this one
        "_sharers",  # the contexts whose owner this is, if there are any
        "resolved",
        "error",
    )

    _uses: dict[Any, Use]
    _flights: dict[Any, SingleFlight[Any]]
    _is_closed: bool
    _is_shared: bool
    may_need_loop: bool
    _owner: Self | None
    _sharers: weakref.WeakSet[HeldResources] | None
    resolved: dict[Any, Any]
    error: BaseException | None

    @property
    def is_closed(self) -> bool:
        """Whether it has ended, or begun to."""
        return self._is_closed

    def use_values_of(self, other: Self) -> None:
        owner = self._owner = other._owner or other
        if owner._sharers is None:
            owner._sharers = weakref.WeakSet()
        owner._sharers.add(self)
        owner._is_shared = True
        if owner._is_closed:
            self.resolved = NOTHING_RESOLVED

    # --- giving back ---------------------------------------------------------------------------------------------

    def on_close(self, callback: C) -> C:
        """
        Have `callback(exc)` called when the request ends, with the exception that ended it or `None`.

        Callbacks and pooled values unwind together, last in, first out: what was taken before
        the callback was given is still there for it. An awaitable it returns is awaited.

        Returns:
            The callback, so that this can decorate it.

        Raises:
            RequestContextError: The request has ended.
        """
        if self._is_closed:
            raise ended_error(self)
        adapter = CALLBACK
        if inspect.iscoroutinefunction(callback):
            adapter, self.may_need_loop = ASYNC_CALLBACK, True
        self._uses[object()] = (adapter, callback, None)
        return callback

    def close(self, exc: BaseException | None = None) -> None:
        """
        End the request: call its callbacks and give back what it holds.

        Closing it again does nothing. A callback or pool that fails does not keep the others from their turn.

        Args:
            exc: What ended the request, for callbacks and release hooks; `None` takes `error`.

        Raises:
            RequestContextError: It holds something that must be awaited. Nothing has happened; use `aclose`.
            ExceptionGroup: Several callbacks or releases failed; a single failure is raised as it is.
        """
        if self._is_closed:
            return
        if self.may_need_loop and self._has_to_be_awaited():
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
            except KeyError:  # another thread has removed what came late
                break
            try:
                if exc is None and adapter.is_direct:
                    pool.release(value)
                else:
                    adapter.give(pool, value, exc)
            except BaseException as error:  # noqa: BLE001 - raised below, after the others had their turn
                errors = [*(errors or ()), error]
        self.resolved = NOTHING_RESOLVED
        if errors:
            raise_errors(errors, self, exc)

    async def aclose(self, exc: BaseException | None = None) -> None:
        """
        As `close`, awaiting what has to be awaited.

        A cancellation meanwhile does not keep anything from being given back: it is
        raised at the end. One that comes twice cuts short the callback or release under way.
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
            except KeyError:  # another thread has removed what came late
                break
            try:
                ending = adapter.give_in_loop(pool, value, exc)
                if ending is not None:
                    await ending
            except BaseException as error:  # noqa: BLE001 - raised below, after the others had their turn
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
        Tell those who share the values, or wait for them, that they are given back.

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
            except KeyError:  # it has just landed
                break
            task = flight.cancel(ended_error(self)) if isinstance(flight, TaskFlight) else None
            if task is not None:
                tasks.append(task)
            flight.fail(ended_error(self))
        return tasks
