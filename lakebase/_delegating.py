"""Pools that are psycopg_pool's by type and have no connections: what they do not do themselves, another pool does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

__pooling_internal__ = True

__all__ = ["Delegating"]

P = TypeVar("P")


class Delegating(Generic[P]):
    """
    A pool's methods and attributes, of the pool that `_pool_behind` is.

    Comes before psycopg_pool's class among the bases, whose constructor is not called. The methods serve asyncio as
    well: there they return what the other pool's return, to be awaited.
    """

    _pool_behind: P

    if not TYPE_CHECKING:  # there, they are psycopg_pool's

        def open(self, *args, **keywords):
            """As the pool's own; a block of this pool opens and closes that one."""
            return self._pool_behind.open(*args, **keywords)

        def close(self, timeout=5.0):
            """As the pool's own."""
            return self._pool_behind.close(timeout)

        def wait(self, timeout=30.0):
            """As the pool's own."""
            return self._pool_behind.wait(timeout)

        def resize(self, min_size, max_size=None):
            """As the pool's own."""
            return self._pool_behind.resize(min_size, max_size)

        def check(self):
            """As the pool's own."""
            return self._pool_behind.check()

        def drain(self):
            """As the pool's own."""
            return self._pool_behind.drain()

        def reconnect_failed(self):
            """As the pool's own."""
            return self._pool_behind.reconnect_failed()

        def get_stats(self):
            """As the pool's own."""
            return self._pool_behind.get_stats()

        def pop_stats(self):
            """As the pool's own."""
            return self._pool_behind.pop_stats()

        @property
        def min_size(self):
            """As the pool's own."""
            return self._pool_behind.min_size

        @property
        def max_size(self):
            """As the pool's own."""
            return self._pool_behind.max_size

        @property
        def closed(self):
            """As the pool's own."""
            return self._pool_behind.closed

        def _resolve_conninfo(self):
            return self._pool_behind._resolve_conninfo()

        def _resolve_kwargs(self):
            return self._pool_behind._resolve_kwargs()

        def __getattr__(self, name):
            """What psycopg_pool's constructor would have set: `name`, `timeout`, `conninfo`, …."""
            if name == "_pool_behind":  # half made
                raise AttributeError(name)
            return getattr(self._pool_behind, name)

        def __del__(self):
            """Nothing: the other pool is its owner's."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self._pool_behind!r}>"
