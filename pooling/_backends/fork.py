"""
What happens to pools when the process forks.

The child begins with pools that are empty: resources of the parent are left alone, and what waited or was timed in the
parent does not happen in the child.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar


class Renewable(Protocol):
    """What begins anew in a child process."""

    def renew(self) -> None:
        """Begin anew; called in the child, where no other thread runs."""


M = TypeVar("M", bound=Renewable)

_in_child: list[Callable[[], None]] = []


def call_in_child(callback: Callable[[], None]) -> None:
    """Have `callback` called in each child process, after those that were given before it."""
    _in_child.append(callback)


class Survivors(Generic[M]):
    """
    Objects of one kind that are renewed in a child process; they are referred to weakly.

    Kinds are renewed in the order of their making: what others are built on comes first.
    """

    def __init__(self) -> None:
        self._members: weakref.WeakSet[M] = weakref.WeakSet()
        call_in_child(self._renew)

    def add(self, member: M) -> None:
        """Renew this object, too."""
        self._members.add(member)

    def __iter__(self) -> Iterator[M]:
        return iter(snapshot(self._members))

    def _renew(self) -> None:
        for member in self:
            member.renew()


def snapshot(weak: weakref.WeakSet[Any]) -> list[Any]:
    """What is in a weak set now, while other threads may add to it."""
    while True:
        try:
            return list(weak)
        except RuntimeError:  # it changed under way
            continue


def keep_forever(thing: object) -> None:
    """
    Never let this become garbage in this process.

    A connection of the parent's that is collected in the child says goodbye on the socket that both share.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _after_fork() -> None:
    for callback in _in_child:
        callback()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
