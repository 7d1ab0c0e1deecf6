"""The named values of a request, looked up in its parents, too."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from typing import Any, Final, Generic, TypeVar

from ..errors import MissingValueError
from ..locks import make_rlock

__all__ = ["LazyValue", "RequestValues"]

T = TypeVar("T")

_ABSENT: Final = object()


class LazyValue(Generic[T]):
    """
    A value of a request that is made when code of the request first asks for it.

    The request's `ctx["user"]`, `ctx.get("user")` and `ctx.require("user")` return what was made, so requests that do
    not need the value cost nothing, and do not fail for the want of it. It is made once: callers that ask meanwhile in
    other threads wait, and an error is raised for each that asks.

    Args:
        make: Returns the value. It must not block for long: in an asyncio app the loop waits for it.
    """

    __slots__ = ("_error", "_lock", "_make", "_value")

    _value: T

    def __init__(self, make: Callable[[], T]) -> None:
        self._make: Callable[[], T] | None = make
        self._error: tuple[Exception, Any] | None = None
        self._lock = make_rlock()

    def get(self) -> T:
        """
        The value, made if it was not yet.

        Raises:
            Exception: What making it raised.
        """
        if self._make is not None:
            with self._lock:
                self._make_once()
        if self._error is not None:
            error, at = self._error
            raise error.with_traceback(at)  # else each caller's frames would be added to it
        return self._value

    def _make_once(self) -> None:
        if self._make is None:  # another thread was faster
            return
        try:
            self._value = self._make()
        except Exception as error:  # noqa: BLE001 - for each caller that asks
            # The frames keep their lines, and not their variables, which are the request's: its headers, its tokens.
            traceback.clear_frames(error.__traceback__)
            self._error = error, error.__traceback__
        self._make = None  # after the outcome, which other threads read without the lock


class RequestValues:
    """
    The part of a request that has its values.

    Attributes:
        values: Its own values, by name. The request's code may change them.
        parent: Where to look up values that it does not have. Never changes.
    """

    __slots__ = ()  # `RequestContext` has the slots

    values: dict[str, Any]
    parent: Any

    def __getitem__(self, key: str) -> Any:
        """
        The value of this name: its own, or the nearest parent's.

        Raises:
            MissingValueError: Neither it nor a parent has the value.
        """
        value = self.get(key, _ABSENT)
        if value is not _ABSENT:
            return value
        names = ", ".join(sorted(map(str, self))) or "nothing"
        raise MissingValueError(
            f"{self} has no value {key!r}; it has {names}. Give it where the request is opened: "
            f"request({key}=...) on the container, or the values of the middleware.",
            missing=key,
        )

    def __setitem__(self, key: str, value: Any) -> None:
        """Set a value during the request. Pooled values that were taken before stay as they are."""
        self.values[key] = value

    def __contains__(self, key: object) -> bool:
        return self._find(key, _ABSENT) is not _ABSENT

    def __iter__(self) -> Iterator[str]:
        """Names of all values, its own first."""
        seen: set[str] = set()
        ctx: Any = self
        while ctx is not None:
            for key in tuple(ctx.values):
                if key not in seen:
                    seen.add(key)
                    yield key
            ctx = ctx.parent

    def get(self, key: str, default: Any = None) -> Any:
        """The value of this name, or `default` if neither the request nor a parent has it."""
        value = self._find(key, default)
        return value.get() if isinstance(value, LazyValue) else value

    def _find(self, key: object, default: Any) -> Any:
        ctx: Any = self
        while ctx is not None:
            if key in ctx.values:
                return ctx.values[key]
            ctx = ctx.parent
        return default

    def require(self, key: str) -> Any:
        """
        The value of this name, which must not be `None`.

        Raises:
            MissingValueError: Neither the request nor a parent has the value, or it is `None`.
        """
        value = self[key]
        if value is None:
            raise MissingValueError(
                f"{self} has {key}=None where a value is needed: the code that opened the request gave none",
                missing=key,
            )
        return value
