"""Borrowed resources that know their pool: `Lease`, of `lease()`, and `PooledValue`."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, overload

from ._engine.lease import NOTHING, AsyncLease, Lease
from .errors import ReleaseError

if TYPE_CHECKING:
    from types import TracebackType

    from .service import AsyncPoolingService, PoolingService

__all__ = ["AsyncLease", "AsyncPooledValue", "Lease", "PooledValue", "get_pooled_value"]

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S", bound="PoolingService[Any] | AsyncPoolingService[Any]")


class _Pooled(Generic[T, S]):
    """
    What both kinds of pooled value share: they are given back once, or given up when garbage collected.

    Of two threads that give it back, one gets the ticket; the other gets an error. The pool alone could not tell: the
    resource may have been lent to another borrower meanwhile.
    """

    __slots__ = ("_is_back", "_loan", "_ticket", "service", "value")

    service: S
    value: T

    def __init__(self, service: S, value: T) -> None:
        self._is_back = False
        self._loan: int | None = None
        self._ticket: list[bool] = [True]
        self.service = service
        self.value = value
        self.note_loan()

    @classmethod
    def expected(cls, service: S) -> Self:
        """A pooled value made before its value is acquired, so that after an interrupt `__del__` gives the value up."""
        pooled = cls.__new__(cls)
        pooled._is_back = False
        pooled._loan = None
        pooled._ticket = [True]
        pooled.service = service
        pooled.value = NOTHING
        return pooled

    def note_loan(self) -> None:
        """Note which loan of the resource this is."""
        self._loan = self.service.engine.loan_of(self.value)

    def forget(self) -> None:
        """Not give the resource up any more: it went back in another way."""
        self._is_back = True

    def _take_ticket(self) -> None:
        try:
            self._ticket.pop()
        except IndexError:
            raise ReleaseError(
                f"pool {self.service.name!r}: this pooled value was given back before; acquire another one",
                pool=self.service.name,
                step="releasing",
            ) from None

    def __del__(self) -> None:
        if not getattr(self, "_is_back", True) and self.value is not NOTHING:
            self.service.engine.ledger.drop(self.value, self._loan)


class PooledValue(_Pooled[T, "PoolingService[T]"]):
    """
    A borrowed resource together with its pool. Release or destroy it once, or use it as a context manager.

    If it is garbage collected while its resource is out, or after an interrupt while giving it back, the resource is
    destroyed.

    Attributes:
        service: The pool it was acquired from.
        value: The resource.
    """

    __slots__ = ()

    def release(self, exc: BaseException | None = None) -> None:
        """
        Give the resource back.

        Raises:
            ReleaseError: It was given back or destroyed before, or its release hook failed.
        """
        self._take_ticket()
        self.service.release(self.value, exc)
        self._is_back = True

    def destroy(self) -> None:
        """
        Destroy the resource and free its place.

        Raises:
            ReleaseError: It was given back or destroyed before.
        """
        self._take_ticket()
        self.service.destroy(self.value)
        self._is_back = True

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
        self._take_ticket()
        await self.service.release(self.value, exc)
        self._is_back = True

    async def destroy(self) -> None:
        """As `PooledValue.destroy`."""
        self._take_ticket()
        await self.service.destroy(self.value)
        self._is_back = True

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
    Acquire a resource as a `PooledValue`. With an asyncio pool, await the result.

    Errors as in `acquire`.
    """
    if hasattr(type(service), "__aenter__"):
        return _pooled(service, request_ctx)
    pooled: PooledValue[Any] = PooledValue.expected(service)
    pooled.value = service.acquire(request_ctx)
    pooled.note_loan()
    return pooled


async def _pooled(service: AsyncPoolingService[T], request_ctx: Any) -> AsyncPooledValue[T]:
    pooled: AsyncPooledValue[T] = AsyncPooledValue.expected(service)
    pooled.value = await service.acquire(request_ctx)
    pooled.note_loan()
    return pooled
