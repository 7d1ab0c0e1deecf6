"""
Metrics for Prometheus, with `prometheus-client`. Alone, and in its multi-process mode under gunicorn or uvicorn.

The names are those that OpenTelemetry's metrics get in Prometheus, so one dashboard serves both.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..extras import Extra

with Extra("prometheus"):
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.multiprocess import mark_process_dead
    from prometheus_client.registry import Collector

from .._backends.fork import Survivors
from ..errors import ConfigurationError
from ..locks import make_lock
from . import _recording
from ._gauges import gauges_of, points
from ._recording import POOL_KEY, Attributes, Keys, Metric

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

    from ._gauges import Point

__all__ = ["BUCKETS", "PoolCollector"]

log: logging.Logger = logging.getLogger("pooling")

#: Upper bounds in seconds of the histograms: from a wait for another request to a login that times out.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
#: Seconds between two writes of a worker's gauges in multi-process mode.
INTERVAL = 5.0
_DB, _OTHER = "db.client.connection", "pooling.resource"
_NO_NAME = re.compile(r"\W", re.ASCII)
_LIVE_FILE = re.compile(r"gauge_live\w+_(\d+)\.db")


_collectors: Survivors[PoolCollector] = Survivors()


class PoolCollector(Collector):
    """
    Collects the metrics of all pools of this process; registers itself.

    A scrape reads one snapshot of all pools. Counters and histograms count events from the collector's construction
    on, so construct it where the app is imported.

    In multi-process mode (`PROMETHEUS_MULTIPROC_DIR` is set) each worker writes to files, which prometheus-client's
    `MultiProcessCollector` adds up: a daemon thread, begun by the first event of a pool, writes the gauges.

    Args:
        registry: Where to register; `None` registers nowhere, and you call `collect`.
        keys: Whether each key's values are shown, with a label: `none`, `hashed` or `plain`.
        interval: Seconds between two writes of the gauges in multi-process mode.

    Raises:
        ConfigurationError: A value that cannot be.
        ValueError: The registry has such a collector already.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = REGISTRY,
        *,
        keys: Keys = "none",
        interval: float = INTERVAL,
    ) -> None:
        if keys not in ("none", "hashed", "plain"):
            raise ConfigurationError(f"keys={keys!r}: expected 'none', 'hashed' or 'plain'", field="keys")
        if isinstance(interval, bool) or not isinstance(interval, (int, float)) or not interval > 0:
            raise ConfigurationError(f"interval={interval!r}: expected a number of seconds above 0", field="interval")
        self.keys: Keys = keys
        self._made: dict[str, Counter | Histogram] = {}
        self._lock = make_lock()
        self._writer = _GaugeWriter(keys, interval) if _is_multi_process() else None
        for prefix in (_DB, _OTHER):
            for name in ("timeouts", "create_time", "wait_time", "use_time"):
                self._metric(_recording.pool_metric(prefix, name))
        if registry is not None:
            registry.register(self)
        self._registry = registry
        _recording.start(self)
        _collectors.add(self)

    def close(self) -> None:
        """Stop counting, and leave the registry."""
        _recording.stop(self)
        if self._writer is not None:
            self._writer.stop()
        if self._registry is not None:
            self._registry.unregister(self)
            self._registry = None

    # -- events --------------------------------------------------------------------

    def add(self, metric: Metric, amount: int, attributes: Attributes) -> None:
        """Count events; for the pools."""
        self._labelled(metric, attributes).inc(amount)

    def record(self, metric: Metric, seconds: float, attributes: Attributes) -> None:
        """Note a duration; for the pools."""
        self._labelled(metric, attributes).observe(seconds)

    def _labelled(self, metric: Metric, attributes: Attributes) -> Any:
        if self._writer is not None:
            self._writer.start()
        values = [attributes.get(name, "") for name in self._attributes(metric)]
        found = self._metric(metric)
        return found.labels(*values) if values else found

    def _attributes(self, metric: Metric) -> tuple[str, ...]:
        is_of_a_pool = any(name.endswith(".pool.name") for name in metric.attributes)
        return (*metric.attributes, POOL_KEY) if self.keys != "none" and is_of_a_pool else metric.attributes

    def _metric(self, metric: Metric) -> Any:
        found = self._made.get(metric.name)
        if found is None:
            labels = [label(name) for name in self._attributes(metric)]
            name, text = label(metric.name), metric.description or metric.name
            with self._lock:
                found = self._made.get(metric.name)
                if found is not None:
                    return found
                if metric.kind == "counter":
                    found = Counter(name, text, labels, registry=None)
                else:
                    found = Histogram(f"{name}_seconds", text, labels, registry=None, buckets=BUCKETS)
                self._made[metric.name] = found
        return found

    # -- a scrape ------------------------------------------------------------------

    def describe(self) -> Iterable[Family]:
        """Nothing, so that registering takes no snapshot."""
        return []

    def collect(self) -> Iterable[Family]:
        """All metrics now. Empty in multi-process mode, where they are in the workers' files."""
        if self._writer is not None:
            self._writer.write()
            return []
        _recording.flush()
        found: dict[str, GaugeMetricFamily] = {}
        for point in points(self.keys):
            family = found.get(name := _name(point))
            if family is None:
                family = found[name] = GaugeMetricFamily(name, _described(point), labels=_labels(point, self.keys))
            family.add_metric(point.attributes, point.value)
        families: list[Family] = list(found.values())
        for metric in list(self._made.values()):
            families += metric.collect()
        return families

    def _renew(self) -> None:
        """In the child of a fork: its pools are new, and another thread of the parent may have held the lock."""
        self._lock = make_lock()
        if self._writer is None:
            self._made.clear()
        else:
            self._writer.in_child()


class _GaugeWriter:
    """In multi-process mode, writes a worker's gauges to its files."""

    def __init__(self, keys: Keys, interval: float) -> None:
        self._keys: Keys = keys
        self._interval = interval
        self._made: dict[str, Gauge] = {}
        self._written: dict[str, set[tuple[str, ...]]] = {}
        self._lock = make_lock()
        self._end = threading.Event()
        self._has_begun = False
        atexit.register(self._leave)

    def start(self) -> None:
        """Begin to write, in the background; once in each process."""
        if self._has_begun:
            return
        with self._lock:
            if self._has_begun or self._end.is_set():
                return
            self._has_begun = True
            threading.Thread(target=self._run, name="pooling-prometheus", daemon=True).start()

    def stop(self) -> None:
        """Write no more."""
        self._end.set()
        atexit.unregister(self._leave)

    def in_child(self) -> None:
        """In the child of a fork, where the thread does not exist."""
        self._lock = make_lock()
        self._end = threading.Event()
        self._has_begun = False
        self._made.clear()
        self._written.clear()

    def _run(self) -> None:
        while True:
            try:
                _forget_the_dead()
                self.write()
            except Exception:
                log.exception("the gauges of this worker could not be written")
            if self._end.wait(self._interval):
                return

    def write(self) -> None:
        """Write all gauges, and unread durations; a gauge that has no value any more becomes zero."""
        _recording.flush()
        with self._lock:
            now: dict[str, set[tuple[str, ...]]] = {}
            for point in points(self._keys):
                name = _name(point)
                self._gauge(point).labels(*point.attributes).set(point.value)
                now.setdefault(name, set()).add(point.attributes)
            for name, before in self._written.items():
                for attributes in before - now.get(name, set()):
                    self._made[name].labels(*attributes).set(0)
            self._written = now

    def _gauge(self, point: Point) -> Gauge:
        found = self._made.get(name := _name(point))
        if found is None:
            found = self._made[name] = Gauge(
                name, _described(point), _labels(point, self._keys), registry=None, multiprocess_mode="livesum"
            )
        return found

    def _leave(self) -> None:
        """At the end of the worker, its gauges leave the sums; its counters stay in them."""
        self._end.set()
        _recording.flush()
        mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]


def _forget_the_dead() -> None:
    """Remove the gauges of workers that were killed, or ended without a goodbye as uvicorn's do."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    for file in Path(folder or os.devnull).glob("gauge_live*.db"):
        found = _LIVE_FILE.fullmatch(file.name)
        if found is None:
            continue
        try:
            os.kill(int(found[1]), 0)
        except ProcessLookupError:
            try:
                mark_process_dead(int(found[1]))  # type: ignore[no-untyped-call]
            except OSError:  # another worker was faster
                continue
        except OSError:  # it is another user's
            continue


def _is_multi_process() -> bool:
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ or "prometheus_multiproc_dir" in os.environ


def label(name: str) -> str:
    """An OpenTelemetry name as Prometheus has it."""
    return _NO_NAME.sub("_", name)


def _name(point: Point) -> str:
    return label(point.gauge.name_under(point.prefix))


def _labels(point: Point, keys: Keys) -> list[str]:
    return [label(name) for name in point.gauge.attributes_under(point.prefix, keys)]


def _described(point: Point) -> str:
    noun = point.prefix.rpartition(".")[2]
    return point.gauge.description.format(noun)


def exported_names() -> set[str]:
    """The names of all metrics as Prometheus shows them; for checks of dashboards and rules."""
    gauges = {label(name) for prefix in (_DB, _OTHER) for _, name, _, _ in gauges_of(prefix)}
    others = {
        f"{label(metric.name)}_total" if metric.kind == "counter" else f"{label(metric.name)}_seconds"
        for metric in _recording.known_metrics()
    }
    return gauges | others


def exported_labels() -> set[str]:
    """The names of all labels, those of keys included; for the same checks."""
    gauges = [gauge.attributes_under(prefix, "plain") for prefix in (_DB, _OTHER) for gauge, *_ in gauges_of(prefix)]
    others = [metric.attributes for metric in _recording.known_metrics()]
    return {label(name) for names in (*gauges, *others) for name in names}
