"""Start and stop: their order, the rollback of a failed start, the handling of errors, and single steps."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from dependency_injector import providers

from .._backends.offload import in_worker
from ..errors import ConfigurationError
from ._graph import everything, reachable
from ._scopes import PerContainer

if TYPE_CHECKING:
    from types import TracebackType

__all__ = [
    "WHERE_IT_HAS_ONE",
    "arun_step",
    "astart",
    "astop",
    "discards_awaitable",
    "find_step",
    "run_step",
    "start",
    "startable",
    "stop",
    "stoppable",
]


def startable(roots: Iterable[Any]) -> Iterator[Any]:
    """The providers to start: those that calls may reach, each after those it depends on."""
    return (p for p in reachable(roots) if isinstance(p, PerContainer | providers.Resource))


class Errors(list[BaseException]):
    """Collects the errors of several `with` blocks, interrupts included, to report them after the last block."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        if error is not None:
            self.append(error)
        return True


def stoppable(roots: Iterable[Any]) -> Iterator[Any]:
    """The providers that may have to be stopped; also overridden ones, which may have been used before."""
    return (p for p in everything(roots) if isinstance(p, PerContainer | providers.Resource))


def start(parts: list[Any], order: Sequence[str]) -> None:
    """Start all. On a failure stop those already started, and raise the error."""
    started: list[Any] = []
    for provider in in_groups(parts, order):
        started.append(provider)  # before the start, so that one that fails half-way is stopped, too
        errors = Errors()
        with errors:
            if isinstance(provider, PerContainer):
                provider.start()
            else:
                _refuse_awaitable(provider.init(), provider)
        for error in errors:
            for failed in _stop_each(reversed(started), None):
                error.add_note(f"While stopping again what had been started: {failed!r}")
            raise error


async def astart(parts: list[Any], order: Sequence[str]) -> None:
    """As `start`."""
    started: list[Any] = []
    for provider in in_groups(parts, order):
        started.append(provider)
        errors = Errors()
        with errors:
            if isinstance(provider, PerContainer):
                await provider.astart()
            else:
                await _awaited(provider.init())
        for error in errors:
            for failed in await _astop_each(reversed(started), None):
                error.add_note(f"While stopping again what had been started: {failed!r}")
            raise error


def stop(parts: list[Any], order: Sequence[str], timeout: float | None) -> None:
    """Stop all, in the reverse order of their start."""
    _report(_stop_each(reversed(in_groups(parts, order)), timeout))


async def astop(parts: list[Any], order: Sequence[str], timeout: float | None) -> None:
    """As `stop`."""
    _report(await _astop_each(reversed(in_groups(parts, order)), timeout))


def in_groups(parts: Iterable[Any], order: Sequence[str]) -> list[Any]:
    """
    Sort providers by group, and within a group by dependency.

    A provider comes before those that depend on it, even if its group is a later one.
    """
    parts = list(parts)
    rank = {group: number for number, group in enumerate(order, 1)}
    placed: dict[Any, None] = {}
    wanted = set(parts)
    for provider in sorted(parts, key=lambda p: rank.get(getattr(p, "group", None) or "", 0)):  # sorting is stable
        for needed in everything((provider,)):
            if needed in wanted:
                placed.setdefault(needed)
    return list(placed)


def _stop_each(parts: Iterable[Any], timeout: float | None) -> list[BaseException]:
    errors = Errors()
    for provider in parts:
        with errors:
            if isinstance(provider, PerContainer):
                provider.stop(timeout)
            elif provider.initialized:
                _refuse_awaitable(provider.shutdown(), provider)
    return errors


async def _astop_each(parts: Iterable[Any], timeout: float | None) -> list[BaseException]:
    errors = Errors()
    for provider in parts:
        with errors:
            if isinstance(provider, PerContainer):
                await provider.astop(timeout)
            elif provider.initialized:
                await _awaited(await in_worker(provider.shutdown))
    return errors


def _report(errors: list[BaseException]) -> None:
    interrupt = next((error for error in errors if not isinstance(error, Exception)), None)
    failures = [error for error in errors if isinstance(error, Exception)]
    if interrupt is not None:
        for failure in failures:
            interrupt.add_note(f"While stopping: {failure!r}")
        raise interrupt
    if failures:
        raise ExceptionGroup(f"{len(failures)} of the container's services did not stop cleanly", failures)


# --- one step of one object ------------------------------------------------------------------------------------------

#: Default of a step: the object's method of that name, if it has one.
WHERE_IT_HAS_ONE: Any = object()


def run_step(made: Any, step: str, given: Any, label: str) -> None:
    """
    Call an object's `start` or `stop` step: a method's name, a function of the object, or `None` for nothing.

    Raises:
        ConfigurationError: There is no such method, or it must be awaited.
    """
    call = find_step(made, step, given, label)
    if call is not None and discards_awaitable(call()):
        raise ConfigurationError(f"{label!r}: its {step} must be awaited; use a{step}() of the container")


async def arun_step(made: Any, step: str, given: Any, label: str) -> None:
    """As `run_step`. A coroutine function runs in the loop, any other on a worker thread, since it may block."""
    call = find_step(made, step, given, label)
    if call is not None:
        await _awaited(call() if inspect.iscoroutinefunction(call) else await in_worker(call))


def find_step(made: Any, step: str, given: Any, label: str) -> Callable[[], Any] | None:
    if given is None:
        return None
    if given is WHERE_IT_HAS_ONE:
        return getattr(made, step, None)
    if callable(given):
        return partial(given, made)
    method = getattr(made, given, None)
    if not callable(method):
        raise ConfigurationError(
            f"{label!r}: {step}={given!r} names no method of {type(made).__qualname__}", field=step
        )
    return method  # type: ignore[no-any-return]


async def _awaited(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


def discards_awaitable(result: Any) -> bool:
    """Whether a synchronous step returned an awaitable; a coroutine is closed, a future cancelled."""
    if isinstance(result, asyncio.Future):
        result.cancel()
    elif inspect.iscoroutine(result):
        result.close()
    return inspect.isawaitable(result)


def _refuse_awaitable(result: Any, provider: Any) -> None:
    if discards_awaitable(result):
        raise ConfigurationError(f"{provider} is asynchronous: use astart() and astop() of the container")
