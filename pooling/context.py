"""
One request: its values, what it holds of which pool, and what happens when it ends.

The current request is found through one context variable. What was resolved for it stands in a plain
dictionary, by who asks, so that a second use is one look-up without a method call.
"""

from __future__ import annotations

import inspect
import logging
import weakref
from asyncio import _get_running_loop
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar, Token
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeVar, overload

from ._adapters import ASYNC_CALLBACK, CALLBACK, service_ways, way_of
from ._backends.offload import in_background, in_loop, in_worker
from ._engine import call_site
from ._uses import Attempt, abandon, afollow, follow, is_to_be_awaited, wake
from .errors import ConfigurationError, RequestContextError
from .lease import NOTHING
from .service import members

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from types import TracebackType

    from ._adapters import Way
    from .service import AsyncPoolingService, PoolingService

__all__ = ["MissingValueError", "RequestContext"]

logger = logging.getLogger("pooling")

C = TypeVar("C", bound=Callable[..., Any])
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_once_more: Final = object()  # the key of a value whose release was interrupted
_no_default: Final = object()


class MissingValueError(RequestContextError, KeyError):
    """The request carries no value of that name. Also a `KeyError`."""

    __str__ = Exception.__str__

    def __init__(self, message: str, *, missing: Any = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.missing = missing


#: What is resolved for a request that has ended. Nothing is ever put in here.
ENDED: Final[dict[Any, Any]] = {}


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


class RequestContext:
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
    """

    __slots__ = (
        "__weakref__",
        "_is_closed",
        "_children",
        "_lead",
        "_must_await",
        "_resolved",
        "_token",
        "_uses",
        "values",
        "container",
        "error",
        "name",
        "parent",
    )

    def __init__(self, name: str | None = None, parent: RequestContext | None = None, **values: Any) -> None:
        self.name = name
        self.parent = parent
        #: The container it was opened on, or `None`.
        self.container: Any = None if parent is None else _checked(parent).container
        #: What ended the request, where a framework made a response of it and its code ends normally: a
        #: `close` without an exception takes this one.
        self.error: BaseException | None = None
        self.values = values
        # What it holds, by key; see `_uses`.
        self._uses: dict[Any, Any] = {}
        self._is_closed = False
        self._must_await = False  # whether something it holds may have to be awaited
        self._lead: RequestContext | None = None  # who holds the pooled values, if not this one
        self._children: weakref.WeakSet[RequestContext] | None = None  # whose values this one holds
        self._resolved: dict[Any, Any] = {}  # values by who asks
        self._token: Token[RequestContext] | None = None

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

    # --- values --------------------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        """
        The request's value of that name, or its nearest parent's.

        Raises:
            MissingValueError: None of them has it.
        """
        ctx: RequestContext | None = self
        while ctx is not None:
            if key in ctx.values:
                return ctx.values[key]
            ctx = ctx.parent
        names = ", ".join(sorted(map(str, self))) or "nothing"
        raise MissingValueError(
            f"{self} has no value {key!r}; it has {names}. Give it where the request is opened: "
            f"request({key}=...) on the container, or the values of the middleware.",
            missing=key,
        )

    def get(self, key: str, default: Any = None) -> Any:
        """The value of that name, or `default` where neither the request nor a parent has it."""
        ctx: RequestContext | None = self
        while ctx is not None:
            if key in ctx.values:
                return ctx.values[key]
            ctx = ctx.parent
        return default

    def require(self, key: str) -> Any:
        """
        The value of that name, which must not be `None`.

        Raises:
            MissingValueError: Neither the request nor a parent has it, or it is `None`.
        """
        value = self[key]
        if value is None:
            raise MissingValueError(
                f"{self} has {key}=None where a value is needed; what opens the request found none for it", missing=key
            )
        return value

    def __contains__(self, key: object) -> bool:
        return self.get(key, _no_default) is not _no_default  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[str]:
        """Names of all values, its own first."""
        seen: set[str] = set()
        ctx: RequestContext | None = self
        while ctx is not None:
            for key in tuple(ctx.values):
                if key not in seen:
                    seen.add(key)
                    yield key
            ctx = ctx.parent

    def __setitem__(self, key: str, value: Any) -> None:
        """Add a value learned during the request; pooled values taken before are not taken anew."""
        self.values[key] = value

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
            lead = child._lead = self._lead or self
            if lead._children is None:
                lead._children = weakref.WeakSet()
            lead._children.add(child)
            if lead._is_closed:
                child._resolved = ENDED
        return child

    @staticmethod
    def current() -> RequestContext | None:
        """
        The request whose code is running, or `None` outside of any.

        Tasks and threads started with a copy of the context keep theirs, even after it has
        closed: what outlives a request is told so, rather than taken for somebody else's work.
        """
        ctx = current_var.get()
        return None if ctx is NO_REQUEST else ctx

    @property
    def is_closed(self) -> bool:
        """Whether it has ended, or begun to."""
        return self._is_closed

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
            lender: A `PoolingService`, or whatever has its `acquire` and `release`; a pool with
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

    def take(self, lender: Any, key: Any, options: dict[str, Any]) -> Any:
        """`acquire` for those who have its parts at hand."""
        lead = self._lead or self
        uses = lead._uses
        try:
            way = service_ways[lender.__class__]
        except KeyError:
            way = way_of(lender)
        may_wait = not way.is_async and _get_running_loop() is None
        mine: list[Any] = []
        taken: Any = NOTHING  # and nowhere else yet
        try:
            while True:
                if self._is_closed or lead._is_closed:
                    raise ended(self)
                use = uses.setdefault(key, mine) if may_wait else uses.get(key, NOTHING)
                if use is mine:
                    break
                if use.__class__ is tuple:
                    return use[2]
                if not may_wait:
                    raise _may_not_wait(way, lender)
                follow(use, uses, key)
            value = taken = lender.acquire(self) if way.is_direct and not options else way.take(lender, self, options)
            taken, uses[key] = NOTHING, (way, lender, value)
            if mine:
                wake(mine)
        except BaseException as error:
            if uses.get(key) is mine:
                uses.pop(key, None)
            if taken is not NOTHING:
                way.give(lender, taken, error)
            wake(mine, error if isinstance(error, Exception) else None)
            raise
        if lead._is_closed:  # it may have ended before the value was there to be found
            if uses.pop(key, None) is not None:  # type: ignore[unreachable]
                way.give(lender, value, None)
            raise ended(self)
        return value

    def take_idle(self, lender: Any, key: Any) -> Any:
        """
        For coroutines: the value of that pool, if the request has it or need not wait for it; else `NOTHING`.

        Raises:
            RequestContextError: The request has ended.
        """
        lead = self._lead or self
        if self._is_closed or lead._is_closed:
            raise ended(self)
        uses = lead._uses
        use = uses.get(key)
        if use is not None:
            return use[2] if use.__class__ is tuple else NOTHING
        way = service_ways.get(lender.__class__) or way_of(lender)
        value = way.take_idle(lender)
        if value is not NOTHING:
            uses[key] = way, lender, value
            lead._must_await = True
            if lead._is_closed:  # another thread ended it in between
                if uses.pop(key, None) is not None:  # type: ignore[unreachable]
                    ending = way.agive(lender, value, None)
                    if ending is not None:
                        _ = in_background(ending)
                raise ended(self)
        return value

    async def atake(self, lender: Any, key: Any, options: dict[str, Any], slot: Any = None) -> Any:
        """`aacquire` for those who have its parts at hand; notes the value for `slot`."""
        lead = self._lead or self
        lead._must_await = True
        uses = lead._uses
        value: Any = None
        way = service_ways.get(lender.__class__) or way_of(lender)
        while True:
            if self._is_closed or lead._is_closed:
                raise ended(self)
            use = uses.get(key)
            if use is None:
                # What is at hand is taken here and now, without a task. Cancelled all the same, another of those
                # waiting tries.
                mine: list[Any] = [] if way.is_at_hand(lender) else Attempt(way)
                use = uses.setdefault(key, mine)
                if use is mine:
                    leading = self._lead_attempt(way, lender, key, options, mine)
                    if not isinstance(mine, Attempt):
                        value = await leading
                        break
                    mine.begin(leading, uses, key)
            if isinstance(use, tuple):
                value = use[2]
                break
            await afollow(use, uses, key)
        if slot is not None:
            self.put(slot, value)
        return value

    async def _lead_attempt(self, way: Way, lender: Any, key: Any, options: dict[str, Any], mine: list[Any]) -> Any:
        """Take a value for all who wait for it."""
        lead = self._lead or self
        uses = lead._uses
        try:
            if way.is_async:
                value = await way.take(lender, self, options)
            else:
                value = await in_worker(
                    partial(way.take, lender, self, options), unwanted=lambda value: way.give(lender, value, None)
                )
        except BaseException as error:
            if uses.get(key) is mine:
                uses.pop(key, None)
            wake(mine, error if isinstance(error, Exception) or isinstance(mine, Attempt) else None)
            raise
        if uses.get(key) is mine:
            uses[key] = way, lender, value
            wake(mine)
            if not lead._is_closed:
                return value
            if uses.pop(key, None) is None:  # another thread ended it, and found the value
                raise ended(self)
        ending = way.agive(lender, value, None)
        if ending is not None:
            await ending
        raise ended(self)

    def put(self, slot: Any, value: Any) -> None:
        """
        Note a value for whoever asks as `slot`.

        Raises:
            RequestContextError: The request has ended.
        """
        resolved = self._resolved
        if resolved is ENDED or self._is_closed:
            raise ended(self)
        resolved[slot] = value

    def _forget_values(self) -> None:
        """Have no part of this request hand out what is given back."""
        for child in members(self._children or weakref.WeakSet()):
            child._resolved = ENDED

    # --- the end -------------------------------------------------------------------------------------------------

    def on_close(self, callback: C) -> C:
        """
        Have `callback(exc)` called when the request ends, with the exception that ended it or `None`.

        Callbacks and pooled values unwind together, last in, first out: what was taken before
        the callback was given is still there for it. An awaitable it returns is awaited.

        Returns:
            The callback, so that this can decorate it.

        Raises:
            RequestContextError: The request has ended.
        """
        if self._is_closed:
            raise ended(self)
        way = CALLBACK
        if inspect.iscoroutinefunction(callback):
            way, self._must_await = ASYNC_CALLBACK, True
        self._uses[object()] = way, callback, None
        return callback

    def close(self, exc: BaseException | None = None) -> None:
        """
        End the request: call its callbacks and give back what it holds.

        Closing it again does nothing. A callback or pool that fails does not keep the others from their turn.

        Args:
            exc: What ended the request, for callbacks and release hooks; `None` takes `error`.

        Raises:
            RequestContextError: It holds something that must be awaited. Nothing has happened; use `aclose`.
            ExceptionGroup: Several callbacks or releases failed; a single failure is raised as it is.
        """
        if self._is_closed:
            return
        uses = self._uses
        if self._must_await and any(is_to_be_awaited(use) for use in tuple(uses.values())):
            raise RequestContextError(
                f"{self} holds values of an asyncio pool or callbacks that must be awaited, and was closed without "
                "`await`: end it with `await ctx.aclose()`, or open it with `async with`"
            )
        self._is_closed = True
        if self._children is not None:
            self._forget_values()
        if exc is None:
            exc = self.error
        errors: list[BaseException] | None = None
        key: Any = None
        while uses:
            use: Any = None
            try:
                key, use = uses.popitem()
                if use.__class__ is tuple:
                    way, lender, value = use
                    if exc is None and way.is_direct:
                        lender.release(value)
                    else:
                        way.give(lender, value, exc)
                else:
                    wake(use, ended(self))
            except BaseException as error:  # noqa: BLE001 - raised below, after the others had their turn
                if use is None and isinstance(error, KeyError):
                    break  # another thread took back what came too late
                errors = [*(errors or ()), error]
                if isinstance(use, tuple) and use[0].is_out(*use[1:]) and key is not _once_more:
                    uses[_once_more] = use  # interrupted before the release had begun
        self._resolved = ENDED
        if errors:
            _raise(errors, self, exc)

    async def aclose(self, exc: BaseException | None = None) -> None:
        """
        As `close`, awaiting what has to be awaited.

        A cancellation meanwhile does not keep anything from being given back: it is
        raised at the end. One that comes twice cuts short the callback or release under way.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if self._children is not None:
            self._forget_values()
        if exc is None:
            exc = self.error
        uses = self._uses
        errors: list[BaseException] | None = None
        while uses:
            try:
                use = uses.popitem()[1]
            except KeyError:  # another thread took back what came too late
                break
            try:
                if use.__class__ is tuple:
                    way, lender, value = use
                    ending = way.agive(lender, value, exc)
                else:
                    ending = abandon(use, ended(self))
                if ending is not None:
                    await ending
            except BaseException as error:  # noqa: BLE001 - raised below, after the others had their turn
                errors = [*(errors or ()), error]
        self._resolved = ENDED
        if errors:
            _raise(errors, self, exc)

    # --- being the current one -----------------------------------------------------------------------------------

    def active(self) -> Active:
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
        try:
            self._token = current_var.set(self)
            return self
        except BaseException:  # interrupted after all
            if self._token is not None:
                current_var.reset(self._token)
            raise

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.close(exc)
        except RequestContextError:
            if not self._is_closed and in_loop():
                # Nobody can be expected to come back for what this request holds.
                _ = in_background(self.aclose(exc))
            raise
        except BaseException:
            if self._uses:  # interrupted between two lines
                self._is_closed = False
                self.close(exc)
            raise
        finally:
            try:
                current_var.reset(self._token)  # type: ignore[arg-type]
            except ValueError:  # ended from another task or thread: there is nothing to put back here
                pass

    async def __aenter__(self) -> Self:
        if self._token is not None or self._is_closed:
            return self.__enter__()
        self._token = current_var.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        try:
            await self.aclose(exc)
        finally:
            try:
                current_var.reset(self._token)  # type: ignore[arg-type]
            except ValueError:  # ended from another task
                pass

    def __str__(self) -> str:
        return "the request" if self.name is None else f"request {self.name!r}"

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{len(self._uses)} held"
        return f"<RequestContext {self.name!r} values={list(self.values)} {state}>"


#: What the context variable holds outside of any request.
NO_REQUEST: Final = RequestContext()
NO_REQUEST._is_closed, NO_REQUEST._resolved = True, ENDED

current_var: ContextVar[RequestContext] = ContextVar("pooling.request", default=NO_REQUEST)


def _named_request() -> str | None:
    ctx = current_var.get()
    return None if ctx is NO_REQUEST or ctx.name is None else str(ctx)


call_site.named_request = _named_request


class Active:
    """Makes a request current for a block of code."""

    __slots__ = ("_ctx", "_token")

    def __init__(self, ctx: RequestContext) -> None:
        self._ctx = ctx

    def __enter__(self) -> RequestContext:
        self._token = current_var.set(self._ctx)
        return self._ctx

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        try:
            current_var.reset(self._token)
        except ValueError:  # left from another task or thread
            pass


def _checked(parent: Any) -> RequestContext:
    if not isinstance(parent, RequestContext):
        raise ConfigurationError(
            f"parent: expected a RequestContext, not {type(parent).__qualname__}. A value of that name is set "
            "afterwards: ctx['parent'] = ...",
            field="parent",
        )
    return parent


def ended(ctx: RequestContext) -> RequestContextError:
    return RequestContextError(
        f"{ctx} has ended, and with it the use of its pooled values. Work that outlives a request needs a request of "
        "its own: open one around it."
    )


def _may_not_wait(way: Way, lender: Any) -> RequestContextError:
    if way.is_async:
        return RequestContextError(
            f"the value of {_name(lender)} has not been taken in this request yet, and taking it must be awaited: "
            "use pooling.di.inject on an async function, `await slot.aget()` or `await ctx.aacquire(pool)` before "
            "synchronous code uses it"
        )
    return RequestContextError(
        f"the value of {_name(lender)}, a pool for threads, has not been taken in this request yet, and taking it "
        "here would block the event loop: use pooling.di.inject on an async function, `await slot.aget()` or `await "
        "ctx.aacquire(pool)`, which ask it from a worker thread; or make the pool an asyncio one"
    )


def _name(lender: Any) -> str:
    name = getattr(lender, "name", None)
    return f"pool {name!r}" if isinstance(name, str) else f"a {type(lender).__qualname__}"


def _raise(errors: list[BaseException], ctx: RequestContext, exc: BaseException | None) -> None:
    """
    Raise what went wrong at the end of a request, interrupts first.

    An interrupt that ended the request goes on as it is, for nothing may hide it from those who sent it.
    """
    interrupts = [error for error in errors if not isinstance(error, Exception)]
    failures = [error for error in errors if isinstance(error, Exception)]
    if exc is not None and not isinstance(exc, Exception):
        interrupts.append(exc)
    if interrupts:
        for failure in failures:
            logger.error("%s: an error at its end gave way to an interrupt", ctx, exc_info=failure)
        if interrupts[0] is not exc:
            raise interrupts[0]
        return
    if len(failures) == 1:
        raise failures[0]
    raise ExceptionGroup(f"{ctx}: {len(failures)} errors at its end", failures)
