"""A resource in hand that knows the way back: `lease()` and `PooledValue`."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, overload

from .errors import ReleaseError

if TYPE_CHECKING:
    from types import TracebackType

    from .service import AsyncPoolingService, PoolingService

__all__ = ["AsyncLease", "AsyncPooledValue", "Lease", "PooledValue", "get_pooled_value"]

T = TypeVar("T")
S = TypeVar("S", bound="PoolingService[Any] | AsyncPoolingService[Any]")

log = logging.getLogger("pooling")
#: No value: not taken yet, or given back.
NOTHING: Final[Any] = object()


class _Lease(Generic[T, S]):
    """What both kinds of lease have in common: entered once at a time, and given up when dropped while open."""

    __slots__ = ("_ctx", "_loan", "_priority", "_service", "_timeout", "_value")

    def __init__(self, service: S, ctx: Any, timeout: float | None, priority: int) -> None:
        self._service = service
        self._ctx = ctx
        self._timeout = timeout
        self._priority = priority
        self._value: Any = NOTHING
        self._loan: int | None = None

    def _in_use(self) -> ReleaseError:
        return ReleaseError(
            f"pool {self._service.name!r}: this lease is in use; call lease() once for each use",
            pool=self._service.name,
            step="acquiring",
        )

    def __del__(self) -> None:
        if getattr(self, "_value", NOTHING) is not NOTHING:  # interrupted in `__init__`, it has no value at all
            self._service._abandoned(self._value, self._loan)


class Lease(_Lease[T, "PoolingService[Any]"]):
    """What `PoolingService.lease` returns."""

    __slots__ = ()

    def __enter__(self) -> T:
        if self._value is not NOTHING:
            raise self._in_use()
        # Kept in the same line: should an interrupt come after it, `__del__` gives it up.
        value: T
        value = self._value = self._service.acquire(self._ctx, timeout=self._timeout, priority=self._priority)
        return value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> Literal[False]:
        service, value = self._service, self._value
        slot = service._ledger.out.get(id(value))
        self._loan = -1 if slot is None else slot.uses
        try:
            service.release(value, error)
        except Exception as failure:
            self._value = NOTHING
            if error is None or not isinstance(failure, ReleaseError):
                raise
            log.warning("%s", failure)  # the block's own error is the one to be seen
        # An interrupt may come before the release has begun. Then `__del__` gives the value up, if this loan lasts.
        self._value = NOTHING
        return False


class AsyncLease(_Lease[T, "AsyncPoolingService[Any]"]):
    """`Lease` for `async with`."""

    __slots__ = ()

    async def __aenter__(self) -> T:
        if self._value is not NOTHING:
            raise self._in_use()
        value: T  # kept in the line it comes in, as in `Lease`
        value = self._value = await self._service.acquire(self._ctx, timeout=self._timeout, priority=self._priority)
        return value

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> Literal[False]:
        service, value = self._service, self._value
        slot = service._ledger.out.get(id(value))
        self._loan = -1 if slot is None else slot.uses
        try:
            await service.release(value, error)
        except Exception as failure:
            self._value = NOTHING
            if error is None or not isinstance(failure, ReleaseError):
                raise
            log.warning("%s", failure)  # the block's own error is the one to be seen
        # An interrupt may come before the release has begun. Then `__del__` gives the value up, if this loan lasts.
        self._value = NOTHING
        return False


class PooledValue(Generic[T]):
    """
    A borrowed resource together with its pool. Release or destroy it once; also a context manager.

    Attributes:
        service: The pool it came from.
        value: The resource.
    """

    __slots__ = ("_ticket", "service", "value")

    def __init__(self, service: PoolingService[T], value: T) -> None:
        self.service = service
        self.value = value
        self._ticket = [True]

    def release(self, exc: BaseException | None = None) -> None:
        """
        Give the resource back.

        Raises:
            ReleaseError: It was given back or destroyed before, or its release hook failed.
        """
        self._leave()
        self.service.release(self.value, exc)

    def destroy(self) -> None:
        """
        Destroy the resource and free its place.

        Raises:
            ReleaseError: It was given back or destroyed before.
        """
        self._leave()
        self.service.destroy(self.value)

    def _leave(self) -> None:
        # Checked here too: the same resource may be out again, in somebody else's hands. Of two threads, one gets
        # the ticket.
        try:
            self._ticket.pop()
        except IndexError:
            raise _given_back_before(self.service.name) from None

    def __enter__(self) -> T:
        return self.value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> Literal[False]:
        if self._ticket:
            self.release(error)
        return False


class AsyncPooledValue(Generic[T]):
    """`PooledValue` of an asyncio pool: `release` and `destroy` are awaited, and it is for `async with`."""

    __slots__ = ("_is_out", "service", "value")

    def __init__(self, service: AsyncPoolingService[T], value: T) -> None:
        self.service = service
        self.value = value
        self._is_out = True

    async def release(self, exc: BaseException | None = None) -> None:
        """As `PooledValue.release`."""
        self._leave()
        await self.service.release(self.value, exc)

    async def destroy(self) -> None:
        """As `PooledValue.destroy`."""
        self._leave()
        await self.service.destroy(self.value)

    def _leave(self) -> None:
        if not self._is_out:
            raise _given_back_before(self.service.name)
        self._is_out = False

    async def __aenter__(self) -> T:
        return self.value

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> Literal[False]:
        if self._is_out:
            await self.release(error)
        return False


def _given_back_before(pool: str) -> ReleaseError:
    return ReleaseError(
        f"pool {pool!r}: this pooled value was given back before; acquire another one", pool=pool, step="releasing"
    )


@overload
def get_pooled_value(service: PoolingService[T], request_ctx: Any = None) -> PooledValue[T]: ...
@overload
def get_pooled_value(service: AsyncPoolingService[T], request_ctx: Any = None) -> Awaitable[AsyncPooledValue[T]]: ...
def get_pooled_value(service: Any, request_ctx: Any = None) -> Any:
    """
    Acquire a resource, as a `PooledValue`; with an asyncio pool this is to be awaited.

    Errors as in `acquire`.
    """
    taken = service.acquire(request_ctx)
    if isinstance(taken, Awaitable) and hasattr(type(service), "__aenter__"):
        return _pooled(service, taken)
    return PooledValue(service, taken)


async def _pooled(service: AsyncPoolingService[T], taken: Awaitable[T]) -> AsyncPooledValue[T]:
    return AsyncPooledValue(service, await taken)
