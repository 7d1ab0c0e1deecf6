"""What a pool is told about its resources: how to make, check, prepare, reset and unmake one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar, cast, overload, runtime_checkable

from .errors import ConfigurationError, CreateError

__all__ = ["PoolFactory", "Poolable"]

T = TypeVar("T")
R = TypeVar("R")

#: Mistakes in the factory's own code: trying again cannot cure them.
PROGRAMMING_ERRORS = (TypeError, NameError, AttributeError, ImportError, NotImplementedError, SyntaxError)


class PoolFactory(Generic[T]):
    """
    Makes and looks after the resources of one pool. Subclass it, or use `PoolFactory.of`.

    Only `create` is required. Any hook may be `async def` for an
    `AsyncPoolingService`; a `PoolingService` refuses those at construction. No
    hook runs while a lock of the pool is held. A hook that is not overridden costs
    nothing, and leaves the step to the resource's own method of the same name (see `Poolable`).
    An override may name its parameters differently.

    Attributes:
        noun: What errors and warnings call a resource of this kind, such as "connection".
    """

    noun = "resource"

    def create(self) -> T | Awaitable[T]:
        """
        Make one resource. An override returns `T`, or is `async def` and returns `T` when awaited.

        Runs in the background, never in a borrower's thread or task, at most
        `max_creating` times at once. A failure is tried again with a growing pause
        while somebody waits, unless `is_final` says otherwise.
        """
        raise NotImplementedError(f"{type(self).__name__} must define create()")

    def destroy(self, value: T, /) -> Any:
        """Unmake a resource; runs in the background, once for each. A failure is logged."""

    def validate(self, value: T, /) -> Any:
        """Say whether a resource still works. `False` or an exception has it destroyed and another tried."""
        return True

    def acquire(self, value: T, request_ctx: Any, /) -> Any:
        """Prepare a resource for a borrower, after it was taken; a failure destroys it and reaches the borrower."""

    def release(self, value: T, /) -> Any:
        """
        Reset a resource before it is given back; a failure destroys it.

        A parameter named `exc` receives the exception that ended the use, or `None`.
        """

    def is_alive(self, value: T, /) -> bool:
        """
        Look, without waiting, whether an idle resource may be handed out; `False` destroys it and takes the next.

        Called inline on every acquisition of an idle resource, so it must neither block nor be a coroutine
        function; for checks that take time there is `validate`. An exception counts as `False`.
        """
        return True

    def is_final(self, error: BaseException, /) -> bool:
        """
        Say whether a failed create cannot be cured by trying again; borrowers then get it at once.

        By default a `CreateError` or a `ConfigurationError` raised by `create`, and mistakes in its code
        (`TypeError`, `NameError`, `AttributeError`, `ImportError`, …), are final.
        """
        return isinstance(error, (CreateError, ConfigurationError, *PROGRAMMING_ERRORS))

    @overload
    @staticmethod
    def of(
        create: type[R],
        *,
        destroy: Callable[[R], Any] | None = None,
        validate: Callable[[R], Any] | None = None,
        acquire: Callable[[R, Any], Any] | None = None,
        release: Callable[..., Any] | None = None,
        is_alive: Callable[[R], bool] | None = None,
        is_final: Callable[[BaseException], bool] | None = None,
    ) -> PoolFactory[R]: ...
    @overload
    @staticmethod
    def of(
        create: Callable[[], Awaitable[R]],
        *,
        destroy: Callable[[R], Any] | None = None,
        validate: Callable[[R], Any] | None = None,
        acquire: Callable[[R, Any], Any] | None = None,
        release: Callable[..., Any] | None = None,
        is_alive: Callable[[R], bool] | None = None,
        is_final: Callable[[BaseException], bool] | None = None,
    ) -> PoolFactory[R]: ...
    @overload
    @staticmethod
    def of(
        create: Callable[[], R],
        *,
        destroy: Callable[[R], Any] | None = None,
        validate: Callable[[R], Any] | None = None,
        acquire: Callable[[R, Any], Any] | None = None,
        release: Callable[..., Any] | None = None,
        is_alive: Callable[[R], bool] | None = None,
        is_final: Callable[[BaseException], bool] | None = None,
    ) -> PoolFactory[R]: ...
    @staticmethod
    def of(
        create: type[R] | Callable[[], Awaitable[R]] | Callable[[], R],
        *,
        destroy: Callable[[R], Any] | None = None,
        validate: Callable[[R], Any] | None = None,
        acquire: Callable[[R, Any], Any] | None = None,
        release: Callable[..., Any] | None = None,
        is_alive: Callable[[R], bool] | None = None,
        is_final: Callable[[BaseException], bool] | None = None,
    ) -> PoolFactory[R]:
        """
        A factory from plain callables.

        Args:
            create: Called without arguments; a class makes instances of it.
            destroy: As the method of this name, like all that follow.
            validate: As the method.
            acquire: As the method.
            release: As the method.
            is_alive: As the method.
            is_final: As the method.

        Raises:
            ConfigurationError: Something given is not callable.
        """
        factory: PoolFactory[R] = PoolFactory()
        given = {
            "create": create,
            "destroy": destroy,
            "validate": validate,
            "acquire": acquire,
            "release": release,
            "is_alive": is_alive,
            "is_final": is_final,
        }
        for name, hook in given.items():
            if hook is None:
                continue
            if not callable(hook):
                raise ConfigurationError(f"{name}={hook!r}: expected a callable", field=name)
            setattr(factory, name, hook)
        return factory


def as_factory(given: PoolFactory[T] | Callable[[], T] | type[T]) -> PoolFactory[T]:
    """A factory from whatever was given where one is wanted: itself, an object with `create`, or a callable."""
    if isinstance(given, PoolFactory):
        return given
    if isinstance(given, type):
        if issubclass(given, PoolFactory):
            raise ConfigurationError(
                f"factory={given.__name__}: expected a factory object, got its class; write {given.__name__}()",
                field="factory",
            )
        return PoolFactory.of(cast("type[T]", given))
    if callable(getattr(given, "create", None)):
        return cast("PoolFactory[T]", given)
    if callable(given):
        return PoolFactory.of(given)
    raise ConfigurationError(
        f"factory={given!r}: expected a PoolFactory, an object with create(), a class or a callable", field="factory"
    )


@runtime_checkable
class Poolable(Protocol):
    """
    What a resource may implement itself, each method optional; the factory's hook of the same step wins.

    `start` runs after `create` and `stop` before `destroy`; both have no factory-level twin.
    """

    def start(self) -> Any:
        """Begin to work, once."""

    def stop(self) -> Any:
        """Stop working, once."""

    def acquire(self, request_ctx: Any) -> Any:
        """Prepare for a borrower."""

    def release(self) -> Any:
        """Reset after a borrower."""

    def destroy(self) -> Any:
        """Give up what is held."""
