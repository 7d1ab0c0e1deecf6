"""Factories for what is made in each request."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from dependency_injector import providers

from .._request.current import current_var
from ..service import members

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from ._graph import Reach

__all__ = ["Factory"]

T = TypeVar("T")

_get_current = current_var.get
_call_plainly = providers.Factory.__call__


class Factory(providers.Factory[T]):
    """
    Makes an object at each call, as `providers.Factory` does and in its place; in less time, without arguments.

    What it depends on is looked at once, at the first call. A graph of factories whose every part is known to be
    synchronous is called as one expression from then on, and anything else as the library would. Overrides are seen at
    every call, and changes of its own arguments and of those of each `Factory` it depends on at the next one.

    Args:
        provides: What to call: a class, a function, or the name of one to import.
        args: Its arguments by place. A provider stands for what it gives.
        kwargs: Its arguments by name.
    """

    if not TYPE_CHECKING:
        __slots__ = ("_plans", "_reach")

    def __init__(self, provides: Callable[..., T] | str | None = None, *args: Any, **kwargs: Any) -> None:
        self._reach: Reach | None = None
        self._plans: weakref.WeakSet[Reach] = weakref.WeakSet()  # whom to tell of changes
        super().__init__(provides, *args, **kwargs)

    if not TYPE_CHECKING:  # the base has it typed

        def __call__(self, *args, **kwargs):
            """A new object. Arguments are added to those it was declared with, or replace those of their names."""
            if args or kwargs:
                return _call_plainly(self, *args, **kwargs)
            reach = self._reach or self._look()
            return reach.resolve(_get_current())

    async def aget(self) -> T:
        """A new object, whose pooled values are awaited first; the event loop is not blocked meanwhile."""
        reach = self._reach or self._look()
        return await reach.aresolve(_get_current())  # type: ignore[no-any-return]

    def _look(self) -> Reach:
        from ._graph import Reach  # which looks at factories

        self._reach = reach = Reach(self, partial(_call_plainly, self))
        return reach

    def part_of(self, reach: Reach) -> None:
        """Note a plan that holds until the factory changes."""
        self._plans.add(reach)

    def forget(self) -> None:
        """Look again at what it depends on."""
        self._reach = None

    def _changed(self) -> Self:
        for reach in members(self._plans):
            reach.forget()
        return self

    # --- what changes it -----------------------------------------------------------------------------------------

    def set_provides(self, provides: Any) -> Self:
        super().set_provides(provides)
        return self._changed()

    def add_args(self, *args: Any) -> Self:
        super().add_args(*args)
        return self._changed()

    def set_args(self, *args: Any) -> Self:
        super().set_args(*args)
        return self._changed()

    def clear_args(self) -> Self:
        super().clear_args()
        return self._changed()

    def add_kwargs(self, **kwargs: Any) -> Self:
        super().add_kwargs(**kwargs)
        return self._changed()

    def set_kwargs(self, **kwargs: Any) -> Self:
        super().set_kwargs(**kwargs)
        return self._changed()

    def clear_kwargs(self) -> Self:
        super().clear_kwargs()
        return self._changed()

    def add_attributes(self, **kwargs: Any) -> Self:
        super().add_attributes(**kwargs)
        return self._changed()

    def set_attributes(self, **kwargs: Any) -> Self:
        super().set_attributes(**kwargs)
        return self._changed()

    def clear_attributes(self) -> Self:
        super().clear_attributes()
        return self._changed()

    def enable_async_mode(self) -> None:
        super().enable_async_mode()
        self._changed()
