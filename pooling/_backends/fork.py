"""
What happens to pools when the process forks.

The pools of the child are empty. The parent's resources are left alone; its waiters and timers do not exist in the
child.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar


class Renewable(Protocol):
    """Something that has to be reset in a child process."""

    def _renew(self) -> None:
        """Reset it. Called in the child, where no other thread runs."""


M = TypeVar("M", bound=Renewable)

_in_child: list[Callable[[], None]] = []


def call_in_child(callback: Callable[[], None]) -> None:
    """Call `callback` in each child process, after those that were given before."""
    _in_child.append(callback)


class Survivors(Generic[M]):
    """
    Weak references to objects of one kind that are renewed in a child process.

    Kinds are renewed in the order in which their `Survivors` were made, so make those first that others depend on.
    """

    def __init__(self) -> None:
        self._members: weakref.WeakSet[M] = weakref.WeakSet()
        call_in_child(self._renew_all)

    def add(self, member: M) -> None:
        """Renew this object in child processes."""
        self._members.add(member)

    def __iter__(self) -> Iterator[M]:
        return iter(snapshot(self._members))

    def _renew_all(self) -> None:
        for member in self:
            member._renew()


def snapshot(weak: weakref.WeakSet[Any]) -> list[Any]:
    """List a weak set to which other threads may add meanwhile."""
    while True:
        try:
            return list(weak)
        except RuntimeError:  # it changed meanwhile
            continue


def keep_forever(thing: object) -> None:
    """
    Keep an object from being garbage collected in this process.

    A connection of the parent that is collected in the child would send a goodbye on the socket that both share.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _after_fork() -> None:
    for callback in _in_child:
        callback()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
