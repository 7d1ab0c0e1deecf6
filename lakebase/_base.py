"""What `LakebasePool` and its asyncio twin have in common: settings, numbers and errors in psycopg_pool's terms."""

from __future__ import annotations

import math
import weakref
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import psycopg_pool

from pooling import (
    CreateError,
    PoolBudget,
    PoolClosedError,
    PoolExhaustedError,
    PoolingError,
    PoolingServiceOptions,
    PoolTimeoutError,
    ReleaseError,
)

from .credentials import credential_source, is_async_function
from .errors import ConfigurationError, ConnectError, CredentialError, LakebaseError
from .hosts import note_unknown_host

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .config import LakebasePoolConfig

__pooling_internal__ = True

_NO_STATS: dict[str, int] = {}

__all__ = ["LakebasePoolClosed", "LakebasePoolTimeout", "LakebaseTooManyRequests"]


# Named after psycopg_pool's errors, each of which they are.
class LakebasePoolTimeout(PoolTimeoutError, psycopg_pool.PoolTimeout):  # noqa: N818
    """No connection within the timeout; `step` says where the time went, `__cause__` is the last failed connect."""


class LakebasePoolClosed(PoolClosedError, psycopg_pool.PoolClosed):  # noqa: N818
    """The pool was closed before or during the call."""


class LakebaseTooManyRequests(PoolExhaustedError, psycopg_pool.TooManyRequests):  # noqa: N818
    """As many borrowers wait as `max_waiting` allows."""


class PoolBase:
    """
    The state and the numbers of a pool that looks like psycopg_pool's.

    psycopg_pool's own constructors are not called: they would make queues, locks and a scheduler for workers that
    are not there.
    """

    name: str
    close_returns: bool
    timeout: float
    reconnect_timeout: float
    num_workers: int
    conninfo: Any
    kwargs: Any
    connection_class: Any
    config: LakebasePoolConfig | None
    _is_async: bool
    _renewal = "create another one"  # where a closed pool's user gets one that is open
    _service: Any
    _key: Any
    _closed: bool
    _opened: bool
    _check: Any
    _configure: Any
    _reset: Any
    _reconnect_failed: Any
    _base_stats: dict[str, int]
    _usage: float
    _returned_bad: int
    max_waiting: int
    max_lifetime: float
    max_idle: float

    def _make(
        self,
        connector_class: Any,
        service_class: Callable[..., Any],
        *,
        config: LakebasePoolConfig | None,
        credentials: Any,
        sizes: dict[str, Any],
        on_crowded: Callable[[], Any] | None,
        service: dict[str, Any],
    ) -> None:
        """
        Make the engine's service, from what the constructor has put in place.

        Args:
            connector_class: Of what makes the connections.
            service_class: Of the service.
            config: A complete one, if there is one.
            credentials: Those given.
            sizes: psycopg_pool's sizes and times, `None` where not given.
            on_crowded: That given.
            service: The service's arguments.
        """
        if self.num_workers < 1:
            raise ValueError("num_workers must be at least 1")
        given = {name: getattr(self, f"_{name}") for name in CALLBACKS}
        # These two may be values as well.
        given |= {name: value for name in ("conninfo", "kwargs") if callable(value := getattr(self, name))}
        check_callables(given, is_async=self._is_async)
        budget = service.get("budget")
        if budget is not None and not isinstance(budget, PoolBudget):
            raise ConfigurationError(
                f"budget={budget!r}: expected a PoolBudget, such as a manager's .budget; for a number, give "
                "budget=PoolBudget(number), or max_size= where it is this pool's alone",
                field="budget",
            )
        self.config = config
        options = self._options(sizes, config)
        if config is not None:
            note_unknown_host(config)
            credentials = credentials or credential_source(config, is_async=self._is_async)
        connector = connector_class(
            self.connection_class,
            self.conninfo,
            self.kwargs,
            credentials=credentials,
            configure=self._configure,
            settings=config,
            check=self._check,
            owner=weakref.ref(self),
            is_guarded=config is not None and config.transaction_mode_guard,
            patience=self.reconnect_timeout,
            on_crowded=on_crowded or (None if budget is None else budget.squeeze),
        )
        self._service = service_class(connector, options=options, **service)
        self.name = self._service.name
        self._key = service["key"]
        self._closed = True
        self._opened = False

    def _options(self, given: dict[str, Any], config: LakebasePoolConfig | None) -> PoolingServiceOptions:
        """Work out settings from psycopg_pool's arguments or a configuration; the service's options."""
        if config is not None:
            options = config.options()
            if given["max_waiting"] is None:
                given["max_waiting"] = options.max_waiting or 0
        else:
            minimum, maximum = _sizes(4 if given["min_size"] is None else given["min_size"], given["max_size"])
            given["min_size"], given["max_size"] = minimum, maximum
            defaults = {"timeout": 30.0, "max_waiting": 0, "max_lifetime": 3600.0, "max_idle": 600.0}
            given.update({name: value for name, value in defaults.items() if given[name] is None})
            options = PoolingServiceOptions()
        changes = {name: value for name, value in given.items() if value is not None and name != "max_waiting"}
        if "min_size" in changes and "max_size" not in changes:
            changes["max_size"] = max(options.max_size, changes["min_size"])
        # psycopg_pool's 0 is no limit; nobody builds a pool that nobody may wait for.
        changes["max_waiting"] = given["max_waiting"] or None
        if self._check is not None:
            changes["validate_on_acquire"] = True
        changed = _changed if isinstance(options.validate_on_acquire, bool) else PoolingServiceOptions.replaced
        options = changed(options, inline_hooks=not self._is_async, **changes)
        self.timeout = options.timeout
        self.max_waiting = given["max_waiting"] or 0
        self.max_lifetime = options.max_lifetime
        self.max_idle = options.max_idle
        self._base_stats = _NO_STATS
        self._usage = 0.0
        self._returned_bad = 0
        return options

    if not TYPE_CHECKING:  # there, they are psycopg_pool's
        # Private there, and looked at all the same.
        _sched_runner = None
        _workers = ()

        @property
        def _pool(self) -> list[Any]:
            return [slot.value for slot in tuple(self._service._ledger.idle)]

        @property
        def _waiting(self) -> tuple[None, ...]:
            return (None,) * self._service.pending

        @property
        def _nconns(self) -> int:
            return self._service.size

    @property
    def _connector(self) -> Any:
        return self._service.factory

    @property
    def min_size(self) -> int:
        """Connections kept open."""
        return self._service.options.min_size  # type: ignore[no-any-return]

    @property
    def max_size(self) -> int:
        """Most connections at once."""
        return self._service.options.max_size  # type: ignore[no-any-return]

    @property
    def closed(self) -> bool:
        """`True` before `open()` and after `close()`."""
        return self._closed

    def get_stats(self) -> dict[str, int]:
        """
        The pool's numbers under psycopg_pool's names; those that count do so since the last `pop_stats`.

        A count that is zero may be missing, as there.
        """
        counted = self._counted()
        base = self._base_stats
        numbers = {name: value - base.get(name, 0) for name, value in counted.items()}
        return {**{name: value for name, value in numbers.items() if value}, **self._measured()}

    def pop_stats(self) -> dict[str, int]:
        """As `get_stats`; the counts begin anew."""
        numbers = self.get_stats()
        self._base_stats = self._counted()
        return numbers

    def _counted(self) -> dict[str, int]:
        stats = self._service.stats()
        return {
            "requests_num": stats.requested,
            "requests_queued": stats.queued,
            "requests_wait_ms": round((stats.wait_time.sum + stats.waited_in_vain) * 1000),
            "requests_errors": stats.timeouts + stats.rejected + stats.cancelled + stats.dismissed,
            "usage_ms": round(self._usage * 1000),
            "returns_bad": self._returned_bad,
            "connections_num": stats.created + stats.create_failures,
            "connections_ms": round(stats.create_time.sum * 1000),
            "connections_errors": stats.create_failures,
            "connections_lost": stats.destroyed_by.get("invalid", 0),
        }

    def _measured(self) -> dict[str, int]:
        stats = self._service.stats()
        return {
            "pool_min": stats.min_size,
            "pool_max": stats.max_size,
            "pool_size": stats.size - stats.closing,
            "pool_available": stats.available,
            "requests_waiting": stats.pending,
        }

    def _translated(self, error: PoolingError) -> Exception:
        """The engine's error as one that is psycopg_pool's too; a failed connect as what failed."""
        facts = {"pool": error.pool, "key": error.key, "step": error.step, "counts": error.counts}
        translated: Exception
        if isinstance(error, PoolTimeoutError):
            translated = LakebasePoolTimeout(self._timed_out(error), timeout=error.timeout, **facts)
        elif isinstance(error, PoolClosedError):
            translated = LakebasePoolClosed(f"the {self._title} was closed; {self._renewal}", **facts)
        elif isinstance(error, PoolExhaustedError):
            translated = LakebaseTooManyRequests(str(error), limit=error.limit, **facts)
        elif isinstance(error, CreateError) and isinstance(
            error.__cause__, (ConnectError, CredentialError, ConfigurationError)
        ):
            # One failed login answers everybody in the queue: each gets an error, and a traceback, of its own.
            cause = error.__cause__
            if isinstance(cause, ConnectError):
                translated = type(cause)(str(cause), failure=cause.failure, **facts)
            elif isinstance(cause, ConfigurationError):
                translated = ConfigurationError(str(cause), field=cause.field, **facts)
            else:
                translated = type(cause)(str(cause), is_transient=cause.is_transient, **facts)
            translated.__cause__ = cause.__cause__
            return translated
        elif isinstance(error, ReleaseError):
            translated = ValueError(f"can't return connection to {self._title}: {error}")
        else:
            return error
        translated.__cause__ = error.__cause__
        return translated

    def _timed_out(self, error: PoolTimeoutError) -> str:
        """The engine's words, with what was under way by its own name, and the cause's words."""
        text, cause = str(error), error.__cause__
        if error.step == "creating":
            text = text.replace("(step: creating)", f"(step: {self._connector.doing})")
        # These have been cleared of secrets; a driver's own, or a callback's, have not.
        if isinstance(cause, LakebaseError):
            text += f"\n{type(cause).__name__}: {cause}"
        return text

    @property
    def _title(self) -> str:
        return f"pool {self.name!r}" if self._key is None else f"pool {self.name!r} of key {self._key!r}"

    def _not_ours(self, conn: Any) -> ValueError:
        pool = getattr(conn, "_pool", None)
        if pool:
            where = f"it comes from {pool._title if isinstance(pool, PoolBase) else f'pool {pool.name!r}'}"
        else:
            where = "it doesn't come from any pool"
        return ValueError(f"can't return connection to {self._title}, {where}: {conn}")

    def _open(self) -> None:
        if not self._closed:
            return
        if self._opened:
            raise LakebasePoolClosed(
                f"the {self._title} has already been opened/closed and cannot be reused; {self._renewal}",
                pool=self.name,
                key=self._key,
            )
        self._closed = False
        self._opened = True

    def _check_open(self) -> None:
        if self._closed:
            advice = f"is already closed; {self._renewal}" if self._opened else "is not open yet; call open()"
            raise LakebasePoolClosed(f"the {self._title} {advice}", pool=self.name, key=self._key)

    def __repr__(self) -> str:
        key = "" if self._key is None else f" of key {self._key!r}"
        state = "closed" if self._closed else "open"
        return f"<{type(self).__name__} {self.name!r}{key} {state}: {self._service!r}>"


#: Arguments that are functions.
CALLBACKS = ("configure", "check", "reset", "reconnect_failed")


def check_callables(given: Mapping[str, Any], *, is_async: bool) -> None:
    """Refuse what cannot be called, and what a pool for threads would call and never run."""
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


@lru_cache(maxsize=256, typed=True)
def _changed(options: PoolingServiceOptions, **changes: Any) -> PoolingServiceOptions:
    """
    The same object for all pools with the same settings: a manager has thousands.

    Not for options with seconds in `validate_on_acquire`, of which 1.0 equals `True` and means something else.
    """
    return options.replaced(**changes)


def _sizes(minimum: int, maximum: int | None) -> tuple[int, int]:
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


def seconds_left(timeout: float | None) -> float | None:
    """psycopg_pool's timeout as ours: there, anything below zero has run out."""
    return None if timeout is None else max(timeout, 0.0) if not math.isnan(timeout) else 0.0
