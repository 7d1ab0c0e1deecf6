"""
Leases in a directory: for the processes of one host, without a service.

Files of a budget: `book` (who has how many places), `lock` (held while the book is changed), and of each process
`….held` (locked as long as it lives) and `….bell` (a pipe; others write to it). The kernel releases a lock when its
process ends, however it ends, and closes the process's connections at that time, too: nothing expires, and nothing is
written while nothing changes.
"""

from __future__ import annotations

import importlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._engine.lease_book import Answer, Claim, LeaseBook
from ..errors import ConfigurationError
from ._store import LeaseSession, LeaseStore, StoreError

try:
    fcntl: Any = importlib.import_module("fcntl")
except ImportError:  # Windows
    fcntl = None

LOCK_WITHIN = 2.0  # seconds to wait for a process that changes the book
PAUSE = 0.001  # seconds between two attempts to lock it


class FileLeases(LeaseStore):
    """
    Leases in a directory of this host: for the workers of uvicorn or gunicorn, and jobs beside them.

    Needs no service. The kernel frees the places of a process that has ended, in whatever way. A process that is
    stopped (SIGSTOP) or hangs keeps its places: its connections are open, too. While no process asks for places or
    gives any back, nothing is read or written.

    Args:
        directory: Is made if it does not exist, not so the one in which it is. On a file system of this host, not on a
            network's; only the processes' user can read it. Not below `/tmp` where that is cleaned while processes run:
            they would be forgotten.

    Raises:
        ConfigurationError: This system has no file locks of this kind (Windows), or `directory` is no path, a file, or
            in a directory that does not exist.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        if fcntl is None:
            raise ConfigurationError(
                "FileLeases needs the file locks of POSIX, which this system does not have: use RedisLeases or "
                "PostgresLeases",
                field="directory",
            )
        if not isinstance(directory, str | os.PathLike) or not str(directory):
            raise ConfigurationError(f"directory={directory!r}: expected a path", field="directory")
        self.directory: Path = Path(directory)
        _check_directory(self.directory)

    def open(self, holder: str, budget: str) -> LeaseSession:
        return FileSession(self.directory / re.sub(r"[^\w.@+-]", "_", budget), holder)

    def __repr__(self) -> str:
        return f"FileLeases({str(self.directory)!r})"


class FileSession(LeaseSession):
    """What one process has to do with the directory of a budget."""

    sees_death = True
    can_hear = True

    def __init__(self, directory: Path, holder: str) -> None:
        self._directory = directory
        self._holder = holder
        self._held: int | None = None
        self._bell: int | None = None

    def exchange(self, claim: Claim) -> Answer | None:
        if not (self._directory / f"{self._holder}.held").exists():  # at first, or the directory was cleared
            self._close_files()
            self._begin()
        with _locked(self._directory / "lock"):
            path = self._directory / "book"
            book = LeaseBook.loads(path.read_text("utf-8")) if path.exists() else LeaseBook()
            for name in [name for name in book.holders if name != self._holder and not self._lives(name)]:
                book.forget(name)
            answer = book.exchange(claim, time.monotonic())
            if answer is not None:
                new = self._directory / "book.new"
                with open(new, "w", encoding="utf-8", opener=_private) as file:
                    file.write(book.dumps())
                new.replace(path)
        if answer is not None:
            for name in answer.ring:
                self._ring(name)
        return answer

    def _begin(self) -> None:
        for directory in (self._directory.parent, self._directory):
            directory.mkdir(mode=0o700, exist_ok=True)
        bell = self._directory / f"{self._holder}.bell"
        if not bell.exists():
            os.mkfifo(bell, 0o600)
        if self._bell is None:
            # For reading and writing: a pipe that no process writes to would be at its end, and so always readable.
            self._bell = os.open(bell, os.O_RDWR | os.O_NONBLOCK)
        self._held = os.open(self._directory / f"{self._holder}.held", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _lives(self, name: str) -> bool:
        """Whether another process still has its lock; the files of one that has ended are removed."""
        path = self._directory / f"{name}.held"
        try:
            held = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(held)
        path.unlink(missing_ok=True)
        path.with_suffix(".bell").unlink(missing_ok=True)
        return False

    def _ring(self, name: str) -> None:
        try:
            bell = os.open(self._directory / f"{name}.bell", os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # it has ended; the next claim frees its places
            return
        try:
            os.write(bell, b"!")
        except OSError:  # full: it was rung often
            pass
        finally:
            os.close(bell)

    def bell(self) -> int | None:
        return self._bell

    def hear(self) -> bool:
        try:
            return self._bell is not None and bool(os.read(self._bell, 4096))
        except BlockingIOError:
            return False

    def close(self) -> None:
        self._close_files()
        for suffix in ("held", "bell"):
            (self._directory / f"{self._holder}.{suffix}").unlink(missing_ok=True)

    def abandon(self) -> None:
        self._close_files()  # the parent's lock stays, since the parent has the file open, too

    def _close_files(self) -> None:
        for file in (self._held, self._bell):
            if file is not None:
                os.close(file)
        self._held = self._bell = None


def _check_directory(directory: Path) -> None:
    """Refuse a path that another process would hardly have, too, or at which nothing can be kept."""
    if directory.exists() and not directory.is_dir():
        raise ConfigurationError(
            f"directory={str(directory)!r}: expected a directory, and it is a file", field="directory"
        )
    if not directory.absolute().parent.is_dir():
        raise ConfigurationError(
            f"directory={str(directory)!r}: {str(directory.absolute().parent)!r} is no directory; see whether the path "
            "is right (processes with different paths share no limit), or make that one first",
            field="directory",
        )


def _private(path: str, flags: int) -> int:
    """Open a file that only the user can read."""
    return os.open(path, flags, 0o600)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """
    Hold the lock of a file for a moment.

    Raises:
        StoreError: Another process has had it for too long.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        ends = time.monotonic() + LOCK_WITHIN
        while not _locks(file):
            if time.monotonic() > ends:
                raise StoreError(
                    f"{path} has been locked for {LOCK_WITHIN:g} s: a process that was changing the book is stopped or "
                    "hangs; let it go on, or end it"
                )
            time.sleep(PAUSE)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # closing alone would not unlock it, were a child forked meanwhile
    finally:
        os.close(file)


def _locks(file: int) -> bool:
    """Lock an open file; whether no other process has its lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
