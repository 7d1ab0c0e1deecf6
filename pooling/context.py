"""
One request: its values, what it holds of which pool, and what happens when it ends.

The current request is found through one context variable. What that holds is not
the request itself but its *scope*, a plain dictionary from whoever asks to the value resolved for it: a
second use is then one look-up, without a method call. The request is in there under `CONTEXT`.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import _get_running_loop
from collections.abc import Callable, Iterator
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from ._held import Callback, Held, Retry, ended
from ._lenders import kind_of, service_kinds
from ._offload import in_loop
from .errors import RequestContextError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["MissingValueError", "RequestContext"]

logger = logging.getLogger("pooling")

C = TypeVar("C", bound=Callable[..., Any])

#: The key of the request itself in its scope.
CONTEXT: Final = object()  # no text, for a dictionary of texts is made anew when another kind of key comes in

#: Outside of any request: nothing is at hand.
NO_SCOPE: Final[dict[Any, Any]] = {}
scope_var: ContextVar[dict[Any, Any]] = ContextVar("pooling.request", default=NO_SCOPE)
_no_default: Final = object()
_closing: set[asyncio.Task[None]] = set()  # the loop itself keeps only weak references


class MissingValueError(RequestContextError, KeyError):
    """The request carries no value of that name. Also a `KeyError`."""

    __str__ = Exception.__str__

    def __init__(self, message: str, *, missing: Any = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.missing = missing


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
        "_held",
        "_is_closed",
        "_lead",
        "_must_await",
        "_scope",
        "_token",
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
        self.container: Any = None if parent is None else parent.container
        #: What ended the request, where a framework made a response of it and its code ends normally: a
        #: `close` without an exception takes this one.
        self.error: BaseException | None = None
        self.values = values
        # Attempts at values by key, and callbacks by themselves: the order of insertion is the stack to unwind.
        self._held: dict[Any, Any] = {}
        self._is_closed = False
        self._must_await = False  # whether something it holds may have to be awaited
        self._lead: RequestContext | None = None  # who holds the pooled values, if not this one
        self._scope: dict[Any, Any] | None = {}  # what is resolved for it, by who asks; `None` when it has ended
        self._token: Token[dict[Any, Any]] | None = None

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
            child._lead = self._lead or self
        return child

    @staticmethod
    def current() -> RequestContext | None:
        """
        The request whose code is running, or `None` outside of any.

        Tasks and threads started with a copy of the context keep theirs, even after it has
        closed: what outlives a request is told so, rather than taken for somebody else's work.
        """
        return scope_var.get().get(CONTEXT)

    @property
    def is_closed(self) -> bool:
        """Whether it has ended, or begun to."""
        return self._is_closed

    # --- pooled values -------------------------------------------------------------------------------------------

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
        attempts = lead._held
        while True:
            if self._is_closed or lead._is_closed:
                raise ended(self)
            held = attempts.get(key)
            if held is None:
                mine = (service_kinds.get(lender.__class__) or kind_of(lender))(lender, key)
                if mine.is_async or _get_running_loop() is not None:
                    raise _may_not_wait(mine)
                held = attempts.setdefault(key, mine)
                if held is mine:
                    if lead._is_closed:  # it ended in between, and may not look at its values again
                        attempts.pop(key, None)  # type: ignore[unreachable]
                        raise ended(lead)
                    try:
                        value = lender.acquire(self) if mine.is_direct and not options else mine.take(self, options)
                    except BaseException as error:
                        mine.fail(error, self)
                        raise
                    mine.value = value
                    mine.done = True
                    if not (mine.waiters or mine.abandoned) or mine.arrive(value):
                        return value
                    if mine.claim():
                        mine.give(None)
                    raise ended(self)
            if held.done:
                return held.value
            if held.is_async or _get_running_loop() is not None:
                raise _may_not_wait(held)
            try:
                return held.follow()
            except Retry:
                continue

    async def atake(self, lender: Any, key: Any, options: dict[str, Any], slot: Any = None) -> Any:
        """`aacquire` for those who have its parts at hand; puts the value into the scope for `slot`."""
        value = None
        lead = self._lead or self
        attempts = lead._held
        lead._must_await = True
        while True:
            if self._is_closed or lead._is_closed:
                raise ended(self)
            held = attempts.get(key)
            if held is None:
                mine = (service_kinds.get(lender.__class__) or kind_of(lender))(lender, key)
                held = attempts.setdefault(key, mine)
                if held is mine:
                    if lead._is_closed:  # it ended in between, and may not look at its values again
                        attempts.pop(key, None)  # type: ignore[unreachable]
                        raise ended(lead)
                    if mine.at_hand():
                        # Taken here and now, without a task. Cancelled all the same, another of those waiting tries.
                        try:
                            if mine.is_direct and not options:
                                value = await lender.acquire(self)
                            else:
                                value = await mine.take(self, options)
                        except BaseException as error:
                            mine.fail(error, self)
                            raise
                        mine.value = value
                        mine.done = True
                        if not (mine.waiters or mine.abandoned) or mine.arrive(value):
                            break
                        if mine.claim():
                            await mine.agive(None)
                        raise ended(self)
                    mine.begin(self, options)
            if held.done:
                value = held.value
                break
            try:
                value = await held.afollow(self)
            except Retry:
                continue
            break
        if slot is not None:
            self.put(slot, value)
        return value

    def put(self, slot: Any, value: Any) -> None:
        """
        Put a value into the scope, for whoever asks as `slot`.

        Raises:
            RequestContextError: The request has ended.
        """
        scope = self._scope
        if scope is not None:
            scope[slot] = value
        if self._is_closed:  # its end may have emptied the scope just before
            if scope is not None:
                scope.pop(slot, None)
            raise ended(self)

    def forget(self, held: Held) -> None:
        """Let the next to ask try anew."""
        lead = self._lead or self
        if lead._held.get(held.key) is held:
            lead._held.pop(held.key, None)

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
        item = Callback(callback)
        if item.is_async:
            self._must_await = True
        self._held[item] = item
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
        held = self._held
        if self._must_await and any(item.is_async for item in tuple(held.values())):
            raise RequestContextError(
                f"{self} holds values of an asyncio pool or callbacks that must be awaited, and was closed without "
                "`await`: end it with `await ctx.aclose()`, or open it with `async with`"
            )
        self._is_closed = True
        if exc is None:
            exc = self.error
        errors: list[BaseException] | None = None
        while held:
            item = held.popitem()[1]
            try:
                if exc is None and item.done and item.is_direct:
                    item.lender.release(item.value)
                elif item.done or item.abandon(ended(self)):
                    item.give(exc)
            except BaseException as error:  # noqa: BLE001 - raised below, after the others had their turn
                errors = [*(errors or ()), error]
        self._drop_scope()
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
        if exc is None:
            exc = self.error
        held = self._held
        errors: list[BaseException] | None = None
        while held:
            item = held.popitem()[1]
            try:
                if exc is None and item.done and item.is_direct and item.is_async:
                    await item.lender.release(item.value)
                elif item.done or item.abandon(ended(self)):
                    await item.agive(exc)
                elif item.task is not None:
                    item.task.cancel()
                    await asyncio.wait((item.task,))
            except BaseException as error:  # noqa: BLE001 - raised below, after the others had their turn
                errors = [*(errors or ()), error]
        self._drop_scope()
        if errors:
            _raise(errors, self, exc)

    def _drop_scope(self) -> None:
        """Whoever still has the scope finds the ended request in it, and none of its values."""
        scope = self._scope
        if scope is not None:
            self._scope = None
            if len(scope) > 1:
                scope.clear()
                scope[CONTEXT] = self

    # --- being the current one -----------------------------------------------------------------------------------

    def active(self) -> Active:
        """
        Make this the current request for a block of code, without closing it at the end.

        For threads and callbacks that run without the context of the request they work for: `with ctx.active(): ...`
        """
        return Active(self)

    def enter_scope(self) -> dict[Any, Any]:
        """What is resolved for this request, as the context variable holds it."""
        scope = self._scope
        if scope is None:
            return {CONTEXT: self}
        scope[CONTEXT] = self  # from here to its end, the request and its scope are a cycle
        return scope

    def __enter__(self) -> Self:
        if self._token is not None or self._is_closed:
            raise RequestContextError(
                f"{self} was entered before. A request is entered once; `with ctx.active()` makes it current elsewhere."
            )
        scope = self._scope
        assert scope is not None
        scope[CONTEXT] = self
        self._token = scope_var.set(scope)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.close(exc)
        except RequestContextError:
            if not self._is_closed and in_loop():
                # Nobody can be expected to come back for what this request holds.
                task = asyncio.get_running_loop().create_task(self.aclose(exc))
                _closing.add(task)
                task.add_done_callback(_closing.discard)
            raise
        finally:
            try:
                scope_var.reset(self._token)  # type: ignore[arg-type]
            except ValueError:  # ended from another task or thread: there is nothing to put back here
                pass

    async def __aenter__(self) -> Self:
        if self._token is not None or self._is_closed:
            return self.__enter__()
        scope = self._scope
        assert scope is not None
        scope[CONTEXT] = self
        self._token = scope_var.set(scope)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        try:
            await self.aclose(exc)
        finally:
            try:
                scope_var.reset(self._token)  # type: ignore[arg-type]
            except ValueError:  # ended from another task
                pass

    def __str__(self) -> str:
        return "the request" if self.name is None else f"request {self.name!r}"

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{len(self._held)} held"
        return f"<RequestContext {self.name!r} values={list(self.values)} {state}>"


class Active:
    """Makes a request current for a block of code."""

    __slots__ = ("_ctx", "_token")

    def __init__(self, ctx: RequestContext) -> None:
        self._ctx = ctx

    def __enter__(self) -> RequestContext:
        self._token = scope_var.set(self._ctx.enter_scope())
        return self._ctx

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        try:
            scope_var.reset(self._token)
        except ValueError:  # left from another task or thread
            pass


def _may_not_wait(held: Held) -> RequestContextError:
    if held.is_async:
        return RequestContextError(
            f"the value of {_name(held.lender)} has not been taken in this request yet, and taking it must be awaited: "
            "use pooling.di.inject on an async function, or `await ctx.aacquire(pool)`, before synchronous code uses it"
        )
    return RequestContextError(
        f"the value of {_name(held.lender)}, a pool for threads, has not been taken in this request yet, and taking it "
        "here would block the event loop: use pooling.di.inject on an async function, or `await ctx.aacquire(pool)`, "
        "which ask it from a worker thread; or make the pool an asyncio one"
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
