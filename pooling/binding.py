"""Pools whose resources come from a binding of a container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from .errors import ConfigurationError
from .factory import PoolFactory

if TYPE_CHECKING:
    from dependency_injector.providers import Provider

__all__ = ["BindingFactory", "create_pooled_binding_factory"]

T = TypeVar("T")

#: Names of providers that always give the same object. By name, since only `pooling.di` imports the container library.
ONE_OBJECT = frozenset({"BaseSingleton", "Object", "Resource", "PerContainer"})


@overload
def create_pooled_binding_factory(binding: Provider[T], *, container: Any = None) -> BindingFactory[T]: ...
@overload
def create_pooled_binding_factory(binding: str, *, container: Any = None) -> BindingFactory[Any]: ...
def create_pooled_binding_factory(binding: Provider[T] | str, *, container: Any = None) -> BindingFactory[Any]:
    """
    A factory whose resources come from a binding, with their dependencies injected.

    A resource's `start`, if it has one, runs after it was made, and its `stop` before it is destroyed.

    Args:
        binding: A provider, or the key of one, such as `"services.audit.member"`.
        container: Where to look up the key; by default the container that the pool belongs to.

    Raises:
        ConfigurationError: The binding gives the same object every time, or is neither provider nor key.
    """
    return BindingFactory(binding, container=container)


class BindingFactory(PoolFactory[T]):
    """Makes resources by resolving a binding; see `create_pooled_binding_factory`."""

    starts_resources = True

    def __init__(self, binding: Provider[T] | str, *, container: Any = None) -> None:
        if not isinstance(binding, str) and not is_provider(binding):
            raise ConfigurationError(
                f"binding={binding!r}: expected a provider such as providers.Factory(Member), or the key of one",
                field="binding",
            )
        self.binding: Any = binding
        self.container: Any = container
        refuse_single(binding, str(binding))

    def provider(self, container: Any = None) -> Any:
        """
        The provider of the resources.

        Args:
            container: Where to look for a key, if the factory was given none.

        Raises:
            ConfigurationError: There is no such key, no container to look in, or always the same object.
        """
        if not isinstance(self.binding, str):
            return self.binding
        where = self.container if self.container is not None else container
        if where is None:
            raise ConfigurationError(
                f"binding={self.binding!r}: there is no container to look for this key in; use the factory for a "
                "pool of a "
                "container, or give it container=...",
                field="binding",
            )
        provider = where.find(self.binding)
        refuse_single(provider, repr(self.binding))
        return provider

    def create(self) -> Any:
        """Make a resource; an awaitable if the provider gives one."""
        return self.provider()()

    def bound_to(self, container: Any) -> BindingFactory[T]:
        """The same factory for a pool of this container."""
        if not isinstance(self.binding, str) or self.container is not None:
            return self
        return BindingFactory(self.binding, container=container)


def is_provider(given: Any) -> bool:
    """Whether this is a provider of `dependency-injector`, found out without importing it."""
    return not isinstance(given, type) and getattr(given, "__IS_PROVIDER__", False) is True


def refuse_single(provider: Any, name: str) -> None:
    """
    Raise if a provider cannot make more than one object.

    Raises:
        ConfigurationError: It gives the same object every time.
    """
    if not is_provider(provider):
        return
    effective = provider
    while effective.last_overriding is not None:
        effective = effective.last_overriding
    if ONE_OBJECT.intersection(kind.__name__ for kind in type(effective).__mro__):
        raise ConfigurationError(
            f"binding {name} is a {type(effective).__name__}, which gives the same object every time, and a pool "
            "needs a new "
            "one for each member; make it a providers.Factory",
            field="binding",
        )
