"""
The providers that a container is written with: `Pool`, `AsyncPool`, `Pooled`, `Managed` and `Factory`.

What they have in common is in `_scopes`, how a graph of them is called in `_plan`.
"""

from __future__ import annotations

import inspect
import os
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from dependency_injector import providers

from .._engine.lease import NOTHING
from .._request.current import NO_REQUEST, get_current
from ..binding import is_provider
from ..errors import ConfigurationError, RequestContextError
from ..service import AsyncPoolingService, PoolingService
from ._lifecycle import WHERE_IT_HAS_ONE, arun_step, discards_awaitable, run_step
from ._plan import FACTORIES, Plan
from ._scopes import PerContainer, PerRequest, Watched
from ._sources import PoolProvider, Source, source_provider

if TYPE_CHECKING:
    from typing import Unpack

    from ..context import RequestContext
    from ..factory import PoolFactory
    from ..options import PoolingServiceOptions
    from ._sources import Creates, Foreign, HasPools, Lends, PoolDeclaration, Provides, Use

    Options = PoolingServiceOptions | Mapping[str, Any] | providers.Provider[Any] | None

__all__ = ["AsyncPool", "Factory", "Managed", "Pool", "Pooled"]

T = TypeVar("T")
S = TypeVar("S")


# --- pools -----------------------------------------------------------------------------------------------------------


class Pool(PoolProvider[PoolingService[T]], Generic[T]):
    """
    Provider of a `PoolingService`, one per container, started and stopped with it.

    Args:
        factory: A `PoolFactory`, a class or a callable, as for `PoolingService`. A provider gives either such
            a factory or, called anew for each, the members themselves with their dependencies injected.
        options: `PoolingServiceOptions`, or a provider of them.
        group: When it is started; see `Container.start_order`.
        name: The pool's name; by default the key it has in its container.
        settings: Options by name; values may be providers, such as options of a `providers.Configuration`.
    """

    __slots__ = ()

    service_type = PoolingService

    @overload
    def __init__(
        self,
        factory: PoolFactory[T] | Provides[PoolFactory[T]],
        /,
        options: Options = None,
        **settings: Unpack[PoolDeclaration],
    ) -> None: ...
    @overload
    def __init__(
        self,
        factory: Creates[T] | type[T] | Callable[[], T],
        /,
        options: Options = None,
        **settings: Unpack[PoolDeclaration],
    ) -> None: ...
    def __init__(self, factory: Any = None, /, options: Any = None, **settings: Any) -> None:
        super().__init__(factory, options, **settings)

    def start(self) -> None:
        """Start the pool, making it first; blocks."""
        self().start()

    def stop(self, timeout: float | None = None) -> None:
        """Stop the pool, if it was made; `None` takes its own default."""
        if self._object is not None:
            self._object.stop() if timeout is None else self._object.stop(timeout)


class AsyncPool(PoolProvider[AsyncPoolingService[T]], Generic[T]):
    """Provider of an `AsyncPoolingService`, otherwise as `Pool`."""

    __slots__ = ()

    is_async = True
    service_type = AsyncPoolingService

    @overload
    def __init__(
        self,
        factory: PoolFactory[T] | Provides[PoolFactory[T]],
        /,
        options: Options = None,
        **settings: Unpack[PoolDeclaration],
    ) -> None: ...
    @overload
    def __init__(
        self,
        factory: Creates[Awaitable[T]] | Callable[[], Awaitable[T]],
        /,
        options: Options = None,
        **settings: Unpack[PoolDeclaration],
    ) -> None: ...
    @overload
    def __init__(
        self,
        factory: Creates[T] | type[T] | Callable[[], T],
        /,
        options: Options = None,
        **settings: Unpack[PoolDeclaration],
    ) -> None: ...
    def __init__(self, factory: Any = None, /, options: Any = None, **settings: Any) -> None:
        super().__init__(factory, options, **settings)

    async def astart(self) -> None:
        """Start the pool, making it first."""
        await self().start()

    async def astop(self, timeout: float | None = None) -> None:
        """Stop the pool, if it was made; `None` takes its own default."""
        if self._object is not None:
            await (self._object.stop() if timeout is None else self._object.stop(timeout))


# --- a request's value -----------------------------------------------------------------------------------------------


class Pooled(PerRequest[T]):
    """
    Provider of one value per request, taken from a pool on first use and given back when the request ends.

    All that is resolved for one request gets the same object, also when tasks or threads
    ask at the same moment. Calling it is synchronous: the value of an asyncio pool must have been taken by then, which
    `inject` sees to; by hand it is `await provider.aget()`.

    Args:
        source: What to take from: a `Pool` or `AsyncPool`, another provider or a callable that gives a
            pool, or a pool itself. With `select` or `key`, whatever leads to the pool.
        select: `select(source, ctx)` gives the pool to take from for this request, out of the resolved source;
            or a context manager around one use.
        key: For a source with `pool(key)` or `get_pool(key)`: the key for this request, from a function of
            the context or as the name of one of its values.
        name: Two pooled providers of one pool share their value in a request, unless they have different names.
        options: For the pool's own `acquire`, such as `timeout` and `priority`.
    """

    if not TYPE_CHECKING:
        # `__call__` is a function of each instance, chosen anew when the provider is overridden: a second use, which is
        # the most frequent thing to happen here, is then one look-up.
        __slots__ = ("__call__", "_is_fixed", "_options", "_source")

    @overload
    def __init__(
        self, source: Lends[T] | Callable[[], Lends[T] | Use[T]], *, name: str | None = None, **options: Any
    ) -> None: ...
    @overload
    def __init__(
        self,
        source: HasPools[T] | Callable[[], HasPools[T]],
        *,
        key: Callable[[RequestContext], Any] | str,
        name: str | None = None,
        **options: Any,
    ) -> None: ...
    @overload
    def __init__(
        self,
        source: providers.Provider[S],
        *,
        select: Callable[[S, RequestContext], Lends[T] | Use[T]],
        name: str | None = None,
        **options: Any,
    ) -> None: ...
    @overload
    def __init__(
        self,
        source: S,
        *,
        select: Callable[[S, RequestContext], Lends[T] | Use[T]],
        name: str | None = None,
        **options: Any,
    ) -> None: ...
    @overload
    def __init__(
        self: Pooled[Any], source: Foreign | Callable[[], Foreign], *, name: str | None = None, **options: Any
    ) -> None: ...
    def __init__(
        self, source: Any = None, *, select: Any = None, key: Any = None, name: str | None = None, **options: Any
    ) -> None:
        super().__init__()
        self._source = Source(source_provider(source), select, key, name)
        self._options = options
        self.changed()

    # --- resolving -----------------------------------------------------------------------------------------------

    def changed(self) -> None:
        """Choose anew what a call does, and have all plans that this is part of made anew."""
        self._is_fixed = self._source.is_fixed and self._declared is None
        answer: Any = self._by_request() if self.last_overriding is None else super().__call__
        self.__call__ = answer  # type: ignore[method-assign]
        super().changed()

    def _by_request(self) -> Callable[[], T]:
        """What calling the provider does while nothing overrides it."""
        first = self.first

        def value() -> Any:
            """
            This request's value.

            Raises:
                RequestContextError: No request is open, it has ended, or the value must be awaited or would block
                    an event loop and has not been taken yet.
            """
            try:
                return get_current().resolved[self]
            except KeyError:
                pass
            return first(get_current())

        return value

    def _provide(self, args: Any, kwargs: Any) -> T:
        return self._by_request()()

    def first(self, ctx: RequestContext) -> T:
        """A request's value, where it has none yet; errors as for calling the provider."""
        if ctx is NO_REQUEST:
            raise self._no_request()
        if self._is_fixed:
            pool = self._source.provider.ready or self._source.provider()
            value = ctx.take(pool, id(pool), self._options)
        else:
            value = self._source.take(ctx, self._options)
        ctx.put(self, value)
        return value  # type: ignore[no-any-return]

    def begin(self, ctx: RequestContext) -> Awaitable[T] | None:
        """
        Have a request take its value if it has none yet; what is to be awaited, or `None` if nothing is.

        Raises:
            RequestContextError: No request is open, or it has ended.
        """
        if self in ctx.resolved:
            return None
        over = self.last_overriding
        if over is not None:
            return over.begin(ctx) if isinstance(over, Pooled) else None
        if ctx is NO_REQUEST:
            raise self._no_request()
        if not self._is_fixed:
            return self._source.atake(ctx, self._options, self)
        pool = self._source.provider.ready or self._source.provider()
        key = id(pool)
        if not self._options:
            value = ctx.take_idle(pool, key)
            if value is not NOTHING:
                ctx.put(self, value)
                return None
        return ctx.atake(pool, key, self._options, self)

    def aget(self) -> Awaitable[T]:
        """This request's value, to be awaited; the event loop is not blocked meanwhile."""
        over = self.last_overriding
        if over is not None:
            return over.aget() if isinstance(over, Pooled) else _at_hand(over())
        ctx = get_current()
        return self.begin(ctx) or _at_hand(ctx.resolved[self])

    def _no_request(self) -> RequestContextError:
        return RequestContextError(
            f"{self._source.label} is one value per request, and no request is open here: use it inside "
            "`with app.request():`, a web middleware of pooling.web, or a function decorated with pooling.di.task"
        )

    # --- being a provider ----------------------------------------------------------------------------------------

    def declared_as(self, name: str) -> None:
        """Note that this is part of a container's class, and so not for use itself."""
        super().declared_as(name)
        self._source.declared = self._declared

    @property
    def related(self) -> Iterator[providers.Provider[Any]]:
        """What this provider depends on."""
        if self._source.provider is not None:
            yield self._source.provider
        yield from super().related

    def _copy_into(self, copied: Any, memo: dict[Any, Any]) -> None:
        copied._source, copied._options = self._source.copied(memo), self._options


async def _at_hand(value: T) -> T:
    return value


# --- anything else with a start and a stop ---------------------------------------------------------------------------


class Managed(PerContainer[T]):
    """
    Provider of one object per container which is started and stopped with it: a client, a pool manager, a worker.

    A child process that was forked meanwhile has the object as its parent made it, and does not stop it.

    Args:
        make: A class, a callable, or a provider of the object; may be a coroutine function, and the container then
            started with `astart()`.
        args, kwargs: Its arguments, injected where they are providers.
        start, stop: What to call with the container's start and stop: the name of a method, a function of the
            object, or `None`. Left out, `start` and `stop` are called where the object has them. May be coroutine
            functions.
        group: When it is started; see `Container.start_order`.
    """

    if not TYPE_CHECKING:
        __slots__ = ("_make", "_maker", "_start", "_stop")

    @overload
    def __init__(
        self,
        make: providers.Provider[T] | Callable[..., Coroutine[Any, Any, T]],
        /,
        *args: Any,
        start: str | Callable[[T], Any] | None = WHERE_IT_HAS_ONE,
        stop: str | Callable[[T], Any] | None = WHERE_IT_HAS_ONE,
        group: str | None = None,
        **kwargs: Any,
    ) -> None: ...
    @overload
    def __init__(
        self,
        make: type[T] | Callable[..., T],
        /,
        *args: Any,
        start: str | Callable[[T], Any] | None = WHERE_IT_HAS_ONE,
        stop: str | Callable[[T], Any] | None = WHERE_IT_HAS_ONE,
        group: str | None = None,
        **kwargs: Any,
    ) -> None: ...
    def __init__(
        self,
        make: Any = None,
        /,
        *args: Any,
        start: Any = WHERE_IT_HAS_ONE,
        stop: Any = WHERE_IT_HAS_ONE,
        group: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(group=group)
        self._start, self._stop = start, stop
        self._maker = 0  # the process whose object it is
        if make is None or (is_provider(make) and not args and not kwargs):
            self._make: Any = make
        else:
            self._make = providers.Callable(make, *args, **kwargs)

    def _build(self) -> T:
        made = self._make()
        if discards_awaitable(made):
            raise ConfigurationError(
                f"{self.label!r} is made by a coroutine function; start the container with astart()"
            )
        self._maker = os.getpid()
        return made  # type: ignore[no-any-return]

    def start(self) -> None:
        """Make the object and start it; may block."""
        run_step(self(), "start", self._start, self.label)

    async def astart(self) -> None:
        """Make the object and start it; what may block runs on a worker thread."""
        if self._object is None and self.last_overriding is None:
            made = self._make()
            made = await made if inspect.isawaitable(made) else made
            self._maker = os.getpid()
            self._keep(made)
        await arun_step(self(), "start", self._start, self.label)

    def stop(self, timeout: float | None = None) -> None:
        """Stop the object, if it was made, and drop it; may block."""
        if self._object is not None:
            if self._maker == os.getpid():
                run_step(self._object, "stop", self._stop, self.label)
            self._keep(None)  # what was stopped may not be startable again: the next start makes a new one

    async def astop(self, timeout: float | None = None) -> None:
        """Stop the object, if it was made, and drop it; what may block runs on a worker thread."""
        if self._object is not None:
            if self._maker == os.getpid():
                await arun_step(self._object, "stop", self._stop, self.label)
            self._keep(None)  # what was stopped may not be startable again: the next start makes a new one

    @property
    def related(self) -> Iterator[providers.Provider[Any]]:
        """What this provider depends on."""
        if self._make is not None:
            yield self._make
        yield from super().related

    def _copy_into(self, copied: Any, memo: dict[Any, Any]) -> None:
        super()._copy_into(copied, memo)
        copied._make = providers.deepcopy(self._make, memo)
        copied._start, copied._stop = self._start, self._stop


# --- what is made at each call ---------------------------------------------------------------------------------------

_call_plainly = providers.Factory.__call__


def _telling(change: Any) -> Any:
    """A method of the library's factory, after which the plans that the factory is part of are made anew."""

    def method(self: Factory[Any], *args: Any, **kwargs: Any) -> Any:
        result = change(self, *args, **kwargs)
        self.changed()
        return result

    return method


class Factory(Watched, providers.Factory[T]):
    """
    Makes an object at each call, as `providers.Factory` does and in its place; in less time, without arguments.

    What it depends on is looked at once, at the first call. A graph of factories whose every part is known to be
    synchronous is called by a plan from then on (see `_plan`), and anything else as the library would. Overrides are
    seen at every call, and changes of its own arguments and of those of each `Factory` it depends on at the next one.

    Args:
        provides: What to call: a class, a function, or the name of one to import.
        args: Its arguments by place. A provider stands for what it gives.
        kwargs: Its arguments by name.
    """

    if not TYPE_CHECKING:
        __slots__ = ("_plan", "_plans")

    def __init__(self, provides: Callable[..., T] | str | None = None, *args: Any, **kwargs: Any) -> None:
        self._plan: Plan | None = None
        self._plans = weakref.WeakSet()
        super().__init__(provides, *args, **kwargs)

    if not TYPE_CHECKING:  # the library's stub types them

        def __call__(self, *args, **kwargs):
            """A new object. Arguments are added to those it was declared with, or replace those of their names."""
            if args or kwargs:
                return _call_plainly(self, *args, **kwargs)
            plan = self._plan or self._make_plan()
            return plan.resolve(get_current())

        set_provides = _telling(providers.Factory.set_provides)
        add_args = _telling(providers.Factory.add_args)
        set_args = _telling(providers.Factory.set_args)
        clear_args = _telling(providers.Factory.clear_args)
        add_kwargs = _telling(providers.Factory.add_kwargs)
        set_kwargs = _telling(providers.Factory.set_kwargs)
        clear_kwargs = _telling(providers.Factory.clear_kwargs)
        add_attributes = _telling(providers.Factory.add_attributes)
        set_attributes = _telling(providers.Factory.set_attributes)
        clear_attributes = _telling(providers.Factory.clear_attributes)
        enable_async_mode = _telling(providers.Factory.enable_async_mode)

    async def aget(self) -> T:
        """A new object, whose pooled values are awaited first; the event loop is not blocked meanwhile."""
        plan = self._plan or self._make_plan()
        return await plan.aresolve(get_current())  # type: ignore[no-any-return]

    def forget_plan(self) -> None:
        """Look again at what it depends on."""
        self._plan = None

    def _make_plan(self) -> Plan:
        self._plan = plan = Plan(self, partial(_call_plainly, self))
        return plan


FACTORIES.add(Factory)
