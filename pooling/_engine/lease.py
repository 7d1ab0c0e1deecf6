"""`lease()`: a resource borrowed for the length of a block."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Protocol, TypeVar

from ..errors import ReleaseError

if TYPE_CHECKING:
    from types import TracebackType

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger("pooling")
#: Stands for no value: none was acquired yet, or it was released.
NOTHING: Final[Any] = object()


class LeasableService(Protocol):
    """What a lease needs of a service, for threads or asyncio."""

    engine: Any

    @property
    def name(self) -> str: ...
    def acquire(self, request_ctx: Any = ..., *, timeout: float | None = ..., priority: int = ...) -> Any: ...
    def release(self, value: Any, exc: BaseException | None = ..., /) -> Any: ...
    def destroy(self, value: Any, /) -> Any: ...
    def checkpoint(self, value: Any, /) -> Any: ...


class _Lease(Generic[T]):
    """What both kinds of lease share: one use at a time; a lease that is garbage collected gives its resource up."""

    __slots__ = ("_ctx", "_loan", "_priority", "_service", "_timeout", "_value")

    def __init__(self, service: LeasableService, ctx: Any, timeout: float | None, priority: int) -> None:
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
        """Note which loan this is: once released, the same value may be lent to another borrower."""
        self._loan = self._service.engine.loan_of(self._value)

    def __del__(self) -> None:
        if getattr(self, "_value", NOTHING) is not NOTHING:  # an interrupt in `__init__` leaves no attribute
            self._service.engine.ledger.drop(self._value, self._loan)


class Lease(_Lease[T]):
    """What `PoolingService.lease` returns."""

    __slots__ = ()

    def __enter__(self) -> T:
        if self._value is not NOTHING:
            raise self._in_use()
        # Assigned in the same statement: after an interrupt `__del__` finds the value and gives it up.
        value: T
        value = self._value = self._service.acquire(self._ctx, timeout=self._timeout, priority=self._priority)
        return value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> Literal[False]:
        self._note_loan()
        try:
            self._service.release(self._value, error)
        except ReleaseError as failure:
            self._value = NOTHING
            if error is None:
                raise
            log.warning("%s", failure)  # the block's error is the one to raise
        # After an interrupt before the release began, `__del__` gives the value up, unless it has been lent again.
        self._value, self._loan = NOTHING, None
        return False

    def checkpoint(self) -> None:
        """Make durable what was done with the resource; see `PoolFactory.checkpoint`."""
        self._service.checkpoint(self._value)

    def run(self, task: Callable[[T], R]) -> R:
        """Run the task with a resource and return its result. If the task raises, the resource is destroyed."""
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
            log.warning("%s", failure)  # the task's error is the one to raise
        self._value = NOTHING


class AsyncLease(_Lease[T]):
    """`Lease` for `async with`."""

    __slots__ = ()

    async def __aenter__(self) -> T:
        if self._value is not NOTHING:
            raise self._in_use()
        value: T  # assigned in the same statement, as in `Lease`
        value = self._value = await self._service.acquire(self._ctx, timeout=self._timeout, priority=self._priority)
        return value

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> Literal[False]:
        self._note_loan()
        try:
            await self._service.release(self._value, error)
        except ReleaseError as failure:
            self._value = NOTHING
            if error is None:
                raise
            log.warning("%s", failure)  # the block's error is the one to raise
        # After an interrupt before the release began, `__del__` gives the value up, unless it has been lent again.
        self._value, self._loan = NOTHING, None
        return False

    async def checkpoint(self) -> None:
        """As `Lease.checkpoint`."""
        await self._service.checkpoint(self._value)

    async def run(self, task: Callable[[T], Any]) -> Any:
        """Run the task with a resource and return its result. If the task raises, the resource is destroyed."""
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
            log.warning("%s", failure)  # the task's error is the one to raise
        self._value = NOTHING
