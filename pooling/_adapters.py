"""How to take from each kind of lender, and how to give back to it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ._backends.offload import in_worker, through
from .errors import ConfigurationError, ReleaseError, RequestContextError
from .lease import NOTHING, AsyncPooledValue, PooledValue
from .service import AsyncPoolingService, PoolingService

if TYPE_CHECKING:
    from types import TracebackType

    from .context import RequestContext

logger = logging.getLogger("pooling")


class Way:
    """
    A way to take from a lender and give back to it.

    Attributes:
        is_async: Whether what `take` and `give` return is to be awaited.
        is_direct: Whether `lender.acquire(ctx)` and `lender.release(value)` are all there is to a use without options
            or error, so that a request may call them without a detour.
    """

    __slots__ = ("is_async", "is_direct")

    def __init__(self, *, is_async: bool, is_direct: bool = False) -> None:
        self.is_async = is_async
        self.is_direct = is_direct

    def take(self, lender: Any, ctx: RequestContext, options: dict[str, Any]) -> Any:
        """Take a value."""
        raise NotImplementedError

    def take_idle(self, lender: Any) -> Any:
        """A value that can be had here and now, without waiting; else `NOTHING`."""
        return NOTHING

    def is_at_hand(self, lender: Any) -> bool:
        """Whether taking would most likely not wait."""
        return False

    def give(self, lender: Any, value: Any, exc: BaseException | None) -> Any:
        """Give a value back."""
        raise NotImplementedError

    def agive(self, lender: Any, value: Any, exc: BaseException | None) -> Awaitable[None] | None:
        """Give a value back without blocking the loop; what is to be awaited, or `None` if it is done."""
        if self.is_async:
            return self.give(lender, value, exc)  # type: ignore[no-any-return]
        return through(in_worker(partial(self.give, lender, value, exc)))

    def is_out(self, lender: Any, value: Any) -> bool:
        """Whether the value is known not to have been given back."""
        return False


class FromService(Way):
    """From a pool for threads: `acquire(ctx)`, `release(value, exc=...)`."""

    __slots__ = ()

    def take(self, lender: Any, ctx: RequestContext, options: dict[str, Any]) -> Any:
        return lender.acquire(ctx, **options) if options else lender.acquire(ctx)

    def is_out(self, lender: Any, value: Any) -> bool:
        return isinstance(lender, PoolingService) and lender.is_borrowed(value)

    def give(self, lender: Any, value: Any, exc: BaseException | None) -> Any:
        if exc is None:
            return lender.release(value)
        try:
            if isinstance(lender, PoolingService):  # what an error means for the value is the pool's to say
                return PooledValue(lender, value).__exit__(type(exc), exc, exc.__traceback__)
            return lender.release(value, exc=exc)
        except ReleaseError as failure:  # the request's own error is the one to be seen
            logger.warning("%s", failure)


class FromAsyncService(FromService):
    """The same, where both are coroutine functions."""

    __slots__ = ()

    def is_at_hand(self, lender: Any) -> bool:
        return getattr(lender, "available", 0) > 0

    def give(self, lender: Any, value: Any, exc: BaseException | None) -> Any:
        return lender.release(value) if exc is None else self._give(lender, value, exc)

    async def _give(self, lender: Any, value: Any, exc: BaseException) -> None:
        try:
            if isinstance(lender, AsyncPoolingService):
                await AsyncPooledValue(lender, value).__aexit__(type(exc), exc, exc.__traceback__)
            else:
                await lender.release(value, exc=exc)
        except ReleaseError as failure:
            logger.warning("%s", failure)


class FromAsyncPool(FromAsyncService):
    """From an `AsyncPoolingService`, which needs no coroutine where nothing has to wait."""

    __slots__ = ()

    def take_idle(self, lender: Any) -> Any:
        return lender._take_idle()

    def agive(self, lender: Any, value: Any, exc: BaseException | None) -> Awaitable[None] | None:
        if exc is None and lender._put_idle(value):
            return None
        return self.give(lender, value, exc)  # type: ignore[no-any-return]


class FromContextManager(Way):
    """The lender, or what its `connection()` gives, is a context manager around one use; an instance for each."""

    __slots__ = ("_manager",)

    def _open(self, lender: Any, options: dict[str, Any]) -> Any:
        self._manager = lender.connection(**options) if callable(getattr(lender, "connection", None)) else lender
        return self._manager

    def take(self, lender: Any, ctx: RequestContext, options: dict[str, Any]) -> Any:
        return self._open(lender, options).__enter__()

    def give(self, lender: Any, value: Any, exc: BaseException | None) -> Any:
        try:
            self._manager.__exit__(*_details(exc))
        except BaseException as error:
            if error is not exc:
                raise


class FromAsyncContextManager(FromContextManager):
    """The same with `async with`."""

    __slots__ = ()

    async def take(self, lender: Any, ctx: RequestContext, options: dict[str, Any]) -> Any:
        return await self._open(lender, options).__aenter__()

    def give(self, lender: Any, value: Any, exc: BaseException | None) -> Any:
        return through(self._give(exc))

    async def _give(self, exc: BaseException | None) -> None:
        try:
            await self._manager.__aexit__(*_details(exc))
        except BaseException as error:
            if error is not exc:
                raise


class FromGetPut(Way):
    """`getconn()` and `putconn(value)`, for pools that have no `connection()`."""

    __slots__ = ()

    def take(self, lender: Any, ctx: RequestContext, options: dict[str, Any]) -> Any:
        return lender.getconn(**options)

    def give(self, lender: Any, value: Any, exc: BaseException | None) -> Any:
        return through(lender.putconn(value)) if self.is_async else lender.putconn(value)


class Callback(Way):
    """What is to be called at the end, in the shape of a value in use whose lender is the callback."""

    __slots__ = ()

    def give(self, lender: Callable[..., Any], value: Any, exc: BaseException | None) -> None:
        result = lender(exc)
        if result is not None and inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            raise RequestContextError(
                f"the callback {getattr(lender, '__qualname__', lender)} returned an awaitable, and the request was "
                "closed without `await`: end it with `await ctx.aclose()`, or open it with `async with`"
            )

    def agive(self, lender: Callable[..., Any], value: Any, exc: BaseException | None) -> Awaitable[None] | None:
        result = lender(exc)
        return through(result) if result is not None and inspect.isawaitable(result) else None


CALLBACK, ASYNC_CALLBACK = Callback(is_async=False), Callback(is_async=True)
_SERVICE, _ASYNC_SERVICE = FromService(is_async=False, is_direct=True), FromAsyncService(is_async=True)
_ASYNC_POOL = FromAsyncPool(is_async=True)

#: The way for each type seen so far; only types whose every instance is of one kind are in here.
service_ways: dict[type, Way] = {}


def way_of(lender: Any) -> Way:
    """
    How to take from this lender.

    Raises:
        ConfigurationError: It has none of the known shapes.
    """
    found = service_ways.get(type(lender))
    if found is not None:
        return found
    if callable(getattr(lender, "pool", None)) and callable(getattr(lender, "keys", None)):
        raise ConfigurationError(
            f"{type(lender).__qualname__} has a pool for each key: take from the pool of one, `keyed.pool(key)`; in a "
            "container, di.Pooled(keyed, key=...)",
            field="key",
        )
    if callable(getattr(lender, "acquire", None)) and callable(getattr(lender, "release", None)):
        way: Way = _ASYNC_SERVICE if inspect.iscoroutinefunction(lender.acquire) else _SERVICE
        if isinstance(lender, AsyncPoolingService) and _has_our_ways(type(lender)):
            way = _ASYNC_POOL
        service_ways[type(lender)] = way
        return way
    if callable(getattr(lender, "connection", None)):
        is_async = _connects_asynchronously(lender)
        return (FromAsyncContextManager if is_async else FromContextManager)(is_async=is_async)
    if callable(getattr(lender, "getconn", None)) and callable(getattr(lender, "putconn", None)):
        return FromGetPut(is_async=inspect.iscoroutinefunction(lender.getconn))
    if hasattr(lender, "__aenter__"):
        return FromAsyncContextManager(is_async=True)
    if hasattr(lender, "__enter__"):
        return FromContextManager(is_async=False)
    raise ConfigurationError(
        f"a pooled value cannot be taken from {type(lender).__qualname__}: expected a PoolingService, an "
        "AsyncPoolingService, an object with acquire(request_ctx) and release(value, exc=...), one with connection() "
        "or getconn() and putconn(), or a context manager",
        field="source",
    )


def _has_our_ways(kind: type[AsyncPoolingService[Any]]) -> bool:
    """Whether it acquires and releases as `AsyncPoolingService` itself does."""
    return kind.acquire is AsyncPoolingService.acquire and kind.release is AsyncPoolingService.release


def _connects_asynchronously(lender: Any) -> bool:
    """Whether its `connection()` is for `async with`, told from the company it keeps: calling it might do something."""
    if inspect.isasyncgenfunction(inspect.unwrap(lender.connection)):
        return True
    if hasattr(lender, "__aenter__") and not hasattr(lender, "__enter__"):
        return True
    return any(inspect.iscoroutinefunction(getattr(lender, name, None)) for name in ("getconn", "putconn", "close"))


def is_single_use(lender: Any) -> bool:
    """Whether this is a context manager around one use, rather than a pool to take from."""
    return not any(callable(getattr(lender, name, None)) for name in ("acquire", "connection", "getconn"))


def _details(
    exc: BaseException | None,
) -> tuple[type[BaseException] | None, BaseException | None, TracebackType | None]:
    return (None, None, None) if exc is None else (type(exc), exc, exc.__traceback__)
