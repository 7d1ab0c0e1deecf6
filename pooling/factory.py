"""Factories: how a pool creates, validates, prepares, resets and destroys its resources."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar, cast, overload, runtime_checkable

from .errors import ConfigurationError, CreateError

__all__ = ["PoolFactory", "Poolable"]

T = TypeVar("T")
R = TypeVar("R")

#: Mistakes in the factory's code.
PROGRAMMING_ERRORS = (TypeError, NameError, AttributeError, ImportError, NotImplementedError, SyntaxError)
#: Mistakes in the settings, which trying again cannot cure either.
SETTINGS_ERRORS = (LookupError, ValueError, FileNotFoundError)


class PoolFactory(Generic[T]):
    """
    Creates the resources of one pool and has the hooks for them. Subclass it, or use `PoolFactory.of`.

    Only `create` is required. Any hook may be `async def` for an
    `AsyncPoolingService`; a `PoolingService` refuses those at construction. No
    hook runs while a lock of the pool is held. A hook that is not overridden costs
    nothing; if the resource has a method of the same name, that is called instead (see `Poolable`).
    An override may name its parameters differently.

    Attributes:
        noun: What errors and warnings call a resource of this kind, such as "connection".
        notes_borrowers: Whether the call site of each borrower is recorded, for errors, from the first one on; else
            from the first error on, since it takes half a microsecond.
        logs_failures: Whether `create` itself logs that it failed; else the pool does, once for a series of failures.
        metric_prefix: What the names of its metrics begin with. OpenTelemetry has `db.client.connection` for a
            database's.
        starts_resources: Whether a resource's own `start` is called after `create`. By default only for what comes from
            a class, a callable or a binding: a `create` of a subclass returns a resource that is ready.
    """

    noun = "resource"
    notes_borrowers = False
    logs_failures = False
    metric_prefix = "pooling.resource"
    starts_resources = False

    def create(self) -> T | Awaitable[T]:
        """
        Create one resource. An override returns `T`, or is `async def` and returns `T` when awaited.

        Runs in the background, never in a borrower's thread or task, at most
        `max_creating` times at once. A failed create is tried again with growing pauses
        while a borrower waits, unless `is_final` returns true.
        """
        raise NotImplementedError(f"{type(self).__name__} must define create()")

    def destroy(self, value: T, /) -> Any:
        """Destroy a resource. Runs in the background, once for each resource. A failure is logged."""

    def validate(self, value: T, /) -> Any:
        """Return whether a resource still works. After `False` or an exception it is destroyed, another is tried."""
        return True

    def acquire(self, value: T, request_ctx: Any, /) -> Any:
        """Prepare a resource for its borrower. After a failure it is destroyed, and the borrower gets the error."""

    def release(self, value: T, /) -> Any:
        """
        Reset a resource before the next borrower can get it. After a failure it is destroyed.

        A parameter named `exc` receives the exception that ended the use, or `None`.
        """

    def checkpoint(self, value: T, /) -> Any:
        """
        Make durable what the request has done so far: its answer is about to go out. A connection commits here.

        Runs while the resource is out, before the first byte of a web request's answer. A failure ends the request with
        an error, which the client gets instead of the answer. Without this hook, work that is completed by `release`
        may fail, or be seen, only after the client was told of it.
        """

    def is_alive(self, value: T, /) -> bool:
        """
        Return, without blocking, whether an idle resource may be lent; after `False` it is destroyed.

        Called inline on every acquisition of an idle resource, so it must neither block nor be a coroutine
        function; use `validate` for checks that take time. An exception counts as `False`.
        """
        return True

    def is_final(self, error: BaseException, /) -> bool:
        """
        Return whether trying a failed create again would not help. Borrowers then get the error at once.

        By default a `CreateError` or a `ConfigurationError` raised by `create`, and mistakes in its code
        or its settings (`TypeError`, `AttributeError`, `ImportError`, `KeyError`, `ValueError`, `FileNotFoundError`,
        …), are final.
        """
        return isinstance(error, (CreateError, ConfigurationError, *PROGRAMMING_ERRORS, *SETTINGS_ERRORS))

    @overload
    @staticmethod
    def of(
        create: type[R],
        *,
        destroy: Callable[[R], Any] | None = None,
        validate: Callable[[R], Any] | None = None,
        acquire: Callable[[R, Any], Any] | None = None,
        release: Callable[..., Any] | None = None,
        checkpoint: Callable[[R], Any] | None = None,
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
        checkpoint: Callable[[R], Any] | None = None,
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
        checkpoint: Callable[[R], Any] | None = None,
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
        checkpoint: Callable[[R], Any] | None = None,
        is_alive: Callable[[R], bool] | None = None,
        is_final: Callable[[BaseException], bool] | None = None,
    ) -> PoolFactory[R]:
        """
        A factory from plain callables.

        Args:
            create: Called without arguments; may be a class.
            destroy: As the method of this name; so are all that follow.
            validate: As the method.
            acquire: As the method.
            release: As the method.
            checkpoint: As the method.
            is_alive: As the method.
            is_final: As the method.

        Raises:
            ConfigurationError: An argument is not callable.
        """
        factory: PoolFactory[R] = PoolFactory()
        factory.starts_resources = True
        given = {
            "create": create,
            "destroy": destroy,
            "validate": validate,
            "acquire": acquire,
            "release": release,
            "checkpoint": checkpoint,
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


def is_factory(given: object) -> bool:
    """Whether `as_factory` can make a factory of it."""
    return callable(given) or callable(getattr(given, "create", None))


def as_factory(given: PoolFactory[T] | Callable[[], T] | type[T]) -> PoolFactory[T]:
    """Make a factory of a `factory` argument: a factory, an object with `create`, a class or a callable."""
    if isinstance(given, PoolFactory):
        if getattr(given.create, "__func__", None) is PoolFactory.create:
            raise ConfigurationError(
                f"factory={given!r}: {type(given).__name__} must define create(), which returns a new resource",
                field="create",
            )
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
    Methods that a resource may have, each optional. A hook of the factory for the same step is called instead.

    `start` runs after the pool made the resource, from a class, a callable or a binding; a `PoolFactory` subclass with
    its own `create` returns a resource that is ready. `stop` runs before `destroy`. A factory has no hooks of these
    names.
    """

    def start(self) -> Any:
        """Start working. Called once."""

    def stop(self) -> Any:
        """Stop working. Called once."""

    def acquire(self, request_ctx: Any) -> Any:
        """Prepare for a borrower."""

    def release(self) -> Any:
        """Reset after a borrower."""

    def destroy(self) -> Any:
        """Close what the resource holds."""
