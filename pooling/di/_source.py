"""Where a pooled provider takes its values from: the pool that serves a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dependency_injector import providers

from .._adapters import is_single_use
from ..binding import is_provider
from ..errors import ConfigurationError, RequestContextError
from ._scopes import PerContainer

if TYPE_CHECKING:
    from ..context import RequestContext

__all__ = ["Source", "as_provider"]


class Source:
    """
    The pools of a pooled provider, of which a request, its key or a function of the user's chooses one.

    Attributes:
        provider: What gives the pool, or leads to it.
        is_fixed: Whether it is the same pool for all requests, and found by its identity alone.
        label: What messages call the pooled provider.
    """

    __slots__ = ("_key", "_name", "_select", "is_fixed", "label", "provider")

    def __init__(
        self,
        provider: Any,
        select: Callable[[Any, RequestContext], Any] | None,
        key: Callable[[RequestContext], Any] | str | None,
        name: str | None,
    ) -> None:
        if select is not None and key is not None:
            raise ConfigurationError("Pooled: select and key exclude each other; give one", field="select")
        self.provider = provider
        self._select = select
        self._key = key
        self._name = name
        self.is_fixed = select is None and key is None and name is None and isinstance(provider, PerContainer)
        self.label = f"Pooled({type(provider).__name__})"

    def copied(self, memo: dict[Any, Any]) -> Source:
        """The same for another container."""
        return Source(providers.deepcopy(self.provider, memo), self._select, self._key, self._name)

    def choose(self, ctx: RequestContext) -> tuple[Any, Any]:
        """The pool for this request, and what tells its value from others that the request holds."""
        pool = self.provider()
        if self._key is not None:
            pool = self._pool_of_key(pool, self._key, ctx)
        elif self._select is not None:
            pool = self._select(pool, ctx)
        if is_single_use(pool):
            # Nothing tells whose it is but the request that asked: a child with another identity must not share it.
            return pool, (self, ctx)
        return pool, (id(pool) if self._name is None else (id(pool), self._name))

    def _pool_of_key(self, pools: Any, asked: Callable[[RequestContext], Any] | str, ctx: RequestContext) -> Any:
        key = ctx.require(asked) if isinstance(asked, str) else asked(ctx)
        if key is None:
            raise RequestContextError(f"{self.label}: the key for {ctx} is None, so there is no pool to take from")
        for method in ("pool", "get_pool"):
            if callable(getattr(pools, method, None)):
                return getattr(pools, method)(key)
        raise ConfigurationError(
            f"{self.label} has a key, and its source {type(pools).__qualname__} has neither pool(key) nor "
            "get_pool(key); use select=lambda source, ctx: ... instead",
            field="key",
        )


def as_provider(given: Any) -> Any:
    """A provider of the pool, out of whatever may be given for one."""
    if given is None or is_provider(given):
        return given
    if any(callable(getattr(given, name, None)) for name in ("acquire", "connection", "getconn")):
        return providers.Object(given)
    return providers.Callable(given) if callable(given) else providers.Object(given)
