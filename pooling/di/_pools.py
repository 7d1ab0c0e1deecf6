"""What `Pool` and `AsyncPool` have in common: where the members and the options of a pool come from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from dependency_injector import providers

from ..binding import BindingFactory, is_provider
from ..errors import ConfigurationError
from ..factory import PoolFactory
from ._scopes import PerContainer

if TYPE_CHECKING:
    from typing import Unpack

    from ._types import PoolArguments

__all__ = ["PoolProvider"]

T = TypeVar("T")


class PoolProvider(PerContainer[T]):
    """Provider of a pool, made by `service_type`."""

    if not TYPE_CHECKING:
        __slots__ = ("_factory", "_name", "_options", "_settings")

    service_type: ClassVar[Any]

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
        # The user's own objects are shared by all copies of the declaration, and never copied with it.
        self._factory = factory if factory is None or is_provider(factory) else providers.Object(factory)
        self._options = options if options is None or is_provider(options) else providers.Object(options)
        self._name = name
        self._settings = settings

    def configure(self, **settings: Unpack[PoolArguments]) -> None:
        """
        Set options of the pool, over those it was declared with; values may be providers.

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
        """The provider its members come from, or `None` where they come from a `PoolFactory` or a callable."""
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
        made: T = self.service_type(factory, options, name=self._name or self._key, **settings)
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
            # Members come from the new container's copy of the binding.
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
    """Whether what this provider gives is a `PoolFactory` rather than a member, judged without calling it."""
    provides = getattr(provider, "provides", None)
    return isinstance(provides, type) and issubclass(provides, PoolFactory)
