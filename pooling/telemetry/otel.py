"""
Metrics and traces for OpenTelemetry. Needs `opentelemetry-api` alone: the app has the SDK and its exporters.

`instrument()` covers all pools of the process. Connections of a database are shown under the names of OpenTelemetry's
semantic conventions, `db.client.connection.*`, other resources under `pooling.resource.*`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from ..extras import Extra

with Extra("otel"):
    from opentelemetry import context as otel_context
    from opentelemetry import metrics, trace
    from opentelemetry.metrics import CallbackOptions, Observation
    from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode

from .._engine.tracing import FOLLOWERS, Follower
from ..errors import ConfigurationError
from ..locks import make_lock
from . import _recording
from ._gauges import Gauge, Point, gauges_of, named, points
from ._recording import POOL_KEY, POOL_NAME, Attributes, Keys, Metric, key_text

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter, MeterProvider
    from opentelemetry.trace import Span, Tracer, TracerProvider

    from .._engine.pool import Pool
    from .._engine.tracing import Acquisition

__all__ = ["Instrumentation", "instrument"]

log: logging.Logger = logging.getLogger("pooling")

_SCOPE = "pooling.telemetry.otel"
#: Seconds from which an acquisition is shown as a span.
SLOW = 0.05
_MOST_LINKS = 16
_DB, _OTHER = "db.client.connection", "pooling.resource"

_lock = make_lock()
_current: Instrumentation | None = None


def instrument(
    meter_provider: MeterProvider | None = None,
    tracer_provider: TracerProvider | None = None,
    *,
    keys: Keys = "none",
    slow: float = SLOW,
) -> Instrumentation:
    """
    Export the metrics and the spans of all pools of this process, present and future.

    Does not block. Calling it again replaces the instrumentation of before. The fast path of pools stays as it is.

    Args:
        meter_provider: `None` takes the global one.
        tracer_provider: `None` takes the global one.
        keys: Whether each key's values are shown, with an attribute: `none`, `hashed` or `plain`. A value for each of
            ten thousand users is more than most back ends take.
        slow: Seconds from which an acquisition becomes a span; one that fails always does.

    Returns:
        What ends it again: `uninstrument()`.

    Raises:
        ConfigurationError: A value that cannot be.
    """
    if keys not in ("none", "hashed", "plain"):
        raise ConfigurationError(f"keys={keys!r}: expected 'none', 'hashed' or 'plain'", field="keys")
    if isinstance(slow, bool) or not isinstance(slow, (int, float)) or not slow >= 0:
        raise ConfigurationError(f"slow={slow!r}: expected a number of seconds, 0 or more", field="slow")
    global _current  # noqa: PLW0603 - one for the process: a pool's events must not be counted twice
    with _lock:
        if _current is not None:
            _current.end()
        _current = Instrumentation(
            metrics.get_meter(_SCOPE, meter_provider=meter_provider),
            trace.get_tracer(_SCOPE, tracer_provider=tracer_provider),
            keys=keys,
            slow=slow,
        )
        _current.begin()
        return _current


class Instrumentation:
    """What `instrument` returns."""

    def __init__(self, meter: Meter, tracer: Tracer, *, keys: Keys, slow: float) -> None:
        self._instruments = _Instruments(meter, keys)
        self._spans = _Spans(tracer, keys, slow)
        self._is_on = False

    def begin(self) -> None:
        """Begin to export."""
        self._is_on = True
        self._instruments.begin()
        _recording.start(self._instruments)
        FOLLOWERS.add(self._spans)
        _recording.make_span, _recording.carry_span = self._spans.around, self._spans.carry

    def end(self) -> None:
        """End to export."""
        if self._is_on:
            self._is_on = False
            _recording.stop(self._instruments)
            self._instruments.end()
            FOLLOWERS.remove(self._spans)
            _recording.make_span = _recording.carry_span = None

    def uninstrument(self) -> None:
        """Stop exporting. Instruments that were made stay with their provider, without values."""
        global _current  # noqa: PLW0603
        with _lock:
            self.end()
            if _current is self:
                _current = None


class _Instruments:
    """The instruments of one meter: gauges are observed from a snapshot, the others record events."""

    def __init__(self, meter: Meter, keys: Keys) -> None:
        self.keys: Keys = keys
        self._meter = meter
        self._made: dict[str, Any] = {}
        self._lock = make_lock()
        self._is_on = True
        self._points: dict[str, list[tuple[Gauge, Point]]] = {}
        self._unread: set[str] = set()

    def begin(self) -> None:
        for prefix in (_DB, _OTHER):
            self._make_gauges(prefix)
            for name in ("timeouts", "create_time", "wait_time", "use_time"):
                self._instrument(_recording.pool_metric(prefix, name))

    def end(self) -> None:
        self._is_on = False

    # -- events ------------------------------------------------------------------

    def add(self, metric: Metric, amount: int, attributes: Attributes) -> None:
        self._instrument(metric).add(amount, attributes)

    def record(self, metric: Metric, seconds: float, attributes: Attributes) -> None:
        self._instrument(metric).record(seconds, attributes)

    def _instrument(self, metric: Metric) -> Any:
        found = self._made.get(metric.name)
        if found is None:
            make = self._meter.create_counter if metric.kind == "counter" else self._meter.create_histogram
            with self._lock:
                found = self._made.get(metric.name) or make(metric.name, metric.unit, metric.description)
                self._made[metric.name] = found
        return found

    # -- gauges ------------------------------------------------------------------

    def _make_gauges(self, prefix: str) -> None:
        for _, name, unit, description in gauges_of(prefix):
            if name not in self._made:
                callback = self._observer(name)
                self._made[name] = self._meter.create_observable_up_down_counter(name, [callback], unit, description)

    def _observer(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return [
                Observation(point.value, dict(named(gauge, point, self.keys))) for gauge, point in self._points_of(name)
            ]

        return observe

    def _points_of(self, name: str) -> list[tuple[Gauge, Point]]:
        """
        What a gauge shows. All gauges of one collection share one snapshot.

        A gauge that asks again, in the next collection, has a new one taken.
        """
        if not self._is_on:
            return []
        with self._lock:
            if name not in self._unread:
                _recording.flush()  # the histograms are read after the gauges
                self._points = {}
                for point in points(self.keys):
                    self._points.setdefault(point.gauge.name_under(point.prefix), []).append((point.gauge, point))
                self._unread = set(self._made)
            self._unread.discard(name)
            return self._points.get(name, [])


class _Spans(Follower):
    """Makes spans of slow acquisitions, of creates, and of what other packages time."""

    def __init__(self, tracer: Tracer, keys: Keys, slow: float) -> None:
        self._tracer = tracer
        self._keys: Keys = keys
        self._slow = slow

    def _attributes(self, pool: Pool) -> dict[str, Any]:
        attributes = {POOL_NAME: pool.name}
        if self._keys != "none" and pool.key is not None:
            attributes[POOL_KEY] = key_text(pool.key, self._keys)
        return attributes

    def here(self) -> SpanContext | None:
        found = trace.get_current_span().get_span_context()
        return found if found.is_valid else None

    def ended(self, take: Acquisition, now: float, error: BaseException | None) -> None:
        """Make the span of an acquisition afterwards, as a part of the borrower's."""
        if (now - take.began < self._slow and error is None) or not isinstance(error, Exception | None):
            return
        behind = time.time_ns() - int(now * 1e9)  # of the pool's clock

        def instant(seconds: float) -> int:
            return int(seconds * 1e9) + behind

        span = self._tracer.start_span(
            "pooling.acquire", start_time=instant(take.began), attributes=self._attributes(take.pool)
        )
        for step, when in sorted(take.marks or (), key=lambda mark: mark[1]):
            span.add_event(step, timestamp=instant(max(when, take.began)))
        _close(span, error)
        span.end(instant(now))

    @contextmanager
    def creating(self, pool: Pool, waiting: list[SpanContext]) -> Iterator[Span]:
        """A span around a create, linked to those of the borrowers that wait."""
        links = [Link(place) for place in waiting[:_MOST_LINKS]]
        with self._span("pooling.create", self._attributes(pool), SpanKind.INTERNAL, links) as span:
            yield span

    def around(self, name: str, attributes: Attributes) -> AbstractContextManager[Any]:
        """A span of what another package times, such as a login."""
        return self._span(name, attributes, SpanKind.CLIENT)

    @contextmanager
    def _span(
        self, name: str, attributes: Attributes, kind: SpanKind, links: list[Link] | None = None
    ) -> Iterator[Span]:
        # An exception's words may name a user or more: the span has its type alone.
        with self._tracer.start_as_current_span(
            name,
            kind=kind,
            attributes=dict(attributes),
            links=links,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except BaseException as error:
                _close(span, error)
                raise

    def carry(self, function: Callable[[], Any]) -> Callable[[], Any]:
        """Call a function in another thread as a part of the present span."""
        here = trace.get_current_span()
        if not here.get_span_context().is_valid:
            return function

        def carried() -> Any:
            token = otel_context.attach(trace.set_span_in_context(here))
            try:
                return function()
            finally:
                otel_context.detach(token)

        return carried


def _close(span: Span, error: BaseException | None) -> None:
    if error is not None:
        span.set_attribute("error.type", type(error).__qualname__)
        span.set_status(Status(StatusCode.ERROR))
