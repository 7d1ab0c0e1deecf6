"""How an object that is made for each request is made, and what happens to it at the request's end."""

from __future__ import annotations

import inspect
from asyncio import _get_running_loop
from collections.abc import Callable
from contextlib import asynccontextmanager, contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any

from dependency_injector import providers

from .._request.pooled import atake, take
from ..binding import is_provider
from ..errors import ConfigurationError, RequestContextError
from ._lifecycle import discards_awaitable, find_step
from ._plan import PENDING, Plan
from ._sources import ValueSource

if TYPE_CHECKING:
    from types import TracebackType

    from ..context import RequestContext

__all__ = ["Making"]


class Kind(Enum):
    """What is called to make the object."""

    FUNCTION = "a function, a class or a provider"
    COROUTINE = "a coroutine function"
    GENERATOR = "a generator function"
    ASYNC_GENERATOR = "an async generator function"


#: What makes a context manager of a generator function.
_WRAPPERS: dict[Kind, Any] = {Kind.GENERATOR: contextmanager, Kind.ASYNC_GENERATOR: asynccontextmanager}


class Making(ValueSource):
    """
    Makes an object for each request. To the request it is a context manager around one use, as a pool may be.

    Args:
        provider: Calls what makes it, with its arguments; `None` for a copy that is not filled yet.
        kind: What it calls.
        checkpoint: What to do with the object before the answer: the name of a method, or a function.
    """

    __slots__ = ("_plan", "checkpoint", "kind_of_make")

    kind = "PerRequest"

    def __init__(self, provider: Any, kind: Kind, checkpoint: str | Callable[[Any], Any] | None) -> None:
        super().__init__(provider)
        self.kind_of_make = kind
        self.checkpoint = checkpoint
        self._plan: Plan | None = None  # of the arguments

    @classmethod
    def of(cls, make: Any, args: tuple[Any, ...], kwargs: dict[str, Any], checkpoint: Any) -> Making:
        """
        From the arguments of a `PerRequest`.

        Raises:
            ConfigurationError: One of them cannot work.
        """
        if checkpoint is not None and not isinstance(checkpoint, str) and not callable(checkpoint):
            raise ConfigurationError(
                f"PerRequest: checkpoint={checkpoint!r}: expected the name of a method, or a function of the object",
                field="checkpoint",
            )
        if make is None:
            return cls(None, Kind.FUNCTION, checkpoint)
        if is_provider(make) and not args and not kwargs:
            return cls(make, Kind.FUNCTION, checkpoint)
        if not callable(make):
            raise ConfigurationError(
                f"PerRequest: make={make!r}: expected a class, a function, a generator function or a provider",
                field="make",
            )
        kind = _kind_of(make)
        wrap = _WRAPPERS.get(kind)
        return cls(providers.Callable(make if wrap is None else wrap(make), *args, **kwargs), kind, checkpoint)

    def copied(self, memo: dict[Any, Any]) -> Making:
        return Making(providers.deepcopy(self.provider, memo), self.kind_of_make, self.checkpoint)

    @property
    def label(self) -> str:
        made_by = getattr(self.provider, "provides", None)
        return self.declared or f"PerRequest({getattr(made_by, '__name__', type(self.provider).__name__)})"

    @property
    def made_of(self) -> Any:
        return self.provider

    @property
    def is_async(self) -> bool:
        """Whether making it, or cleaning up, must be awaited."""
        return self.kind_of_make in (Kind.COROUTINE, Kind.ASYNC_GENERATOR)

    # A child of a request has an object of its own: it may be of another user, or hold another connection.

    def take(self, ctx: RequestContext, options: dict[str, Any]) -> Any:
        self.refuse_declaration()
        if (self.is_async or _get_running_loop() is not None) and not ctx.is_closed:
            raise self.must_await_error()
        return take(ctx, Use(self), (self, ctx), options)

    async def atake(self, ctx: RequestContext, options: dict[str, Any], asking: Any) -> Any:
        self.refuse_declaration()
        if self._plan is None:
            self._plan = Plan(self.provider)
        taking = self._plan.take(ctx)
        if taking is not None:
            await taking
        return await atake(ctx, AsyncUse(self), (self, ctx), options, asking)

    def must_await_error(self) -> RequestContextError:
        """The error of a call before the object was made, where making it must be awaited."""
        return RequestContextError(
            f"{self.label} has not been made in this request yet, and making it must be awaited: use pooling.di.inject "
            "on an async function, or `await provider.aget()` before synchronous code uses it"
        )


class _OneUse:
    """The object of one request, from its making to the end."""

    __slots__ = ("_making", "_manager", "value")

    def __init__(self, making: Making) -> None:
        self._making = making
        self._manager: Any = None  # of a generator that is to go on
        self.value: Any = None

    @property
    def checkpoint(self) -> Callable[[], Any] | None:
        """What to call before the answer goes out."""
        return find_step(self.value, "checkpoint", self._making.checkpoint, self._making.label)


class Use(_OneUse):
    """For threads."""

    __slots__ = ()

    def __enter__(self) -> Any:
        made = self._making.provider()
        if isinstance(made, PENDING):
            discards_awaitable(made)
            raise self._making.must_await_error()
        if self._making.kind_of_make is Kind.GENERATOR:
            self._manager = made
            made = made.__enter__()
        self.value = made
        return made

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        if self._manager is not None:
            self._manager.__exit__(kind, exc, at)


class AsyncUse(_OneUse):
    """For asyncio."""

    __slots__ = ()

    @property
    def is_at_hand(self) -> bool:
        """Whether making it needs no wait, and so no task."""
        return not self._making.is_async

    async def __aenter__(self) -> Any:
        made = self._making.provider()
        if isinstance(made, PENDING):
            made = await made
        kind = self._making.kind_of_make
        if kind is Kind.GENERATOR:
            self._manager = made
            made = made.__enter__()
        elif kind is Kind.ASYNC_GENERATOR:
            self._manager = made
            made = await made.__aenter__()
        self.value = made
        return made

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._making.kind_of_make is Kind.ASYNC_GENERATOR:
            await self._manager.__aexit__(kind, exc, at)
        elif self._manager is not None:
            self._manager.__exit__(kind, exc, at)


def _kind_of(make: Any) -> Kind:
    plain = inspect.unwrap(make)
    if inspect.isgeneratorfunction(plain):
        return Kind.GENERATOR
    if inspect.isasyncgenfunction(plain):
        return Kind.ASYNC_GENERATOR
    return Kind.COROUTINE if inspect.iscoroutinefunction(plain) else Kind.FUNCTION
