"""
The pooled values of a request: each is taken on its first use, once for all threads and tasks that ask for it.

`held` has the rules by which this works without a lock.
"""

from __future__ import annotations

import weakref
from asyncio import _get_running_loop
from functools import partial
from typing import Any, Self, TypeAlias

from .._adapters import Adapter, adapters_by_type, find_adapter
from .._backends.offload import in_background, in_worker
from .._engine.lease import NOTHING
from .._single_flight import SingleFlight
from .current import NOTHING_RESOLVED
from .ending import ended_error, must_await_error
from .held import AcquireTask, HeldResources

__all__ = ["PooledValues", "atake", "put", "take", "take_idle"]

#: Where a value comes from: the adapter, the pool, and the options for its `acquire`.
Source: TypeAlias = tuple[Adapter, Any, dict[str, Any]]


class PooledValues(HeldResources):
    """
    The part of a request that takes values from pools.

    Private methods with a parameter `ctx` run on the owner context; `ctx` is the context that asked.
    """

    __slots__ = ()

    def _share_with(self, part: PooledValues) -> None:
        """Make a context part of this request: their pooled values are the same."""
        if self._owner is not None:  # this is a part itself
            self._owner._share_with(part)
            return
        part._owner = self
        if self._sharers is None:
            self._sharers = weakref.WeakSet()
        self._sharers.add(part)
        self._is_shared = True
        if self._is_closed:
            part.resolved = NOTHING_RESOLVED

    def _follow(self, key: Any, flight: SingleFlight[Any], mine: SingleFlight[None]) -> None:
        """Block until another caller's flight has ended."""
        self._is_shared = True
        if flight is mine:  # the other flight ended between this caller's two look-ups
            self._flights.pop(key, None)
            mine.succeed(None)
        elif self._flights.get(key) is flight:
            flight.wait()
            if flight.error is not None:
                raise flight.error

    async def _lead_async(self, ctx: Self, key: Any, source: Source) -> Any:
        """Take a value that most likely needs no wait, without a task. If the caller is cancelled, a waiter leads."""
        flight: SingleFlight[None] = SingleFlight()
        self._may_need_loop = True
        self._flights[key] = flight
        try:
            value = await self._take_and_hold(ctx, key, flight, source)
        except BaseException as error:
            self._flights.pop(key, None)
            flight.give_up(error)
            raise
        self._flights.pop(key, None)
        flight.succeed(None)
        return value

    def _begin_task(self, ctx: Self, key: Any, source: Source) -> SingleFlight[Any]:
        """Start a task that takes a value, unless another thread did; returns the flight to wait for."""
        mine = AcquireTask(source[0], partial(self._flights.pop, key, None))
        self._may_need_loop = True
        flight = self._flights.setdefault(key, mine)
        if flight is mine:
            mine.begin(self._take_and_hold(ctx, key, mine, source))
        return flight

    async def _take_and_hold(self, ctx: Self, key: Any, flight: SingleFlight[Any], source: Source) -> Any:
        """Take a value and hold it, or give it back if no caller waits for it any more."""
        adapter, pool, options = source
        if (use := self._uses.get(key)) is not None:  # another flight has ended since the caller looked
            return use[2]
        if adapter.is_async:
            value = await adapter.take(pool, ctx, options)
        else:
            value = await in_worker(
                partial(adapter.take, pool, ctx, options), unwanted=lambda late: adapter.give(pool, late, None)
            )
        is_wanted = self._flights.get(key) is flight  # else all waiters have left, or the request has ended
        if is_wanted:
            self._uses[key] = (adapter, pool, value)
            if not self._is_closed:
                return value
        if not is_wanted or self._uses.pop(key, None) is not None:
            ending = adapter.give_in_loop(pool, value, None)
            if ending is not None:
                await ending
        raise ended_error(ctx)


def take(ctx: PooledValues, pool: Any, key: Any, options: dict[str, Any]) -> Any:
    """
    The value of this key, taken from the pool on its first use. Blocks.

    Raises:
        RequestContextError: The request has ended, or the value must be awaited.
    """
    owner = ctx._owner or ctx
    uses = owner._uses
    while True:
        if ctx._is_closed or owner._is_closed:
            raise ended_error(ctx)
        if key in uses and (use := uses.get(key)) is not None:
            return use[2]
        try:
            adapter = adapters_by_type[pool.__class__]
        except KeyError:
            adapter = find_adapter(pool)
        if adapter.is_async or _get_running_loop() is not None:
            raise must_await_error(pool, is_async=adapter.is_async)
        mine: SingleFlight[None] = SingleFlight()
        flight = owner._flights.setdefault(key, mine)
        if flight is mine and key not in uses:
            break
        owner._follow(key, flight, mine)
    try:
        value = pool.acquire(ctx) if adapter.is_direct and not options else adapter.take(pool, ctx, options)
    except BaseException as error:
        owner._flights.pop(key, None)
        mine.give_up(error)
        raise
    uses[key] = (adapter, pool, value)
    try:
        del owner._flights[key]
    except KeyError:  # the end of the request has removed it
        pass
    if owner._is_shared:
        mine.succeed(None)
    if owner._is_closed:  # another thread has ended it since the check above
        if uses.pop(key, None) is not None:  # type: ignore[unreachable]
            adapter.give(pool, value, None)
        raise ended_error(ctx)
    return value


async def atake(ctx: PooledValues, pool: Any, key: Any, options: dict[str, Any], provider: Any = None) -> Any:
    """As `take`, suspending. If a `provider` is given, records the value as the provider's in this request."""
    owner = ctx._owner or ctx
    owner._is_shared = True
    adapter = find_adapter(pool)
    while True:
        if ctx._is_closed or owner._is_closed:
            raise ended_error(ctx)
        use = owner._uses.get(key)
        if use is not None:
            if provider is not None:
                put(ctx, provider, use[2])
            return use[2]
        flight = owner._flights.get(key)
        if flight is not None:
            await flight.wait_async()
        elif adapter.is_at_hand(pool):
            await owner._lead_async(ctx, key, (adapter, pool, options))
        else:
            flight = owner._begin_task(ctx, key, (adapter, pool, options))
            await flight.wait_async()
        if flight is not None and flight.error is not None:
            raise flight.error


def take_idle(ctx: PooledValues, pool: Any, key: Any) -> Any:
    """
    For coroutines: the value of this key, if it is held or can be taken without waiting; else `NOTHING`.

    Raises:
        RequestContextError: The request has ended.
    """
    owner = ctx._owner or ctx
    if ctx._is_closed or owner._is_closed:
        raise ended_error(ctx)
    use = owner._uses.get(key)
    if use is not None:
        return use[2]
    if key in owner._flights:
        return NOTHING
    try:
        adapter = adapters_by_type[pool.__class__]
    except KeyError:
        adapter = find_adapter(pool)
    value = adapter.take_idle(pool)
    if value is NOTHING:
        return NOTHING
    owner._may_need_loop = True
    owner._uses[key] = (adapter, pool, value)
    if owner._is_closed:  # another thread has ended it since the check above
        if owner._uses.pop(key, None) is not None:  # type: ignore[unreachable]
            ending = adapter.give_in_loop(pool, value, None)
            if ending is not None:
                _ = in_background(ending)
        raise ended_error(ctx)
    return value


def put(ctx: PooledValues, provider: Any, value: Any) -> None:
    """
    Record the value that a provider gives in this request.

    Raises:
        RequestContextError: The request has ended.
    """
    resolved = ctx.resolved
    if resolved is NOTHING_RESOLVED or ctx._is_closed:
        raise ended_error(ctx)
    resolved[provider] = value
