"""What the pools and their managers accept, by name and type, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from pooling import PoolBudget, PoolingServiceOptions

from ._settings import SettingsDict
from .credentials import is_async_function
from .errors import ConfigurationError

if TYPE_CHECKING:
    from pooling import PoolObserver

    from ._session_reset import SessionReset
    from .config import LakebasePoolConfig
    from .passwords import CredentialSource

__all__ = [
    "CALLBACKS",
    "EngineOptions",
    "PoolArguments",
    "PoolOverrides",
    "ServiceArguments",
    "SharedArguments",
    "check_budget",
    "check_callables",
    "check_connect_arguments",
    "checked_sizes",
    "split_overrides",
    "with_endpoint_of_branch",
    "changed_options",
]


class EngineOptions(TypedDict, total=False):
    """The engine's options that psycopg_pool has no argument for; `PoolingServiceOptions` documents them."""

    priorities: int
    lifo: bool
    max_uses: float
    validate_on_acquire: bool | float
    validate_on_release: bool
    validate_idle: float | None
    max_creating: int
    create_timeout: float
    create_backoff: float
    create_backoff_max: float
    destroy_timeout: float
    leak_timeout: float | None
    on_error: Literal["auto", "release", "destroy"]
    inline_hooks: bool
    use_times: bool


class ServiceArguments(EngineOptions, total=False):
    """What a pool passes on to the engine's service."""

    context: Any
    observer: PoolObserver | None
    clock: Callable[[], float]
    budget: PoolBudget | None


class SharedArguments(EngineOptions, total=False):
    """What a manager passes on to each of its pools, beside the class of their connections."""

    configure: Callable[[Any], Any] | None
    check: Callable[[Any], Any] | None
    reset: Callable[[Any], Any] | None
    session_reset: SessionReset | None
    check_handles: bool
    kwargs: Mapping[str, Any] | Callable[[], Any] | None
    close_returns: bool
    timeout: float
    max_waiting: int
    max_lifetime: float
    max_idle: float
    min_size: int
    max_size: int
    reconnect_timeout: float
    reconnect_failed: Callable[[Any], Any] | None
    num_workers: int
    observer: PoolObserver | None


class PoolArguments(TypedDict, total=False):
    """Arguments of a pool that are no fields of a configuration, beside the class of its connections."""

    credentials: CredentialSource | Callable[[LakebasePoolConfig], CredentialSource] | None
    kwargs: Mapping[str, Any] | Callable[[], Any] | None
    open: bool | None
    configure: Callable[[Any], Any] | None
    check: Callable[[Any], Any] | None
    reset: Callable[[Any], Any] | None
    session_reset: SessionReset | None
    check_handles: bool
    name: str | None
    key: Any
    close_returns: bool
    on_crowded: Callable[[], Any] | None
    reconnect_timeout: float
    reconnect_failed: Callable[[Any], Any] | None
    num_workers: int
    observer: PoolObserver | None
    clock: Callable[[], float]
    budget: PoolBudget | None


class PoolOverrides(SettingsDict, PoolArguments, total=False):
    """What `create_lakebase_pool` takes by name: fields of the configuration, and arguments of the pool."""

    project: str
    branch: str


#: Arguments that are functions.
CALLBACKS = ("configure", "check", "reset", "reconnect_failed")


def check_callables(given: Mapping[str, Any], *, is_async: bool) -> None:
    """Refuse what cannot be called, and an async function in a pool for threads, which would never run it."""
    for name, value in given.items():
        if value is None:
            continue
        if not callable(value):
            raise ConfigurationError(f"{name}={value!r}: expected a function", field=name)
        if not is_async and is_async_function(value):
            raise ConfigurationError(
                f"{name}={value!r} is async, and this pool is for threads: it would never run. Give a plain function, "
                "or use the asyncio pool",
                field=name,
            )


def check_connect_arguments(conninfo: object, kwargs: object) -> None:
    """Refuse what the driver cannot connect with."""
    if conninfo is not None and not isinstance(conninfo, str) and not callable(conninfo):
        raise ConfigurationError(
            f"conninfo is of type {type(conninfo).__name__}: expected a connection string, or what returns one",
            field="conninfo",
        )
    if kwargs is not None and not isinstance(kwargs, Mapping) and not callable(kwargs):
        raise ConfigurationError(
            f"kwargs is of type {type(kwargs).__name__}: expected a mapping of arguments, or what returns one",
            field="kwargs",
        )


def with_endpoint_of_branch(settings: dict[str, Any]) -> dict[str, Any]:
    """These settings with `endpoint` in place of `project` and `branch`."""
    project, branch = settings.pop("project", None), settings.pop("branch", None)
    if project is None and branch is None:
        return settings
    if project is None or branch is None or "endpoint" in settings:
        raise ConfigurationError(
            "project= and branch= stand together for endpoint='projects/…/branches/…': give both, or endpoint=",
            field="branch" if branch is None else "project" if project is None else "endpoint",
        )
    return {**settings, "endpoint": f"projects/{project}/branches/{branch}"}


def split_overrides(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of the configuration, and arguments of the pool."""
    of_the_pool = PoolArguments.__annotations__
    settings = with_endpoint_of_branch({name: value for name, value in given.items() if name not in of_the_pool})
    return settings, {name: value for name, value in given.items() if name in of_the_pool}


def check_budget(budget: object) -> None:
    """Refuse a number, which is no budget."""
    if budget is not None and not isinstance(budget, PoolBudget):
        raise ConfigurationError(
            f"budget={budget!r}: expected a PoolBudget, such as a manager's .budget; for a number, give "
            "budget=PoolBudget(number), or max_size= if only this pool counts",
            field="budget",
        )


@lru_cache(maxsize=256, typed=True)
def changed_options(options: PoolingServiceOptions, **changes: Any) -> PoolingServiceOptions:
    """
    One object for all pools with the same settings: a manager has thousands of them.

    Not for options with seconds in `validate_on_acquire`, of which 1.0 equals `True` and means something else.
    """
    return options.replaced(**changes)


def checked_sizes(minimum: int, maximum: int | None) -> tuple[int, int]:
    """psycopg_pool's rules about sizes, with its errors."""
    if maximum is None:
        maximum = minimum
    if minimum < 0:
        raise ValueError("min_size cannot be negative")
    if maximum < minimum:
        raise ValueError("max_size must be greater or equal than min_size")
    if minimum == maximum == 0:
        raise ValueError("if min_size is 0 max_size must be greater than 0")
    return minimum, maximum
