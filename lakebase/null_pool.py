"""
Pools that keep no connection: `NullLakebasePool` and its asyncio twin, psycopg_pool's null pools on this engine.

Each borrower gets a new connection, or one that was given back while it waited. For an app behind a pooler, for
scripts, and for an endpoint that must be able to scale to zero at once.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg_pool import AsyncNullConnectionPool, NullConnectionPool
from psycopg_pool.abc import ACT, CT

from ._base import PoolBase
from .pool import AsyncBorrowed, AsyncLakebasePool, Borrowed, LakebasePool

__pooling_internal__ = True

__all__ = ["AsyncNullLakebasePool", "NullLakebasePool"]

#: More connections than any server takes.
_NO_LIMIT = 2**31 - 1


def _checked_sizes(minimum: int, maximum: int | None) -> tuple[int, int]:
    """psycopg_pool's rules about a null pool's sizes, with its errors; 0 and `None` are no limit."""
    if minimum != 0:
        raise ValueError("null pools must have min_size = 0")
    if maximum is not None and maximum < 0:
        raise ValueError("max_size must be greater or equal than min_size")
    return 0, maximum or _NO_LIMIT


class _NullPool(PoolBase[Any]):
    """What both front ends have in common."""

    _keeps_none = True

    def __init__(
        self,
        conninfo: Any = "",
        *,
        min_size: int = 0,
        max_size: int | None = None,
        close_returns: bool = False,
        **given: Any,
    ) -> None:
        minimum, maximum = _checked_sizes(min_size, max_size)
        # Each borrower is served by a connect of its own, so as many are under way as borrowers wait.
        given.setdefault("max_creating", maximum)
        super().__init__(conninfo, min_size=minimum, max_size=maximum, **given)

    @property
    def max_size(self) -> int:
        """Most connections at once; 0 is no limit."""
        limit: int = self.service.options.max_size
        return 0 if limit == _NO_LIMIT else limit

    def _is_wanted(self) -> bool:
        return self.service.pending > 0  # type: ignore[no-any-return]

    def _change_sizes(self, minimum: int, maximum: int | None) -> None:
        self.service.resize(*_checked_sizes(minimum, maximum))


class NullLakebasePool(_NullPool, LakebasePool[CT], NullConnectionPool[CT]):
    """
    A `psycopg_pool.NullConnectionPool` on this engine: a connection that no borrower waits for is closed on return.

    Args as of `LakebasePool`, but that `min_size` is 0, and `max_size` of 0 or `None` is no limit.
    """

    def connection(self, timeout: float | None = None) -> Borrowed[CT]:  # type: ignore[override] # as of `LakebasePool`
        """As `LakebasePool.connection`."""
        return Borrowed(self, timeout)

    def wait(self, timeout: float = 30.0) -> None:
        """Connect once, to see whether that works. Errors as of `LakebasePool.wait`."""
        try:
            with self.connection(timeout):
                pass
        except psycopg.Error:
            self.close()
            raise

    def check(self) -> None:
        """Nothing: there are no idle connections."""


class AsyncNullLakebasePool(_NullPool, AsyncLakebasePool[ACT], AsyncNullConnectionPool[ACT]):
    """`NullLakebasePool` for asyncio."""

    def connection(self, timeout: float | None = None) -> AsyncBorrowed[ACT]:  # type: ignore[override]
        """As `AsyncLakebasePool.connection`."""
        return AsyncBorrowed(self, timeout)

    async def wait(self, timeout: float = 30.0) -> None:
        """As `NullLakebasePool.wait`."""
        try:
            async with self.connection(timeout):
                pass
        except psycopg.Error:
            await self.close()
            raise

    async def check(self) -> None:
        """As `NullLakebasePool.check`."""
