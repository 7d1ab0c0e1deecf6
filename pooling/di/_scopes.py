"""
Base classes of this package's providers, by the lifetime of their object: a request, or a container.

`Watched` tells the plans (see `_plan`) that a provider is part of when it may return something else: when an override
begins or ends. The library has no event for that, so its methods are extended here for all providers of this package.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeVar

from dependency_injector import providers

from .._backends.fork import Survivors
from .._backends.fork import snapshot as members
from .._backends.offload import in_worker
from ..errors import ConfigurationError
from ..locks import make_rlock

__all__ = [
    "PerContainer",
    "RequestScoped",
    "Watched",
    "forget_plans",
    "note_container",
    "note_declaration",
    "report_changes",
]

T = TypeVar("T")

_per_container: Survivors[PerContainer[Any]] = Survivors()


class Forgetful(Protocol):
    """A listener for changes of a provider."""

    def forget(self) -> None: ...


class Watched:
    """A provider that tells the plans it is part of when it may return something else than before."""

    __slots__ = ()

    _plans: weakref.WeakSet[Forgetful]

    def _changed(self) -> None:
        """Have all plans that this provider is part of made again."""
        for plan in members(self._plans):
            plan.forget()

    # `self` is also a library provider, the other base of each class below.

    def override(self: Any, provider: Any) -> Any:
        """Use another provider or value in place of this one, until the end of the `with` block or a reset."""
        context: Any = providers.Provider.override(self, provider)
        self._changed()
        return context

    def reset_last_overriding(self: Any) -> None:
        """Undo the last `override`."""
        providers.Provider.reset_last_overriding(self)
        self._changed()

    def reset_override(self: Any) -> None:
        """Undo all overrides."""
        providers.Provider.reset_override(self)
        self._changed()


class _Scoped(Watched, providers.Provider[T]):
    """A provider in pure Python whose call is always synchronous. Each container has a copy."""

    if not TYPE_CHECKING:
        __slots__ = ("_declared", "_plans")

    def __init__(self) -> None:
        super().__init__()
        self.disable_async_mode()
        self._declared: str | None = None
        self._plans = weakref.WeakSet()

    def __deepcopy__(self, memo: dict[Any, Any] | None) -> Self:
        memo = {} if memo is None else memo
        copied: Self | None = memo.get(id(self))
        if copied is not None:
            return copied
        if any(other is self for other in memo.values()):  # `containers.copy` put it in the place of another one
            return self
        copied = self.__class__()
        memo[id(self)] = copied
        self._copy_into(copied, memo)
        self._copy_overridings(copied, memo)
        copied._changed()
        return copied

    def _copy_into(self, copied: Any, memo: dict[Any, Any]) -> None:
        """Copy the declared arguments to a new provider."""
        raise NotImplementedError


class RequestScoped(_Scoped[T]):
    """Provider of one value for each request."""

    __slots__ = ()


class PerContainer(_Scoped[T]):
    """
    Provider of one object for each container, which starts and stops it.

    The object is made at start or on first use, whichever comes first, by one thread while others wait.

    Attributes:
        group: Decides when it is started; see `Container.start_order`.
        ready: The object, if it has been made and the provider is not overridden; else `None`.
    """

    if not TYPE_CHECKING:
        __slots__ = ("__weakref__", "_building", "_container", "_key", "_object", "group", "ready")

    is_async: ClassVar[bool] = False

    def __init__(self, *, group: str | None = None) -> None:
        super().__init__()
        self.group = group
        self.ready: T | None = None
        self._object: T | None = None
        self._building = make_rlock()
        self._container: weakref.ref[Any] | None = None
        self._key: str | None = None
        _per_container.add(self)

    if not TYPE_CHECKING:  # the library's stub types it

        def __call__(self):
            """The container's object."""
            ready = self.ready
            return ready if ready is not None else super().__call__()

    def _provide(self, args: Any, kwargs: Any) -> T:
        made = self._object
        if made is None:
            if self._declared is not None:
                raise ConfigurationError(
                    f"{self._declared} is a declaration; build the container first, app = App(), and use what "
                    "belongs to app"
                )
            with self._building:
                made = self._object
                if made is None:
                    made = self._build()
                    self._keep(made)
        return made

    def _build(self) -> T:
        raise NotImplementedError

    def _keep(self, made: T | None) -> None:
        """Set the object, or remove it."""
        self._object = made
        self._note_ready()

    def _note_ready(self) -> None:
        self.ready = self._object if self.last_overriding is None else None

    def _changed(self) -> None:
        self._note_ready()
        super()._changed()

    @property
    def built(self) -> T | None:
        """The object if it has been made, else `None`; also while the provider is overridden."""
        return self._object

    @property
    def label(self) -> str:
        """The name of the provider in messages."""
        return self._key or self._declared or type(self).__name__

    @property
    def container(self) -> Any:
        """The container it belongs to, or `None`."""
        return self._container and self._container()

    def _copy_into(self, copied: Any, memo: dict[Any, Any]) -> None:
        copied.group = self.group

    # --- called by its container ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Make the object if needed, and start it. May block."""
        raise NotImplementedError

    async def astart(self) -> None:
        """As `start`, without blocking the event loop."""
        await in_worker(self.start)

    def stop(self, timeout: float | None = None) -> None:
        """Stop the object if there is one. May block. A timeout of `None` takes the object's default."""
        raise NotImplementedError

    async def astop(self, timeout: float | None = None) -> None:
        """As `stop`, without blocking the event loop."""
        await in_worker(lambda: self.stop(timeout))

    def _renew(self) -> None:
        """Go on in a child process, where no other thread has the lock."""
        self._building = make_rlock()


# --- for other modules of this package -------------------------------------------------------------------------------


def report_changes(provider: Watched, plan: Forgetful) -> None:
    """Add a plan that is valid until this provider changes."""
    provider._plans.add(plan)


def forget_plans(provider: Watched) -> None:
    """Have all plans that a provider is part of made again, as after a change of it."""
    provider._changed()


def note_declaration(provider: PerContainer[Any] | RequestScoped[Any], name: str) -> None:
    """Note that a provider is part of a container's class, whose containers use copies of it."""
    provider._declared = provider._declared or name  # the first declaration counts
    provider._changed()


def note_container(provider: PerContainer[Any], container: Any, key: str) -> None:
    """Note the container that a provider belongs to, and its key there."""
    if provider._container is None:
        provider._container, provider._key = weakref.ref(container), key
