"""
What may be given for a pool, for its members and for its options, in the words of type checkers.

Providers are described by what calling them gives: the library's `Provider[T]` is invariant, so a
`Provider[LakebasePool]` would be no `Provider` of anything more general.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypedDict, TypeVar

if TYPE_CHECKING:
    from dependency_injector import providers

    from ..budget import PoolBudget
    from ..events import PoolObserver

__all__ = ["Creates", "HasPools", "Lends", "LendsOnce", "PoolSettings", "Provides"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Provides(Protocol[T_co]):
    """A provider, told from other callables by an attribute."""

    def __call__(self) -> T_co:
        """What it provides."""
        ...

    @property
    def provided(self) -> Any:
        """Derives providers of parts of it."""
        ...


# --- members ---------------------------------------------------------------------------------------------------------


class Creates(Protocol[T_co]):
    """A `PoolFactory`, or what has its `create` alone."""

    def create(self) -> Awaitable[T_co] | T_co:
        """A new member."""
        ...


# --- pools -----------------------------------------------------------------------------------------------------------


class _Acquires(Protocol[T_co]):
    def acquire(self) -> Awaitable[T_co] | T_co: ...


class _Connects(Protocol[T_co]):
    def connection(self) -> AbstractContextManager[T_co] | AbstractAsyncContextManager[T_co]: ...


#: A pool: one of ours, or of others.
Lends: TypeAlias = _Acquires[T] | _Connects[T]

#: A pool, or a context manager around one use.
LendsOnce: TypeAlias = _Acquires[T] | _Connects[T] | AbstractContextManager[T] | AbstractAsyncContextManager[T]


class _HasPool(Protocol[T_co]):
    def pool(self, key: Any, /) -> T_co: ...


class _HasGetPool(Protocol[T_co]):
    def get_pool(self, key: Any, /) -> T_co: ...


#: Pools by key.
HasPools: TypeAlias = _HasPool[Lends[T]] | _HasGetPool[Lends[T]]


# --- options ---------------------------------------------------------------------------------------------------------

if TYPE_CHECKING:
    Setting: TypeAlias = T | providers.Provider[T] | providers.Provider[Any]


class PoolSettings(TypedDict, total=False):
    """Options of a pool, as for `PoolingService`; each may be a provider of its value."""

    min_size: Setting[int]
    max_size: Setting[int]
    timeout: Setting[float]
    max_waiting: Setting[int | None]
    priorities: Setting[int]
    lifo: Setting[bool]
    max_lifetime: Setting[float]
    max_idle: Setting[float]
    max_uses: Setting[float]
    validate_on_acquire: Setting[bool | float]
    validate_on_release: Setting[bool]
    validate_idle: Setting[float | None]
    max_creating: Setting[int]
    create_timeout: Setting[float]
    create_backoff: Setting[float]
    create_backoff_max: Setting[float]
    destroy_timeout: Setting[float]
    leak_timeout: Setting[float | None]
    on_error: Setting[str]
    inline_hooks: Setting[bool]
    use_times: Setting[bool]
    context: Any
    observer: Setting[PoolObserver | None]
    clock: Setting[Callable[[], float]]
    key: Setting[Hashable]
    budget: Setting[PoolBudget | None]
