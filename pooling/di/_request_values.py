"""What all providers of one value per request share; they differ in where the value comes from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from .._engine.lease import NOTHING
from .._request.current import NO_REQUEST, get_current
from .._request.pooled import atake, put, take, take_idle
from ..errors import RequestContextError
from ._captives import refuse_captors
from ._scopes import RequestScoped

if TYPE_CHECKING:
    from dependency_injector import providers

    from ..context import RequestContext
    from ._sources import ValueSource

__all__ = ["RequestValue", "begin_taking", "maker_of", "take_first"]

T = TypeVar("T")


class RequestValue(RequestScoped[T]):
    """
    Provider of one value per request, made or taken on its first use.

    Args:
        source: Where a request has the value from.
        options: For the source.
    """

    if not TYPE_CHECKING:
        # `__call__` is a function of each instance, replaced when the provider is overridden, so that a second use in a
        # request, the most frequent call, is one look-up.
        __slots__ = ("__call__", "_is_checked", "_is_fixed", "_options", "_origin", "_source")

    def __init__(self, source: ValueSource, options: dict[str, Any] | None = None) -> None:
        super().__init__()
        self._source = source
        self._options = options or {}
        self._origin: RequestValue[T] = self  # the provider that it is a copy of
        self._is_checked = False  # whether no longer-lived provider depends on it
        self._changed()

    # --- resolving -----------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        """Choose again what a call does, and have all plans that this provider is part of made again."""
        self._source.declared = self._declared
        self._is_fixed = self._source.is_fixed and self._declared is None
        answer: Any = self._by_request() if self.last_overriding is None else super().__call__
        self.__call__ = answer  # type: ignore[method-assign]
        super()._changed()

    def _by_request(self) -> Callable[[], T]:
        """Make the function that a call runs while the provider is not overridden."""

        def value() -> Any:
            """
            This request's value.

            Raises:
                RequestContextError: No request is open, or it has ended; or the value has not been taken yet and taking
                    it must be awaited or would block an event loop.
            """
            try:
                return get_current().resolved[self]
            except KeyError:
                pass
            return take_first(self, get_current())

        return value

    def _provide(self, args: Any, kwargs: Any) -> T:
        return self._by_request()()

    def aget(self) -> Awaitable[T]:
        """This request's value, to be awaited. Does not block the event loop."""
        over = self.last_overriding
        if over is not None:
            return over.aget() if isinstance(over, RequestValue) else _at_hand(over())
        ctx = get_current()
        return begin_taking(self, ctx) or _at_hand(ctx.resolved[self])

    def _check(self) -> None:
        """Refuse a provider that would keep the value; before the first value is taken."""
        refuse_captors(self._origin)
        self._is_checked = True

    def _no_request(self) -> RequestContextError:
        return RequestContextError(
            f"{self._source.label} is one value per request, and no request is open here: use it inside "
            "`with app.request():`, a web middleware of pooling.web, or a function decorated with pooling.di.task. In "
            "a web app, call pooling.web's `install` after other middlewares were added; what runs outside of the HTTP "
            "request, such as an event of Gradio, is a task of its own."
        )

    # --- being a provider ----------------------------------------------------------------------------------------

    @property
    def related(self) -> Iterator[providers.Provider[Any]]:
        """What this provider depends on."""
        if self._source.provider is not None:
            yield self._source.provider
        yield from super().related

    def _copy_into(self, copied: Any, memo: dict[Any, Any]) -> None:
        copied._source, copied._options = self._source.copied(memo), self._options
        copied._origin = self._origin


def take_first(provider: RequestValue[T], ctx: RequestContext) -> T:
    """A request's value, on its first use; errors as for calling the provider."""
    if ctx is NO_REQUEST:
        raise provider._no_request()
    if not provider._is_checked:
        provider._check()
    if provider._is_fixed:
        pool = provider._source.provider.ready or provider._source.provider()
        value = take(ctx, pool, id(pool), provider._options)
    else:
        value = provider._source.take(ctx, provider._options)
    put(ctx, provider, value)
    return value  # type: ignore[no-any-return]


def begin_taking(provider: RequestValue[T], ctx: RequestContext) -> Awaitable[T] | None:
    """
    Have a request take its value if it has none yet; returns what to await, or `None`.

    Raises:
        RequestContextError: No request is open, or it has ended.
    """
    if provider in ctx.resolved:
        return None
    over = provider.last_overriding
    if over is not None:
        return begin_taking(over, ctx) if isinstance(over, RequestValue) else None
    if ctx is NO_REQUEST:
        raise provider._no_request()
    if not provider._is_checked:
        provider._check()
    if not provider._is_fixed:
        return provider._source.atake(ctx, provider._options, provider)
    pool = provider._source.provider.ready or provider._source.provider()
    key = id(pool)
    if not provider._options:
        value = take_idle(ctx, pool, key)
        if value is not NOTHING:
            put(ctx, provider, value)
            return None
    return atake(ctx, pool, key, provider._options, provider)


def maker_of(provider: RequestValue[Any]) -> Any:
    """The provider that makes the value of what the same request has; `None` if the value comes from a pool."""
    return provider._source.made_of


async def _at_hand(value: T) -> T:
    return value
