"""How to take from each kind of lender, and how to give back to it."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any

from ._held import Held
from ._offload import through
from .errors import ConfigurationError, ReleaseError
from .lease import AsyncPooledValue, PooledValue
from .service import AsyncPoolingService, PoolingService

if TYPE_CHECKING:
    from types import TracebackType

    from .context import RequestContext

logger = logging.getLogger("pooling")


class FromService(Held):
    """From a pool for threads: `acquire(ctx)`, `release(value, exc=...)`."""

    __slots__ = ()

    is_direct = True

    def take(self, ctx: RequestContext, options: dict[str, Any]) -> Any:
        return self.lender.acquire(ctx, **options) if options else self.lender.acquire(ctx)

    def give(self, exc: BaseException | None) -> Any:
        lender = self.lender
        if exc is None:
            return lender.release(self.value)
        try:
            if isinstance(lender, PoolingService):  # what an error means for the value is the pool's to say
                return PooledValue(lender, self.value).__exit__(type(exc), exc, exc.__traceback__)
            return lender.release(self.value, exc=exc)  # type: ignore[unreachable,unused-ignore]
        except ReleaseError as failure:  # the request's own error is the one to be seen
            logger.warning("%s", failure)


class FromAsyncService(FromService):
    """The same, where both are coroutine functions."""

    __slots__ = ()

    is_async = True

    def at_hand(self) -> bool:
        return getattr(self.lender, "available", 0) > 0

    def give(self, exc: BaseException | None) -> Any:
        lender = self.lender
        if exc is None:
            return lender.release(self.value)
        return self._give(exc)

    async def _give(self, exc: BaseException) -> None:
        lender = self.lender
        try:
            if isinstance(lender, AsyncPoolingService):
                await AsyncPooledValue(lender, self.value).__aexit__(type(exc), exc, exc.__traceback__)
            else:
                await lender.release(self.value, exc=exc)
        except ReleaseError as failure:
            logger.warning("%s", failure)

    agive = give


class FromContextManager(Held):
    """The lender, or what its `connection()` gives, is a context manager around one use."""

    __slots__ = ("_manager",)

    def _open(self, options: dict[str, Any]) -> Any:
        lender = self.lender
        self._manager = lender.connection(**options) if callable(getattr(lender, "connection", None)) else lender
        return self._manager

    def take(self, ctx: RequestContext, options: dict[str, Any]) -> Any:
        return self._open(options).__enter__()

    def give(self, exc: BaseException | None) -> Any:
        try:
            self._manager.__exit__(*_details(exc))
        except BaseException as error:
            if error is not exc:
                raise


class FromAsyncContextManager(FromContextManager):
    """The same with `async with`."""

    __slots__ = ()

    is_async = True

    async def take(self, ctx: RequestContext, options: dict[str, Any]) -> Any:
        return await self._open(options).__aenter__()

    def give(self, exc: BaseException | None) -> Any:
        return through(self._give(exc))

    async def _give(self, exc: BaseException | None) -> None:
        try:
            await self._manager.__aexit__(*_details(exc))
        except BaseException as error:
            if error is not exc:
                raise


class FromGetPut(Held):
    """`getconn()` and `putconn(value)`, for pools that have no `connection()`."""

    __slots__ = ()

    def take(self, ctx: RequestContext, options: dict[str, Any]) -> Any:
        return self.lender.getconn(**options)

    def give(self, exc: BaseException | None) -> Any:
        return self.lender.putconn(self.value)


class FromAsyncGetPut(FromGetPut):
    """The same, where both are coroutine functions."""

    __slots__ = ()

    is_async = True

    def give(self, exc: BaseException | None) -> Any:
        return through(self.lender.putconn(self.value))


#: The kind for each type seen so far; only types whose every instance is of one kind are in here.
service_kinds: dict[type, type[Held]] = {}


def kind_of(lender: Any) -> type[Held]:
    """
    How to take from this lender.

    Raises:
        ConfigurationError: It has none of the known shapes.
    """
    found = service_kinds.get(type(lender))
    if found is not None:
        return found
    if callable(getattr(lender, "pool", None)) and callable(getattr(lender, "keys", None)):
        raise ConfigurationError(
            f"{type(lender).__qualname__} has a pool for each key: take from the pool of one, `keyed.pool(key)`; in a "
            "container, di.Pooled(keyed, key=...)",
            field="key",
        )
    if callable(getattr(lender, "acquire", None)) and callable(getattr(lender, "release", None)):
        kind: type[Held] = FromAsyncService if inspect.iscoroutinefunction(lender.acquire) else FromService
        service_kinds[type(lender)] = kind
        return kind
    if callable(getattr(lender, "connection", None)):
        return FromAsyncContextManager if _connects_asynchronously(lender) else FromContextManager
    if callable(getattr(lender, "getconn", None)) and callable(getattr(lender, "putconn", None)):
        return FromAsyncGetPut if inspect.iscoroutinefunction(lender.getconn) else FromGetPut
    if hasattr(lender, "__aenter__"):
        return FromAsyncContextManager
    if hasattr(lender, "__enter__"):
        return FromContextManager
    raise ConfigurationError(
        f"a pooled value cannot be taken from {type(lender).__qualname__}: expected a PoolingService, an "
        "AsyncPoolingService, an object with acquire(request_ctx) and release(value, exc=...), one with connection() "
        "or "
        "getconn() and putconn(), or a context manager",
        field="source",
    )


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
