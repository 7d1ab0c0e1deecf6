"""One request: its values, its pooled values, and what happens at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, overload

from ._backends.offload import in_background, in_loop
from ._request.answer import BeforeAnswer
from ._request.current import NO_REQUEST, Active, get_current, leave, reset_current, set_current
from ._request.pooled import PooledValues, atake, take
from ._request.values import LazyValue, RequestValues
from .errors import ConfigurationError, MissingValueError, RequestContextError

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from contextvars import Token
    from types import TracebackType

    from .service import AsyncPoolingService, PoolingService

__all__ = ["LazyValue", "MissingValueError", "RequestContext"]

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


class RequestContext(RequestValues, PooledValues, BeforeAnswer):
    """
    One request: its values, and one pooled value per pool until it ends.

    Entering it (`with` or `async with`) makes it the current request for the code inside and
    closes it at the end. Without entering it, call `close` or `aclose`. Many threads and tasks may use it
    at once. What it holds is given back when it closes, last in, first out.

    Args:
        name: For messages and logs.
        parent: Where to look up values that this request does not have. Pooled values are not shared
            with the parent; for a part of the same request see `child`.
        values: What is known about the request, read as `ctx["user"]`. A `LazyValue` is made when it is first read.

    Attributes:
        container: The container that serves it, or `None`.
    """

    __slots__ = (
        "name",
        "parent",
        "values",
        "container",
        "_token",  # restores the request that was current before; written once, on entry
        "__weakref__",
    )

    def __init__(self, name: str | None = None, parent: RequestContext | None = None, **values: Any) -> None:
        self.name: str | None = name
        self.parent: RequestContext | None = parent
        self.values: dict[str, Any] = values
        self.container: Any = None if parent is None else _checked(parent).container
        self._token: Token[Any] | None = None
        # Of its base classes:
        self._uses = {}
        self._flights = {}
        self._is_closed = self._is_shared = self._may_need_loop = False
        self._owner = self._sharers = None
        self.error: BaseException | None = None
        self._releases: dict[int, set[Any]] = {}
        self.resolved: dict[Any, Any] = {}

    @classmethod
    def served_by(cls, container: Any, name: str | None = None, values: Mapping[str, Any] | None = None) -> Self:
        """
        A request served by a container, or by none if it is `None`, with values of any names.

        Args:
            container: The container.
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
        A part of this request, with its own values and callbacks.

        Args:
            name: For messages and logs; by default this request's.
            own: Whether it takes its own pooled values and gives them back at its end. By default it
                shares this request's, and a value that it takes stays until this request ends.
            values: Hide this request's values of the same name.
        """
        child = RequestContext(self.name if name is None else name, self, **values)
        if not own:
            self._share_with(child)
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
        The request's value of a pool: taken on first use, then always the same.

        Blocks while the pool has none to lend; threads that ask at the same time wait for one
        attempt. After an interrupt of that attempt, one of the waiting threads makes the next. Do not give the value
        back yourself: the request does.

        Args:
            lender: The pool: a `PoolingService`, or an object with its `acquire` and `release`; a pool with
                `connection()` or with `getconn()` and `putconn()`; a context manager around one use.
            key: Tells several values of one pool apart.
            options: For the pool's `acquire`, such as `timeout`. Of several callers at once, the first one's are used.

        Raises:
            RequestContextError: The request has ended; or the value was not taken yet and taking it needs an
                event loop, or would block the one running here.
        """
        return take(self, lender, id(lender) if key is None else key, options)

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
        As `acquire`, for coroutines. Never blocks the event loop.

        A pool for threads is called on a worker thread. Cancelling one of several waiting callers leaves the
        attempt of the others, and its place in the pool's queue.
        """
        return await atake(self, lender, id(lender) if key is None else key, options)

    # --- being the current one -----------------------------------------------------------------------------------

    @staticmethod
    def current() -> RequestContext | None:
        """
        The current request, or `None` outside of any.

        Tasks and threads started with a copy of the context keep their request, also after it was
        closed: code that outlives its request gets an error instead of another request's values.
        """
        ctx = get_current()
        return None if ctx is NO_REQUEST else ctx

    def active(self) -> Active[RequestContext]:
        """
        Make this the current request for a block of code, without closing it at the end.

        For threads and callbacks that were started without a copy of the context: `with ctx.active(): ...`
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
                # `close` refused, since something must be awaited. No other code gives it back, so do it in a task.
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
            f"parent: expected a RequestContext, not {type(parent).__qualname__}. To set a value of that name, "
            "write ctx['parent'] = ... afterwards.",
            field="parent",
        )
    return parent
