"""
How many connections Lakebase takes, and whether a budget fits.

Numbers are from the documentation of Databricks, as of late 2026:
https://docs.databricks.com/aws/en/oltp/projects/manage-computes (connections by
compute size), https://docs.databricks.com/aws/en/oltp/projects/connection-pooling
(the pooler's) and https://docs.databricks.com/aws/en/oltp/instances/instance
(provisioned instances).
"""

from __future__ import annotations

import math
import sys
import warnings
from typing import TYPE_CHECKING

from pooling.errors import ConfigurationError

if TYPE_CHECKING:
    from ._settings import Settings

__all__ = [
    "POOLER_CLIENT_CONNECTIONS",
    "POOLER_QUEUE_SECONDS",
    "PROVISIONED_CONNECTIONS",
    "ConnectionBudgetWarning",
    "direct_connections",
    "over_limit",
    "pooler_server_connections",
    "smallest_compute",
    "warn_if_over_limit",
]

#: Clients that the built-in pooler of one endpoint serves.
POOLER_CLIENT_CONNECTIONS = 10_000
#: Seconds that a client of the pooler waits at most for a server connection; then the pooler drops it.
POOLER_QUEUE_SECONDS = 120.0
#: Connections to one provisioned instance, of any capacity.
PROVISIONED_CONNECTIONS = 1000

_DOCUMENTED = {0.5: 104, 1: 209, 2: 419, 3: 629, 4: 839, 8: 1678, 16: 3357, 32: 4000}
_MOST = 4000
_SMALLEST, _LARGEST = 0.5, 112
# A compute unit has about 2 GB. This many bytes for each connection fit every documented size; no page states the rule.
_BYTES_PER_UNIT = 2_000_000_000
_BYTES_PER_CONNECTION = 9_531_392
_POOLER_SHARE = 0.9
_PACKAGE = __name__.partition(".")[0]


class ConnectionBudgetWarning(UserWarning):
    """The connections that may be opened are more than the endpoint takes."""


def direct_connections(compute_units: float) -> int:
    """
    Most direct connections to an autoscaling endpoint.

    The documented number for a documented size; between them, what fits all of these.

    Args:
        compute_units: The upper end of the endpoint's range: the limit follows that, not the current size.

    Raises:
        ConfigurationError: No endpoint has this size.
    """
    is_number = isinstance(compute_units, (int, float)) and not isinstance(compute_units, bool)
    if not is_number or not _SMALLEST <= compute_units <= _LARGEST:
        raise ConfigurationError(
            f"compute_units={compute_units!r}: expected {_SMALLEST} to {_LARGEST}, the upper end of its range",
            field="compute_units",
        )
    if (documented := _DOCUMENTED.get(compute_units)) is not None:
        return documented
    return min(_MOST, math.floor(compute_units * _BYTES_PER_UNIT / _BYTES_PER_CONNECTION))


def smallest_compute(connections: int) -> float | None:
    """The smallest documented compute size, in CU, that takes this many direct connections; `None` if none does."""
    _check_whole("connections", connections, 0)
    return next((size for size, limit in sorted(_DOCUMENTED.items()) if connections <= limit), None)


def pooler_server_connections(compute_units: float) -> int:
    """Most connections that the pooler opens for one user on one database: about nine tenths of the direct limit."""
    return math.floor(direct_connections(compute_units) * _POOLER_SHARE)


def over_limit(
    budget: float,
    *,
    compute_units: float | None = None,
    replicas: int = 1,
    pooled: bool = False,
    provisioned: bool = False,
) -> str | None:
    """
    Why the connections of all replicas cannot be had, or `None` if they can, or if the size is not known.

    Args:
        budget: Most connections of one process: `max_total` of a manager, `max_size` of a single pool. `math.inf` for
            no limit.
        compute_units: Upper end of the endpoint's range.
        replicas: Processes that open as many each: replicas of the app times workers of each.
        pooled: Through the built-in pooler, whose clients are counted instead.
        provisioned: To an instance of provisioned Lakebase.

    Raises:
        ConfigurationError: A number is none, or no endpoint has this size.
    """
    if budget != math.inf:
        _check_whole("budget", budget, 0)
    _check_whole("replicas", replicas, 1)
    for name, value in (("pooled", pooled), ("provisioned", provisioned)):
        if not isinstance(value, bool):
            raise ConfigurationError(f"{name}={value!r}: expected True or False", field=name)
    total = budget * replicas
    if pooled:
        limit, what = POOLER_CLIENT_CONNECTIONS, "clients of the built-in pooler"
    elif provisioned:
        limit, what = PROVISIONED_CONNECTIONS, "connections to a provisioned instance"
    elif compute_units is not None:
        limit, what = direct_connections(compute_units), f"direct connections at {compute_units:g} CU"
    else:
        return None
    if total <= limit:
        return None
    if total == math.inf:
        times = "Any number of connections"
    elif replicas != 1:
        times = f"{replicas} processes of {budget} connections are {total}"
    else:
        times = f"{total} connections"
    fewer = ", run fewer processes" if replicas != 1 else ""
    share = f", or share one limit below {limit}: budget=pooling.SharedBudget" if replicas != 1 and not pooled else ""
    return (
        f"{times}, more than the {limit} {what}: at the peak, some are refused with SQLSTATE 53300. Lower max_total= "
        f"(or max_size=) to {limit // replicas}{fewer}, or enlarge the compute{share}."
    )


def warn_if_over_limit(config: Settings, budget: int | None = None) -> None:
    """
    Warn of a configuration that may open more connections than there are, or wait longer than the pooler does.

    The warning points to the line outside this package that led to it.

    Args:
        config: Its `compute_units` and `replicas` are what is counted with.
        budget: Most connections of this process; `None` is the configuration's `max_size`.
    """
    reason = over_limit(
        config.max_size if budget is None else budget,
        compute_units=config.compute_units,
        replicas=config.replicas,
        pooled=config.pooled,
        provisioned=config.instance_name is not None,
    )
    if reason is not None:
        warnings.warn(reason, ConnectionBudgetWarning, stacklevel=_outside())
    if config.pooled and config.timeout > POOLER_QUEUE_SECONDS:
        warnings.warn(
            f"timeout={config.timeout:g} s is longer than the {POOLER_QUEUE_SECONDS:g} s after which the built-in "
            "pooler drops a client that waits for a server connection; what is above that has no effect",
            ConnectionBudgetWarning,
            stacklevel=_outside(),
        )


def _check_whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigurationError(f"{name}={value!r}: expected a whole number, {least} or more", field=name)


def _outside() -> int:
    # As `warnings.warn` counts from its caller, whose callee this is.
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        level, frame = level + 1, frame.f_back
    return level
