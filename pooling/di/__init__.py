"""
Pools and their values, injected by `dependency-injector`.

A `Container` declares pools (`Pool`, `AsyncPool`), the value that a request takes from a pool (`Pooled`) or has made
for it (`PerRequest`), and the objects built on that; `inject` passes them to functions. See `docs/injection.md`.
"""

from .container import Container
from .inject import Inject, inject, part, task
from .providers import AsyncPool, Factory, Managed, PerRequest, Pool, Pooled

__all__ = [
    "AsyncPool",
    "Container",
    "Factory",
    "Inject",
    "Managed",
    "PerRequest",
    "Pool",
    "Pooled",
    "inject",
    "part",
    "task",
]
