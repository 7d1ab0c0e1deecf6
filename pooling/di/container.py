"""Containers that start and stop their pools and services in the order of their dependencies."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from dependency_injector import containers, providers

from .._request.current import get_current
from ..binding import is_provider
from ..context import RequestContext
from ..errors import ConfigurationError
from ..locks import make_rlock
from . import _checks, _lifecycle
from ._graph import everything
from ._lookup import declare, enlist, name_of, provider_under, withdraw
from ._plan import plan_for
from ._scopes import PerContainer, RequestScoped, forget_plans, note_container, note_declaration
from .providers import Factory

if TYPE_CHECKING:
    import threading
    from types import TracebackType
    from typing import Unpack

    from ._sources import PoolSettings

__all__ = ["Container"]

C = TypeVar("C", bound="_Methods")

_required: Any = object()


class _Methods:
    """The methods of a container, declared once for its class and for the object that the class makes."""

    #: Groups in the order in which they start. A provider without a group, or with one not listed here, starts first.
    start_order: ClassVar[tuple[str, ...]] = ()

    if TYPE_CHECKING:  # both inherit these from the library's containers
        injection_plans: dict[Any, Any]
        providers: dict[str, Any]
        declarative_parent: Any
        _is_running: bool
        _starting: threading.RLock
        _being_started: asyncio.Event | None

        def set_provider(self, name: str, provider: Any) -> None: ...

    # --- lifecycle -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """
        Check the container and start its pools and services, each after those it depends on.

        Blocks. If a start fails, those already started are stopped again, and the error is raised, with
        notes about stops that failed too. Starting a running container does nothing; if another thread is
        starting it, this waits for that.

        Raises:
            ConfigurationError: A check failed (see `check`), or something needs `astart()`.
        """
        with self._starting:
            if self._begin():
                with ExitStack() as undo:
                    undo.callback(setattr, self, "_is_running", False)
                    self._check_is_sync("start")
                    _lifecycle.start(self._startable(), self._order())
                    undo.pop_all()
                enlist(self)

    async def astart(self) -> None:
        """As `start`, for containers with asyncio pools. What blocks runs on a worker thread."""
        while not self._begin():
            if self._being_started is None:
                return
            await self._being_started.wait()  # another task is starting it; if that fails, this one tries
        started = self._being_started = asyncio.Event()
        with ExitStack() as undo:
            undo.callback(setattr, self, "_is_running", False)
            try:
                await _lifecycle.astart(self._startable(), self._order())
                undo.pop_all()
            finally:
                self._being_started = None
                started.set()
        enlist(self)

    def stop(self, timeout: float | None = None) -> None:
        """
        Stop what was started, in the reverse order. Blocks.

        If one fails, the others are stopped nevertheless. Pools that were started by their
        first use are stopped, too. You can start the container again.

        Args:
            timeout: Seconds that each pool waits for borrowed resources; `None` for the pool's default.

        Raises:
            ExceptionGroup: Stops failed; it has all errors.
            ConfigurationError: Something needs `astop()`; nothing has been stopped.
        """
        self._check_is_sync("stop")
        self._end()
        _lifecycle.stop(self._stoppable(), self._order(), timeout)

    async def astop(self, timeout: float | None = None) -> None:
        """As `stop`, without blocking the event loop. After a cancellation it still stops the rest."""
        self._end()
        await _lifecycle.astop(self._stoppable(), self._order(), timeout)

    def running(self, timeout: float | None = None) -> Running[Self]:
        """
        `with app.running():` or `async with app.running():` starts the container, and stops it at the end.

        Args:
            timeout: As for `stop`.
        """
        return Running(self, timeout)

    @property
    def is_running(self) -> bool:
        """Whether it has been started and not stopped."""
        return self._is_running

    def check(self, *injected: Any) -> None:
        """
        Check the container for mistakes, without making objects. `start` does this first.

        Args:
            injected: Functions and modules whose markers to check as well. Those of the modules and packages in
                the container's `wiring_config` are always checked.

        Raises:
            ConfigurationError: A singleton depends on a pooled value, a pool's resources come from a singleton, a key
                or marker has no provider, or a dependency was not provided. The message has all findings.
        """
        _checks.check(self, injected)

    # --- requests ------------------------------------------------------------------------------------------------

    def request(
        self, name: str | None = None, *, parent: RequestContext | None = None, **values: Any
    ) -> RequestContext:
        """
        A request served by this container, for `with` or `async with`.

        Args:
            name: For messages and logs.
            parent: Where to look up values that it does not have.
            values: What is known about the request.
        """
        ctx = RequestContext(name, parent, **values) if values else RequestContext(name, parent)
        ctx.container = self
        return ctx

    # --- bindings by key -----------------------------------------------------------------------------------------

    def bind(self, key: str, binding: Any) -> Any:
        """
        Put a provider under a key, which may have dots: `app.bind("services.pooling.audit", Pool(...))`.

        Args:
            key: Names joined by dots.
            binding: A provider; any other object is bound as a value.

        Returns:
            The provider.
        """
        if not isinstance(key, str) or not key or not all(key.split(".")):
            raise ConfigurationError(f"bind({key!r}): expected a key such as 'services.pooling.audit'", field="key")
        provider = binding if is_provider(binding) else providers.Object(binding)
        self.set_provider(key, provider)
        return provider

    def configure(self, key: str, options: Mapping[str, Any] | None = None, **settings: Unpack[PoolSettings]) -> None:
        """
        Set options of the pool under a key; they win over those it was bound with. Call it before the pool's first use.

        Raises:
            ConfigurationError: There is no such key, its provider is no pool, or the pool exists already.
        """
        provider = self.find(key)
        if not callable(getattr(provider, "configure", None)):
            raise ConfigurationError(f"configure({key!r}): a {type(provider).__name__} is no pool", field="key")
        provider.configure(**{**(options or {}), **settings})

    def find(self, key: str, default: Any = _required) -> Any:
        """
        The provider under a key: bound there, a member of that name, or one of a nested container.

        Raises:
            ConfigurationError: There is none, and no default was given.
        """
        found = provider_under(self, key)
        if found is not None:
            return found
        if default is not _required:
            return default
        known = ", ".join(sorted(name for name in self.providers if not name.startswith("__"))) or "nothing"
        raise ConfigurationError(
            f"{name_of(self)} has nothing under the key {key!r}; it has {known}. Bind it first: app.bind({key!r}, ...)",
            field="key",
        )

    def get(self, key: str) -> Any:
        """The object under a key: for a pool the service, for a pooled provider this request's value."""
        try:
            known = self.injection_plans[key]
        except KeyError:
            known = plan_for(self, key)
        return known.resolve(get_current())

    async def aget(self, key: str) -> Any:
        """As `get`, after awaiting the pooled values that it needs."""
        known = self.injection_plans.get(key)
        if known is None:
            known = plan_for(self, key)
        return await known.aresolve(get_current())

    # --- lists ---------------------------------------------------------------------------------------------------

    def _order(self) -> tuple[str, ...]:
        return tuple(getattr(self.declarative_parent, "start_order", ()))

    def _startable(self) -> list[Any]:
        return list(_lifecycle.startable(self.providers.values()))

    def _stoppable(self) -> list[Any]:
        return list(_lifecycle.stoppable(self.providers.values()))

    def _begin(self) -> bool:
        if self._is_running:
            return False
        self.injection_plans.clear()
        for provider in everything(self.providers.values()):
            if isinstance(provider, Factory):
                forget_plans(provider)
        self.check()
        self._is_running = True
        return True

    def _end(self) -> None:
        self._is_running = False
        withdraw(self)

    def _check_is_sync(self, step: str) -> None:
        for provider in self._startable() if step == "start" else self._stoppable():
            if getattr(provider, "is_async", False) and (step == "start" or provider.built is not None):
                raise ConfigurationError(
                    f"pool {provider.label!r} is an asyncio pool: use a{step}() instead of {step}(), or `async with "
                    "app.running():`"
                )


def _refuse_hiding(container: str, name: str) -> None:
    """
    Check the name of a provider.

    Raises:
        ConfigurationError: A method or attribute of all containers has that name.
    """
    if hasattr(_Methods, name) and not name.startswith("__"):
        raise ConfigurationError(
            f"{container}.{name}: a provider of this name would hide {name!r} of the container; choose another name",
            field=name,
        )


class RunningContainer(_Methods, containers.DynamicContainer):
    """The object that a `Container` class makes, with its own copy of every provider."""

    def __init__(self) -> None:
        # Caches for functions, markers and keys; see `inject`.
        self.injection_plans: dict[Any, Any] = {}
        self._starting = make_rlock()  # for threads
        self._being_started: asyncio.Event | None = None  # for tasks
        super().__init__()
        self._is_running = False

    def __setattr__(self, name: str, value: Any) -> None:
        if is_provider(value):
            _refuse_hiding(name_of(self), name)
        super().__setattr__(name, value)
        if is_provider(value) and name != "parent":
            self.injection_plans.clear()
            if isinstance(value, PerContainer):
                note_container(value, self, name)

    def __repr__(self) -> str:
        return f"<{name_of(self)}{' running' if self._is_running else ''}>"


class Container(_Methods, containers.DeclarativeContainer):
    """
    A declarative container whose pools and services start and stop together.

    Each instance has its own copies of all providers, and so its own pools.
    """

    instance_type = RunningContainer

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Of its name, so that Python's own errors say that 'App' has no such attribute.
        kind: Any = type(cls.__name__, (cls.instance_type,), {"__module__": cls.__module__})
        cls.instance_type = kind
        for name, value in vars(cls).items():
            if is_provider(value):
                _refuse_hiding(cls.__name__, name)
        declare(cls)
        for name, value in vars(cls).items():
            if isinstance(value, PerContainer | RequestScoped):
                note_declaration(value, f"{cls.__name__}.{name}")


class Running(Generic[C]):
    """Starts a container on entry and stops it on exit; for `with` and `async with`."""

    __slots__ = ("_container", "_timeout")

    def __init__(self, container: C, timeout: float | None) -> None:
        self._container = container
        self._timeout = timeout

    def __enter__(self) -> C:
        self._container.start()
        return self._container

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._container.stop(self._timeout)

    async def __aenter__(self) -> C:
        await self._container.astart()
        return self._container

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._container.astop(self._timeout)
