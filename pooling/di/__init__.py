"""
Pools and their values, injected by `dependency-injector`.

A `Container` declares pools (`Pool`, `AsyncPool`), the value a request takes from one (`Pooled`) and what is built
on it; `inject` hands that to functions. See `docs/injection.md`.
"""

from .container import Container
from .inject import Inject, inject, task
from .providers import AsyncPool, Factory, Managed, Pool, Pooled

__all__ = ["AsyncPool", "Container", "Factory", "Inject", "Managed", "Pool", "Pooled", "inject", "task"]
