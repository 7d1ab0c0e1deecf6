"""
What is counted and timed: events of pools, and what other packages count beside them.

Exporters are recorders. Without one, `count` and `timed` only keep the process's totals, and pools tell nobody.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeVar

from .._backends.fork import call_in_child
from .._engine.durations import DURATIONS, USE
from .._engine.observers import EVERYWHERE
from ..events import PoolEvent, PoolObserver
from ..locks import make_lock
from ._snapshot import hashed

if TYPE_CHECKING:
    from ..service import AsyncPoolingService, PoolingService

__all__ = [
    "Keys",
    "Metric",
    "Recorder",
    "carry",
    "count",
    "counts",
    "describe",
    "flush",
    "note_use",
    "record",
    "start",
    "stop",
    "timed",
]

R = TypeVar("R")

log = logging.getLogger("pooling")

Attributes = Mapping[str, str]
Kind = Literal["counter", "histogram"]
#: How a user's key appears in attributes: not at all, hashed, or as it is.
Keys = Literal["none", "hashed", "plain"]

NONE: Attributes = MappingProxyType({})
POOL_NAME = "pooling.pool.name"
POOL_KEY = "pooling.pool.key"


@dataclass(frozen=True, slots=True)
class Metric:
    """What a name stands for: a number of events (`counter`), or durations in seconds (`histogram`)."""

    name: str
    kind: Kind
    unit: str
    description: str
    attributes: tuple[str, ...] = ()


class Recorder(Protocol):
    """Where an exporter keeps what happens. What it raises is logged."""

    keys: Keys

    def add(self, metric: Metric, amount: int, attributes: Attributes) -> None:
        """Count events."""

    def record(self, metric: Metric, seconds: float, attributes: Attributes) -> None:
        """Note a duration."""


_metrics: dict[str, Metric] = {}
_recorders: tuple[Recorder, ...] = ()
_totals: Counter[str] = Counter()
_lock = make_lock()

#: Makes a span around the work of `timed`. Set by an exporter of traces.
make_span: Callable[[str, Attributes], AbstractContextManager[Any]] | None = None
#: Has a function called in another thread as a part of the present span. Set by an exporter of traces.
carry_span: Callable[[Callable[[], Any]], Callable[[], Any]] | None = None


def describe(
    name: str,
    kind: Kind,
    unit: str,
    description: str,
    attributes: tuple[str, ...] = (),
) -> None:
    """
    Say what a metric is, for `count` and `timed`. Call it once, where the module that counts is imported.

    Args:
        name: Such as `lakebase.logins`.
        kind: `counter` or `histogram`.
        unit: As in UCUM: `s`, or a word in braces such as `{login}`.
        description: One sentence.
        attributes: The names of its attributes; exporters that need all of them leave out others.
    """
    _metrics[name] = Metric(name, kind, unit, description, attributes)


def metric_of(name: str, kind: Kind, unit: str) -> Metric:
    """The metric of a name, described or not."""
    found = _metrics.get(name)
    if found is None:
        found = _metrics[name] = Metric(name, kind, unit, "")
    return found


def known_metrics() -> list[Metric]:
    """All that pools and the packages that were imported may count and time."""
    for prefix in ("db.client.connection", "pooling.resource"):
        for name in _POOL_METRICS:
            pool_metric(prefix, name)
    return [*_metrics.values(), CREATE_FAILURES, DESTROYED, LEAKS]


def count(name: str, amount: int = 1, attributes: Attributes = NONE) -> None:
    """
    Count events of a package that is built on pools, such as `lakebase.logins`, for all exporters and `counts()`.

    Never raises, and does not block. Attributes must have few values, and no secret or user in them.
    """
    with _lock:
        _totals[name] += amount
    if _recorders:
        _tell("add", metric_of(name, "counter", "1"), amount, attributes)


def record(name: str, seconds: float, attributes: Attributes = NONE) -> None:
    """Note a duration, as `count` an event."""
    if _recorders:
        _tell("record", metric_of(name, "histogram", "s"), seconds, attributes)


def counts() -> dict[str, int]:
    """What `count` and `timed` have counted in this process, by name."""
    with _lock:
        return dict(_totals)


def carry(function: Callable[[], R]) -> Callable[[], R]:
    """
    A function for another thread, whose spans become parts of the span that is current here.

    Without an exporter of traces it is the function itself. Other context variables are not carried.
    """
    if carry_span is None:
        return function
    try:
        return carry_span(function)
    except Exception:
        log.exception("a span could not be carried to another thread")
        return function


class timed:  # noqa: N801 - reads as a word in `with timed(...)`
    """
    A block that is counted, timed, and shown as a span to exporters of traces.

    A block that ends well counts under `{name}s`; one that raises under `{name}_failures`, with the error's type as
    attribute. Durations of both are recorded as `{name}.duration`.

    Args:
        name: Such as `lakebase.login`.
        attributes: As of `count`.
    """

    __slots__ = ("_attributes", "_began", "_name", "_span")

    def __init__(self, name: str, attributes: Attributes = NONE) -> None:
        self._name = name
        self._attributes = attributes

    def __enter__(self) -> Self:
        self._span = _span(self._name, self._attributes)
        self._began = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        seconds = time.monotonic() - self._began
        try:
            self._span.__exit__(kind, error, at)
        except Exception:
            log.exception("the span of %s could not be ended", self._name)
        attributes = self._attributes if kind is None else {**self._attributes, "error.type": kind.__qualname__}
        count(f"{self._name}s" if kind is None else f"{self._name}_failures", 1, attributes)
        record(f"{self._name}.duration", seconds, attributes)


def _span(name: str, attributes: Attributes) -> AbstractContextManager[Any]:
    """An entered span, or what does nothing."""
    if make_span is not None:
        try:
            span = make_span(name, attributes)
            span.__enter__()
        except Exception:
            log.exception("no span could be made for %s", name)
        else:
            return span
    return nullcontext()


def note_use(service: PoolingService[Any] | AsyncPoolingService[Any], seconds: float) -> None:
    """
    Record how long a resource of this service was out, for a wrapper that has measured it.

    Does nothing without an exporter, and where the service measures each use itself: if a hook runs at each release.
    """
    if DURATIONS.are_wanted and service.engine.ledger.plain:
        DURATIONS.add(service.engine, USE, seconds)


def flush() -> None:
    """Have exporters record the waits and uses that they have not seen yet. Exporters call it when they are read."""
    for prefix, pool, key, what, seconds in DURATIONS.read():
        _tell("record", pool_metric(prefix, what), seconds, {f"{prefix}.pool.name": pool}, key)


def _flush_soon() -> None:
    """Flush in the background: a borrower calls."""
    try:
        threading.Thread(target=flush, name="pooling-telemetry", daemon=True).start()
    except RuntimeError:  # no thread to be had, as at the end of the process
        flush()


def start(recorder: Recorder) -> None:
    """Tell this recorder of all events of pools from now on, and of what is counted and timed."""
    global _recorders  # noqa: PLW0603 - one list for the process, replaced as a whole
    with _lock:
        _recorders = (*(one for one in _recorders if one is not recorder), recorder)
    EVERYWHERE.add(_METERING)
    DURATIONS.is_full, DURATIONS.are_wanted = _flush_soon, True


def stop(recorder: Recorder) -> None:
    """Tell this recorder no more."""
    flush()
    global _recorders  # noqa: PLW0603
    with _lock:
        _recorders = tuple(one for one in _recorders if one is not recorder)
    if not _recorders:
        EVERYWHERE.remove(_METERING)
        DURATIONS.are_wanted = False
        DURATIONS.read()


def _tell(what: str, metric: Metric, amount: float, attributes: Attributes, key: Any = None) -> None:
    for recorder in _recorders:
        try:
            shown = attributes if key is None or recorder.keys == "none" else _with_key(attributes, key, recorder.keys)
            getattr(recorder, what)(metric, amount, shown)
        except Exception:
            log.exception("%s could not be recorded", metric.name)


def _with_key(attributes: Attributes, key: Any, keys: Keys) -> Attributes:
    return {**attributes, POOL_KEY: key_text(key, keys)}


def key_text(key: Any, keys: Keys) -> str:
    """A key as attributes show it."""
    return str(key) if keys == "plain" else hashed(key)


_POOL_METRICS: dict[str, tuple[Kind, str, str]] = {
    "timeouts": ("counter", "{timeout}", "Borrowers that got no {noun} within their timeout."),
    "create_time": ("histogram", "s", "The time it took to create a new {noun}."),
    "wait_time": ("histogram", "s", "The time it took to obtain a {noun}, of borrowers that had to wait."),
    "use_time": ("histogram", "s", "The time between borrowing a {noun} and returning it."),
}


class _Metering(PoolObserver):
    """Turns the events of pools into metrics, under the prefix of each pool."""

    def on_created(self, event: PoolEvent) -> None:
        self._record(event, "create_time", event.duration)

    def on_create_failed(self, event: PoolEvent) -> None:
        failure = "" if event.error is None else type(event.error).__qualname__
        _tell("add", CREATE_FAILURES, 1, {POOL_NAME: event.pool, "error.type": failure}, event.key)

    def on_destroyed(self, event: PoolEvent) -> None:
        _tell("add", DESTROYED, 1, {POOL_NAME: event.pool, "pooling.reason": event.reason}, event.key)

    def on_timeout(self, event: PoolEvent) -> None:
        metric = pool_metric(event.metric_prefix, "timeouts")
        _tell("add", metric, 1, {f"{event.metric_prefix}.pool.name": event.pool}, event.key)

    def on_leaked(self, event: PoolEvent) -> None:
        _tell("add", LEAKS, 1, {POOL_NAME: event.pool}, event.key)

    def _record(self, event: PoolEvent, name: str, seconds: float | None) -> None:
        if seconds is not None:
            metric = pool_metric(event.metric_prefix, name)
            _tell("record", metric, seconds, {f"{event.metric_prefix}.pool.name": event.pool}, event.key)


def pool_metric(prefix: str, name: str) -> Metric:
    full = f"{prefix}.{name}"
    found = _metrics.get(full)
    if found is None:
        kind, unit, text = _POOL_METRICS[name]
        noun = prefix.rpartition(".")[2]
        found = _metrics[full] = Metric(full, kind, unit, text.format(noun=noun), (f"{prefix}.pool.name",))
    return found


CREATE_FAILURES = Metric(
    "pooling.create_failures", "counter", "{failure}", "Creates that failed.", (POOL_NAME, "error.type")
)
DESTROYED = Metric(
    "pooling.destroyed", "counter", "{resource}", "Resources destroyed, by reason.", (POOL_NAME, "pooling.reason")
)
LEAKS = Metric(
    "pooling.leaks", "counter", "{leak}", "Resources that were out for longer than leak_timeout.", (POOL_NAME,)
)

_METERING = _Metering()


def _in_child() -> None:
    global _lock  # noqa: PLW0603 - another thread of the parent may have held it
    _lock = make_lock()
    _totals.clear()
    DURATIONS.read()


call_in_child(_in_child)
