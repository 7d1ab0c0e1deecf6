"""
Where pools get their resources and options from, and pooled providers their pool.

The types here describe providers by what calling them returns. The library's `Provider[T]` is invariant, so a
`Provider[LakebasePool]` would not be a `Provider` of a more general type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias, TypedDict, TypeVar

from dependency_injector import providers

from .._adapters import is_single_use
from .._request.pooled import atake, take
from ..binding import BindingFactory, is_provider
from ..errors import ConfigurationError, PoolClosedError, RequestContextError
from ..factory import PoolFactory
from ._scopes import PerContainer

if TYPE_CHECKING:
    from collections.abc import Hashable
    from contextlib import (
        AbstractAsyncContextManager,
        AbstractContextManager,
        _AsyncGeneratorContextManager,
        _GeneratorContextManager,
    )
    from typing import Unpack

    from ..budget import PoolBudget
    from ..context import RequestContext
    from ..events import PoolObserver
    from ..service import AsyncPoolingService, PoolingService

__all__ = [
    "Creates",
    "Foreign",
    "HasPools",
    "Lends",
    "PoolArguments",
    "PoolDeclaration",
    "PoolProvider",
    "PoolSettings",
    "Provides",
    "Source",
    "Use",
    "ValueSource",
    "source_provider",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Provides(Protocol[T_co]):
    """A provider; its attribute `provided` tells it from other callables."""

    def __call__(self) -> T_co:
        """Return the provided object."""
        ...

    @property
    def provided(self) -> Any:
        """Derives providers of parts of the object."""
        ...


# --- the resources and options of a pool -----------------------------------------------------------------------------


class Creates(Protocol[T_co]):
    """An object that has only the `create` of a `PoolFactory`."""

    def create(self) -> T_co:
        """Create a resource, or return an awaitable of it."""
        ...


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
    on_error: Setting[Literal["auto", "release", "destroy"]]
    inline_hooks: Setting[bool]
    use_times: Setting[bool]
    context: Any
    observer: Setting[PoolObserver | None]
    clock: Setting[Callable[[], float]]
    budget: Setting[PoolBudget | None]


class PoolArguments(PoolSettings, total=False):
    """The options that a pool's provider takes; in a container's `configure`, `key` is the key of the pool."""

    key: Setting[Hashable]


class PoolDeclaration(PoolArguments, total=False):
    """The arguments with which a container declares a pool."""

    group: str | None
    name: str | None


class PoolProvider(PerContainer[T]):
    """Provider of a pool, made by `service_type`."""

    if not TYPE_CHECKING:
        __slots__ = ("_factory", "_name", "_options", "_settings")

    _service_type: ClassVar[Any]

    def __init__(
        self,
        factory: Any = None,
        /,
        options: Any = None,
        *,
        group: str | None = None,
        name: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(group=group)
        # Objects that the user passed are shared by all copies of the declaration, not copied.
        self._factory = factory if factory is None or is_provider(factory) else providers.Object(factory)
        self._options = options if options is None or is_provider(options) else providers.Object(options)
        self._name = name
        self._settings = settings

    def configure(self, **settings: Unpack[PoolArguments]) -> None:
        """
        Set options of the pool; they win over the declared ones. Values may be providers.

        Raises:
            ConfigurationError: The pool exists already.
        """
        with self._building:
            if self._object is not None:
                raise ConfigurationError(
                    f"pool {self.label!r} exists already and cannot be configured any more: configure it before its "
                    "first use, or change its size with resize()",
                    pool=self.label,
                )
            self._settings = {**self._settings, **settings}

    @property
    def settings(self) -> dict[str, Any]:
        """The options given so far, unresolved."""
        return dict(self._settings)

    def members(self) -> Any:
        """The provider of its resources, or `None` if they come from a `PoolFactory` or a callable."""
        factory = self._factory
        if isinstance(factory, providers.Object):
            given = factory.provides
            return given.provider(self.container) if isinstance(given, BindingFactory) else None
        return None if factory is None or _gives_a_factory(factory) else factory

    def _build(self) -> T:
        if self._factory is None:
            raise ConfigurationError(
                f"pool {self.label!r} has no factory; give one: Pool(UserFactory())", field="factory"
            )
        members = self.members()
        if isinstance(self._factory, providers.Object):
            factory: Any = self._factory.provides
            if isinstance(factory, BindingFactory):
                factory = factory.bound_to(self.container)
        else:
            factory = self._factory() if members is None else BindingFactory(members)
        settings = {name: value() if is_provider(value) else value for name, value in self._settings.items()}
        options = None if self._options is None else self._options()
        made: T = self._service_type(factory, options, name=self._name or self._key, **settings)
        return made

    @property
    def related(self) -> Iterator[providers.Provider[Any]]:
        """What this provider depends on."""
        for given in (self._factory, self._options, *self._settings.values()):
            if is_provider(given):
                yield given
        factory = self._factory.provides if isinstance(self._factory, providers.Object) else None
        if isinstance(factory, BindingFactory):
            container = factory.container if factory.container is not None else self.container
            member = (
                factory.binding if is_provider(factory.binding) else container and container.find(factory.binding, None)
            )
            if member is not None:
                yield member
        yield from super().related

    def _copy_into(self, copied: Any, memo: dict[Any, Any]) -> None:
        super()._copy_into(copied, memo)
        factory = self._factory.provides if isinstance(self._factory, providers.Object) else None
        if isinstance(factory, BindingFactory) and is_provider(factory.binding):
            # Resources come from the new container's copy of the binding.
            copied._factory = providers.Object(BindingFactory(providers.deepcopy(factory.binding, memo)))
        else:
            copied._factory = providers.deepcopy(self._factory, memo)
        copied._options = providers.deepcopy(self._options, memo)
        copied._name = self._name
        copied._settings = {
            name: providers.deepcopy(value, memo) if is_provider(value) else value
            for name, value in self._settings.items()
        }


def _gives_a_factory(provider: Any) -> bool:
    """Whether this provider returns a `PoolFactory` rather than a resource, judged without calling it."""
    provides = getattr(provider, "provides", None)
    return isinstance(provides, type) and issubclass(provides, PoolFactory)


# --- the pool of a pooled value --------------------------------------------------------------------------------------


class _Connects(Protocol[T_co]):
    def connection(self) -> AbstractContextManager[T_co] | AbstractAsyncContextManager[T_co]: ...


#: A pool of this package, or one with `connection()`, as those of `psycopg_pool`.
Lends: TypeAlias = "PoolingService[T] | AsyncPoolingService[T] | _Connects[T]"

#: A context manager around one use, as made by `@contextmanager`. Type checkers cannot tell other context managers from
#: a pool, which is one too.
Use: TypeAlias = "_GeneratorContextManager[T] | _AsyncGeneratorContextManager[T]"


class Foreign(Protocol):
    """
    A pool of another library, whose values are not typed here.

    Pools with only `getconn`, and other context managers, cannot be added: `psycopg_pool`'s pools match these as well,
    and mypy could no longer choose the overload of `Pooled`.
    """

    def acquire(self) -> Any:
        """Acquire a value, or return an awaitable of it."""
        ...


class _HasPool(Protocol[T_co]):
    def pool(self, key: Any, /) -> T_co: ...


class _HasGetPool(Protocol[T_co]):
    def get_pool(self, key: Any, /) -> T_co: ...


#: Pools by key.
HasPools: TypeAlias = "_HasPool[Lends[T]] | _HasGetPool[Lends[T]]"


#: The options of `acquire` of this package's pools.
_OPTIONS = ("timeout", "priority")


class ValueSource:
    """
    Where a request has the value of a provider from.

    Attributes:
        provider: What it depends on, or `None`.
        declared: The name of the value's provider in a container class, if it is only declared.
        is_fixed: Whether all requests take from the same pool, so that its identity is enough to find the value.
    """

    __slots__ = ("declared", "is_fixed", "provider")

    #: What the value's provider is called in messages.
    kind: ClassVar[str]

    def __init__(self, provider: Any) -> None:
        self.provider = provider
        self.declared: str | None = None
        self.is_fixed = False

    @property
    def label(self) -> str:
        """The name of the value's provider in messages."""
        return self.declared or f"{self.kind}({type(self.provider).__name__})"

    def refuse_declaration(self) -> None:
        """
        Check that the value's provider belongs to a container.

        Raises:
            ConfigurationError: It is only declared in a class.
        """
        if self.declared is not None:
            raise ConfigurationError(
                f"{self.declared} is a declaration; build the container first and use its own: app = App(); "
                f"app.{self.declared.rpartition('.')[2]}()"
            )

    @property
    def made_of(self) -> Any:
        """The provider that makes the value of what the same request has; `None` if the value comes from a pool."""
        return None

    def take(self, ctx: RequestContext, options: dict[str, Any]) -> Any:
        """Have a request take the value. May block."""
        raise NotImplementedError

    async def atake(self, ctx: RequestContext, options: dict[str, Any], asking: Any) -> Any:
        """As `take`; records the value for the provider `asking`."""
        raise NotImplementedError

    def copied(self, memo: dict[Any, Any]) -> ValueSource:
        """A copy for another container."""
        raise NotImplementedError


class Source(ValueSource):
    """
    The pools of a pooled provider, of which each request uses one, chosen by its key or by `select`.

    Its `provider` is that of the pool, or of the object that `key` or `select` find it in.
    """

    __slots__ = ("_key", "_name", "_select")

    kind = "Pooled"

    def __init__(
        self,
        provider: Any,
        select: Callable[[Any, RequestContext], Any] | None,
        key: Callable[[RequestContext], Any] | str | None,
        name: str | None,
    ) -> None:
        if select is not None and key is not None:
            raise ConfigurationError("Pooled: select and key exclude each other; give one", field="select")
        super().__init__(provider)
        self._select = select
        self._key = key
        self._name = name
        self.is_fixed = select is None and key is None and name is None and isinstance(provider, PerContainer)

    def check_options(self, options: Mapping[str, Any]) -> None:
        """
        Check the names of the options for the pool's `acquire`, as far as they are known before there is a pool.

        Raises:
            ConfigurationError: A pool of this package has no such option, or the name is almost that of one.
        """
        is_ours = isinstance(self.provider, PoolProvider) and self._select is None and self._key is None
        for name in options:
            if name in _OPTIONS:
                continue
            meant = get_close_matches(name, (*_OPTIONS, "select", "key", "name"), 1, 0.75)
            if meant or is_ours:
                raise ConfigurationError(
                    f"Pooled: there is no option {name!r}"
                    + (f"; did you mean {meant[0]!r}?" if meant else f"; acquire has {' and '.join(_OPTIONS)}"),
                    field=name,
                )

    def copied(self, memo: dict[Any, Any]) -> Source:
        return Source(providers.deepcopy(self.provider, memo), self._select, self._key, self._name)

    # Between the choice of a pool and its use, another request may have replaced it, as with a user's new token: then
    # the pool is chosen again. If the same closed pool is chosen twice, it was stopped, and that is an error.

    def take(self, ctx: RequestContext, options: dict[str, Any]) -> Any:
        pool, key = self._choose(ctx)
        while True:
            try:
                return take(ctx, pool, key, options)
            except PoolClosedError:
                before, (pool, key) = pool, self._choose(ctx)
                if pool is before:
                    raise

    async def atake(self, ctx: RequestContext, options: dict[str, Any], asking: Any) -> Any:
        pool, key = self._choose(ctx)
        while True:
            try:
                return await atake(ctx, pool, key, options, asking)
            except PoolClosedError:
                before, (pool, key) = pool, self._choose(ctx)
                if pool is before:
                    raise

    def _choose(self, ctx: RequestContext) -> tuple[Any, Any]:
        """The pool for this request, and the key of its value among those that the request holds."""
        self.refuse_declaration()
        pool = self.provider()
        if self._key is not None:
            pool = self._pool_of_key(pool, self._key, ctx)
        elif self._select is not None:
            pool = self._select(pool, ctx)
        if is_single_use(pool):
            # The choice may depend on the request that asked: a child with another identity must not share its value.
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


def source_provider(given: Any) -> Any:
    """Make a provider of a `source` argument."""
    if given is None or is_provider(given):
        return given
    if any(callable(getattr(given, name, None)) for name in ("acquire", "connection", "getconn")):
        return providers.Object(given)
    return providers.Callable(given) if callable(given) else providers.Object(given)
