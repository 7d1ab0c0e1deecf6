"""Adapters: how a request takes a value from a pool of any kind, and gives it back."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from ._backends.offload import in_worker, through
from ._engine.lease import NOTHING
from .errors import ConfigurationError, ReleaseError, RequestContextError
from .lease import AsyncPooledValue, PooledValue
from .service import AsyncPoolingService, PoolingService, put_idle, take_idle

if TYPE_CHECKING:
    from types import TracebackType

logger = logging.getLogger("pooling")

#: The `RequestContext` that a value is taken for; passed on as it is.
Context: TypeAlias = Any


class Adapter:
    """
    Takes values from pools of one kind and gives them back.

    Attributes:
        is_async: Whether to await what `take` and `give` return.
        is_direct: Whether a use without options and without an error is just `pool.acquire(ctx)` and
            `pool.release(value)`, so that a request may call these itself.
    """

    __slots__ = ("is_async", "is_direct")

    def __init__(self, *, is_async: bool, is_direct: bool = False) -> None:
        self.is_async = is_async
        self.is_direct = is_direct

    def take(self, pool: Any, ctx: Context, options: dict[str, Any]) -> Any:
        """Take a value."""
        raise NotImplementedError

    def take_idle(self, pool: Any) -> Any:
        """Take a value if that needs no wait; else return `NOTHING`."""
        return NOTHING

    def is_at_hand(self, pool: Any) -> bool:
        """Whether taking a value most likely needs no wait."""
        return False

    def give(self, pool: Any, value: Any, exc: BaseException | None) -> Any:
        """Give a value back; `exc` is what ended its use."""
        raise NotImplementedError

    def find_checkpoint(self, pool: Any, value: Any) -> Callable[[], Any] | None:
        """What to call to make durable what was done with a value, or `None` for nothing; awaited as `take` is."""
        return None

    def give_in_loop(self, pool: Any, value: Any, exc: BaseException | None) -> Awaitable[None] | None:
        """Give a value back without blocking the event loop; returns what to await, or `None` if it is done."""
        if self.is_async:
            return self.give(pool, value, exc)  # type: ignore[no-any-return]
        return through(in_worker(partial(self.give, pool, value, exc)))


# --- pools with acquire and release ----------------------------------------------------------------------------------


class ServiceAdapter(Adapter):
    """For a pool for threads: `acquire(ctx)`, `release(value, exc=...)`."""

    __slots__ = ()

    def take(self, pool: Any, ctx: Context, options: dict[str, Any]) -> Any:
        return pool.acquire(ctx, **options) if options else pool.acquire(ctx)

    def give(self, pool: Any, value: Any, exc: BaseException | None) -> Any:
        if exc is None:
            return pool.release(value)
        with _release_errors_logged():
            if isinstance(pool, PoolingService):  # its `on_error` decides what an error means for the value
                return PooledValue(pool, value).__exit__(*_details(exc))
            return pool.release(value, exc=exc)

    def find_checkpoint(self, pool: Any, value: Any) -> Callable[[], Any] | None:
        if not getattr(pool, "has_checkpoint", True):  # a pool of this package whose factory has no such hook
            return None
        checkpoint = getattr(pool, "checkpoint", None)
        return partial(checkpoint, value) if callable(checkpoint) else None


class AsyncServiceAdapter(ServiceAdapter):
    """The same, where both are coroutine functions."""

    __slots__ = ()

    def is_at_hand(self, pool: Any) -> bool:
        return getattr(pool, "available", 0) > 0

    def give(self, pool: Any, value: Any, exc: BaseException | None) -> Any:
        return pool.release(value) if exc is None else self._give_after(exc, pool, value)

    async def _give_after(self, exc: BaseException, pool: Any, value: Any) -> None:
        with _release_errors_logged():
            if isinstance(pool, AsyncPoolingService):
                await AsyncPooledValue(pool, value).__aexit__(*_details(exc))
            else:
                await pool.release(value, exc=exc)


class AsyncPoolingServiceAdapter(AsyncServiceAdapter):
    """For an `AsyncPoolingService`, which needs no coroutine if there is nothing to wait for."""

    __slots__ = ()

    def take_idle(self, pool: Any) -> Any:
        return take_idle(pool)

    def give_in_loop(self, pool: Any, value: Any, exc: BaseException | None) -> Awaitable[None] | None:
        if exc is None and put_idle(pool, value):
            return None
        return self.give(pool, value, exc)  # type: ignore[no-any-return]


@contextmanager
def _release_errors_logged() -> Iterator[None]:
    """Log a failed release after an error of the request, so that the request's error is the one that is raised."""
    try:
        yield
    except ReleaseError as failure:
        logger.warning("%s", failure)


# --- context managers ------------------------------------------------------------------------------------------------


class ContextManagerAdapter(Adapter):
    """
    For a context manager around one use: `pool.connection()`, or the pool itself. Each use needs a new adapter.

    At a checkpoint, a manager's `checkpoint()` is called if it has one, or the pool's `checkpoint(value)`. Else what
    `connection()` gave is committed, as leaving the manager would do; of other managers it is not known what that does.
    """

    __slots__ = ("_manager",)

    def _open(self, pool: Any, options: dict[str, Any]) -> Any:
        self._manager = pool.connection(**options) if callable(getattr(pool, "connection", None)) else pool
        return self._manager

    def find_checkpoint(self, pool: Any, value: Any) -> Callable[[], Any] | None:
        if callable(found := getattr(self._manager, "checkpoint", None)):
            return found  # type: ignore[no-any-return]
        if self._manager is pool:
            return None
        if callable(found := getattr(pool, "checkpoint", None)):
            return partial(found, value)
        return found if callable(found := getattr(value, "commit", None)) else None

    def take(self, pool: Any, ctx: Context, options: dict[str, Any]) -> Any:
        return self._open(pool, options).__enter__()

    def give(self, pool: Any, value: Any, exc: BaseException | None) -> Any:
        with _PassingThrough(exc):
            self._manager.__exit__(*_details(exc))


class AsyncContextManagerAdapter(ContextManagerAdapter):
    """The same with `async with`."""

    __slots__ = ()

    def is_at_hand(self, pool: Any) -> bool:
        return getattr(pool, "is_at_hand", False) is True

    async def take(self, pool: Any, ctx: Context, options: dict[str, Any]) -> Any:
        return await self._open(pool, options).__aenter__()

    def give(self, pool: Any, value: Any, exc: BaseException | None) -> Any:
        return through(self._exit(exc))

    async def _exit(self, exc: BaseException | None) -> None:
        with _PassingThrough(exc):
            await self._manager.__aexit__(*_details(exc))


class _PassingThrough:
    """Suppresses the request's error if a context manager raises it again: the request raises it itself."""

    __slots__ = ("_error",)

    def __init__(self, error: BaseException | None) -> None:
        self._error = error

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> bool:
        return exc is not None and exc is self._error


# --- others ----------------------------------------------------------------------------------------------------------


class GetPutAdapter(Adapter):
    """For a pool with `getconn()` and `putconn(value)` that has no `connection()`."""

    __slots__ = ()

    def take(self, pool: Any, ctx: Context, options: dict[str, Any]) -> Any:
        return pool.getconn(**options)

    def give(self, pool: Any, value: Any, exc: BaseException | None) -> Any:
        return through(pool.putconn(value)) if self.is_async else pool.putconn(value)


class CallbackAdapter(Adapter):
    """For a callback at the end of a request: the "pool" is the callback, and there is no value."""

    __slots__ = ()

    def give(self, pool: Callable[..., Any], value: Any, exc: BaseException | None) -> None:
        result = pool(exc)
        if result is not None and inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            raise RequestContextError(
                f"the callback {getattr(pool, '__qualname__', pool)} returned an awaitable, and the request was "
                "closed without `await`: end it with `await ctx.aclose()`, or open it with `async with`"
            )

    def give_in_loop(self, pool: Callable[..., Any], value: Any, exc: BaseException | None) -> Awaitable[None] | None:
        result = pool(exc)
        return through(result) if result is not None and inspect.isawaitable(result) else None


# --- finding the adapter ---------------------------------------------------------------------------------------------

CALLBACK, ASYNC_CALLBACK = CallbackAdapter(is_async=False), CallbackAdapter(is_async=True)
_SERVICE, _ASYNC_SERVICE = ServiceAdapter(is_async=False, is_direct=True), AsyncServiceAdapter(is_async=True)
_ASYNC_POOLING_SERVICE = AsyncPoolingServiceAdapter(is_async=True)

#: By type, for types with `acquire` and `release`: all pools of such a type share one adapter.
adapters_by_type: dict[type, Adapter] = {}


def find_adapter(pool: Any) -> Adapter:
    """
    The adapter for a pool. An adapter for a context manager is for one use.

    Raises:
        ConfigurationError: The pool has none of the known interfaces.
    """
    kind = type(pool)
    known = adapters_by_type.get(kind)
    if known is not None:
        return known
    if _has(pool, "pool", "keys"):
        raise ConfigurationError(
            f"{kind.__qualname__} has a pool for each key: take from the pool of one key, `keyed.pool(key)`; in a "
            "container, di.Pooled(keyed, key=...)",
            field="key",
        )
    if _has(pool, "acquire", "release"):
        adapter = adapters_by_type[kind] = _service_adapter(pool)
        return adapter
    if _has(pool, "connection"):
        return _context_manager_adapter(is_async=_connects_asynchronously(pool))
    if _has(pool, "getconn", "putconn"):
        return GetPutAdapter(is_async=inspect.iscoroutinefunction(pool.getconn))
    if hasattr(pool, "__aenter__") or hasattr(pool, "__enter__"):
        return _context_manager_adapter(is_async=hasattr(pool, "__aenter__"))
    raise ConfigurationError(
        f"a pooled value cannot be taken from {kind.__qualname__}: expected a PoolingService, an "
        "AsyncPoolingService, an object with acquire(request_ctx) and release(value, exc=...), one with connection() "
        "or getconn() and putconn(), or a context manager",
        field="source",
    )


def is_single_use(pool: Any) -> bool:
    """Whether this is a context manager around one use, rather than a pool to take from."""
    return not any(_has(pool, name) for name in ("acquire", "connection", "getconn"))


def _has(pool: Any, *methods: str) -> bool:
    return all(callable(getattr(pool, method, None)) for method in methods)


def _service_adapter(pool: Any) -> Adapter:
    kind = type(pool)
    if isinstance(pool, AsyncPoolingService) and (
        kind.acquire is AsyncPoolingService.acquire and kind.release is AsyncPoolingService.release
    ):
        return _ASYNC_POOLING_SERVICE
    return _ASYNC_SERVICE if inspect.iscoroutinefunction(pool.acquire) else _SERVICE


def _context_manager_adapter(*, is_async: bool) -> Adapter:
    return (AsyncContextManagerAdapter if is_async else ContextManagerAdapter)(is_async=is_async)


def _connects_asynchronously(pool: Any) -> bool:
    """Whether its `connection()` is for `async with`, judged by its other methods: calling it might have an effect."""
    if inspect.isasyncgenfunction(inspect.unwrap(pool.connection)):
        return True
    if hasattr(pool, "__aenter__") and not hasattr(pool, "__enter__"):
        return True
    return any(inspect.iscoroutinefunction(getattr(pool, name, None)) for name in ("getconn", "putconn", "close"))


def _details(
    exc: BaseException | None,
) -> tuple[type[BaseException] | None, BaseException | None, TracebackType | None]:
    return (None, None, None) if exc is None else (type(exc), exc, exc.__traceback__)
