"""One request: its values, what it holds of which pool, and what happens when it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, overload

from ._backends.offload import in_background, in_loop
from ._request.current import NO_REQUEST, Active, get_current, leave, reset_current, set_current
from ._request.pooled import PooledValues
from ._request.values import RequestValues
from .errors import ConfigurationError, MissingValueError, RequestContextError

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from contextvars import Token
    from types import TracebackType

    from .service import AsyncPoolingService, PoolingService

__all__ = ["MissingValueError", "RequestContext"]

C = TypeVar("C", bound=Callable[..., Any])
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Connects(Protocol[T_co]):
    """A pool with `connection()`, such as those of `psycopg_pool`."""

    def connection(self) -> AbstractContextManager[T_co]:
        """A connection for one block."""
        ...


class AsyncConnects(Protocol[T_co]):
    """`Connects` for asyncio."""

    def connection(self) -> AbstractAsyncContextManager[T_co]:
        """A connection for one block."""
        ...


class RequestContext(RequestValues, PooledValues):
    """
    One request's values, and one pooled value per pool for as long as it lasts.

    Entering it (`with` or `async with`) makes it the current one for the code inside and
    closes it at the end; without entering, call `close` or `aclose`. It may be used by many threads and
    tasks at once. What it holds is given back when it closes, last in, first out.

    Args:
        name: For messages and logs.
        parent: Where values are looked up that this one does not have. Pooled values are this
            request's own; for a part of the same request see `child`.
        values: What is known about the request, read as `ctx["user"]`.

    Attributes:
        container: The container it was opened on, or `None`.
    """

    __slots__ = (
        "name",
        "parent",
        "values",
        "container",
        "_token",  # for making current again what was; written once, by the code that enters
        "__weakref__",
    )

    def __init__(self, name: str | None = None, parent: RequestContext | None = None, **values: Any) -> None:
        self.name = name
        self.parent = parent
        self.values = values
        self.container: Any = None if parent is None else _checked(parent).container
        self._token: Token[Any] | None = None
        # Of `HeldResources`:
        self._uses = {}
        self._flights = {}
        self._is_closed = self._is_shared = self.may_need_loop = False
        self._owner = self._sharers = self.error = None
        self.resolved = {}

    @classmethod
    def served_by(cls, container: Any, name: str | None = None, values: Mapping[str, Any] | None = None) -> Self:
        """
        A request of that container, if it is not `None`, with values of any names.

        Args:
            container: What serves it.
            name: For messages and logs.
            values: What is known about the request.
        """
        ctx = cls(name)
        ctx.container = container
        if values:
            ctx.values.update(values)
        return ctx

    def child(self, name: str | None = None, *, own: bool = False, **values: Any) -> RequestContext:
        """
        A part of this request, with values and callbacks of its own.

        Args:
            name: For messages and logs; by default that of this one.
            own: Whether it takes pooled values for itself and gives them back at its end. By default it
                uses this request's, and what it takes first stays until this request ends.
            values: Hide those of the same name.
        """
        child = RequestContext(self.name if name is None else name, self, **values)
        if not own:
            child.use_values_of(self)
        return child

    # --- pooled values -------------------------------------------------------------------------------------------

    @overload
    def acquire(self, lender: PoolingService[T] | AsyncPoolingService[T], *, key: Any = None, **options: Any) -> T: ...
    @overload
    def acquire(self, lender: Connects[T] | AsyncConnects[T], *, key: Any = None, **options: Any) -> T: ...
    @overload
    def acquire(self, lender: Any, *, key: Any = None, **options: Any) -> Any: ...
    def acquire(self, lender: Any, *, key: Any = None, **options: Any) -> Any:
        """
        The request's value of that pool: taken on first use, then always the same.

        Blocks while the pool has none; threads that ask at the same time wait for one
        attempt. An interrupt ends the attempt, and another of those waiting makes its own. Never give the value
        back yourself: the request does.

        Args:
            lender: A `PoolingService`, or an object with its `acquire` and `release`; a pool with
                `connection()` or `getconn()` and `putconn()`; a context manager around one use.
            key: Tells several values of one pool apart.
            options: For the pool's own `acquire`, such as `timeout`; of those who ask at once, the first one's count.

        Raises:
            RequestContextError: The request has ended; or the value is not there yet and taking it needs an
                event loop, or would block the one running here.
        """
        return self.take(lender, id(lender) if key is None else key, options)

    @overload
    async def aacquire(
        self, lender: PoolingService[T] | AsyncPoolingService[T], *, key: Any = None, **options: Any
    ) -> T: ...
    @overload
    async def aacquire(self, lender: Connects[T] | AsyncConnects[T], *, key: Any = None, **options: Any) -> T: ...
    @overload
    async def aacquire(self, lender: Any, *, key: Any = None, **options: Any) -> Any: ...
    async def aacquire(self, lender: Any, *, key: Any = None, **options: Any) -> Any:
        """
        As `acquire`, for coroutines; never blocks the event loop.

        A pool for threads is asked from a worker thread. Cancelling one of several who wait
        leaves the others their attempt, and their place in the pool's queue.
        """
        return await self.atake(lender, id(lender) if key is None else key, options)

    # --- being the current one -----------------------------------------------------------------------------------

    @staticmethod
    def current() -> RequestContext | None:
        """
        The request whose code is running, or `None` outside of any.

        Tasks and threads started with a copy of the context keep theirs, even after it has
        closed: what outlives a request is told so, rather than taken for another request's work.
        """
        ctx = get_current()
        return None if ctx is NO_REQUEST else ctx

    def active(self) -> Active[RequestContext]:
        """
        Make this the current request for a block of code, without closing it at the end.

        For threads and callbacks that run without the context of the request they work for: `with ctx.active(): ...`
        """
        return Active(self)

    def __enter__(self) -> Self:
        if self._token is not None or self._is_closed:
            raise RequestContextError(
                f"{self} was entered before. A request is entered once; `with ctx.active()` makes it current elsewhere."
            )
        self._token = set_current(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.close(exc)
        except RequestContextError:
            if not self._is_closed and in_loop():
                # No other code will give back what this request holds.
                _ = in_background(self.aclose(exc))
            raise
        finally:
            try:  # `leave`, without a call
                reset_current(self._token)  # type: ignore[arg-type]
            except ValueError:
                pass

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        try:
            await self.aclose(exc)
        finally:
            leave(self._token)

    def __str__(self) -> str:
        return "the request" if self.name is None else f"request {self.name!r}"

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{len(self._uses)} held"
        return f"<RequestContext {self.name!r} values={list(self.values)} {state}>"


def _checked(parent: Any) -> RequestContext:
    if not isinstance(parent, RequestContext):
        raise ConfigurationError(
            f"parent: expected a RequestContext, not {type(parent).__qualname__}. A value of that name is set "
            "afterwards: ctx['parent'] = ...",
            field="parent",
        )
    return parent
