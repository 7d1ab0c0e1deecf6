"""Fake connections for psycopg and SQLAlchemy that are always idle and healthy."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.pq import TransactionStatus


class IdlePGconn:
    transaction_status = TransactionStatus.IDLE


class FakeConnection(psycopg.Connection[Any]):
    """What `psycopg_pool.ConnectionPool` asks of a connection."""

    def __init__(self) -> None:
        self.pgconn = IdlePGconn()  # type: ignore[assignment]
        self._pool = None
        self._closed = False

    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: Any) -> FakeConnection:  # type: ignore[override]
        return cls()

    @property
    def closed(self) -> bool:
        return self._closed

    def commit(self) -> None:
        pass

    def rollback(self) -> None:
        pass

    def close(self) -> None:
        self._closed = True

    def __del__(self, *_: Any) -> None:
        pass


class FakeAsyncConnection(psycopg.AsyncConnection[Any]):
    """The same for `psycopg_pool.AsyncConnectionPool`."""

    def __init__(self) -> None:
        self.pgconn = IdlePGconn()  # type: ignore[assignment]
        self._pool = None
        self._closed = False

    @classmethod
    async def connect(cls, conninfo: str = "", **kwargs: Any) -> FakeAsyncConnection:  # type: ignore[override]
        return cls()

    @property
    def closed(self) -> bool:
        return self._closed

    async def commit(self) -> None:
        pass

    async def rollback(self) -> None:
        pass

    async def close(self) -> None:
        self._closed = True

    def __del__(self, *_: Any) -> None:
        pass


class FakeDBAPIConnection:
    """What SQLAlchemy's `QueuePool` asks of a connection."""

    def commit(self) -> None:
        pass

    def rollback(self) -> None:
        pass

    def close(self) -> None:
        pass
