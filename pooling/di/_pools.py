"""Providers of things that live as long as their container: pools, and other services with a start and a stop."""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Generic, Self, TypeVar

from dependency_injector import providers

from .._held import in_worker
from ..binding import BindingFactory, is_provider
from ..errors import ConfigurationError
from ..factory import PoolFactory
from ..service import AsyncPoolingService, PoolingService

__all__ = ["AsyncPool", "Kept", "Managed", "Pool", "PoolProvider"]

T = TypeVar("T")


class Kept(providers.Provider[T]):
    """
    Provider of one object per container, which the container starts and stops.

    The object is made on first use or at start, whichever comes first, by one thread while others wait.
    """

    __slots__ = ("_building", "_container", "_declared", "_key", "_object", "_ready", "group")

    is_async: ClassVar[bool] = False

    def __init__(self, *, group: str | None = None) -> None:
        super().__init__()
        self.disable_async_mode()
        self.group = group
        self._ready: Any = None  # the object, while nothing overrides the provider
        self._object: Any = None
        self._building = threading.RLock()
        self._container: weakref.ref[Any] | None = None
        self._key: str | None = None
        self._declared: str | None = None

    def __call__(self) -> Any:  # it was made with its arguments
        """The container's own object."""
        ready = self._ready
        return ready if ready is not None else super().__call__()

    def _provide(self, args: Any, kwargs: Any) -> T:
        if self._object is None:
            if self._declared is not None:
                raise ConfigurationError(
                    f"{self._declared} is a declaration; build the container first, app = App(), and use what "
                    "belongs to app"
                )
            with self._building:
                if self._object is None:
                    self._object = self._build()
        self._overrides_changed()
        return self._object  # type: ignore[no-any-return]

    def _build(self) -> T:
        raise NotImplementedError

    @property
    def built(self) -> Any:
        """The object if there is one already, else `None`; whatever overrides the provider."""
        return self._object

    @property
    def label(self) -> str:
        """What messages call it."""
        return self._key or self._declared or type(self).__name__

    def start(self) -> None:
        """Start the object, making it first; may block."""
        raise NotImplementedError

    async def astart(self) -> None:
        """As `start`, without blocking the event loop."""
        await in_worker(self.start)

    def stop(self, timeout: float | None = None) -> None:
        """Stop the object if there is one; may block. `None` takes its own default."""
        raise NotImplementedError

    async def astop(self, timeout: float | None = None) -> None:
        """As `stop`, without blocking the event loop."""
        await in_worker(lambda: self.stop(timeout))

    # --- belonging to a container --------------------------------------------------------------------------------

    def attach(self, container: Any, key: str) -> None:
        """Belong to a container under this key."""
        if self._container is None:
            self._container, self._key = weakref.ref(container), key

    def declared_as(self, name: str) -> None:
        """Note that this is part of a container's class, and so not for use itself."""
        self._declared = name

    # --- being a provider ----------------------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[Any, Any] | None) -> Self:
        memo = {} if memo is None else memo
        copied: Self | None = memo.get(id(self))
        if copied is not None:
            return copied
        copied = self.__class__()
        memo[id(self)] = copied
        copied.group = self.group
        self._copy_into(copied, memo)
        self._copy_overridings(copied, memo)
        copied._overrides_changed()
        return copied

    def _copy_into(self, copied: Any, memo: dict[Any, Any]) -> None:
        raise NotImplementedError

    def override(self, provider: Any) -> Any:
        """Have another provider or value answer for this one; ends with the `with` block or a reset."""
        context: Any = super().override(provider)
        self._overrides_changed()
        return context

    def reset_last_overriding(self) -> None:
        """Undo the last `override`."""
        super().reset_last_overriding()
        self._overrides_changed()

    def reset_override(self) -> None:
        """Undo all overriding."""
        super().reset_override()
        self._overrides_changed()

    def _overrides_changed(self) -> None:
        self._ready = self._object if self.last_overriding is None else None


class PoolProvider(Kept[T]):
    """What `Pool` and `AsyncPool` have in common."""

    __slots__ = ("_factory", "_name", "_options", "_settings")

    service_type: ClassVar[Any]

    def __init__(
        self,
        factory: Any = None,
        /,
        options: Any = None,
        *,
        group: str | None = None,
        name: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(group=group)
        # The user's own objects are shared by all copies of the declaration, and never copied with it.
        self._factory = factory if factory is None or is_provider(factory) else providers.Object(factory)
        self._options = options if options is None or is_provider(options) else providers.Object(options)
        self._name = name
        self._settings = settings

    def configure(self, **settings: Any) -> None:
        """
        Set options of the pool, over those it was declared with; values may be providers.

        Raises:
            ConfigurationError: The pool exists already.
        """
        with self._building:
            if self._object is not None:
                raise ConfigurationError(
                    f"pool {self.label!r} exists already and cannot be configured any more: configure it before its "
                    "first "
                    "use, or change its size with resize()",
                    pool=self.label,
                )
            self._settings = {**self._settings, **settings}

    @property
    def settings(self) -> dict[str, Any]:
        """The options given so far, unresolved."""
        return dict(self._settings)

    def members(self) -> Any:
        """The provider its members come from, or `None` where they come from a `PoolFactory` or a callable."""
        factory = self._factory
        if isinstance(factory, providers.Object):
            given = factory.provides
            return given.provider(self.container) if isinstance(given, BindingFactory) else None
        return None if factory is None or _gives_a_factory(factory) else factory

    @property
    def container(self) -> Any:
        """The container it belongs to, or `None`."""
        return self._container and self._container()

    def _build(self) -> T:
        if self._factory is None:
            raise ConfigurationError(
                f"pool {self.label!r} has no factory; give one: Pool(UserFactory())", field="factory"
            )
        members = self.members()
        if isinstance(self._factory, providers.Object):
            factory: Any = self._factory.provides
            if isinstance(factory, BindingFactory):
                factory = factory.bound_to(self.container)
        else:
            factory = self._factory() if members is None else BindingFactory(members)
        settings = {name: value() if is_provider(value) else value for name, value in self._settings.items()}
        options = None if self._options is None else self._options()
        made: T = self.service_type(factory, options, name=self._name or self._key, **settings)
        return made

    @property
    def related(self) -> Iterator[providers.Provider[Any]]:
        """What this provider depends on."""
        for given in (self._factory, self._options, *self._settings.values()):
            if is_provider(given):
                yield given
        factory = self._factory.provides if isinstance(self._factory, providers.Object) else None
        if isinstance(factory, BindingFactory):
            container = factory.container if factory.container is not None else self.container
            member = (
                factory.binding if is_provider(factory.binding) else container and container.find(factory.binding, None)
            )
            if member is not None:
                yield member
        yield from super().related

    def _copy_into(self, copied: Any, memo: dict[Any, Any]) -> None:
        factory = self._factory.provides if isinstance(self._factory, providers.Object) else None
        if isinstance(factory, BindingFactory) and is_provider(factory.binding):
            # Members come from the new container's copy of the binding.
            copied._factory = providers.Object(BindingFactory(providers.deepcopy(factory.binding, memo)))
        else:
            copied._factory = providers.deepcopy(self._factory, memo)
        copied._options = providers.deepcopy(self._options, memo)
        copied._name = self._name
        copied._settings = {
            name: providers.deepcopy(value, memo) if is_provider(value) else value
            for name, value in self._settings.items()
        }


class Pool(PoolProvider[PoolingService[Any]]):
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

    def start(self) -> None:
        self().start()

    def stop(self, timeout: float | None = None) -> None:
        if self._object is not None:
            self._object.stop() if timeout is None else self._object.stop(timeout)


class AsyncPool(PoolProvider[AsyncPoolingService[Any]]):
    """Provider of an `AsyncPoolingService`, otherwise as `Pool`."""

    __slots__ = ()

    is_async = True
    service_type = AsyncPoolingService

    async def astart(self) -> None:
        await self().start()

    async def astop(self, timeout: float | None = None) -> None:
        if self._object is not None:
            await (self._object.stop() if timeout is None else self._object.stop(timeout))


class Managed(Kept[T], Generic[T]):
    """
    Provider of one object per container which is started and stopped with it: a client, a pool manager, a worker.

    Args:
        make: A class, a callable, or a provider of the object; may be a coroutine function, and the container then
            started with `astart()`.
        args, kwargs: Its arguments, injected where they are providers.
        start, stop: What to call with the container's start and stop: the name of a method, a function of the
            object, or `None`. Left out, `start` and `stop` are called where the object has them. May be coroutine
            functions.
        group: When it is started; see `Container.start_order`.
    """

    __slots__ = ("_is_started", "_make", "_start", "_stop")

    _UNSET: ClassVar[Any] = object()

    def __init__(
        self,
        make: Callable[..., T] | providers.Provider[T] | None = None,
        /,
        *args: Any,
        start: str | Callable[[T], Any] | None = _UNSET,
        stop: str | Callable[[T], Any] | None = _UNSET,
        group: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(group=group)
        self._start, self._stop = start, stop
        self._is_started = False
        if make is None or (is_provider(make) and not args and not kwargs):
            self._make: Any = make
        else:
            self._make = providers.Callable(make, *args, **kwargs)

    def _build(self) -> T:
        made = self._make()
        if inspect.isawaitable(made):
            if inspect.iscoroutine(made):
                made.close()
            raise ConfigurationError(
                f"{self.label!r} is made by a coroutine function; start the container with astart()"
            )
        return made  # type: ignore[no-any-return]

    def start(self) -> None:
        _must_be_done(self._call(self._start, "start", self()), self.label, "start")
        self._is_started = True

    async def astart(self) -> None:
        if self._object is None and self.last_overriding is None:
            made = self._make()
            self._object = await made if inspect.isawaitable(made) else made
            self._overrides_changed()
        step = self._hook(self._start, "start", self())
        if step is not None:
            await _run(step)
        self._is_started = True

    def stop(self, timeout: float | None = None) -> None:
        if self._object is not None:
            _must_be_done(self._call(self._stop, "stop", self._object), self.label, "stop")
            self._forget()

    async def astop(self, timeout: float | None = None) -> None:
        if self._object is not None:
            step = self._hook(self._stop, "stop", self._object)
            if step is not None:
                await _run(step)
            self._forget()

    def _forget(self) -> None:
        # What was stopped may not be startable again: the next start makes a new one.
        self._object, self._is_started = None, False
        self._overrides_changed()

    def _call(self, given: Any, default: str, made: Any) -> Any:
        step = self._hook(given, default, made)
        return None if step is None else step()

    def _hook(self, given: Any, default: str, made: Any) -> Callable[[], Any] | None:
        if given is None:
            return None
        if given is Managed._UNSET:
            return getattr(made, default, None)
        if callable(given):
            return lambda: given(made)
        hook = getattr(made, given, None)
        if not callable(hook):
            raise ConfigurationError(
                f"{self.label!r}: {default}={given!r} names no method of {type(made).__qualname__}", field=default
            )
        return hook  # type: ignore[no-any-return]

    @property
    def related(self) -> Iterator[providers.Provider[Any]]:
        """What this provider depends on."""
        if self._make is not None:
            yield self._make
        yield from super().related

    def _copy_into(self, copied: Any, memo: dict[Any, Any]) -> None:
        copied._make = providers.deepcopy(self._make, memo)
        copied._start, copied._stop = self._start, self._stop


async def _run(step: Callable[[], Any]) -> None:
    """Run a start or stop: a coroutine function here, anything else on a worker thread, for it may block."""
    if inspect.iscoroutinefunction(step):
        await step()
        return
    result = await in_worker(step)
    if inspect.isawaitable(result):
        await result


def _must_be_done(result: Any, label: str, step: str) -> None:
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise ConfigurationError(f"{label!r}: its {step} must be awaited; use a{step}() of the container")


def _gives_a_factory(provider: Any) -> bool:
    """Whether what this provider gives is a `PoolFactory` rather than a member, judged without calling it."""
    provides = getattr(provider, "provides", None)
    return isinstance(provides, type) and issubclass(provides, PoolFactory)
