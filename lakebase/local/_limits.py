"""How many direct connections a compute of a given size takes."""

from __future__ import annotations

__all__ = ["connection_limit"]

_MOST = 4000
# Fits every row of the documented table, 0.5 CU → 104 up to 32 CU → 4000:
# https://docs.databricks.com/aws/en/oltp/projects/compute
_BYTES_PER_UNIT = 2_000_000_000
_BYTES_PER_CONNECTION = 9_531_392


def connection_limit(compute_units: float) -> int:
    """Direct connections at once, as Lakebase derives them from the compute's largest size."""
    if not isinstance(compute_units, (int, float)) or not 0.5 <= compute_units <= 112:
        raise ValueError(f"compute_units={compute_units!r}: expected 0.5 to 112")
    return min(_MOST, int(compute_units * _BYTES_PER_UNIT / _BYTES_PER_CONNECTION))
