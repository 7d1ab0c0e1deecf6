"""A resource in hand that knows the way back: `lease()` and `PooledValue`."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Self, TypeVar, overload

from .errors import ReleaseError

if TYPE_CHECKING:
    from types import TracebackType

    from .service import AsyncPoolingService, PoolingService

__all__ = ["AsyncLease", "AsyncPooledValue", "Lease", "PooledValue", "get_pooled_value"]

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S", bound="PoolingService[Any] | AsyncPoolingService[Any]")

log: logging.Logger = logging.getLogger("pooling")
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

    def _note_loan(self) -> None:
        """From here on the value may go, and come back as another's."""
        slot = self._service._ledger.out.get(id(self._value))
        self._loan = -1 if slot is None else slot.uses

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
        self._value, self._loan = NOTHING, None
        return False

    def _run(self, task: Callable[[T], R]) -> R:
        """The task's result; if it raises, the resource is destroyed."""
        value = self.__enter__()
        try:
            result = task(value)
        except BaseException:
            self._destroy()
            raise
        self.__exit__(None, None, None)
        return result

    def _destroy(self) -> None:
        self._note_loan()
        try:
            self._service.destroy(self._value)
        except ReleaseError as failure:
            log.warning("%s", failure)  # the task's own error is the one to be seen
        self._value = NOTHING


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
        self._value, self._loan = NOTHING, None
        return False

    async def _run(self, task: Callable[[T], Any]) -> Any:
        """The task's result; if it raises, the resource is destroyed."""
        value = await self.__aenter__()
        try:
            result: Any = task(value)
            if isinstance(result, Awaitable):
                result = await result
        except BaseException:
            await self._destroy()
            raise
        await self.__aexit__(None, None, None)
        return result

    async def _destroy(self) -> None:
        self._note_loan()
        try:
            await self._service.destroy(self._value)
        except ReleaseError as failure:
            log.warning("%s", failure)  # the task's own error is the one to be seen
        self._value = NOTHING


class _Pooled(Generic[T, S]):
    """
    What both kinds of pooled value have in common: the ticket for the way back, and being given up when dropped.

    Of two threads that give it back one gets the ticket. The same resource may be out again by then, in somebody
    else's hands, so the pool alone could not tell.
    """

    __slots__ = ("_loan", "_ticket", "service", "value")

    service: S
    value: T

    def __init__(self, service: S, value: T) -> None:
        self._ticket: list[bool] = []
        self._loan: int | None = None
        self.service = service
        self.value = value
        self._note_loan()
        self._ticket.append(True)

    @classmethod
    def _expected(cls, service: S) -> Self:
        """One whose value is about to come; should an interrupt come after it, `__del__` gives the value up."""
        pooled = cls.__new__(cls)
        pooled._ticket = [True]
        pooled._loan = None
        pooled.service = service
        pooled.value = NOTHING
        return pooled

    def _note_loan(self) -> None:
        slot = self.service._ledger.out.get(id(self.value))
        self._loan = -1 if slot is None else slot.uses

    def _take_ticket(self) -> bool:
        try:
            return self._ticket.pop()
        except IndexError:
            raise ReleaseError(
                f"pool {self.service.name!r}: this pooled value was given back before; acquire another one",
                pool=self.service.name,
                step="releasing",
            ) from None

    def _keep(self, ticket: bool | None) -> None:
        """After an interrupt: what had not been given back still can be."""
        slot = self.service._ledger.out.get(id(self.value))
        if ticket and slot is not None and slot.uses == self._loan:
            self._ticket.append(ticket)

    def __del__(self) -> None:
        if getattr(self, "_ticket", None) and self.value is not NOTHING:
            self.service._abandoned(self.value, self._loan)


class PooledValue(_Pooled[T, "PoolingService[T]"]):
    """
    A borrowed resource together with its pool. Release or destroy it once; also a context manager.

    An interrupted release or destroy may be called again. One that is dropped while its resource is out is found when
    it is garbage, and the resource destroyed.

    Attributes:
        service: The pool it came from.
        value: The resource.
    """

    __slots__ = ()

    def release(self, exc: BaseException | None = None) -> None:
        """
        Give the resource back.

        Raises:
            ReleaseError: It was given back or destroyed before, or its release hook failed.
        """
        ticket = None
        try:
            ticket = self._take_ticket()
            self.service.release(self.value, exc)
        except BaseException:
            self._keep(ticket)
            raise

    def destroy(self) -> None:
        """
        Destroy the resource and free its place.

        Raises:
            ReleaseError: It was given back or destroyed before.
        """
        ticket = None
        try:
            ticket = self._take_ticket()
            self.service.destroy(self.value)
        except BaseException:
            self._keep(ticket)
            raise

    def __enter__(self) -> T:
        return self.value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> Literal[False]:
        if self._ticket:
            self.release(error)
        return False


class AsyncPooledValue(_Pooled[T, "AsyncPoolingService[T]"]):
    """`PooledValue` of an asyncio pool: `release` and `destroy` are awaited, and it is for `async with`."""

    __slots__ = ()

    async def release(self, exc: BaseException | None = None) -> None:
        """As `PooledValue.release`."""
        ticket = None
        try:
            ticket = self._take_ticket()
            await self.service.release(self.value, exc)
        except BaseException:
            self._keep(ticket)
            raise

    async def destroy(self) -> None:
        """As `PooledValue.destroy`."""
        ticket = None
        try:
            ticket = self._take_ticket()
            await self.service.destroy(self.value)
        except BaseException:
            self._keep(ticket)
            raise

    async def __aenter__(self) -> T:
        return self.value

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> Literal[False]:
        if self._ticket:
            await self.release(error)
        return False


@overload
def get_pooled_value(service: PoolingService[T], request_ctx: Any = None) -> PooledValue[T]: ...
@overload
def get_pooled_value(service: AsyncPoolingService[T], request_ctx: Any = None) -> Awaitable[AsyncPooledValue[T]]: ...
def get_pooled_value(service: Any, request_ctx: Any = None) -> Any:
    """
    Acquire a resource, as a `PooledValue`; with an asyncio pool this is to be awaited.

    Errors as in `acquire`.
    """
    if hasattr(type(service), "__aenter__"):
        return _pooled(service, request_ctx)
    pooled: PooledValue[Any] = PooledValue._expected(service)
    pooled.value = service.acquire(request_ctx)
    pooled._note_loan()
    return pooled


async def _pooled(service: AsyncPoolingService[T], request_ctx: Any) -> AsyncPooledValue[T]:
    pooled: AsyncPooledValue[T] = AsyncPooledValue._expected(service)
    pooled.value = await service.acquire(request_ctx)
    pooled._note_loan()
    return pooled
