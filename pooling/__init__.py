"""
Resource pools for threads and asyncio, and pooled values injected per request.

`PoolingService` and `AsyncPoolingService` are the pools, `PoolFactory` creates their resources,
`RequestContext` is one request. `pooling.di` binds pools in a dependency-injection container, `pooling.web` opens a
request for each web request.
"""

from __future__ import annotations

from ._single_flight import SingleFlight, TaskFlight
from .binding import create_pooled_binding_factory
from .budget import PoolBudget
from .context import LazyValue, MissingValueError, RequestContext
from .errors import (
    ConfigurationError,
    CreateError,
    PoolClosedError,
    PoolCounts,
    PoolExhaustedError,
    PoolingError,
    PoolTimeoutError,
    ReleaseError,
    RequestContextError,
    UnauthenticatedError,
)
from .events import PoolEvent, PoolObserver
from .factory import Poolable, PoolFactory
from .keyed import AsyncKeyedPoolingService, KeyedPoolingService, KeyedPoolStats
from .lease import AsyncLease, AsyncPooledValue, Lease, PooledValue, get_pooled_value
from .options import PoolingServiceOptions, PoolingServiceOptionsDict
from .service import AsyncPoolingService, PoolingService
from .shared_budget import SharedBudget
from .stats import Histogram, Holder, PoolStats, Waiting

__all__ = [
    "AsyncKeyedPoolingService",
    "AsyncLease",
    "AsyncPooledValue",
    "AsyncPoolingService",
    "ConfigurationError",
    "CreateError",
    "Histogram",
    "Holder",
    "KeyedPoolStats",
    "KeyedPoolingService",
    "LazyValue",
    "Lease",
    "PoolBudget",
    "MissingValueError",
    "PoolClosedError",
    "PoolCounts",
    "PoolEvent",
    "PoolExhaustedError",
    "PoolFactory",
    "PoolObserver",
    "PoolStats",
    "PoolTimeoutError",
    "Poolable",
    "PooledValue",
    "PoolingError",
    "PoolingService",
    "PoolingServiceOptions",
    "PoolingServiceOptionsDict",
    "ReleaseError",
    "RequestContext",
    "RequestContextError",
    "SharedBudget",
    "SingleFlight",
    "TaskFlight",
    "UnauthenticatedError",
    "Waiting",
    "create_pooled_binding_factory",
    "get_pooled_value",
]
