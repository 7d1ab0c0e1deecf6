"""
Spark: a pool in each Python worker of a job, and functions for `foreachPartition`, `mapInPandas` and `mapInArrow`.

An executor runs each of its tasks in a Python process, a worker, and keeps the worker for later tasks. So a pool that
belongs to the worker, not to a task, logs in once for many tasks. Nothing here imports Spark.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from pooling import SharedBudget
from pooling.locks import make_lock

from ._pool_arguments import PoolOverrides, split_overrides
from .config import LakebasePoolConfig
from .credentials import credential_source
from .endpoints import completed, is_incomplete
from .errors import ConfigurationError
from .pool import LakebasePool

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from psycopg import Connection

__all__ = ["ExecutorPool"]

RowT = TypeVar("RowT")
BatchT = TypeVar("BatchT")
ResultT = TypeVar("ResultT")

# A task may wait for the other tasks. Spark ends workers that have been idle for a minute, without notice: what is idle
# is closed before that, so that no place of a shared budget is left to run out.
_DEFAULTS = LakebasePoolConfig(timeout=300.0, max_idle=30.0)

_pools: dict[str, LakebasePool[Any]] = {}  # of this process
_lock = make_lock()


class ExecutorPool:
    """
    One pool in each process of a Spark job that uses it: the Python workers of the executors, and the driver.

    Make it once for a job, in the driver. It can be pickled, so functions that use it take it along to the executors;
    all its copies in one process have the same pool, which does no I/O before its first connection. A worker has as
    many connections as its task borrows at a time, which is one for the functions below. With
    `budget=SharedBudget(limit, store)` all workers together have at most `limit`, and tasks wait for one another.

    What is given here travels with the functions, a secret, too. What is missing comes from the environment of each
    process: on an executor that is the cluster's, where there are no credentials of a notebook.

    Spark repeats a task that failed or was lost, and with speculation runs it twice at once. Each batch that a task has
    committed stays. So write what may be written twice, as with `INSERT ... ON CONFLICT`.

    Args:
        config: Settings, or `None` for all from the environment of each process.
        **overrides: As those of `create_lakebase_pool`. By default `timeout` is 300 s here and `max_idle` 30 s.

    Raises:
        ConfigurationError: A setting that cannot work, or that cannot be sent to another process.
    """

    def __init__(
        self, config: LakebasePoolConfig | Mapping[str, Any] | None = None, **overrides: Unpack[PoolOverrides]
    ) -> None:
        settings, arguments = split_overrides(overrides)
        self._config = _DEFAULTS.merged(LakebasePoolConfig.of(config, **settings))
        self._arguments = {"name": "spark", **arguments}
        _check_travels(self._config, self._arguments)
        self._id = uuid.uuid4().hex

    @classmethod
    def as_driver(
        cls, config: LakebasePoolConfig | Mapping[str, Any] | None = None, **overrides: Unpack[PoolOverrides]
    ) -> Self:
        """
        A pool with this process's identity on the executors, too, such as that of a notebook's user.

        Asks the workspace for the host, the role and a password, which blocks for a request each, and sends these
        along. The password opens connections for an hour; those that are open then stay. A longer job needs an identity
        of its own in the cluster's environment.

        Args:
            config: Settings, or `None` for all from this process's environment.
            **overrides: As of `ExecutorPool`, and `workspace_client`.

        Raises:
            ConfigurationError: A setting is missing or cannot work.
            CredentialError: The workspace did not answer, or refused.
        """
        settings, arguments = split_overrides(overrides)
        own = LakebasePoolConfig.of(config, **settings).resolved()
        if is_incomplete(own):
            own = completed(own)
        password = credential_source(own).password()
        return cls(own, password=password, **arguments)

    def get_pool(self) -> LakebasePool[Connection[Any]]:
        """
        The pool of this process. Does no I/O.

        Raises:
            ConfigurationError: A setting is missing, here and in this process's environment.
        """
        with _lock:
            pool = _pools.get(self._id)
            if pool is None:
                pool = _pools[self._id] = LakebasePool(config=self._config, **self._arguments)
            return pool

    def connection(self, timeout: float | None = None) -> AbstractContextManager[Connection[Any]]:
        """
        A context manager: a connection of this process's pool, committed at the block's end, rolled back on an error.

        Args:
            timeout: Seconds to wait for it; `None` takes the pool's.
        """
        return self.get_pool().connection(timeout)

    def for_each_batch(
        self, write: Callable[[Connection[Any], list[RowT]], object], *, batch_size: int = 1000
    ) -> Callable[[Iterable[RowT]], None]:
        """
        A function for `DataFrame.foreachPartition`, which calls `write(conn, rows)` for each batch of a partition.

        Each batch is a transaction. The connection goes back in between, so that tasks take turns. A partition without
        rows needs none.

        Args:
            write: Gets a connection and at most `batch_size` rows. An error rolls its batch back, and fails the task.
            batch_size: Rows of a batch.

        Raises:
            ConfigurationError: `batch_size` is no whole number of at least 1.
        """
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
            raise ConfigurationError(
                f"batch_size={batch_size!r}: expected a whole number, at least 1", field="batch_size"
            )
        return partial(_for_each_batch, self, write, batch_size)

    def map_batches(
        self, function: Callable[[Connection[Any], BatchT], ResultT]
    ) -> Callable[[Iterable[BatchT]], Iterator[ResultT]]:
        """
        A function for `DataFrame.mapInPandas` or `mapInArrow`, which yields `function(conn, batch)` for each batch.

        Each batch is a transaction, as in `for_each_batch`. Spark chooses the batches:
        `spark.sql.execution.arrow.maxRecordsPerBatch` is their largest size. It may compute a frame several times, so
        prefer `for_each_batch` for writing.

        Args:
            function: Gets a connection and a batch, and returns one.
        """
        return partial(_map_batches, self, function)

    def close(self, timeout: float = 5.0) -> None:
        """
        Close the pool of this process, such as the driver's at the end of a job.

        The workers need no such call: they close what is idle, and Spark ends them.

        Args:
            timeout: Seconds to wait for idle connections to close.
        """
        with _lock:
            pool = _pools.pop(self._id, None)
        if pool is not None:
            pool.close(timeout)

    def __repr__(self) -> str:
        return f"<ExecutorPool {self._arguments['name']!r}: {self._config!r}, budget={self._arguments.get('budget')!r}>"


def _for_each_batch(
    pool: ExecutorPool,
    write: Callable[[Connection[Any], list[RowT]], object],
    batch_size: int,
    partition: Iterable[RowT],
) -> None:
    rows = iter(partition)
    while batch := list(islice(rows, batch_size)):
        with pool.connection() as conn:
            write(conn, batch)


def _map_batches(
    pool: ExecutorPool, function: Callable[[Connection[Any], BatchT], ResultT], batches: Iterable[BatchT]
) -> Iterator[ResultT]:
    for batch in batches:
        with pool.connection() as conn:
            result = function(conn, batch)
        yield result  # without the connection: Spark may take long to fetch the next batch


def _check_travels(config: LakebasePoolConfig, arguments: Mapping[str, Any]) -> None:
    if config.workspace_client is not None:
        raise ConfigurationError(
            "workspace_client= has the credentials of this process and cannot be sent to executors. Leave it out, and "
            "set DATABRICKS_HOST, DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET in the cluster's environment, or "
            "use ExecutorPool.as_driver(), for an hour",
            field="workspace_client",
        )
    budget = arguments.get("budget")
    if budget is not None and not isinstance(budget, SharedBudget):
        raise ConfigurationError(
            f"budget={budget!r}: expected a SharedBudget, for a limit of all workers; for one of each worker, give "
            "max_size=",
            field="budget",
        )


def _after_fork() -> None:
    """In a child, whose pools are empty: another thread of the parent may have held the lock."""
    global _lock  # noqa: PLW0603 - of the process
    _lock = make_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
