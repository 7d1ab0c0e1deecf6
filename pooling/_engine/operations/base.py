"""
What all operations share.

An operation awaits only the pool's backend. In threads an `await` never suspends. In a loop it may, and a cancellation
can arrive there: an operation that holds a slot across an `await` gives the slot back when that raises.
An interrupt between two bytecodes may end an operation anywhere. Its slot still refers to it, so the audit of the
ledger finds that the operation has ended.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from ..pool import Pool

R = TypeVar("R")


class Operation(Generic[R]):
    """
    One operation on one pool. `await` it, or have a backend run it.

    Args:
        pool: The pool it works on.
    """

    __slots__ = ("_coroutine", "pool")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    _coroutine: Coroutine[Any, Any, R]

    async def run(self) -> R:
        """Take all steps and return the operation's result."""
        raise NotImplementedError

    def begin(self) -> Coroutine[Any, Any, R]:
        """Return the coroutine to run. Call it once."""
        self._coroutine = coroutine = self.run()
        return coroutine

    def __await__(self) -> Generator[Any, Any, R]:
        return self.begin().__await__()

    @property
    def is_under_way(self) -> bool:
        """Whether it has begun and not ended; also while it is suspended."""
        coroutine: Any = getattr(self, "_coroutine", None)
        return coroutine is not None and (coroutine.cr_running or coroutine.cr_suspended)
