"""
The providers for containers: `Pool`, `AsyncPool`, `Pooled`, `PerRequest`, `Managed` and `Factory`.

`_scopes` and `_request_values` have their common base classes, `_plan` the calls of a graph of them.
"""

from __future__ import annotations

import inspect
import os
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from dependency_injector import providers

from .._request.current import get_current
from ..binding import is_provider
from ..errors import ConfigurationError
from ..service import AsyncPoolingService, PoolingService
from ._lifecycle import WHERE_IT_HAS_ONE, arun_step, discards_awaitable, run_step
from ._making import Making
from ._plan import FACTORIES, Plan
from ._request_values import RequestValue
from ._scopes import PerContainer, Watched
from ._sources import PoolProvider, Source, source_provider

if TYPE_CHECKING:
    from typing import Unpack

    from ..context import RequestContext
    from ..factory import PoolFactory
    from ..options import PoolingServiceOptions
    from ._sources import Creates, Foreign, HasPools, Lends, PoolDeclaration, Provides, Use

    Options = PoolingServiceOptions | Mapping[str, Any] | providers.Provider[Any] | None

__all__ = ["AsyncPool", "Factory", "Managed", "PerRequest", "Pool", "Pooled"]

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

    _service_type = PoolingService

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
    _service_type = AsyncPoolingService

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


class Pooled(RequestValue[T]):
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
        __slots__ = ()

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
        found = Source(source_provider(source), select, key, name)
        found.check_options(options)
        super().__init__(found, options)


class PerRequest(RequestValue[T]):
    """
    Provider of one object per request that is not pooled: a session on a pooled connection, a unit of work.

    It is made on first use, once for all tasks and threads of the request that ask at the same time, and every call in
    the request returns it. Pooled values that it is made of are taken before and given back after it. In asyncio a call
    is synchronous as that of `Pooled`: `inject` makes the object first; without it, use `await provider.aget()`.

    A child of the request has an object of its own, since it may be of another user.

    Args:
        make: What makes it: a class, a function, or a provider. A generator function, plain or async, yields it once;
            what follows the `yield` runs when the request ends, in the reverse order of making, and an exception that
            ended the request is raised at the `yield`. In asyncio a plain function runs in the event loop.
        *args: Arguments of `make`; providers are replaced by what they provide in the request.
        checkpoint: What to do with it before the request's answer goes out, such as `"flush"`: the name of a method, or
            a function of the object; may be a coroutine function. It comes before the checkpoint of what it is made of,
            and may come again: a request may have several checkpoints.
        **kwargs: As `args`, by name.
    """

    if not TYPE_CHECKING:
        __slots__ = ()

    @overload
    def __init__(
        self,
        make: type[T] | providers.Provider[T],
        /,
        *args: Any,
        checkpoint: str | Callable[[T], Any] | None = None,
        **kwargs: Any,
    ) -> None: ...
    @overload
    def __init__(
        self,
        make: Callable[..., Iterator[T] | AsyncIterator[T] | Coroutine[Any, Any, T]],
        /,
        *args: Any,
        checkpoint: str | Callable[[T], Any] | None = None,
        **kwargs: Any,
    ) -> None: ...
    @overload
    def __init__(
        self,
        make: Callable[..., T],
        /,
        *args: Any,
        checkpoint: str | Callable[[T], Any] | None = None,
        **kwargs: Any,
    ) -> None: ...
    def __init__(self, make: Any = None, /, *args: Any, checkpoint: Any = None, **kwargs: Any) -> None:
        super().__init__(Making.of(make, args, kwargs, checkpoint))


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
        self._changed()
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

    def _make_plan(self) -> Plan:
        self._plan = plan = Plan(self, partial(_call_plainly, self))
        return plan


FACTORIES.add(Factory)
