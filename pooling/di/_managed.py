"""The provider of anything else with a start and a stop."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Generic, TypeVar

from dependency_injector import providers

from .._backends.offload import in_worker
from ..binding import is_provider
from ..errors import ConfigurationError
from ._kept import Kept

__all__ = ["Managed"]

T = TypeVar("T")


class Managed(Kept[T], Generic[T]):
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

    __slots__ = ("_is_started", "_make", "_maker", "_start", "_stop")

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
        self._maker = 0  # the process whose object it is
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
        self._maker = os.getpid()
        return made  # type: ignore[no-any-return]

    def start(self) -> None:
        _must_be_done(self._call(self._start, "start", self()), self.label, "start")
        self._is_started = True

    async def astart(self) -> None:
        if self._object is None and self.last_overriding is None:
            made = self._make()
            self._object = await made if inspect.isawaitable(made) else made
            self._maker = os.getpid()
            self._overrides_changed()
        step = self._hook(self._start, "start", self())
        if step is not None:
            await _run(step)
        self._is_started = True

    def stop(self, timeout: float | None = None) -> None:
        if self._object is not None:
            if self._maker == os.getpid():
                _must_be_done(self._call(self._stop, "stop", self._object), self.label, "stop")
            self._forget()

    async def astop(self, timeout: float | None = None) -> None:
        if self._object is not None:
            step = self._hook(self._stop, "stop", self._object)
            if step is not None and self._maker == os.getpid():
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
