"""The provider of a value that is pooled, one for each request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from dependency_injector import providers

from .._adapters import is_single_use
from .._request.current import NO_REQUEST, current_var
from .._request.ending import ended_error
from ..binding import is_provider
from ..errors import ConfigurationError, PoolClosedError, RequestContextError
from ..lease import NOTHING
from ._kept import Kept

if TYPE_CHECKING:
    from ..context import RequestContext

__all__ = ["Pooled"]

T = TypeVar("T")

_get_current = current_var.get


class Pooled(providers.Provider[T]):
    """
    Provider of one value per request, taken from a pool on first use and given back when the request ends.

    All that is resolved for one request gets the same object, also when tasks or threads
    ask at the same moment. Calling it is synchronous: the value of an asyncio pool must have been taken by then, which
    `inject` sees to; by hand it is `await slot.aget()`.

    Args:
        source: What to take from: a `Pool` or `AsyncPool`, another provider or a callable that gives a
            pool, or a pool itself. With `select` or `key`, whatever leads to the pool.
        select: `select(source, ctx)` gives the pool to take from for this request, out of the resolved source;
            or a context manager around one use.
        key: For a source with `pool(key)` or `get_pool(key)`: the key for this request, from a function of
            the context or as the name of one of its values.
        name: Two slots of one pool share their value in a request, unless they have different names.
        options: For the pool's own `acquire`, such as `timeout` and `priority`.
    """

    if not TYPE_CHECKING:
        # `__call__` is a function of each instance, chosen anew when the provider is overridden: a second use, which is
        # the most frequent thing to happen here, is then one look-up.
        __slots__ = ("__call__", "_by", "_declared", "_is_plain", "_name", "_options", "_select", "_source")

    def __init__(
        self,
        source: Any = None,
        *,
        select: Callable[[Any, RequestContext], Any] | None = None,
        key: Callable[[RequestContext], Any] | str | None = None,
        name: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.disable_async_mode()
        if select is not None and key is not None:
            raise ConfigurationError("Pooled: select and key exclude each other; give one", field="select")
        self._source = _as_source(source)
        self._select = select
        self._by = key
        self._name = name
        self._options = options
        self._declared: str | None = None
        self._is_plain = self._has_plain_source()
        self._overrides_changed()

    # --- resolving -----------------------------------------------------------------------------------------------

    def _overrides_changed(self) -> None:
        answer: Any = self._by_request() if self.last_overriding is None else super().__call__
        self.__call__ = answer  # type: ignore[method-assign]

    def _by_request(self) -> Callable[[], Any]:
        """What calling the provider does while nothing overrides it."""
        first = self.first

        def value() -> Any:
            """
            This request's value.

            Raises:
                RequestContextError: No request is open, it has ended, or the value must be awaited or would block
                    an event loop and has not been taken yet.
            """
            try:
                return _get_current().resolved[self]
            except KeyError:
                pass
            return first(_get_current())

        return value

    def first(self, ctx: RequestContext) -> Any:
        """A request's value, where it has none yet; errors as for calling the provider."""
        resolved = ctx.resolved
        if ctx is NO_REQUEST:
            raise self._no_request()
        if self._is_plain:
            lender = self._source._ready or self._source()
            value = ctx.take(lender, id(lender), self._options)
        else:
            value = self._take_chosen(ctx)
        resolved[self] = value
        if ctx.resolved is not resolved:
            raise ended_error(ctx)
        return value

    def _provide(self, args: Any, kwargs: Any) -> Any:
        return self._by_request()()

    def begin(self, ctx: RequestContext) -> Awaitable[T] | None:
        """
        Have a request take its value if it has none yet; what is to be awaited, or `None` if nothing is.

        Raises:
            RequestContextError: No request is open, or it has ended.
        """
        if self in ctx.resolved:
            return None
        over = self.last_overriding
        if over is not None:
            return over.begin(ctx) if isinstance(over, Pooled) else None
        if ctx is NO_REQUEST:
            raise self._no_request()
        if not self._is_plain:
            return self._atake_chosen(ctx)
        lender = self._source._ready or self._source()
        key = id(lender)
        if not self._options:
            value = ctx.take_idle(lender, key)
            if value is not NOTHING:
                ctx.put(self, value)
                return None
        return ctx.atake(lender, key, self._options, self)

    def aget(self) -> Awaitable[T]:
        """This request's value, to be awaited; the event loop is not blocked meanwhile."""
        over = self.last_overriding
        if over is not None:
            return over.aget() if isinstance(over, Pooled) else _at_hand(over())
        ctx = _get_current()
        return self.begin(ctx) or _at_hand(ctx.resolved[self])

    # Between the choice of a pool and its use another request may have had it replaced, as with a user's new token: the
    # choice is then made anew. The same closed pool twice is the pool's own end, and an error.

    def _take_chosen(self, ctx: RequestContext) -> Any:
        lender, key = self._lender(ctx)
        while True:
            try:
                return ctx.take(lender, key, self._options)
            except PoolClosedError:
                before, (lender, key) = lender, self._lender(ctx)
                if lender is before:
                    raise

    async def _atake_chosen(self, ctx: RequestContext) -> Any:
        lender, key = self._lender(ctx)
        while True:
            try:
                return await ctx.atake(lender, key, self._options, self)
            except PoolClosedError:
                before, (lender, key) = lender, self._lender(ctx)
                if lender is before:
                    raise

    def _no_request(self) -> RequestContextError:
        return RequestContextError(
            f"{self._label()} is one value per request, and no request is open here: use it inside "
            "`with app.request():`, a web middleware of pooling.web, or a function decorated with pooling.di.task"
        )

    def _lender(self, ctx: RequestContext) -> tuple[Any, Any]:
        """The pool for this request, and what tells this value from others the request holds."""
        if self._declared is not None:
            raise ConfigurationError(
                f"{self._declared} is a declaration; build the container first and use its own: app = App(); "
                f"app.{self._declared.rpartition('.')[2]}()"
            )
        lender = self._source()
        if self._by is not None:
            lender = self._keyed(lender, ctx)
        elif self._select is not None:
            lender = self._select(lender, ctx)
        if is_single_use(lender):
            # Nothing tells whose it is but the request that asked: a child with another identity must not share it.
            return lender, (self, ctx)
        return lender, (id(lender) if self._name is None else (id(lender), self._name))

    def _keyed(self, source: Any, ctx: RequestContext) -> Any:
        key = ctx.require(self._by) if isinstance(self._by, str) else self._by(ctx)  # type: ignore[misc]
        if key is None:
            raise RequestContextError(f"{self._label()}: the key for {ctx} is None, so there is no pool to take from")
        for method in ("pool", "get_pool"):
            if callable(getattr(source, method, None)):
                return getattr(source, method)(key)
        raise ConfigurationError(
            f"{self._label()} has a key, and its source {type(source).__qualname__} has neither pool(key) nor "
            "get_pool(key); use select=lambda source, ctx: ... instead",
            field="key",
        )

    def _has_plain_source(self) -> bool:
        return self._select is None and self._by is None and self._name is None and isinstance(self._source, Kept)

    def _label(self) -> str:
        return self._declared or f"Pooled({type(self._source).__name__})"

    # --- being a provider ----------------------------------------------------------------------------------------

    @property
    def related(self) -> Iterator[providers.Provider[Any]]:
        """What this provider depends on."""
        if self._source is not None:
            yield self._source
        yield from super().related

    def __deepcopy__(self, memo: dict[Any, Any] | None) -> Pooled[T]:
        memo = {} if memo is None else memo
        copied: Pooled[T] | None = memo.get(id(self))
        if copied is not None:
            return copied
        copied = self.__class__()
        memo[id(self)] = copied
        copied._source = providers.deepcopy(self._source, memo)
        copied._select, copied._by, copied._name = self._select, self._by, self._name
        copied._options, copied._is_plain = self._options, self._has_plain_source()
        self._copy_overridings(copied, memo)
        copied._overrides_changed()
        return copied

    def override(self, provider: Any) -> Any:
        """Have another provider or value answer for this one; ends with the `with` block or a reset."""
        context: Any = super().override(provider)
        self._overrides_changed()
        return context

    def reset_last_overriding(self) -> None:
        """Undo the last `override`."""
        super().reset_last_overriding()
        self._overrides_changed()

    def reset_override(self) -> None:
        """Undo all overriding."""
        super().reset_override()
        self._overrides_changed()

    def declared_as(self, name: str) -> None:
        """Note that this is part of a container's class, and so not for use itself."""
        self._declared = self._declared or name  # where it was declared first
        self._is_plain = False
        self._overrides_changed()


async def _at_hand(value: Any) -> Any:
    return value


def _as_source(given: Any) -> Any:
    if given is None or is_provider(given):
        return given
    if any(callable(getattr(given, name, None)) for name in ("acquire", "connection", "getconn")):
        return providers.Object(given)
    return providers.Callable(given) if callable(given) else providers.Object(given)
