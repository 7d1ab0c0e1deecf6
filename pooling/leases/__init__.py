"""
Where the processes that share a limit agree on how many places each has; for `pooling.SharedBudget`.

`FileLeases` serves the processes of one host, without a service. `RedisLeases` and `PostgresLeases` serve many hosts,
`RayLeases` the nodes of a Ray cluster.
"""

from __future__ import annotations

from ._files import FileLeases
from ._postgres import PostgresLeases
from ._ray import RayLeases
from ._redis import RedisLeases
from ._store import LeaseSession, LeaseStore, StoreError

__all__ = ["FileLeases", "LeaseSession", "LeaseStore", "PostgresLeases", "RayLeases", "RedisLeases", "StoreError"]
