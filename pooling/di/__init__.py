"""
Pools and their values, injected by `dependency-injector`.

A `Container` declares pools (`Pool`, `AsyncPool`), the value a request takes from one (`Pooled`) and what is built
on it; `inject` hands that to functions. See `docs/injection.md`.
"""

from ._factory import Factory
from ._injection import Inject, inject
from ._managed import Managed
from ._pools import AsyncPool, Pool
from ._slots import Pooled
from ._tasks import task
from .container import Container

__all__ = ["AsyncPool", "Container", "Factory", "Inject", "Managed", "Pool", "Pooled", "inject", "task"]
