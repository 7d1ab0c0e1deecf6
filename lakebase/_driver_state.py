"""What the driver keeps with a connection: each borrower finds it as `configure` left it."""

from __future__ import annotations

from collections import deque
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._steps import Steps

__all__ = ["has_changed", "is_under_way", "remember", "restoring", "sealing"]

# The public names, and where the driver keeps the values: a property would take three times as long.
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


def remember(connection: Any) -> None:
    """Take a new, configured connection's state as the one that each of its borrowers finds."""
    setattr(connection, _ARRIVED, deque())
    connection._lakebase_left = tuple(value.copy() if isinstance(value, list) else value for value in _look(connection))


def has_changed(connection: Any) -> bool:
    """Whether a connection that comes back is not as it was left."""
    return _look(connection) != connection._lakebase_left  # type: ignore[no-any-return]


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
    left = connection._lakebase_left
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
