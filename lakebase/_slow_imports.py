"""
Imports that take long, on background threads, in a process that may fork.

A module that one thread imports at the instant of a fork stays locked in the child, where that thread does not exist:
the child would wait for it for ever. So a fork waits until such an import has ended.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - see `shut`
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pooling.locks import make_rlock

__all__ = ["slow_import"]

#: Seconds that a fork waits at most.
_PATIENCE = 20.0


class _ForkGate:
    """A lock that an import holds, or a fork."""

    def __init__(self) -> None:
        self.lock = make_rlock()
        self._is_held = False

    def shut(self) -> None:
        """
        Before a fork: wait until the import under way has ended.

        What it registers to be called at a fork is called afterwards only. The executor's threads are what the SDK
        imports that would complain; so that module is imported beforehand.
        """
        self._is_held = self.lock.acquire(timeout=_PATIENCE)

    def open(self) -> None:
        """In the parent."""
        if self._is_held:
            self._is_held = False
            self.lock.release()

    def renew(self) -> None:
        """In the child, where the thread that held it may not exist."""
        self.lock = make_rlock()
        self._is_held = False


_gate = _ForkGate()


@contextmanager
def slow_import() -> Iterator[None]:
    """Import something meanwhile. One thread at a time does, and the process does not fork."""
    with _gate.lock:
        yield


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_gate.shut, after_in_parent=_gate.open, after_in_child=_gate.renew)
