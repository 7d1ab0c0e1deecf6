"""
Finds the hook for each step: the factory's if it has one, else the resource's, else none.

A hook that was not written is `None`, so that its step is skipped and costs nothing. Nothing here runs a hook.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

from ..errors import ConfigurationError
from ..factory import PoolFactory

STEPS = ("create", "destroy", "validate", "acquire", "release", "checkpoint")

Hook = Callable[..., Any] | None


class ValueHooks:
    """The steps of one type of resource, each a callable that takes the value first, or `None`."""

    __slots__ = ("acquire", "destroy", "release", "start", "stop")

    def __init__(self, acquire: Hook, release: Hook, destroy: Hook, start: Hook, stop: Hook) -> None:
        self.acquire = acquire
        self.release = release
        self.destroy = destroy
        self.start = start
        self.stop = stop


class Hooks:
    """All hooks of one pool."""

    __slots__ = (
        "_by_type",
        "_factory",
        "checkpoint",
        "create",
        "is_alive",
        "is_final",
        "logs_failures",
        "metric_prefix",
        "notes_borrowers",
        "noun",
        "validate",
    )

    def __init__(self, factory: Any) -> None:
        self._factory = factory
        self.noun: str = getattr(factory, "noun", PoolFactory.noun)
        self.notes_borrowers: bool = getattr(factory, "notes_borrowers", PoolFactory.notes_borrowers)
        self.logs_failures: bool = getattr(factory, "logs_failures", PoolFactory.logs_failures)
        self.metric_prefix: str = getattr(factory, "metric_prefix", PoolFactory.metric_prefix)
        self.create: Callable[[], Any] = factory.create
        self.validate: Hook = overridden(factory, "validate")
        self.checkpoint: Hook = overridden(factory, "checkpoint")
        self.is_alive: Callable[[Any], bool] | None = overridden(factory, "is_alive")
        self.is_final: Callable[[BaseException], bool] = getattr(factory, "is_final", None) or (PoolFactory().is_final)
        self._by_type: dict[type, ValueHooks] = {}

    @property
    def has_factory_steps(self) -> bool:
        """Whether the factory itself has an acquire or a release hook."""
        return any(overridden(self._factory, name) is not None for name in ("acquire", "release"))

    def of(self, value: Any) -> ValueHooks:
        """The hooks for this resource; looked up once for each type."""
        kind = type(value)
        found = self._by_type.get(kind)
        if found is None:
            release = overridden(self._factory, "release")
            found = self._by_type[kind] = ValueHooks(
                acquire=overridden(self._factory, "acquire") or _own(kind, "acquire"),
                release=_with_exc(release) if release else _own(kind, "release"),
                destroy=overridden(self._factory, "destroy") or _own(kind, "destroy"),
                start=_own(kind, "start") if getattr(self._factory, "starts_resources", False) else None,
                stop=_own(kind, "stop"),
            )
            if release is None and found.release is not None:
                found.release = _without_exc(found.release)
        return found


def overridden(factory: Any, name: str) -> Any:
    """The factory's hook of that name, or `None` if the factory does not override it."""
    hook = getattr(factory, name, None)
    if hook is None or getattr(hook, "__func__", None) is getattr(PoolFactory, name, None):
        return None
    return hook


def refuse_coroutines(factory: Any, pool: str) -> None:
    """
    Make sure that a pool for threads can run every hook.

    Raises:
        ConfigurationError: A hook is a coroutine function.
    """
    for name in (*STEPS, "is_alive"):
        hook = overridden(factory, name)
        if hook is not None and is_async(hook):
            raise ConfigurationError(
                f"pool {pool!r}: {name} is a coroutine function, and a PoolingService runs its hooks in threads; "
                f"use AsyncPoolingService, or write {name} as a plain function",
                field=name,
                pool=pool,
            )


def is_async(hook: Any) -> bool:
    """Whether calling this gives a coroutine, as far as can be told without calling it."""
    target = getattr(hook, "func", hook)  # functools.partial
    if type(target) in (FunctionType, MethodType) and (code := getattr(target, "__code__", None)) is not None:
        # A tenth of the time that `inspect` takes; a keyed pool asks for every key.
        if code.co_flags & inspect.CO_COROUTINE:
            return True
        if not hasattr(target, "_is_coroutine_mark"):  # `inspect.markcoroutinefunction`
            return False
    return inspect.iscoroutinefunction(target) or (
        not inspect.isroutine(target)
        and not isinstance(target, type)
        and inspect.iscoroutinefunction(type(target).__call__ if callable(target) else None)
    )


def _own(kind: type, name: str) -> Hook:
    hook = getattr(kind, name, None)
    return hook if callable(hook) else None


def _with_exc(release: Callable[..., Any]) -> Callable[[Any, BaseException | None], Any]:
    """The release hook as a function of value and exception, also if it does not take the exception."""
    try:
        parameters = inspect.signature(release).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature
        return _without_exc(release)
    if any((p.name == "exc" and p.kind is not p.POSITIONAL_ONLY) or p.kind is p.VAR_KEYWORD for p in parameters):
        return lambda value, exc: release(value, exc=exc)
    return _without_exc(release)


def _without_exc(release: Callable[..., Any]) -> Callable[[Any, BaseException | None], Any]:
    return lambda value, _exc: release(value)
