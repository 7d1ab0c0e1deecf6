"""What a forked child must leave to its parent: everything about `fork` is here."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["OwnerProcess", "close_in_forked_children"]


class HasDescriptors(Protocol):
    """Something that holds file descriptors."""

    def descriptors(self) -> list[int]:
        """The file descriptors that are open now."""


class OwnerProcess:
    """
    The process that created an object.

    A forked child inherits the object, but not its threads, and its servers are not the child's to stop.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()

    def is_this_one(self) -> bool:
        """Whether this code runs in that process, and not in a forked child of it."""
        return os.getpid() == self._pid


_holders: weakref.WeakSet[HasDescriptors] = weakref.WeakSet()


def close_in_forked_children(holder: HasDescriptors) -> None:
    """
    Have forked children close the descriptors of this object.

    A child that kept a listening socket would go on listening after its parent has stopped; a child that kept a
    supervisor's pipe would keep the servers running after its parent's end.
    """
    _holders.add(holder)


def _close_all() -> None:
    # The objects that own the descriptors stay valid in the child and may be collected there later: so each descriptor
    # is made to point to the null device.
    null = os.open(os.devnull, os.O_RDWR)
    for holder in list(_holders):
        for descriptor in holder.descriptors():
            os.dup2(null, descriptor)
    os.close(null)
    _holders.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all)
