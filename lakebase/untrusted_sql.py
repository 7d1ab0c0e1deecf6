"""
SQL that a language model has written, run for reading under a user's own rights.

The database is what protects the data: the pool is the user's, so the SQL sees and may do what the user may. The rest
is kept by the server, not by looking at the text: a transaction that is read-only and always rolled back, a cursor,
which takes a single query and nothing else, and a timeout that is set anew before each step, since a query may change
it for the next one.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

import psycopg
from psycopg import Rollback
from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from ._session_reset import ending_clean_block, plain_cursor
from ._steps import arun, run
from .errors import ConfigurationError, IdentityError
from .routing import AsyncRoutingPool, RoutingPool
from .user_scope import AsyncUserScopedPool, UserScopedPool

if TYPE_CHECKING:
    from ._steps import Steps

__all__ = ["QueryResult", "aread_only_query", "read_only_query"]

_CURSOR = "lakebase_query"
_END: Any = object()


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryResult:
    """
    The rows of a read-only query.

    Attributes:
        columns: The names of the columns; two may be the same.
        rows: Python's values, as psycopg makes them.
        truncated: The limit that left out further rows; `None` if these are all.
    """

    columns: list[str]
    rows: list[tuple[Any, ...]]
    truncated: Literal["max_rows", "max_bytes"] | None = None

    def to_json(self) -> str:
        """The result for a language model: `columns`, `rows` and `truncated`, with strings for what JSON lacks."""
        fields = {"columns": self.columns, "rows": _plain(self.rows), "truncated": self.truncated}
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def read_only_query(
    pool: ConnectionPool[Any], sql: str, *, max_rows: int = 200, max_bytes: int = 100_000, timeout: float = 10.0
) -> QueryResult:
    """
    Run one query under the rights of the pool's user, and change nothing.

    Blocks for a connection as long as the pool's own timeout says, then for at most `timeout`. The query has a
    transaction of its own, which is rolled back; then the session is cleared, in the same round trip. Only what
    `DECLARE … CURSOR` takes is run: `SELECT`, `VALUES`, `TABLE` and `WITH`, one of them.

    What a function does outside of the transaction is not undone: a query may end other sessions of the same user
    (`pg_terminate_backend`), and an extension such as `dblink` may write over a connection of its own. Revoke the
    right to execute those, or give agents a role of their own.

    Args:
        pool: The user's: `manager.for_user(identity)`, or a `RoutingPool` inside a request.
        sql: From a language model, say. Percent signs are no placeholders.
        max_rows: Most rows that are returned.
        max_bytes: Most bytes of the returned rows, as the server sends their values. A single row is received whole
            before it is counted.
        timeout: Seconds for the query.

    Raises:
        psycopg.Error: The server's refusal, such as `ReadOnlySqlTransaction`, `InsufficientPrivilege`, `SyntaxError`
            for what is not a single query, `QueryCanceled` after the timeout. Its text may be shown to the model.
        psycopg_pool.PoolTimeout: The pool has no connection in time.
        IdentityError: A `RoutingPool` would have taken the app's pool, whose rights are not the user's.
        ConfigurationError: A limit is impossible, or the pool's user is not the one that is logged in.
    """
    limits = _Limits(max_rows, max_bytes, timeout)
    users = _users_pool(pool, ConnectionPool, "aread_only_query")
    with users.connection() as connection:
        return run(_querying(users, connection, sql, limits))


async def aread_only_query(
    pool: AsyncConnectionPool[Any], sql: str, *, max_rows: int = 200, max_bytes: int = 100_000, timeout: float = 10.0
) -> QueryResult:
    """As `read_only_query`, for pools for asyncio. A cancellation cancels the query on the server, too."""
    limits = _Limits(max_rows, max_bytes, timeout)
    users = _users_pool(pool, AsyncConnectionPool, "read_only_query")
    async with users.connection() as connection:
        return await arun(_querying(users, connection, sql, limits))


@dataclass(frozen=True, slots=True)
class _Limits:
    max_rows: int
    max_bytes: int
    timeout: float

    def __post_init__(self) -> None:
        for name in ("max_rows", "max_bytes"):
            given = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, int) or given < 1:
                raise ConfigurationError(f"{name}={given!r}: expected a whole number, at least 1", field=name)
        timeout = self.timeout
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < math.inf:
            raise ConfigurationError(f"timeout={timeout!r}: expected a number of seconds above 0", field="timeout")


def _users_pool(pool: Any, kind: type, twin: str) -> Any:
    """The pool whose connections are logged in as the user; refuses what would run with other rights."""
    if not isinstance(pool, kind):
        hint = f"; {twin} takes that one" if isinstance(pool, (ConnectionPool, AsyncConnectionPool)) else ""
        raise ConfigurationError(
            f"pool is of type {type(pool).__name__}: expected a {kind.__name__}{hint}", field="pool"
        )
    if isinstance(pool, (UserScopedPool, AsyncUserScopedPool)):
        raise ConfigurationError(
            f"pool is a {type(pool).__name__}: its connections are the app's, and SQL that the app has not written "
            "can change for whom they act. Give the pool of the user: manager.for_user(identity).",
            field="pool",
        )
    if isinstance(pool, (RoutingPool, AsyncRoutingPool)):
        current: Any = pool.current
        if current is pool.app_pool:
            raise IdentityError(
                "there is no request with a user here, so the query would run with the app's rights. Run it inside "
                "a RequestContext with an identity, or give the app's own pool if that is meant."
            )
        return _users_pool(current, kind, twin)
    return pool


def _querying(pool: Any, connection: Any, sql: str, limits: _Limits) -> Steps[QueryResult]:
    """Run the query in a transaction of its own, and leave the connection as it was."""
    was_autocommit: bool = connection.autocommit
    declared = _server_cursor(connection)
    error: BaseException = Rollback()
    try:
        # The driver begins the transaction: through the pooler it does so with the pool's settings, such as the schema.
        yield partial(connection.set_autocommit, False)
        return (yield from _fetching(connection, declared, sql, limits))
    except BaseException as raised:
        error = raised
        raise
    finally:
        yield from ending_clean_block(pool, connection, error, was_autocommit=was_autocommit)
        yield declared.close  # which the rollback has done: no round trip


def _fetching(connection: Any, declared: Any, sql: str, limits: _Limits) -> Steps[QueryResult]:
    deadline = monotonic() + limits.timeout
    plain = plain_cursor(connection)
    plain.row_factory = tuple_row
    yield partial(plain.execute, f"SET TRANSACTION READ ONLY; {_time_left(deadline)}", prepare=False)
    # By the extended protocol, which takes one statement only.
    yield partial(declared.execute, sql)
    columns = [column.name for column in declared.description]
    # What the plan of the query called may have changed it.
    yield partial(plain.execute, _time_left(deadline), prepare=False)
    rows = plain.stream(f"FETCH FORWARD {limits.max_rows + 1} FROM {_CURSOR}")
    is_async = isinstance(connection, psycopg.AsyncConnection)
    take_next: Any = anext if is_async else next
    found: list[tuple[Any, ...]] = []
    size = 0
    try:
        while (row := (yield partial(take_next, rows, _END))) is not _END:
            size += sum(len(plain.pgresult.get_value(0, number) or b"") for number in range(len(row)))
            if size > limits.max_bytes:
                return QueryResult(columns=columns, rows=found, truncated="max_bytes")
            found.append(row)
    finally:
        yield rows.aclose if is_async else rows.close  # cancels the rest, if there is any
    if len(found) > limits.max_rows:
        return QueryResult(columns=columns, rows=found[: limits.max_rows], truncated="max_rows")
    return QueryResult(columns=columns, rows=found)


def _time_left(deadline: float) -> str:
    return f"SET LOCAL statement_timeout = {max(1, round((deadline - monotonic()) * 1000))}"


def _server_cursor(connection: Any) -> Any:
    """The driver's own: the connection's classes may be guarded, or its borrower's."""
    kind: Any = psycopg.AsyncServerCursor if isinstance(connection, psycopg.AsyncConnection) else psycopg.ServerCursor
    return kind(connection, _CURSOR, scrollable=False)


def _plain(value: Any) -> Any:
    """What JSON has, and strings for the rest."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (bytes, memoryview)):
        return "\\x" + value.hex()
    return str(value)
