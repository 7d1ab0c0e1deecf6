"""The provider of one object per container that is started and stopped with it."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any, ClassVar, Self, TypeVar

from dependency_injector import providers

from .._backends.fork import snapshot as members
from .._backends.offload import in_worker
from ..errors import ConfigurationError

__all__ = ["Kept"]

T = TypeVar("T")

_all: weakref.WeakSet[Kept[Any]] = weakref.WeakSet()


class Kept(providers.Provider[T]):
    """
    Provider of one object per container, which the container starts and stops.

    The object is made on first use or at start, whichever comes first, by one thread while others wait.
    """

    __slots__ = ("__weakref__", "_building", "_container", "_declared", "_key", "_object", "_ready", "group")

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
        _all.add(self)

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
        self._declared = self._declared or name  # where it was declared first

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


def _after_fork() -> None:
    """In the child: a lock that a thread of the parent's had is nobody's here."""
    for kept in members(_all):
        kept._building = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
