"""
See the pools of a process: their numbers, their events, and what is counted beside them.

Everything here uses the standard library only. `pooling.telemetry.otel` exports to OpenTelemetry,
`pooling.telemetry.prometheus` to Prometheus; each is imported by itself.
"""

from __future__ import annotations

from ._events import observe, unobserve
from ._recording import carry, count, counts, describe, note_use, timed
from ._snapshot import BudgetNumbers, PoolNumbers, ServiceSnapshot, hashed, snapshot

__all__ = [
    "BudgetNumbers",
    "PoolNumbers",
    "ServiceSnapshot",
    "carry",
    "count",
    "counts",
    "describe",
    "hashed",
    "note_use",
    "observe",
    "snapshot",
    "timed",
    "unobserve",
]
