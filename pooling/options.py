"""Settings of one pool, checked where they are given."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Literal, TypedDict, Unpack

from .errors import ConfigurationError

__all__ = ["PoolingServiceOptions", "PoolingServiceOptionsDict"]

ON_ERROR = ("auto", "release", "destroy")


class PoolingServiceOptionsDict(TypedDict, total=False):
    """The fields of `PoolingServiceOptions` as a mapping or as keywords, for type checkers and editors."""

    min_size: int
    max_size: int
    timeout: float
    max_waiting: int | None
    priorities: int
    lifo: bool
    max_lifetime: float
    max_idle: float
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


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolingServiceOptions:
    """
    How a pool behaves. All durations are seconds; `math.inf` means unlimited and `0` means zero.

    Args:
        min_size: Resources made by `start()` and kept from then on.
        max_size: Most resources that exist at once, those being created or destroyed included.
        timeout: How long a borrower that gives no timeout waits at most, for queueing, creating,
            validating and the acquire hook together.
        max_waiting: Most borrowers that may queue; one more gets `PoolExhaustedError`
            at once. `None` is unlimited; `0` forbids queueing behind other borrowers.
        priorities: Number of queues. `acquire(priority=0)` is served first, `priorities - 1` last.
        lifo: `True` lends the resource given back last, so that few are in use and the rest
            reach `max_idle`; `False` lends the one given back first, so that all are used evenly.
        max_lifetime: Age at which a resource is replaced: at once if idle, else as it
            comes back. Each gets up to a tenth less, so that those created together are not replaced together.
        max_idle: Idle time after which a resource above `min_size` is destroyed.
        max_uses: Acquisitions after which a resource is replaced.
        validate_on_acquire: `False` never, `True` always (new resources, too). A number validates only
            a resource that has been idle for more than this many seconds.
        validate_on_release: Whether to validate a resource when it is given back.
        validate_idle: Interval at which idle resources are validated in the background; `None` for never.
        max_creating: Most creates at the same time. The default of two is that of MongoDB's
            connection pool specification: most borrowers of a burst then get a resource that was given back,
            instead of creating one each.
        create_timeout: Time after which a create counts as failed. The asyncio service
            cancels it. A thread cannot be interrupted, so there the place stays taken until `create`
            returns, and a resource that comes late is used.
        create_backoff: Pause after the first failed create; doubles with each further one, with jitter.
        create_backoff_max: The longest such pause.
        destroy_timeout: Time after which the pool stops waiting for a destroy or a release hook: it frees the
            place and logs a warning.
        leak_timeout: A resource that is out for longer is reported once, with the stack of its
            borrower. `None` switches this off, and its cost.
        on_error: What happens to a resource whose block in `lease()` raised, or that was given back by
            `release(value, exc)`: `"release"` resets it by the release hook, `"destroy"` destroys it, `"auto"`
            resets it if there is a release hook and destroys it otherwise.
        inline_hooks: Threads only. `True` runs validate and the acquire hook in the borrower's
            thread. That saves the change to a worker thread and keeps thread-locals, but a hook that
            blocks keeps its borrower past the timeout.
        use_times: Measure how long each resource is out (`PoolStats.use_time`).
    """

    min_size: int = 0
    max_size: int = 8
    timeout: float = 30.0
    max_waiting: int | None = None
    priorities: int = 1
    lifo: bool = True
    max_lifetime: float = math.inf
    max_idle: float = 600.0
    max_uses: float = math.inf
    validate_on_acquire: bool | float = False
    validate_on_release: bool = False
    validate_idle: float | None = None
    max_creating: int = 2
    create_timeout: float = math.inf
    create_backoff: float = 0.05
    create_backoff_max: float = 2.0
    destroy_timeout: float = 10.0
    leak_timeout: float | None = None
    on_error: Literal["auto", "release", "destroy"] = "auto"
    inline_hooks: bool = False
    use_times: bool = False

    def __post_init__(self) -> None:
        self._whole("min_size", at_least=0)
        self._whole("max_size", at_least=1)
        if self.min_size > self.max_size:
            raise _refused("min_size", self.min_size, f"at most max_size={self.max_size}")
        self._whole("priorities", at_least=1)
        self._whole("max_creating", at_least=1)
        if self.max_waiting is not None:
            self._whole("max_waiting", at_least=0)
        for name in ("timeout", "max_lifetime", "max_idle", "create_timeout", "destroy_timeout"):
            self._seconds(name)
        for name in ("create_backoff", "create_backoff_max"):
            self._seconds(name)
            if not 0 < getattr(self, name) < math.inf:
                raise _refused(name, getattr(self, name), "a number of seconds above 0")
        for name in ("leak_timeout", "validate_idle"):
            if getattr(self, name) is not None:
                self._seconds(name)
                if not getattr(self, name) > 0:
                    raise _refused(name, getattr(self, name), "a number of seconds above 0, or None")
        if self.max_uses != math.inf:
            self._whole("max_uses", at_least=1)
        for name in ("lifo", "validate_on_release", "inline_hooks", "use_times"):
            if not isinstance(getattr(self, name), bool):
                raise _refused(name, getattr(self, name), "True or False")
        since = self.validate_on_acquire
        if not isinstance(since, bool) and not (is_seconds(since) and since >= 0):
            raise _refused("validate_on_acquire", since, "True, False, or a number of seconds, 0 or more")
        if self.on_error not in ON_ERROR:
            raise _refused("on_error", self.on_error, "one of " + ", ".join(map(repr, ON_ERROR)))

    def _whole(self, name: str, *, at_least: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
            raise _refused(name, value, f"a whole number, at least {at_least}")

    def _seconds(self, name: str) -> None:
        value = getattr(self, name)
        if not is_seconds(value) or value < 0:
            raise _refused(name, value, "a number of seconds, 0 or more (math.inf for no limit)")

    def replaced(self, **changes: Unpack[PoolingServiceOptionsDict]) -> PoolingServiceOptions:
        """
        The same options with some fields changed.

        Raises:
            ConfigurationError: An unknown name, or a value that cannot work.
        """
        return replace(self, **_known(changes)) if changes else self

    @classmethod
    def gathered(
        cls,
        options: PoolingServiceOptions | Mapping[str, Any] | None,
        keywords: Mapping[str, Any],
        others: Iterable[str] = (),
    ) -> PoolingServiceOptions:
        """
        Options given as an object, as a mapping or as keywords; keywords win.

        Args:
            options: The object or mapping.
            keywords: By the names of fields.
            others: Further names that the caller accepts, for the message about an unknown name.
        """
        if options is None:
            return cls(**_known(keywords, others)) if keywords else _DEFAULTS
        if isinstance(options, Mapping):
            return cls(**_known({**options, **keywords}, others))
        if not isinstance(options, PoolingServiceOptions):
            raise ConfigurationError(
                f"options={options!r}: expected PoolingServiceOptions or a mapping of its fields", field="options"
            )
        return options.replaced(**keywords)


_HOOKS = ("destroy", "validate", "acquire", "release")


def _known(given: Mapping[str, Any], others: Iterable[str] = ()) -> Mapping[str, Any]:
    names = [field.name for field in fields(PoolingServiceOptions)]
    for name in given:
        if name in names:
            continue
        near = get_close_matches(name, [*names, *others], n=1, cutoff=0.7) if isinstance(name, str) else []
        if name == "create":
            hint = ": the factory is the first argument"
        elif name in _HOOKS:
            hint = f": it is a hook of the factory: PoolFactory.of(create, {name}=...)"
        elif near:
            hint = f"; did you mean {near[0]!r}?"
        else:
            hint = f"; known are {', '.join([*others, *names])}"
        raise ConfigurationError(f"unknown pool option {name!r}{hint}", field=str(name))
    return given


def refuse_unknown(given: Iterable[str], known: Sequence[str], of: str) -> None:
    """
    Refuse arguments that there are not, with the name that is meant.

    Raises:
        ConfigurationError: There is one.
    """
    for name in given:
        near = get_close_matches(name, known, n=1, cutoff=0.7)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        raise ConfigurationError(f"unknown argument {name!r} of {of}: {hint}", field=name)


def is_seconds(value: object) -> bool:
    """Whether this is a number that can be compared with a clock."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return not math.isnan(value)
    except OverflowError:  # a whole number beyond what a float can hold
        return False


def checked_seconds(value: float, field: str, where: str) -> float:
    """
    Check the timeout of a call; a negative one counts as 0.

    Raises:
        ConfigurationError: It is not a number.
    """
    if not is_seconds(value):
        raise ConfigurationError(
            f"{where}: {field}={value!r}: expected a number of seconds (math.inf for no limit)", field=field
        )
    return value


def _refused(field: str, value: object, allowed: str) -> ConfigurationError:
    return ConfigurationError(f"{field}={value!r}: expected {allowed}", field=field)


_DEFAULTS = PoolingServiceOptions()
