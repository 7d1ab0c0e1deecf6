"""
What all operations have in common.

An operation awaits nothing but the pool's backend. In threads that never suspends; in a loop it may, and then a
cancellation can arrive at any `await`: an operation that holds a slot across an `await` gives it away when that raises.
An interrupt between two bytecodes may end an operation anywhere. Its slot still refers to it, and the audit of the
ledger finds that it is no longer under way.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from ..pool import Pool

R = TypeVar("R")


class Operation(Generic[R]):
    """
    One operation on one pool; `await` it, or give it to a backend to run.

    Args:
        pool: The pool it works on.
    """

    __slots__ = ("_coroutine", "pool")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    _coroutine: Coroutine[Any, Any, R]

    async def run(self) -> R:
        """Take all steps; what the caller gets."""
        raise NotImplementedError

    def begin(self) -> Coroutine[Any, Any, R]:
        """The coroutine to run, once."""
        self._coroutine = coroutine = self.run()
        return coroutine

    def __await__(self) -> Generator[Any, Any, R]:
        return self.begin().__await__()

    @property
    def is_under_way(self) -> bool:
        """Whether it runs or is suspended; not before its first step, and not after its last."""
        coroutine: Any = getattr(self, "_coroutine", None)
        return coroutine is not None and (coroutine.cr_running or coroutine.cr_suspended)
