"""
What the driver keeps with a connection: each borrower finds it as `configure` left it.

This is the file for psycopg's private attributes, where it has no public way to the same end:

- `_autocommit` and others of `_SETTINGS`: properties that take three times as long to read, once for each borrower.
- `_notice_handlers`, `_notify_handlers`, `_notifies_backlog`: what a borrower added stays there and cannot be listed.
- `_num_transactions`, `_pipeline`, `_tpc`: blocks that were entered and not left.
- `_prepared`: which statements the driver takes for prepared.
- `_adapters`: it has a property to read only.
- `_exec_command`: sends what begins a transaction, and nothing public comes between.
- `_closed`: tells a connection that was closed from one that broke.
- `_pgconn` of an error: a connection that was never made, with its password.
- `_pool`: psycopg's pools write there which of them lends a connection. Ours do so as they lend it and take it back;
  elsewhere, `note_lender` and `lender_of` are meant.

What pools themselves note on a connection begins with `lakebase_`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, get_origin

if TYPE_CHECKING:
    from psycopg.adapt import AdaptersMap

    from ._steps import Steps

__all__ = [
    "beginning_with",
    "drop_socket",
    "forget_connection",
    "has_changed",
    "is_under_way",
    "lender_of",
    "note_lender",
    "noticing_discards",
    "put_adapters_back",
    "remember",
    "replace_adapters",
    "restoring",
    "sealing",
]

# The public names, and where the driver keeps the values.
_SETTINGS = {
    "autocommit": "_autocommit",
    "isolation_level": "_isolation_level",
    "read_only": "_read_only",
    "deferrable": "_deferrable",
    "row_factory": "row_factory",
    "cursor_factory": "cursor_factory",
    "server_cursor_factory": "server_cursor_factory",
    "prepare_threshold": "_prepared.prepare_threshold",
    "prepared_max": "_prepared.prepared_max",
}
# These lists have no public names.
_HANDLERS = ("_notice_handlers", "_notify_handlers")
_ARRIVED = "_notifies_backlog"
# Entered and not left, or prepared and not ended: such a connection cannot be put back.
_UNDER_WAY = ("_num_transactions", "_pipeline", "_tpc")

_look = attrgetter(*_SETTINGS.values(), *_HANDLERS, _ARRIVED, *_UNDER_WAY)
_look_under_way = attrgetter(*_UNDER_WAY)
_look_at_counts = attrgetter("_prepared._counts")  # of queries that it has seen


def remember(connection: Any) -> None:
    """Take a new, configured connection's state as the one that each of its borrowers finds."""
    setattr(connection, _ARRIVED, deque())
    connection.lakebase_left = tuple(value.copy() if isinstance(value, list) else value for value in _look(connection))


def has_changed(connection: Any) -> bool:
    """Whether a connection that comes back is not as it was left."""
    return _look(connection) != connection.lakebase_left  # type: ignore[no-any-return]


def is_under_way(connection: Any) -> bool:
    """Whether a block of `transaction()` or `pipeline()`, or a two-phase transaction, has not ended."""
    return any(_look_under_way(connection))


def sealing(connection: Any, blocks: int) -> None:
    """
    Count an open transaction as so many blocks of `transaction()` more: then the driver refuses to end it by hand.

    Such a block itself would end it, in a round trip of its own.
    """
    connection._num_transactions += blocks


def restoring(connection: Any) -> Steps[bool]:
    """Put an idle connection's state back, without a round trip; whether that was possible."""
    if is_under_way(connection):
        return False
    left = connection.lakebase_left
    for name, value in zip(_SETTINGS, left, strict=False):
        if getattr(connection, name) == value:
            continue
        if hasattr(connection, f"set_{name}"):  # of transactions; in asyncio, a coroutine function
            yield partial(getattr(connection, f"set_{name}"), value)
        else:
            setattr(connection, name, value)
    for name, handlers in zip(_HANDLERS, left[len(_SETTINGS) :], strict=False):
        getattr(connection, name)[:] = handlers
    setattr(connection, _ARRIVED, deque())
    return True


def replace_adapters(connection: Any, adapters: AdaptersMap) -> None:
    """Have a connection convert values by these, until `put_adapters_back`."""
    connection.lakebase_adapters = connection.adapters
    _set_adapters(connection, adapters)


def put_adapters_back(connection: Any) -> None:
    """Undo `replace_adapters`, if it was called."""
    if "lakebase_adapters" in connection.__dict__:
        _set_adapters(connection, connection.__dict__.pop("lakebase_adapters"))


def _set_adapters(connection: Any, adapters: AdaptersMap) -> None:
    connection._adapters = adapters


@contextmanager
def noticing_discards(connection: Any) -> Iterator[None]:
    """
    Meanwhile, have the driver notice each `DISCARD ALL` and `DEALLOCATE ALL`.

    It looks at the outcome of a query when it counts it for the first time only; later ones would leave it with
    names of prepared statements that the server has forgotten.
    """
    counts = _look_at_counts(connection)
    before = counts.copy()
    counts.clear()
    try:
        yield
    finally:
        counts.clear()
        counts.update(before)


class _Beginning:
    """A connection whose transactions begin with further statements, in the same round trip."""

    lakebase_beginning: tuple[bytes, ...]

    def _exec_command(self: Any, command: Any, *arguments: Any, **keywords: Any) -> Generator[Any, Any, Any]:
        ordinary = super()._exec_command  # type: ignore[misc]
        if not (isinstance(command, bytes) and command.startswith(b"BEGIN")):
            return (yield from ordinary(command, *arguments, **keywords))
        if self._pipeline:  # which sends statements one by one, and waits for none of them
            for statement in (command, *self.lakebase_beginning):
                yield from ordinary(statement)
            return None
        from psycopg import errors, generators
        from psycopg.pq import ExecStatus

        self._check_connection_ok()
        self.pgconn.send_query(b"; ".join((command, *self.lakebase_beginning)))
        for result in (yield from generators.execute(self.pgconn)):
            if result.status == ExecStatus.FATAL_ERROR:
                raise errors.error_from_result(result, encoding=self.info.encoding)
        return None


@lru_cache(maxsize=64)
def beginning_with(connection_class: Any, statements: tuple[str, ...]) -> Any:
    """A class of connections that begin each transaction with these statements."""
    kind = get_origin(connection_class) or connection_class  # of `Connection[DictRow]`
    beginning = tuple(statement.encode() for statement in statements)
    return type(kind.__name__, (_Beginning, kind), {"lakebase_beginning": beginning, "__module__": kind.__module__})


def drop_socket(connection: Any) -> None:
    """Close a connection without a word to the server; its pool sees that it was meant."""
    connection._closed = True
    connection.pgconn.finish()


def forget_connection(error: BaseException) -> None:
    """Take the connection that could not be made out of the driver's error: it has the password."""
    if getattr(error, "_pgconn", None) is not None:
        error._pgconn = None  # type: ignore[attr-defined]


def note_lender(connection: Any, pool: Any) -> None:
    """
    Have a connection belong to a pool.

    Of `None` the driver takes it for a pool's as well, and idle: it does not mind if it is dropped with the pool.
    """
    connection._pool = pool


def lender_of(connection: Any) -> Any:
    """The pool that lends a connection, or `None`."""
    return getattr(connection, "_pool", None)
