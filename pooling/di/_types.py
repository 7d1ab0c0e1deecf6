"""
What may be given for a pool, for its members and for its options, in the words of type checkers.

Providers are described by what calling them gives: the library's `Provider[T]` is invariant, so a
`Provider[LakebasePool]` would be no `Provider` of anything more general.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypedDict, TypeVar

if TYPE_CHECKING:
    from contextlib import (
        AbstractAsyncContextManager,
        AbstractContextManager,
        _AsyncGeneratorContextManager,
        _GeneratorContextManager,
    )

    from dependency_injector import providers

    from ..budget import PoolBudget
    from ..events import PoolObserver
    from ..service import AsyncPoolingService, PoolingService

__all__ = ["Acquires", "Creates", "HasPools", "Lends", "PoolArguments", "PoolSettings", "Provides", "Use"]

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

    def create(self) -> T_co:
        """A new member, or an awaitable of it."""
        ...


# --- pools -----------------------------------------------------------------------------------------------------------


class _Connects(Protocol[T_co]):
    def connection(self) -> AbstractContextManager[T_co] | AbstractAsyncContextManager[T_co]: ...


class Acquires(Protocol):
    """A pool of another library, whose values are not typed here."""

    def acquire(self) -> Any:
        """A value, or an awaitable of it."""
        ...


#: A pool: one of ours, or what has connections as `psycopg_pool` does.
Lends: TypeAlias = "PoolingService[T] | AsyncPoolingService[T] | _Connects[T]"

#: A context manager around one use, as `@contextmanager` makes it. Type checkers could not tell any other from a pool,
#: which is one around its own life.
Use: TypeAlias = "_GeneratorContextManager[T] | _AsyncGeneratorContextManager[T]"


class _HasPool(Protocol[T_co]):
    def pool(self, key: Any, /) -> T_co: ...


class _HasGetPool(Protocol[T_co]):
    def get_pool(self, key: Any, /) -> T_co: ...


#: Pools by key.
HasPools: TypeAlias = "_HasPool[Lends[T]] | _HasGetPool[Lends[T]]"


# --- options ---------------------------------------------------------------------------------------------------------

#: A value, or a provider of it.
Setting: TypeAlias = "T | providers.Provider[T] | providers.Provider[Any]"


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
    budget: Setting[PoolBudget | None]


class PoolArguments(PoolSettings, total=False):
    """As the pool's own provider takes them; for a container's `configure`, `key` is something else."""

    key: Setting[Hashable]
