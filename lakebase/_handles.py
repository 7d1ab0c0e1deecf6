"""Connections that refuse their last borrower: `check_handles=True`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

import psycopg

__all__ = ["lend", "lent", "revoke"]

C = TypeVar("C")

_LENT = "lakebase_lent"
# What a pool and the interpreter ask of a handle that came back.
_ANSWERED = {"__class__": object.__getattribute__, "__dict__": object.__getattribute__, "_pool": lambda *_: None}


def lend(connection: C) -> C:
    """
    A handle on a connection: an object of the same class that shares all its state, until it is revoked.

    Cursors hold on to the handle that they were made with, so they are revoked together with it.
    """
    handle = object.__new__(type(connection))
    handle.__dict__ = connection.__dict__
    setattr(connection, _LENT, connection)
    return handle


def lent(handle: C) -> C:
    """The connection of a handle; itself, if it is none."""
    return handle.__dict__.get(_LENT, handle)  # type: ignore[no-any-return]


def revoke(handle: C, title: str) -> C:
    """Have a handle refuse every further use; its connection. `title` is what texts call the pool."""
    connection = handle.__dict__.pop(_LENT, handle)
    if connection is not handle:
        handle.__dict__ = {"title": title}
        kind: Any = type(connection)
        handle.__class__ = _revoked(kind)
    return connection  # type: ignore[no-any-return]


@lru_cache(maxsize=64)
def _revoked(kind: Any) -> Any:
    """A class of connections that have been given back, to `isinstance` as the one they were of."""
    return type(f"Revoked{kind.__name__}", (kind,), {"__getattribute__": _refuse, "__repr__": _show, "__del__": _drop})


def _refuse(handle: Any, name: str) -> Any:
    if (answer := _ANSWERED.get(name)) is not None:
        return answer(handle, name)
    title = object.__getattribute__(handle, "__dict__")["title"]
    raise psycopg.InterfaceError(
        f"this connection was given back to the {title}, which may have lent it to another borrower (asked for "
        f"{name!r}). Use it inside its block, and borrow another one afterwards"
    )


def _show(handle: Any) -> str:
    return f"<connection given back to the {object.__getattribute__(handle, '__dict__')['title']}>"


def _drop(handle: Any) -> None:
    """Nothing: the connection is the pool's."""
