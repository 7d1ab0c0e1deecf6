"""The named values of a request, looked up in its parents, too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ..errors import MissingValueError

_ABSENT: Final = object()


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
        return self.get(key, _ABSENT) is not _ABSENT  # type: ignore[arg-type]

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
