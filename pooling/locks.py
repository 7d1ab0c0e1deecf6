"""
Locks that an exception from outside cannot leave locked: Ctrl-C, a soft time limit, `PyThreadState_SetAsyncExc`.

Up to CPython 3.13 `with threading.Lock():` is safe. In 3.14 the exception may be raised after the lock was taken and
before the `with` block has begun, so that nothing gives the lock back
(https://github.com/python/cpython/issues/148874); there these locks notice it themselves.
"""

from __future__ import annotations

import _thread
import sys
import threading
from typing import Any

__all__ = ["make_lock", "make_rlock"]

_LEAVES_LOCKED = sys.implementation.name == "cpython" and sys.version_info[:2] == (3, 14)
_RLock: Any = _thread.RLock


class _ReentrantLock(_RLock):  # type: ignore[misc]
    """A `threading.RLock` that is given back if an exception is raised while it is entered."""

    __slots__ = ()

    # `__exit__` stays that of the C type: before one that is written in Python ran, an exception could be raised, too.

    def __enter__(self) -> bool:
        depth = self._recursion_count()
        try:
            return self.acquire()  # type: ignore[no-any-return]
        except BaseException:
            if self._recursion_count() > depth:
                self.release()
            raise


class _Lock(_ReentrantLock):
    """The same for a lock that a thread can take once only."""

    __slots__ = ()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if not self._is_owned():
            return super().acquire(blocking, timeout)  # type: ignore[no-any-return]
        if blocking:
            raise RuntimeError("this thread holds the lock already; it would wait for itself")
        return False


def make_lock() -> threading.Lock:
    """
    A lock for `with`: `threading.Lock()`, and on Python 3.14 one that an exception from outside does not leave locked.

    The thread that took it has to give it back. Where gevent has replaced the locks of `threading` it is one of those.
    """
    if _LEAVES_LOCKED and threading.Lock.__module__ == _thread.__name__:
        return _Lock()
    return threading.Lock()


def make_rlock() -> threading.RLock:
    """The same for `threading.RLock()`, which the thread that holds it can take again."""
    if _LEAVES_LOCKED and threading.Lock.__module__ == _thread.__name__:
        return _ReentrantLock()
    return threading.RLock()
