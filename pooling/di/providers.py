"""
The providers for containers: `Pool`, `AsyncPool`, `Pooled`, `Managed` and `Factory`.

`_scopes` has their common base classes, `_plan` the calls of a graph of them.
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
from ._captives import refuse_captors
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
        factory: A `PoolFactory`, a class or a callable, as for `PoolingService`; or a provider of a `PoolFactory`; or
            a provider that is called for each resource and returns it, with its dependencies injected.
        options: `PoolingServiceOptions`, or a provider of them.
        **settings: Options by name; values may be providers, such as options of a `providers.Configuration`. `name` is
            the pool's name, by default its key in the container. `group` decides when it is started; see
            `Container.start_order`.
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
        """Stop the pool, if it was made; a timeout of `None` takes the pool's default."""
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
        """Stop the pool, if it was made; a timeout of `None` takes the pool's default."""
        if self._object is not None:
            await (self._object.stop() if timeout is None else self._object.stop(timeout))


# --- a request's value -----------------------------------------------------------------------------------------------


class Pooled(PerRequest[T]):
    """
    Provider of one value per request, taken from a pool on first use and given back when the request ends.

    Within a request every call returns the same object, also in tasks or threads that call at the same time. A call is
    synchronous, so the value of an asyncio pool must have been taken before: `inject` does this; without it, use
    `await provider.aget()`.

    Args:
        source: The pool: a `Pool` or `AsyncPool`, another provider or a callable that returns a
            pool, or a pool itself. With `select` or `key`, the object that these find the pool in.
        select: `select(source, ctx)` returns the pool for this request, given the resolved source;
            or a context manager around one use.
        key: For a source with `pool(key)` or `get_pool(key)`: a function that returns the key, given the request
            context, or the name of the request's value that is the key.
        name: Two pooled providers of one pool share their value in a request unless they have different names.
        options: For the pool's `acquire`, such as `timeout` and `priority`.
    """

    if not TYPE_CHECKING:
        # `__call__` is a function of each instance, replaced when the provider is overridden, so that a second use in a
        # request, the most frequent call, is one look-up.
        __slots__ = ("__call__", "_is_checked", "_is_fixed", "_options", "_origin", "_source")

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
        self._source.check_options(options)
        self._options = options
        self._origin: Pooled[T] = self  # the provider that it is a copy of
        self._is_checked = False  # whether no longer-lived provider depends on it
        self.changed()

    # --- resolving -----------------------------------------------------------------------------------------------

    def changed(self) -> None:
        """Choose again what a call does, and have all plans that this provider is part of made again."""
        self._is_fixed = self._source.is_fixed and self._declared is None
        answer: Any = self._by_request() if self.last_overriding is None else super().__call__
        self.__call__ = answer  # type: ignore[method-assign]
        super().changed()

    def _by_request(self) -> Callable[[], T]:
        """Make the function that a call runs while the provider is not overridden."""
        first = self.first

        def value() -> Any:
            """
            This request's value.

            Raises:
                RequestContextError: No request is open, or it has ended; or the value has not been taken yet and taking
                    it must be awaited or would block an event loop.
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
        """A request's value, on its first use; errors as for calling the provider."""
        if ctx is NO_REQUEST:
            raise self._no_request()
        if not self._is_checked:
            self._check()
        if self._is_fixed:
            pool = self._source.provider.ready or self._source.provider()
            value = ctx.take(pool, id(pool), self._options)
        else:
            value = self._source.take(ctx, self._options)
        ctx.put(self, value)
        return value  # type: ignore[no-any-return]

    def begin(self, ctx: RequestContext) -> Awaitable[T] | None:
        """
        Have a request take its value if it has none yet; returns what to await, or `None`.

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
        if not self._is_checked:
            self._check()
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
        """This request's value, to be awaited. Does not block the event loop."""
        over = self.last_overriding
        if over is not None:
            return over.aget() if isinstance(over, Pooled) else _at_hand(over())
        ctx = get_current()
        return self.begin(ctx) or _at_hand(ctx.resolved[self])

    def _check(self) -> None:
        """Refuse a provider that would keep the value; before the first value is taken."""
        refuse_captors(self._origin)
        self._is_checked = True

    def _no_request(self) -> RequestContextError:
        return RequestContextError(
            f"{self._source.label} is one value per request, and no request is open here: use it inside "
            "`with app.request():`, a web middleware of pooling.web, or a function decorated with pooling.di.task. In "
            "a web app, call pooling.web's `install` after other middlewares were added; what runs outside of the HTTP "
            "request, such as an event of Gradio, is a task of its own."
        )

    # --- being a provider ----------------------------------------------------------------------------------------

    def declared_as(self, name: str) -> None:
        """Note that this provider belongs to a container class, whose containers use copies of it."""
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
        copied._origin = self._origin


async def _at_hand(value: T) -> T:
    return value


# --- other objects with a start and a stop ---------------------------------------------------------------------------


class Managed(PerContainer[T]):
    """
    Provider of one object per container, started and stopped with it: a client, a pool manager, a worker.

    A forked child has the object that the parent made, and does not stop it.

    Args:
        make: A class, a callable, or a provider of the object. With a coroutine function, start the container by
            `astart()`.
        *args: Arguments of `make`; providers are replaced by what they provide.
        **kwargs: The same, by name.
        start: What to call when the container starts: the name of a method, a function of the object, or `None` for
            nothing. By default the method `start`, if the object has it. May be a coroutine function.
        stop: The same for when it stops; by default `stop`.
        group: Decides when it is started; see `Container.start_order`.
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
        self._maker = 0  # id of the process that made the object
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
        return self._checked(made)

    def _checked(self, made: Any) -> T:
        """
        Note who made the object.

        Raises:
            ConfigurationError: There is none.
        """
        if made is None:
            raise ConfigurationError(
                f"{self.label!r} has made nothing: its class or function returned None. Return the object; what only "
                "has to happen at the start is start=..., of another object",
                field="make",
            )
        self._maker = os.getpid()
        return made  # type: ignore[no-any-return]

    def start(self) -> None:
        """Make the object and start it. May block."""
        run_step(self(), "start", self._start, self.label)

    async def astart(self) -> None:
        """Make the object and start it. What may block runs on a worker thread."""
        if self._object is None and self.last_overriding is None:
            made = self._make()
            made = await made if inspect.isawaitable(made) else made
            self._keep(self._checked(made))
        await arun_step(self(), "start", self._start, self.label)

    def stop(self, timeout: float | None = None) -> None:
        """Stop the object, if it was made, and drop it. May block."""
        if self._object is not None:
            if self._maker == os.getpid():
                run_step(self._object, "stop", self._stop, self.label)
            self._keep(None)  # it may not be possible to start it again, so the next start makes a new one

    async def astop(self, timeout: float | None = None) -> None:
        """Stop the object, if it was made, and drop it. What may block runs on a worker thread."""
        if self._object is not None:
            if self._maker == os.getpid():
                await arun_step(self._object, "stop", self._stop, self.label)
            self._keep(None)  # it may not be possible to start it again, so the next start makes a new one

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


# --- objects made at each call ---------------------------------------------------------------------------------------

_call_plainly = providers.Factory.__call__


def _telling(change: Any) -> Any:
    """Wrap a method of the library's factory so that the plans that the factory is part of are made again after it."""

    def method(self: Factory[Any], *args: Any, **kwargs: Any) -> Any:
        result = change(self, *args, **kwargs)
        self.changed()
        return result

    return method


class Factory(Watched, providers.Factory[T]):
    """
    Makes an object at each call, like `providers.Factory`, which it replaces; faster for calls without arguments.

    The first call examines its dependencies. If every part of the graph is known to be synchronous, later calls use a
    plan (see `_plan`); otherwise they do what the library does. Overrides, and changes of the arguments of this or of
    a `Factory` it depends on, take effect at the next call.

    Args:
        provides: What to call: a class, a function, or the name of one to import.
        args: Its positional arguments. A provider is replaced by what it provides.
        kwargs: Its keyword arguments, likewise.
    """

    if not TYPE_CHECKING:
        __slots__ = ("_plan", "_plans")

    def __init__(self, provides: Callable[..., T] | str | None = None, *args: Any, **kwargs: Any) -> None:
        self._plan: Plan | None = None
        self._plans = weakref.WeakSet()
        super().__init__(provides, *args, **kwargs)

    if not TYPE_CHECKING:  # the library's stub types them

        def __call__(self, *args, **kwargs):
            """Make an object. Arguments are added to the declared ones; keywords replace those of the same name."""
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
        """Make an object after awaiting the pooled values that it needs. Does not block the event loop."""
        plan = self._plan or self._make_plan()
        return await plan.aresolve(get_current())  # type: ignore[no-any-return]

    def forget_plan(self) -> None:
        """Examine its dependencies again at the next call."""
        self._plan = None

    def _make_plan(self) -> Plan:
        self._plan = plan = Plan(self, partial(_call_plainly, self))
        return plan


FACTORIES.add(Factory)
